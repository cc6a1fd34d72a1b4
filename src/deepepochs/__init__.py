"""Train PyTorch models."""
