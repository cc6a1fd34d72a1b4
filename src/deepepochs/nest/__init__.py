"""Nested tuples, lists and dicts of tensors: moved, detached, joined, compared, saved."""
