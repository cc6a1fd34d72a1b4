"""One process makes a call alone, or does not come to one: ``alone.py KIND``."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from deepepochs import Callback, EpochTask, Trainer, set_seed
from deepepochs.errors import CheckpointMismatch

torch.set_num_threads(1)
kind = sys.argv[1]
set_seed(0)
X = torch.randn(24, 4)
data = TensorDataset(X, (X.sum(1) > 0).long())
accelerator = Accelerator(cpu=True)
is_main, rank = accelerator.is_main_process, accelerator.process_index


states: list[Any] = []


def note() -> None:
    print("apart at", time.monotonic(), flush=True)


class Hooks(Callback):
    """What is done in the second training mini-batch, or after the epoch."""

    def on_after_train_batch(self, trainer: Any, metrics: Any, batch_idx: int) -> None:
        if batch_idx != 1:
            return
        if kind == "barrier" and is_main:
            note()
            torch.distributed.barrier()
        if kind == "exits" and not is_main:
            note()
            raise SystemExit(0)
        if kind == "dies" and not is_main:
            note()
            os._exit(0)
        if kind == "caught" and not is_main:
            note()
            raise ValueError("the fault of the test")
        if kind == "refused":
            trainer.request_save(lambda trainer: states.append(trainer.state_dict()))
        if kind == "slow" and is_main:
            time.sleep(42)

    def on_after_epoch(self, trainer: Any, **_: Any) -> None:
        if kind == "late":
            if is_main:
                trainer.runtime._exchange._limit_s = 1
            else:
                time.sleep(600)
        if is_main and kind in ("tests", "saves", "predicts"):
            note()
            if kind == "tests":
                trainer.test(loader())
            elif kind == "saves":
                trainer.state_dict()
            else:
                trainer.predict(loader())


class Skipping(EpochTask):
    """A step that does nothing in one process."""

    def train_step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> Any:
        if kind == "skips" and not is_main:
            return
        if kind == "in a step" and is_main:
            note()
            torch.distributed.barrier()
        self.loss(self.model(*batch_x), batch_y)


class Partial(nn.Module):
    """Leaves a layer out, in one process or in all."""

    def __init__(self) -> None:
        super().__init__()
        self.always = nn.Linear(4, 2)
        self.rarely = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> Any:
        uses = {"unused": is_main, "all unused": False}.get(kind, True)
        return self.always(x) + (self.rarely(x) if uses else 0)


def loader() -> Any:
    return DataLoader(data, 4)


def make_trainer() -> Trainer:
    return Trainer(
        Partial(), F.cross_entropy, epochs=2, device=accelerator, callbacks=[Hooks()],
        show_info=False, log_batch=False,
    )  # fmt: skip


if kind == "makes" and not is_main:
    raise SystemExit
trainer = make_trainer()
if kind == "refused":
    trainer.fit(train_tasks=Skipping(loader(), name="first"))
    trainer = make_trainer()
    trainer.load_state_dict(states[0])
    try:
        trainer.fit(train_tasks=Skipping(loader(), name="first" if is_main else "other"))
    except CheckpointMismatch as error:
        print("refused:", error, flush=True)
    trainer.fit(train_tasks=Skipping(loader(), name="first"))
    print("finished in process", rank)
    raise SystemExit
if kind in ("skips", "unused"):
    note()
if kind == "loads":
    state = trainer.state_dict()
    if is_main:
        note()
        trainer.load_weights(state)
caught = contextlib.suppress(ValueError) if kind == "caught" else contextlib.nullcontext()
if kind == "searches" and is_main:
    note()
    trainer.find_lr(loader())
with caught:
    trainer.fit(train_tasks=Skipping(loader()))
if kind == "caught" and not is_main:
    time.sleep(3600)
if kind == "fits" and is_main:
    note()
    trainer.fit(loader(), epochs=1)
if kind == "waits":
    if is_main:
        note()
        trainer.predict(loader())
    accelerator.wait_for_everyone()
print("finished in process", rank)
