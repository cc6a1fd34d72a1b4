"""Walking a loader batch by batch, and resuming at the same place."""
