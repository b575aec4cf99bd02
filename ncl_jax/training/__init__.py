"""The training step and the optimizer. Pure; they know neither files nor the configuration."""
