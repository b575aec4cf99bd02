"""Data loaders (feeds): where a run's batches come from, on the devices or streamed."""
