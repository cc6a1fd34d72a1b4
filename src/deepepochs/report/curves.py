"""The plots of a page, in two columns, with their legends."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape
from typing import Any, NamedTuple

from ..runs.record import Best, Curve, RunInfo, entries
from .svg import NUM_STYLES, Line, Mark, curve_plot, is_logarithmic, style_of
from .text import STAGES, is_number, measured, short

MAX_PLOTS = 24
STYLES = {"train": "c0", "val": "c1"}


def run_curves(run: RunInfo) -> Iterator[str]:
    """Yield the plots of a run's metrics and learning rates, or a sentence about its rates."""
    names = run.metrics
    best = run.best() if run.num_epochs > 1 else None
    plots = list(_plots(run, names, best))
    shown = plots[:MAX_PLOTS]
    rates = _rates(run.record)
    are_constant = all(len({value for _, value in line.curve}) == 1 for line in rates)
    if rates and not are_constant:
        shown.append(Plot("learning rate", rates, has_legend=len(rates) > 1))
    if not shown:
        return
    stages = [stage for stage in STYLES if stage in run.curves]
    items = [(STYLES[stage], STAGES[stage], "") for stage in stages]
    if best is not None:
        items.append(("best", f"best epoch: {best.epoch}", ""))
    yield legend(items)
    yield grid(shown)
    if rates and are_constant:
        values = " and ".join(short(line.curve[0][1]) for line in rates)
        verb = "learning rate was" if len(rates) == 1 else "learning rates were"
        yield f'<p class="quiet after">The {verb} {values} in all epochs.</p>'
    if len(plots) > MAX_PLOTS:
        yield f'<p class="quiet after">{len(plots) - MAX_PLOTS} more metrics are in the table.</p>'


class Plot(NamedTuple):
    """A plot of the page, with a legend of its own if its lines are not those of the stages."""

    title: str
    lines: list[Line]
    mark: Mark | None = None
    has_legend: bool = False

    def html(self, is_last: bool) -> str:
        """Return the plot; the last one may have a row for itself, on a wide page."""
        scale = " <small>logarithmic axis</small>" if is_logarithmic(self.lines) else ""
        key = legend([(line.style, line.label, "") for line in self.lines if self.has_legend])
        drawn = curve_plot(self.lines, self.title, self.mark)
        if is_last:
            drawn += curve_plot(self.lines, self.title, self.mark, is_wide=True)
        kind = "keep last" if is_last else "keep"
        return f'<div class="{kind}"><h3>{escape(self.title)}{scale}</h3>{key}{drawn}</div>'


def grid(plots: list[Plot]) -> str:
    """Return plots in two columns; an odd last one has a row for itself."""
    last = len(plots) - 1
    cells = [plot.html(index == last and index % 2 == 0) for index, plot in enumerate(plots)]
    return f'<div class="grid2">{"".join(cells)}</div>'


def legend(items: list[tuple[str, str, str]]) -> str:
    """Return the legend of plots; an item is a style, a text, and attributes of the item."""
    shown = "".join(
        f'<span class="{style}"{attributes}><i></i>{escape(text)}</span>'
        for style, text, attributes in items
    )
    return f'<div class="key">{shown}</div>' if shown else ""


def _plots(run: RunInfo, names: list[str], best: Best | None) -> Iterator[Plot]:
    """Yield a plot for each metric; one for all entries of a vector."""
    stages = [stage for stage in STYLES if stage in run.curves]
    for base, members in vectors(names).items():
        if len(members) == 1:
            lines = [
                Line(STAGES[stage], run.curves[stage][base], STYLES[stage])
                for stage in stages
                if base in run.curves[stage]
            ]
            yield Plot(base, lines, _mark(base, best))
        else:
            stage = next(s for s in reversed(stages) if members[0] in run.curves[s])
            lines = [
                Line(name.removeprefix(base), run.curves[stage].get(name, []), style_of(index))
                for index, name in enumerate(members)
            ]
            title = f"{base}, {STAGES[stage]}"
            yield Plot(title, lines, _mark(base, best), len(lines) <= NUM_STYLES)


def vectors(names: list[str]) -> dict[str, list[str]]:
    """Return the entries of each vector, and each other metric alone.

    >>> vectors(["loss", "recall[0]", "recall[1]"])
    {'loss': ['loss'], 'recall': ['recall[0]', 'recall[1]']}
    """
    found: dict[str, list[str]] = {}
    for name in names:
        base = re.sub(r"\[[\d,]+\]$", "", name)
        found.setdefault(base if base != name and f"{base}[1]" in names else name, []).append(name)
    return found


def _mark(name: str, best: Best | None) -> Mark | None:
    if best is None:
        return None
    if best.name != name:
        return Mark(best.epoch)
    return Mark(best.epoch, f"best: {measured(best.value)} in epoch {best.epoch}", best.value)


def _rates(record: dict[str, Any]) -> list[Line]:
    """Return the curve of each optimizer's learning rate."""
    curves: dict[int, Curve] = {}
    count = 1
    for epoch, row in enumerate(entries(record, "rates"), start=1):
        rates = row if isinstance(row, list) else [row]
        count = max(count, len(rates))
        for index, rate in enumerate(rates):
            if is_number(rate):
                curves.setdefault(index, []).append((epoch, float(rate)))
    return [
        Line("learning rate" if count == 1 else f"optimizer {index}", curve, style_of(index + 2))
        for index, curve in curves.items()
    ]
