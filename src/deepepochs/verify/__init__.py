"""Checks that a resumed run equals an unbroken one to the bit."""

from .proof import *  # noqa: F403
from .proof import __all__ as __all__
