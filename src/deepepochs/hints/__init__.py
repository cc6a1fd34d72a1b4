"""What a message says about a name that is not ours: where other libraries have it, and we."""
