"""Writes the loop of the script that it is given."""

from __future__ import annotations

import sys

from deepepochs.cli.main import main

main(["show-loop", "-o", "loop.py", *sys.argv[1:]])
