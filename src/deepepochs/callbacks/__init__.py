"""The built-in callbacks, one file each."""
