"""A small training script that can be killed anywhere and started again.

    python killable.py FOLDER [--workers N] [--every N] [--epochs N] [--background] ...

Dropout, shuffling, augmentation from three generators and a scheduler. At its end it writes
``FOLDER/run.result.pt``: weights, history, and the next random number of each generator. With
``--progress`` it prints a line for each mini-batch, so that a test knows where it is, and with
``--hold LINE`` it stays there until a signal comes, however late the test sends it.
`Forked` starts it as a fork of this process, which spares the seconds that importing takes.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import select
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from deepepochs import Callback, CheckCallback, Optimizer, Trainer, set_seed
from deepepochs import metrics as dm

# Against a hang alone: no test waits for it.
LIMIT_S = 300


class Noisy(Dataset[Any]):
    """Augmented samples."""

    def __init__(self, num: int) -> None:
        g = torch.Generator().manual_seed(3)
        self.x = torch.randn(num, 6, generator=g)
        self.y = (self.x.sum(1) > 0).long()

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        noise = 0.1 * torch.randn(6) + 0.1 * np.random.rand() + 0.1 * random.random()
        return (self.x[index] + noise).float(), self.y[index]


class Tells(Callback):
    """Says where the run is, and waits at one place for a signal."""

    def __init__(self, progress: bool, hold: str) -> None:
        super().__init__()
        self.progress = progress
        self.hold = hold

    def tell(self, word: str, trainer: Any) -> None:
        done = trainer.progress
        line = f"{word} {done.num_train_batches} {done.num_val_batches}"
        with awaited_signal() if line == self.hold else nullcontext():
            if self.progress:
                sys.stdout.write(f"{line}\n")
                sys.stdout.flush()

    def on_after_train_batch(self, trainer: Any, **others: Any) -> None:
        self.tell("train", trainer)

    def on_after_val_batch(self, trainer: Any, **others: Any) -> None:
        self.tell("val", trainer)


@contextmanager
def awaited_signal(limit_s: float = 120.0) -> Iterator[None]:
    """Leave the block once SIGINT or SIGTERM has come, since the block began."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = signal.set_wakeup_fd(writing)
    try:
        yield
        # Workers that end send SIGCHLD, which is none of the two.
        while select.select([reading], [], [], limit_s)[0]:
            if {signal.SIGINT, signal.SIGTERM} & set(os.read(reading, 64)):
                return
        raise TimeoutError(f"no signal came within {limit_s} s")
    finally:
        signal.set_wakeup_fd(before)
        os.close(reading)
        os.close(writing)


class Forgetful(Trainer):
    """A trainer that leaves one part out of its state: the control."""

    without = ""

    def parts(self) -> dict[str, Any]:
        return {name: part for name, part in super().parts().items() if name != self.without}


def run(folder: Path, options: argparse.Namespace) -> None:
    set_seed(options.seed)
    model = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Dropout(0.3), nn.Linear(12, 2))
    opt = torch.optim.Adam(model.parameters(), lr=0.01)
    Forgetful.without = options.without
    trainer = Forgetful(
        model,
        F.cross_entropy,
        Optimizer(opt, torch.optim.lr_scheduler.StepLR(opt, 2, 0.5)),
        epochs=options.epochs,
        device="cpu",
        metrics=[dm.accuracy],
        callbacks=[
            CheckCallback(
                "loss",
                ckpt_dir=folder,
                every_n_batches=options.every,
                background=options.background,
            ),
            Tells(options.progress, options.hold),
        ],
        running_id=options.id,
        resume="auto",
        show_info=False,
        on_interrupt=options.on_interrupt,
        worker_seeding=options.worker_seeding,
        **json.loads(options.limits),
    )
    workers = {"num_workers": options.workers}
    train_dl = DataLoader(Noisy(40), 5, shuffle=True, **workers)  # type: ignore[arg-type]
    history = trainer.fit(train_dl, DataLoader(Noisy(20), 5))
    result = {
        "weights": [weight.detach() for weight in model.parameters()],
        "history": {
            stage: {name: [float(v) for v in values] for name, values in table.items()}
            for stage, table in history.items()
        },
        "draws": [torch.rand(2).tolist(), float(np.random.rand()), random.random()],
    }
    target = folder / f"{options.id}.result.pt"
    torch.save(result, target.with_suffix(".tmp"))
    target.with_suffix(".tmp").replace(target)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--id", default="run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--every", type=int)
    parser.add_argument("--background", action="store_true", help="a thread writes")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--hold", default="", help="the line of progress to wait at")
    parser.add_argument("--progress", action="store_true")
    parser.add_argument("--on-interrupt", default="raise")
    parser.add_argument("--without", default="", help="a part to leave out of the state")
    parser.add_argument("--worker-seeding", default="position")
    parser.add_argument("--limits", default="{}", help="further options of the trainer, as JSON")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    torch.set_num_threads(1)
    run(options.folder, options)


class Forked:
    """The script as a fork of this process, in a process group of its own.

    Attributes:
        pid: its process id.
        stdout: what it prints.
        errors: what it printed to stderr, once it has ended.
        returncode: as of ``subprocess.Popen``; ``None`` while it runs.
    """

    def __init__(self, folder: Path, *arguments: str) -> None:
        # A first optimizer step imports it, which takes seconds: once here, not in each fork.
        importlib.import_module("torch._dynamo")
        folder.mkdir(parents=True, exist_ok=True)
        self._errors = folder / f"errors-{time.monotonic_ns()}.txt"
        reading, writing = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forks with threads
            self.pid = os.fork()
        if not self.pid:
            self._be_the_script(writing, [str(folder), *arguments])
        os.close(writing)
        self.stdout = os.fdopen(reading)
        self.returncode: int | None = None
        self.errors = ""

    def wait(self) -> int:
        """Wait for its end and give its return code."""
        pid, status = 0, 0
        while not pid:
            # Not until the end of what is printed: workers that hang would hold that open.
            if select.select([self.stdout], [], [], 0.05)[0]:
                os.read(self.stdout.fileno(), 65536)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self.stdout.close()
        self.returncode = os.waitstatus_to_exitcode(status)
        self.errors = self._errors.read_text()
        self._errors.unlink()
        return self.returncode

    def _be_the_script(self, writing: int, arguments: list[str]) -> NoReturn:
        code = 1
        try:
            os.setsid()
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.dup2(writing, 1)
            os.dup2(os.open(self._errors, os.O_CREAT | os.O_WRONLY, 0o600), 2)
            sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
            # A fork beside threads may hang at a lock that one of them held.
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(LIMIT_S)
            main(arguments)
            code = 0
        except SystemExit as request:
            code = request.code if isinstance(request.code, int) else 1
        except KeyboardInterrupt:  # as the interpreter does at its end
            traceback.print_exc()
            sys.stderr.flush()
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)


def same(one: Any, other: Any) -> bool:
    """Whether two results are the same to the bit."""
    weights = zip(one["weights"], other["weights"], strict=True)
    return all(torch.equal(a, b) for a, b in weights) and (
        (one["history"], one["draws"]) == (other["history"], other["draws"])
    )


def read_result(folder: Path, run_id: str = "run") -> Any:
    return torch.load(folder / f"{run_id}.result.pt", weights_only=True)


if __name__ == "__main__":
    main()
