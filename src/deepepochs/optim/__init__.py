"""Optimizers with their schedulers, gradient accumulation, and checks of their state."""
