"""Where the training computes: one process, several, or a sharded model."""
