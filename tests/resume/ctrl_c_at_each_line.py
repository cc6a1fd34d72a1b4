"""Press Ctrl-C at each line of a save, one after the other, and print what became of it.

    python ctrl_c_at_each_line.py FOLDER

In a process of its own: an error in the clean-up of torch's writer would end it.
"""

from __future__ import annotations

import contextlib
import json
import sys
import weakref
from collections import Counter
from types import FrameType, ModuleType
from typing import Any

import torch

from deepepochs.checkpoint import CheckpointStore, store
from deepepochs.checkpoint import file as checkpoint_file
from deepepochs.checkpoint import seal as sealed
from deepepochs.files import atomic
from deepepochs.files.atomic import leftovers

MODULES: list[ModuleType] = [atomic, store, checkpoint_file, sealed]
FILES = {module.__file__ for module in [*MODULES, contextlib, weakref, torch.serialization]}


def interrupted(store: CheckpointStore, generation: int, line: int) -> str:
    """Save with a Ctrl-C right before that line; how it ended, ``'saved'`` without any."""
    count = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        if frame.f_code.co_filename not in FILES:
            return None
        count += event == "line"
        if count == line:
            sys.settrace(None)
            raise KeyboardInterrupt
        return trace

    sys.settrace(trace)
    try:
        store.save(state_of(generation), best_place=1)
    except BaseException as error:
        return type(error).__name__
    finally:
        sys.settrace(None)
    return "saved" if count < line else "swallowed"


def state_of(generation: int) -> dict[str, Any]:
    return {"generation": generation, "model": {"weight": torch.ones(3)}}


def main() -> None:
    store = CheckpointStore(sys.argv[1], keep_best=2)
    for generation in (0, 1):
        store.save(state_of(generation), best_place=1)
    result: Counter[str] = Counter()
    ended, line = "", 0
    while ended != "saved":
        line += 1
        ended = interrupted(store, line + 1, line)
        result[ended] += 1
        result["more than one left"] += len(leftovers(store.folder)) > 1
        path, state, _ = store.newest_good()
        result["lost"] += path != store.last or state["generation"] not in (line, line + 1)
        result["lost"] += not store.previous.exists()
        store.save(state_of(line + 1), best_place=1)
        result["left after the next save"] += len(leftovers(store.folder))
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
