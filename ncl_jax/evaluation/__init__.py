"""Figures of a model: metrics, priors, temperatures, predictions. Pure; usable without a run."""
