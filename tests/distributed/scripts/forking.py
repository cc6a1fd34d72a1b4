"""Process 1 has a fork that lives on, and loses its own connection: ``forking.py FOLDER``.

Process 0, which waits for it, writes what it is told, and whether the fork was there then.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from torch import nn

from deepepochs import LoopException, Trainer

FORK_S = 60


def told(trainer: Any) -> str:
    try:
        trainer.runtime.total([1.0])
    except LoopException as error:
        return str(error)
    return ""


def wait_for(path: Path) -> str:
    while not path.exists():
        time.sleep(0.01)
    return path.read_text()


def put(path: Path, text: str) -> None:
    path.with_suffix(".new").write_text(text)
    path.with_suffix(".new").rename(path)


def main() -> None:
    folder = Path(sys.argv[1])
    trainer: Any = Trainer(nn.Linear(2, 1), device="auto", show_info=False)
    if trainer.runtime.rank == 0:
        in_fork = wait_for(folder / "fork")
        found = {"in fork": in_fork, "process 0": told(trainer)}
        put(
            folder / "found.json", json.dumps({**found, "is early": not (folder / "over").exists()})
        )
    elif os.fork():
        wait_for(folder / "fork")
        trainer.runtime._exchange._star.close()  # as the end of the process does
        wait_for(folder / "found.json")
    else:
        put(folder / "fork", told(trainer))
        begin_s = time.monotonic()
        while time.monotonic() - begin_s < FORK_S and not (folder / "found.json").exists():
            time.sleep(0.01)
        put(folder / "over", "")
        os._exit(0)


if __name__ == "__main__":
    main()
