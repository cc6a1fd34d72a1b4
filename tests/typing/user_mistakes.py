"""Mistakes that a type checker must find: each marked line says which. Never called."""

from __future__ import annotations

from typing import Any

from torch import nn

from deepepochs import Callback, EpochTask, Trainer, TrainerBase


def mistakes() -> None:
    """Call things with what they do not take."""
    trainer = Trainer(nn.Linear, epochs=1)  # error: [arg-type]
    trainer.fitt()  # error: [attr-defined]
    Trainer(nn.Linear(1, 1), epochs="3")  # error: [arg-type]
    EpochTask([], name=3)  # error: [arg-type]
    Trainer(nn.Linear(1, 1), metric="accuracy")  # error: [call-arg]
    Trainer(nn.Linear(1, 1), metrics=5)  # error: [arg-type]
    trainer.fit([], metric="accuracy")  # error: [call-arg]
    trainer.evaluate([])  # error: [attr-defined]


class MyTask(EpochTask):
    """A step of a wrong signature, and a typo."""

    def step(self, batch: Any) -> None:  # error: [override]
        self.modle(batch)  # error: [attr-defined]


class MyCallback(Callback):
    """A hook with a misspelt argument."""

    def on_before_fit(self, trainer: TrainerBase, epoch: int) -> None:  # error: [override]
        trainer.stop(3)  # error: [arg-type]
