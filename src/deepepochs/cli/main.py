"""The command ``deepepochs``: ``runs``, ``report`` and ``demo``.

It needs click and rich, which come with ``pip install "deepepochs[cli]"``.

::

    deepepochs demo                 # train a small model on real digits
    deepepochs runs logs            # what ran, and how it stands
    deepepochs report logs          # pages of HTML: one that compares, one for each run
"""

from __future__ import annotations

from importlib.util import find_spec

from ..errors import MissingExtraError

__all__ = ["main"]


def main() -> None:
    """Run the command that the arguments of the process ask for.

    Raises:
        SystemExit: always at the end; with a sentence if something it needs is not there.
    """
    try:
        check_installed()
    except MissingExtraError as error:
        raise SystemExit(str(error)) from None
    from .commands import cli

    cli(prog_name="deepepochs")


def check_installed() -> None:
    """Make sure that what the command needs is there.

    Raises:
        MissingExtraError: it is not; says what to install.
    """
    missing = [name for name in ("click", "rich") if find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f"The command deepepochs needs {' and '.join(missing)}, which is not installed: "
            'pip install "deepepochs[cli]".'
        )
