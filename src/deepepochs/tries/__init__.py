"""Looks at a model and its data before a long run, and leaves no trace.

What the methods ``summary``, ``find_batch_size`` and ``profile`` of a trainer do and return.
"""
