"""Walking a loader mini-batch by mini-batch, and resuming at the same place."""
