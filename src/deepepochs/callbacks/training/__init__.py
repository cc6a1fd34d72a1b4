"""Callbacks that change what is trained."""
