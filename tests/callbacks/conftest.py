"""Makes the helpers beside the tests importable, and keeps event files in order."""

from __future__ import annotations

import sys
from pathlib import Path

from tensorboard.summary.writer import event_file_writer

# TensorBoard reads event files by name, and the names of one second end with a count: the tenth
# file of a process would come before its ninth. Counts of equal length keep the order.
event_file_writer._global_uid = event_file_writer.AtomicCounter(10_000)

sys.path.insert(0, str(Path(__file__).parent))
