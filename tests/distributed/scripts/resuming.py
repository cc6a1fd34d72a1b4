"""Take the state at save points of one fit, go on from each anew, and compare to the bit.

Started as ``resuming.py RESULT_FILE CASE...``; writes for each case the save points tried and
those from which a resumed fit differs in any process.
"""

from __future__ import annotations

import io
import json
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from cases import (
    ByHandTask,
    Endless,
    RecordingTask,
    ReturningTask,
    Stream,
    Tempered,
    X,
    Y,
    loader,
    make_accelerator,
    whole,
)
from torch import nn
from torch.utils.data import DataLoader, Dataset

from deepepochs import (
    Callback,
    EpochTask,
    GradClipCallback,
    GradNormCallback,
    Optimizer,
    Trainer,
    set_seed,
)
from deepepochs import metrics as dm


class Noisy(Dataset[Any]):
    """Augments with the global generator."""

    def __len__(self) -> int:
        return 29

    def __getitem__(self, index: int) -> Any:
        return X[index] + 0.1 * torch.randn(6), Y[index]


class KeepStates(Callback):
    """Keeps the whole state at some save points, as a file would."""

    meets_fillers = True  # all processes save together

    def __init__(self, every: int) -> None:
        super().__init__()
        self.every, self.count = every, 0
        self.states: dict[str, bytes] = {}

    def _ask(self, trainer: Any, place: str) -> None:
        self.count += 1
        if self.count % self.every == 0:
            trainer.request_save(lambda trainer: self.keep(trainer, place))

    def keep(self, trainer: Any, place: str) -> None:
        file = io.BytesIO()
        torch.save(trainer.state_dict(), file)
        self.states[place] = file.getvalue()

    def on_after_train_batch(self, trainer: Any, metrics: Any, batch_idx: int) -> None:
        self._ask(trainer, f"epoch {trainer.init_epoch} train batch {batch_idx}")

    def on_after_val_batch(self, trainer: Any, metrics: Any, batch_idx: int) -> None:
        self._ask(trainer, f"epoch {trainer.init_epoch} val batch {batch_idx}")

    def on_after_epoch(self, trainer: Any, epoch_idx: int, **_: Any) -> None:
        self._ask(trainer, f"epoch {epoch_idx}")


def make_model() -> nn.Module:
    set_seed(1)
    return nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.ReLU(), nn.Linear(8, 3)
    )


def make_loss() -> Any:
    return Tempered(1.0)


def weights_of(loss: Any) -> list[torch.Tensor]:
    return list(loss.parameters()) if isinstance(loss, nn.Module) else []


def build(
    accelerator: Accelerator, callbacks: Any, make_data: Callable[[], tuple[list[Any], list[Any]]],
    model_class: type[nn.Module] | None = None, **options: Any,
) -> tuple[Trainer, dict[str, Any]]:  # fmt: skip
    set_seed(1)
    model, loss = make_model() if model_class is None else model_class(), make_loss()
    opt = torch.optim.Adam([*model.parameters(), *weights_of(loss)], 0.01)
    schedule = torch.optim.lr_scheduler.StepLR(opt, 3)
    trainer = Trainer(
        model, loss, Optimizer(opt, schedule, sched_on="step"), epochs=2,
        device=accelerator, show_info=False, log_batch=False, metrics=[dm.accuracy],
        callbacks=callbacks, **options,
    )  # fmt: skip
    trainer.default_cbk.write = lambda *_, **__: None  # type: ignore[method-assign]
    train, val = make_data()
    return trainer, {"train_tasks": train, "val_tasks": val}


def traces(trainer: Trainer) -> Any:
    """Everything a resumed fit must have in common with the unbroken one, of this process."""
    model = trainer.runtime.unwrap(trainer.model)
    return (
        {s: {k: [float(v) for v in vs] for k, vs in of.items()} for s, of in trainer.history.items()},
        [whole(w).tolist() for w in [*model.parameters(), *weights_of(trainer.loss_fn)]],
        [buffer.tolist() for buffer in model.buffers()],
        torch.rand(3).tolist(),
        list(trainer.progress),
        trainer.opt.get_current_lr(),
    )  # fmt: skip


def compare(make: Callable[[Any], tuple[Trainer, dict[str, Any]]], every: int) -> Any:
    keeper = KeepStates(every)
    trainer, data = make([keeper, GradClipCallback(1.0, 2)])
    trainer.fit(**data)
    expected = traces(trainer)
    differing = []
    for place, saved in keeper.states.items():
        trainer, data = make([KeepStates(10**6), GradClipCallback(1.0, 2)])
        trainer.load_state_dict(torch.load(io.BytesIO(saved), weights_only=True))
        trainer.fit(**data)
        same = traces(trainer) == expected
        if not all(trainer.runtime.gather_objects(same)):
            differing.append(place)
    # The control: a fit with one more random draw must not be taken for the same.
    trainer, data = make([KeepStates(10**6), GradClipCallback(1.0, 2)])
    torch.rand(1)
    trainer.fit(**data)
    differs = traces(trainer) != expected
    return {"tried": list(keeper.states), "differing": differing, "control differs": differs}


def shuffled() -> Any:
    def data() -> Any:
        order = torch.Generator().manual_seed(2)
        train = DataLoader(Noisy(), 6, shuffle=True, generator=order)
        return [EpochTask(train)], [EpochTask(loader(slice(11), 6))]

    return compare(lambda callbacks: build(make_accelerator(split=False), callbacks, data), 1)


def accumulating() -> Any:
    """Windows by argument, an order from the global generator, patches returned by steps."""

    def data() -> Any:
        train = DataLoader(Noisy(), 6, shuffle=True)
        return (
            [ReturningTask(train), ReturningTask(loader(slice(17), 6))],
            [ReturningTask(loader(slice(3), 2)), ReturningTask(loader(slice(10), 6))],
        )

    def make(callbacks: Any) -> Any:
        return build(make_accelerator(split=True), callbacks, data, grad_accumulate=3)

    return compare(make, 1)


def by_hand() -> Any:
    def make(callbacks: Any) -> Any:
        accelerator = make_accelerator(split=False)
        accelerator.gradient_accumulation_steps = 2
        return build(
            accelerator,
            callbacks,
            lambda: ([ByHandTask(loader(slice(30), 4))], [EpochTask(loader(slice(11), 6))]),
        )

    try:
        return compare(make, 2)
    finally:
        make_accelerator(split=False).gradient_accumulation_steps = 1


def streams() -> Any:
    def data() -> Any:
        return [EpochTask(DataLoader(Stream(22), 4)), EpochTask(Endless(4, 18))], [
            EpochTask(list(Endless(4, 10)))
        ]

    return compare(lambda callbacks: build(make_accelerator(split=False), callbacks, data), 2)


class DrawnLate:
    """A sampler that draws its order bit by bit, from Python."""

    def __len__(self) -> int:
        return 29

    def __iter__(self) -> Iterator[int]:
        rest = list(range(29))
        while rest:
            yield rest.pop(random.randrange(len(rest)))


class DrawnBatches:
    """Mini-batches that the object shuffles by itself."""

    def __iter__(self) -> Iterator[Any]:
        for part in torch.randperm(29).split(5):
            yield X[part] + 0.1 * torch.randn(6), Y[part]


def drawn() -> Any:
    """Orders from the global streams, beside the dropout that each process draws from its own."""

    def data() -> Any:
        late = DataLoader(Noisy(), 5, sampler=DrawnLate())
        in_workers = DataLoader(Noisy(), 5, shuffle=True, num_workers=1)
        return [EpochTask(late), EpochTask(DrawnBatches())], [EpochTask(in_workers)]

    return compare(lambda callbacks: build(make_accelerator(split=False), callbacks, data), 3)


def prepared() -> Any:
    def make(callbacks: Any) -> Any:
        accelerator = make_accelerator(split=False)
        accelerator.even_batches = True
        order = torch.Generator().manual_seed(2)
        made = DataLoader(Noisy(), 5, shuffle=True, generator=order), loader(slice(11), 4)
        train, val = accelerator.prepare(*made)
        return build(accelerator, callbacks, lambda: ([EpochTask(train)], [EpochTask(val)]))

    return compare(make, 2)


class RecordsLate(Callback):
    """Records after the step of each optimizer, and after each pass."""

    def on_after_optimize(self, trainer: Any, **_: Any) -> None:
        trainer.record("steps", trainer.progress.num_steps)

    def on_after_train_epoch(self, trainer: Any, metrics: Any, **_: Any) -> None:
        trainer.record("late", metrics["sum"])


def recorded() -> Any:
    """Values of steps, of optimizer steps and of passes, some of which one process lacks."""

    def data() -> Any:
        train = [RecordingTask(Endless(4, 22)), RecordingTask(loader(slice(17), 6))]
        return train, [RecordingTask(loader(slice(3), 2)), RecordingTask(loader(slice(10), 6))]

    def make(callbacks: Any) -> Any:
        added = [*callbacks, GradNormCallback(with_max=True), RecordsLate()]
        return build(make_accelerator(split=False), added, data, grad_accumulate=2)

    return compare(make, 1)


class Layers(nn.Module):
    """Several buckets, in which the weights are not in the order in which they are used."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(24, 3)
        self.inner = nn.ModuleList(nn.Linear(24, 24) for _ in range(4))
        self.norm = nn.BatchNorm1d(24)
        self.first = nn.Linear(6, 24)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.first(x))
        for layer in reversed(self.inner):
            x = torch.tanh(layer(x))
        return self.last(x)


def layered(size: int = 1, **options: Any) -> Any:
    """Sums of three: the last bits depend on where in a bucket a number is."""

    def data() -> Any:
        order = torch.Generator().manual_seed(2)
        train = DataLoader(Noisy(), 3, shuffle=True, generator=order)
        return [EpochTask(train)], [EpochTask(loader(slice(11), 6))]

    def make(callbacks: Any) -> Any:
        handler = DistributedDataParallelKwargs(bucket_cap_mb=0.004, **options)  # 4 KiB
        accelerator = make_accelerator(split=False, kwargs_handlers=[handler])
        return build(accelerator, callbacks, data, Layers, grad_accumulate=size)

    return compare(make, 2)


def layered_windows() -> Any:
    """Gradients wait for a step at some of the save points."""
    return layered(2, gradient_as_bucket_view=True)


def main() -> None:
    found = {name: globals()[name]() for name in sys.argv[2:]}
    if Accelerator(cpu=True).is_main_process:
        Path(sys.argv[1]).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
