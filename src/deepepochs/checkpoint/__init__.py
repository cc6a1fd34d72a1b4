"""Checkpoint files on disk: written whole or not at all, and loaded without running code."""

from .store import *  # noqa: F403
from .store import __all__ as __all__
