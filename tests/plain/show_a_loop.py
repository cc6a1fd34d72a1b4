"""Writes the loop of the script that it is given."""

from __future__ import annotations

import sys

from deepepochs.cli.main import main

if __name__ == "__main__":
    main(["show-loop", "-o", "loop.py", *sys.argv[1:]])
