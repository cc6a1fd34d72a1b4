"""Writes a training of the library as a PyTorch script that does not need the library."""

from .script import write_plain_loop as write_plain_loop
