"""Makes and checks the id of a run, which names its folder: ``<ckpt_dir>/<running_id>``."""

from __future__ import annotations

import operator
import os
import re
import time
from pathlib import Path
from typing import Any

from ..errors import ConfigError, ConfigTypeError

_MAX_ID_BYTES = 200
# Separators, drives and streams of Windows, control characters.
_FORBIDDEN = re.compile(r"[/\\:\x00-\x1f\x7f]")


def new_running_id() -> str:
    """Make a unique id: the time in hundredths of a second, and eight random digits.

    Ids sort by time. The system draws the digits, so no random state of the run changes.
    """
    return f"{time.time_ns() // 10_000_000}-{os.urandom(4).hex()}"


def check_running_id(running_id: Any) -> str:
    """Return `running_id`, a string or an integer, as the name of a folder.

    Raises:
        ConfigTypeError: it is of another type.
        ConfigError: it is empty or too long, or could lead out of the folder of the runs.
    """
    if isinstance(running_id, str):
        name = str(running_id)
    else:
        number: Any = None if isinstance(running_id, bool) else running_id
        try:
            name = str(operator.index(number))
        except TypeError:
            raise ConfigTypeError(
                f"running_id is {running_id!r}, a {type(running_id).__name__}: "
                "give a string or an integer"
            ) from None
    fault = _fault(name)
    if fault:
        raise ConfigError(
            f"running_id {name!r:.80} {fault}: it names one folder inside ckpt_dir; "
            "use letters, digits, '-', '_' and '.'"
        )
    return name


def run_folder(ckpt_dir: str | os.PathLike[str], running_id: Any) -> Path:
    """Return the folder of a run, which may be missing yet; raises as `check_running_id`."""
    return Path(ckpt_dir) / check_running_id(running_id)


def _fault(name: str) -> str:
    if not name:
        return "is empty"
    if name in (".", ".."):
        return "is no name of a folder"
    if _FORBIDDEN.search(name):
        return "holds a separator, a colon or a control character"
    if name != name.strip() or name.endswith("."):  # Windows drops these
        return "begins or ends with a blank, or ends with a dot"
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return "holds a lone surrogate"
    return f"is longer than {_MAX_ID_BYTES} bytes" if size > _MAX_ID_BYTES else ""
