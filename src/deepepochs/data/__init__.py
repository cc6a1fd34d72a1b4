"""Walking a loader mini-batch by mini-batch, and coming back to the same place after a resume."""
