"""Shows a run in a Jupyter notebook: one display with a table, a bar and a small curve.

The display is HTML without scripts and style sheets, which every front end shows, and text for
those that show no HTML. It is updated at most ten times a second.
"""

from __future__ import annotations

import base64
import importlib
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from html import escape
from time import monotonic
from typing import Any

from ..errors import warn_user
from .figures import COLORS, LOG_RATIO
from .screens import (
    Column,
    EpochTable,
    Line,
    Live,
    Output,
    Screen,
    Tested,
    cell,
    duration,
    epoch_text,
    part_text,
    plain_text,
)
from .tables import QUIET, html_table, kept
from .terminal import clock, live_line, rate

PACE_S = 0.1  # seconds from one update to the next
DISPLAY_LINES = 100  # lines of the text; earlier ones are left out, since each update sends all
COLUMNS = 100  # of the text
MAX_POINTS = 200  # of each curve
MAX_TESTS = 20  # of those in a fit, the latest
MAX_DOTS = 40  # epochs that have a dot

Points = list[tuple[float, float]]
"""Numbers of epochs with parts of them, and values."""


class NotebookScreen(Screen):
    """A Jupyter notebook: one display that is updated."""

    def __init__(
        self, output: Output | None = None, round_to: int = 4, *, is_live: bool = True
    ) -> None:
        super().__init__(output, round_to)
        self.is_live = is_live
        self._facts: list[str] = []
        self._epochs: EpochTable | None = None
        self._table_html = ""  # of these epochs, once it was needed
        self._curve = SmallCurve()
        self._live: Live | None = None
        self._tests: list[Tested] = []
        self._notes: list[str] = []
        self._lines: list[str] = []
        self._handle: Any = None
        self._next_s = 0.0  # no update before this time
        self._has_news = False
        self._is_lost = False

    def header(self, facts: Sequence[str], run: str) -> None:
        super().header(facts, run)
        self._facts = [*facts, f"run {run}"]
        self._show()

    def live(self, live: Live) -> None:
        self._live = live
        self._curve.add(live)
        self._show_if_due()

    def row(self, table: EpochTable) -> None:
        super().row(table)
        self._live, self._epochs, self._table_html = None, table, ""
        self._curve.add_rows(table)
        self._show_if_due()

    def tested(self, tested: Tested) -> None:
        super().tested(tested)
        self._live = None
        self._tests.append(tested)
        self._show_if_due()

    def note(self, text: str) -> None:
        super().note(text)
        self._notes.append(text)
        self._show()

    def summary(self, facts: Sequence[str]) -> None:
        super().summary(facts)
        self._live = None
        self._notes.append(" · ".join(facts))
        self._show()

    def close(self) -> None:
        """Show what is to stay; of a pass that was cut short, how far it came."""
        if self._handle is not None or self._has_news:
            self._show(is_last=True)

    def put(self, line: Line) -> None:
        """Add a line to the text."""
        self._lines.append(plain_text(line))
        del self._lines[:-DISPLAY_LINES]

    def columns(self) -> int:
        return COLUMNS

    def _show_if_due(self) -> None:
        self._has_news = True
        if monotonic() >= self._next_s:
            self._show()

    def _show(self, *, is_last: bool = False) -> None:
        """Update the display; a fault in it ends no training."""
        if self._is_lost:
            return
        lines = list(self._lines)
        if self._live is not None:
            lines.append(plain_text(live_line(self._live, COLUMNS, self.round_to)))
        html = "".join(self._html(is_last=is_last))
        content = {"text/plain": "\n".join(lines).strip("\n"), "text/html": html}
        try:
            if self._handle is None:
                display = importlib.import_module("IPython.display").display
                self._handle = display(content, raw=True, display_id=True)
            else:
                self._handle.update(content, raw=True)
        except Exception as error:  # of any kind: the front end may be the user's own
            self._is_lost = True
            warn_user(
                f"The notebook cannot show the progress ({error!r}): training continues without.",
                RuntimeWarning,
            )
        self._has_news = False
        # Counted from the end: a slow front end must not slow down the training.
        self._next_s = monotonic() + PACE_S

    def _html(self, *, is_last: bool) -> Iterator[str]:
        """Yield the parts of the display from top to bottom."""
        yield '<div style="overflow-x:auto">'
        if self._facts:
            yield f'<div style="{QUIET}">{escape(" · ".join(self._facts))}</div>'
        curve = self._curve.html(as_image=is_last)
        if self._epochs is not None or curve:
            if self._epochs is not None and not self._table_html:
                self._table_html = epochs_html(self._epochs, self.round_to)
            style = "display:flex;flex-wrap:wrap;gap:.5em 2em;align-items:flex-start"
            yield f'<div style="{style}"><div>{self._table_html}</div>{curve}</div>'
        if self._live is not None:
            yield live_html(self._live, self.round_to, is_over=is_last)
        for tested in self._tests[-MAX_TESTS:]:
            yield tested_html(tested, self.round_to)
        for note in self._notes:
            yield f"<div>{escape(note)}</div>"
        yield "</div>"


def epochs_html(table: EpochTable, round_to: int) -> str:
    """Return the epochs of a fit, a long one without its middle; the best one is marked."""
    columns = table.columns
    stages = {column.stage for column in columns} - {""}
    groups: list[tuple[str, int]] = []
    if len(stages) > 1:
        for column in columns:
            name = column.name if column.stage else ""
            if groups and name and groups[-1][0] == name:
                groups[-1] = (name, groups[-1][1] + 1)
            else:
                groups.append((name, 1))
        groups = [("", 1), *groups, ("", 1)]
        head = [column.stage or column.name for column in columns]
    else:
        head = [column.name for column in columns]
    rows = table.rows[table.num_earlier :]
    marked = [i for i, row in enumerate(rows) if row is table.best and len(table.rows) > 1]
    shown = []
    for index in kept(len(rows), marked):
        if index is None:
            shown.append(["..."] * (len(columns) + 2))
            continue
        row = rows[index]
        texts = (
            row.text(column, round_to)
            + ("*" if index in marked and column == table.decides else "")
            for column in columns
        )
        shown.append(
            [
                f"{epoch_text(row.epoch, table.epochs).strip()}{part_text(row)}",
                *texts,
                duration(row.seconds or 0),
            ]
        )
    return html_table(["epoch", *head, "time"], shown, groups)


def tested_html(tested: Tested, round_to: int) -> str:
    """Return a tested task in a line; its results are the value of the cell."""
    values = [f"{name} {cell(value, round_to)}" for name, value in tested.values.items()]
    text = " · ".join([f"test {tested.task}".strip(), *values, duration(tested.seconds)])
    return f"<div>{escape(text)}</div>"


def live_html(live: Live, round_to: int, *, is_over: bool) -> str:
    """Return the pass that runs, with a bar; if it ``is_over``, how far it came."""
    place = [] if live.epoch is None else [epoch_text(*live.epoch).strip()]
    place += [live.stage, *([live.task] if live.task else [])]
    count = f"{live.done:,} batches" if live.total is None else f"{live.done}/{live.total}"
    if is_over:
        return f"<div>{escape(' '.join(place))}, {count}</div>"
    bar = ""
    if live.total is not None:
        share = min(live.done / max(live.total, 1), 1.0)
        color = COLORS[live.stage]
        bar = (
            '<div style="display:inline-block;width:12em;height:.5em;border-radius:.25em;'
            'background:#80808040;vertical-align:.1em;margin:0 .8em">'
            f'<div style="width:{share:.1%};height:100%;border-radius:.25em;background:{color}">'
            "</div></div>"
        )
    rest = [] if live.left_s is None else [f"{clock(live.left_s)} left"]
    rest += [f"{name} {cell(value, round_to)}" for name, value in live.values.items()]
    if live.speed is not None:
        much, what = live.speed
        rest.append(f"{rate(much)} {what}/s")
    return (
        '<div style="font-variant-numeric:tabular-nums;margin:.3em 0">'
        f"{escape(' '.join(place))} {bar} {count}"
        f'<span style="{QUIET}">{escape("".join(f" · {text}" for text in rest))}</span></div>'
    )


class SmallCurve:
    """The loss over the epochs, and faintly within them the mean so far."""

    WIDTH, HEIGHT = 300, 130
    LEFT, RIGHT, TOP, FOOT = 48, 292, 24, 112  # of the plot, in the drawing

    def __init__(self) -> None:
        self._name: str | None = None
        self._curves: dict[str, Points] = {"inside": [], "train": [], "val": []}
        self._num_rows = 0  # epochs that were taken

    def add(self, live: Live) -> None:
        """Take the mean of a training pass so far, at its place in the epoch."""
        if live.epoch is not None and live.stage == "train" and live.total:
            self._choose(live.values)
            place = live.epoch[0] - 1 + live.done / live.total
            self._add("inside", place, live.values.get(str(self._name)))

    def add_rows(self, table: EpochTable) -> None:
        """Take the epochs that are new."""
        for row in table.rows[self._num_rows :]:
            self._choose([column.name for column in row.values if column.stage])
            for stage in ("train", "val"):
                value = row.values.get(Column(str(self._name), stage))
                self._add(stage, float(row.epoch), value)
        self._num_rows = len(table.rows)

    def _choose(self, names: Collection[str]) -> None:
        if self._name is None and names:
            self._name = "loss" if "loss" in names else next(iter(names))

    def _add(self, curve: str, place: float, value: Any) -> None:
        points = self._curves[curve]
        if isinstance(value, float) and math.isfinite(value):
            points.append((place, value))
        if len(points) > MAX_POINTS:
            del points[1:-1:2]

    def html(self, *, as_image: bool = False) -> str:
        """Return the drawing, or '' as long as there is nothing to draw.

        An image is also shown in a notebook that is not trusted.
        """
        if self._name is None or sum(map(len, self._curves.values())) < 2:
            return ""
        svg = self._draw(self._name, self._curves)
        if not as_image:
            return svg
        code = base64.b64encode(svg.encode()).decode()
        return f'<img alt="curve of {escape(self._name)}" src="data:image/svg+xml;base64,{code}">'

    def _draw(self, name: str, curves: Mapping[str, Points]) -> str:
        every = [point for points in curves.values() for point in points]
        last, values = math.ceil(max(x for x, _ in every)), [y for _, y in every]
        low, high = min(values), max(values)
        is_log = low > 0 and high >= LOG_RATIO * values[-1]
        scale = math.log if is_log else float
        height = scale(high) - scale(low)

        def place(point: tuple[float, float]) -> tuple[str, str]:
            up = (scale(point[1]) - scale(low)) / height if height else 0.5
            across = self.LEFT + point[0] / last * (self.RIGHT - self.LEFT)
            return f"{across:.1f}", f"{self.FOOT - up * (self.FOOT - self.TOP):.1f}"

        texts = [
            (self.LEFT, 12, "start", f"{name}{' (logarithmic)' if is_log else ''}"),
            (self.LEFT - 5, self.TOP + 8, "end", f"{high:.3g}"),
            (self.LEFT - 5, self.FOOT, "end", f"{low:.3g}"),
            (self.LEFT, self.FOOT + 14, "start", "0"),
            (self.RIGHT, self.FOOT + 14, "end", f"epoch {last}"),
        ]
        written = "".join(
            f'<text x="{x}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'
            for x, y, anchor, text in texts
        )
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{self.WIDTH}" height="{self.HEIGHT}" '
            'font-family="sans-serif" font-size="11" fill="#808080" role="img">'
            f'<path d="M{self.LEFT} {self.TOP}V{self.FOOT}H{self.RIGHT}" stroke="#808080" '
            f'fill="none" opacity=".5"/>{written}{"".join(self._lines(curves, place))}</svg>'
        )

    def _lines(self, curves: Mapping[str, Points], place: Any) -> Iterator[str]:
        """Yield the curves, with a dot for each of not too many epochs, and their names."""
        ends = {"train": self.RIGHT - 28 if curves["val"] else self.RIGHT, "val": self.RIGHT}
        for stage, points in curves.items():
            color = COLORS.get(stage, COLORS["train"])
            path = " ".join(",".join(place(point)) for point in points)
            faint = ' opacity=".55"' if stage == "inside" else ""
            line = f'fill="none" stroke="{color}" stroke-width="1.6"{faint}'
            yield f'<polyline points="{path}" {line}/>'
            if stage == "inside" or not points:
                continue
            for across, up in map(place, points if len(points) <= MAX_DOTS else points[-1:]):
                yield f'<circle cx="{across}" cy="{up}" r="2.2" fill="{color}"/>'
            yield f'<text x="{ends[stage]}" y="12" text-anchor="end" fill="{color}">{stage}</text>'
