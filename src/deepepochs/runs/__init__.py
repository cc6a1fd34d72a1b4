"""A run's folder on disk: its name, its lock, its record."""
