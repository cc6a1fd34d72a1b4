"""One small run in which one process meets something: ``faulty.py FOLDER KIND [sharded]``.

Works alone, with torchrun and with accelerate launch: ``device='auto'``. Kinds: ``none``,
``sigterm``, ``sigkill``, ``exception``, ``waiting``, ``metric``. Writes ``weights-<kind>.pt``.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import torch
from sharding import shard
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from deepepochs import Callback, CheckCallback, LogCallback, Trainer, set_seed

torch.set_num_threads(1)
folder, kind = Path(sys.argv[1]), sys.argv[2]
X = torch.randn(50, 6, generator=torch.Generator().manual_seed(3))
set_seed(0)
model = nn.Sequential(nn.Linear(6, 16), nn.Dropout(0.3), nn.ReLU(), nn.Linear(16, 2))
if "sharded" in sys.argv[3:]:
    shard(model)
opt = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
data = TensorDataset(X, (X.sum(1) > 0).long())


class Fault(Callback):
    """Meets it in the last process, after the third mini-batch of the second epoch."""

    def on_after_train_batch(self, trainer: Any, metrics: Any, batch_idx: int) -> None:
        last = trainer.runtime.rank == trainer.runtime.num_processes - 1
        if kind == "blocked" and trainer.main_process and trainer.init_epoch == batch_idx == 0:
            (folder / "run" / "checkpoint.ckpt").mkdir(parents=True)
        if trainer.init_epoch != 1 or batch_idx != 2:
            return
        if kind == "waiting":
            if not last:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the trainer's waits for a batch
                time.sleep(3600)
            # An exchange that no other takes part in, so that its thread waits for ever.
            torch.distributed.all_reduce(torch.ones(1), async_op=True)
            tell_of_the_fault()
            raise ValueError("the fault of the test")
        if not last:
            return
        tell_of_the_fault()
        if kind == "sigterm":
            os.kill(os.getpid(), signal.SIGTERM)
        elif kind == "sigkill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif kind == "exception":
            raise ValueError("the fault of the test")


def accuracy(preds: torch.Tensor, targets: torch.Tensor) -> Any:
    if kind == "metric" and int(os.environ.get("RANK", "0")) == 1 and trainer.init_epoch == 1:
        tell_of_the_fault()
        raise ValueError("the fault of the test")
    return (preds.argmax(1) == targets).float().mean()


def tell_of_the_fault() -> None:
    print("fault at", time.monotonic(), flush=True)


def tell_of_the_end() -> None:
    print("in a group at the end:", torch.distributed.is_initialized(), flush=True)
    tasks = Path("/proc/self/task")
    if tasks.is_dir():
        count = sum("gloo" in name_of(task) for task in tasks.iterdir())
        print("threads of gloo at the end:", count, flush=True)


def name_of(task: Path) -> str:
    try:
        return (task / "comm").read_text()
    except OSError:  # a thread that has ended since
        return ""


def refuse_threads() -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    threading.Thread.start = start  # type: ignore[method-assign]


# Before the trainer's own handler, so that it is called after it.
atexit.register(tell_of_the_end)
trainer = Trainer(
    model, F.cross_entropy, opt, epochs=3, device="auto", metrics=accuracy, metric_patch="mean",
    callbacks=[
        Fault(),
        CheckCallback("loss", ckpt_dir=folder, background="background" in sys.argv[3:]),
        LogCallback(folder),
    ],
    resume="auto", running_id="run",
)  # fmt: skip
# After the trainer's own, so that it is called before it: so does Python 3.12 at its end.
atexit.register(refuse_threads)
order = torch.Generator().manual_seed(5)
trainer.print("starts in", trainer.runtime.num_processes)
history = trainer.fit(DataLoader(data, 4, shuffle=True, generator=order), DataLoader(data, 8))
found = {"weights": trainer.state_dict()["model"]}
if trainer.main_process:
    found["history"] = {
        s: {k: list(map(float, v)) for k, v in o.items()} for s, o in history.items()
    }
    torch.save(found, folder / "found.pt")
