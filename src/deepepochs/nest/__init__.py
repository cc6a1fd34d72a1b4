"""Nested tuples, lists and dicts of tensors: move, detach, join, compare, encode."""
