"""Steps that compute a mini-batch more than once: closures, and mini-batches that are split."""
