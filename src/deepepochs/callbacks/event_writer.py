"""A TensorBoard ``SummaryWriter`` that goes on with its file after it was closed.

PyTorch's writer begins a new file then, so that a run of a hundred fits has a hundred files.

::

    writer = RunWriter("logs/mine")
    writer.add_scalar("loss", 0.5, 1)
    writer.close()
    writer.add_scalar("loss", 0.4, 2)   # in the same file
    writer.close()
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.plugins.custom_scalar import metadata
from tensorboard.plugins.custom_scalar.layout_pb2 import (
    Category,
    Chart,
    Layout,
    MarginChartContent,
)
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard import FileWriter, SummaryWriter

from ..runs.disk_faults import DiskFaults

_numbers = count()


class RunWriter(SummaryWriter):
    """A ``SummaryWriter`` with one file, which writes in the thread that calls it.

    What was written is there when the process is killed. If the file cannot be opened, this is
    an error. A value that cannot be written later, as on a full disk, is left out, with one
    warning.

    Args:
        log_dir: the folder, which is made if it does not exist.
        suffix: the end of the file's name.
    """

    def __init__(self, log_dir: str | os.PathLike[str], suffix: str = "") -> None:
        # Time, machine, process and number, as TensorBoard's own writer: no other file has them.
        # TensorBoard reads files in the order of their names: .10 would come before .9.
        place = f"{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{next(_numbers):06d}"
        self._path = Path(log_dir) / f"events.out.tfevents.{place}{suffix}"
        self._faults = DiskFaults("the log for TensorBoard")
        super().__init__(str(log_dir))

    def _get_file_writer(self) -> Any:
        # PyTorch's method, which each `add_...` calls.
        if self.file_writer is None:
            opened: Any = _FileWriter(self._path, self._faults)
            self.file_writer, self.all_writers = opened, {self.log_dir: opened}  # type: ignore[assignment]
        return self.file_writer

    def add_summary(self, summary: Any) -> None:
        """Write a summary that no other method makes."""
        self._get_file_writer().add_summary(summary)

    def add_together(self, entries: Iterable[tuple[int, float, Mapping[str, float]]]) -> None:
        """Write scalars with one write: a step, a time in seconds, and numbers by tag, each."""
        events = []
        for step, time_s, scalars in entries:
            events.append(Event(wall_time=time_s, step=step))
            for tag, value in scalars.items():
                events[-1].summary.value.add(tag=tag, simple_value=value)
        self._get_file_writer().event_writer.add_events(events)

    def add_pairs(self, title: str, charts: Mapping[str, Sequence[str]]) -> None:
        """Write charts for the tab "Custom scalars", each with several tags of this run.

        TensorBoard smooths lines, which moves a curve of few points far from its values. It does
        not smooth a line with margins, so each line has margins without a width.

        Args:
            title: of the charts together.
            charts: the tags of each chart, by its title.
        """
        drawn = []
        for name, tags in charts.items():
            lines = [MarginChartContent.Series(value=tag, lower=tag, upper=tag) for tag in tags]
            drawn.append(Chart(title=name, margin=MarginChartContent(series=lines)))
        self.add_summary(layout_summary(Layout(category=[Category(title=title, chart=drawn)])))


def layout_summary(layout: Layout) -> Summary:
    """Return the summary that TensorBoard's tab "Custom scalars" reads its charts from."""
    content = TensorProto(
        dtype=DT_STRING, string_val=[layout.SerializeToString()], tensor_shape=TensorShapeProto()
    )
    plugin = SummaryMetadata.PluginData(plugin_name=metadata.PLUGIN_NAME)
    value = Summary.Value(
        tag=metadata.CONFIG_SUMMARY_TAG,
        tensor=content,
        metadata=SummaryMetadata(plugin_data=plugin),
    )
    return Summary(value=[value])


class _FileWriter(FileWriter):
    """PyTorch's ``FileWriter``, on a file that is appended to."""

    def __init__(self, path: Path, faults: DiskFaults) -> None:
        self.event_writer = _EventWriter(path, faults)


class _EventWriter:
    """Appends events to a file at once: there is nothing to flush."""

    def __init__(self, path: Path, faults: DiskFaults) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._faults = faults
        self._file: BinaryIO = path.open("ab")
        self._size = self._file.tell()
        if not self._size:
            self.add_event(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def get_logdir(self) -> str:
        return str(self._path.parent)

    def add_event(self, event: Event) -> None:
        self.add_events([event])

    def add_events(self, events: Iterable[Event]) -> None:
        records = BytesIO()
        writer = RecordWriter(records)
        for event in events:
            writer.write(event.SerializeToString())
        with self._faults.survived():
            try:
                if self._file.closed:
                    self._file = self._path.open("ab")
                self._file.write(records.getbuffer())
                self._file.flush()
            except OSError:
                self._drop_torn_event()
                raise
            self._size = self._file.tell()

    def _drop_torn_event(self) -> None:
        # Nothing after it could be read.
        with suppress(OSError):
            self._file.close()
        with suppress(OSError):
            os.truncate(self._path, self._size)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self._file.close()
