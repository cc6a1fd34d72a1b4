"""The parts of a trainer's state, and loading them strictly."""
