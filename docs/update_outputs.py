"""Writes what the code blocks of the pages print into the ``output`` blocks after them.

::

    python docs/update_outputs.py               # all pages
    python docs/update_outputs.py tutorial cli  # those whose path has one of these words

Read the difference before you commit it. The blocks and what may differ between machines are
explained in ``tests/docs/test_code_blocks.py``.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

if __name__ == "__main__":
    os.chdir(ROOT)
    os.environ.update(UPDATE_OUTPUTS="1", OMP_NUM_THREADS="1")
    words = [f"test_every_block and {word}" for word in sys.argv[1:]]
    chosen = ["-k", " or ".join(words) or "test_every_block"]
    sys.exit(pytest.main(["-q", "-n", "0", "tests/docs/test_code_blocks.py", *chosen]))
