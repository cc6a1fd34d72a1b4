"""Each message that heads a section of ``docs/troubleshooting.md`` is one that the library gives."""

from __future__ import annotations

import contextlib
import io
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from deepepochs import Callback, CheckCallback, EpochTask, Optimizer, Trainer, param_groups
from deepepochs.metrics import accuracy
from deepepochs.runs.lock import RunLock

PAGE = Path(__file__).parents[2] / "docs" / "troubleshooting.md"
HEADINGS = re.findall(r"^### `(.*)`$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
# What only several processes meet: tests/distributed has them.
OF_PROCESSES = ("The processes are about to do different things", "find_unused_parameters")

X = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
Y = X[:, :3].argmax(1)
MISTAKES: list[Callable[[], Any]] = []


def mistake(function: Callable[[], Any]) -> Callable[[], Any]:
    MISTAKES.append(function)
    return function


def loader(*tensors: Tensor) -> DataLoader[Any]:
    return DataLoader(TensorDataset(*tensors), batch_size=16)


def trainer(
    model: nn.Module | None = None, loss: Any = F.cross_entropy, opt: Any = None, **options: Any
) -> Any:
    model = nn.Linear(4, 3) if model is None else model
    return Trainer(model, loss, opt, **{"epochs": 1, "device": "cpu", "console": "off", **options})


def check(**options: Any) -> CheckCallback:
    return CheckCallback("loss", on_stage="train", **options)


class Pair(nn.Linear):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x), x


class Pooling(nn.Module):
    def forward(self, x: Tensor) -> Any:
        return F.max_unpool1d(*F.max_pool1d(x[None], 2, return_indices=True), 2)[0]


class Recording(EpochTask):
    def step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> None:
        self.record("loss", 1.0)


def dicts() -> DataLoader[Any]:
    return DataLoader([{"x": x, "labels": y} for x, y in zip(X, Y, strict=True)], 16)  # type: ignore[arg-type]


# labels, inputs, loaders
mistake(lambda: trainer().fit(loader(X, Y.float())))
mistake(lambda: trainer().fit(loader(X, Y[:, None])))
mistake(lambda: trainer().fit(loader(X, Y + 1)))
mistake(lambda: trainer(nn.Linear(4, 1), F.mse_loss).fit(loader(X, X[:, 0])))
mistake(
    lambda: trainer(nn.Linear(4, 1), F.binary_cross_entropy_with_logits).fit(
        loader(X, (Y > 0).float())
    )
)
mistake(lambda: trainer(nn.Sequential(nn.Linear(4, 3), nn.Softmax(1))).fit(loader(X, Y)))
mistake(lambda: trainer().fit(loader(X.double(), Y)))
mistake(lambda: trainer().fit(loader(X.long(), Y)))
mistake(
    lambda: trainer(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(9, 3))).fit(loader(X, Y))
)
mistake(lambda: trainer().fit([(X.numpy(), Y.numpy())]))
mistake(lambda: trainer(Pair(4, 3)).fit(loader(X, Y)))
mistake(lambda: trainer().fit(loader(X, X, Y)))
mistake(lambda: trainer().fit(dicts()))
mistake(lambda: trainer(targets="label").fit(dicts()))
mistake(lambda: trainer().fit([(X, Y[:32])]))
mistake(lambda: trainer().fit(TensorDataset(X, Y)))
mistake(lambda: trainer().fit(batch for batch in loader(X, Y)))
mistake(lambda: trainer().fit([X]))
mistake(lambda: trainer().fit([]))
# loss, metrics
mistake(lambda: trainer(loss=lambda out, y: (out.sum() * 0).log() * 0).fit(loader(X, Y)))
mistake(lambda: trainer(nn.Sequential(nn.Linear(4, 3).requires_grad_(False))).fit(loader(X, Y)))
mistake(lambda: trainer(loss=nn.CrossEntropyLoss(reduction="none")).fit(loader(X, Y)))
mistake(lambda: trainer(metrics="acc"))
mistake(lambda: trainer(metrics=[lambda p, t: 1.0, lambda p, t: 2.0]).fit(loader(X, Y)))
# arguments and names
mistake(lambda: trainer().fit(loader(X, Y), loader(X, Y))["val_loss"])
mistake(lambda: trainer(metric=accuracy))
mistake(lambda: trainer().fit(loader(X, Y), validation_data=loader(X, Y)))
mistake(lambda: trainer().evaluate(loader(X, Y)))
mistake(lambda: Trainer(nn.Linear))  # type: ignore[arg-type]
mistake(lambda: trainer(loss="cross_entropy"))
mistake(lambda: trainer(device="cuda" if not torch.cuda.is_available() else "cuda:99"))
mistake(lambda: trainer(running_id="a/b"))
mistake(lambda: trainer(None, torch.optim.Adam([X.clone().requires_grad_()]), F.cross_entropy))
# callbacks
mistake(lambda: trainer(callbacks=CheckCallback("val_loss")).fit(loader(X, Y), loader(X, Y)))
mistake(lambda: trainer(callbacks=CheckCallback("loss")).fit(loader(X, Y)))
# optimizers
mistake(lambda: trainer(opt=torch.optim.Adam(nn.Linear(4, 3).parameters())))
mistake(lambda: param_groups(nn.ModuleDict({"backbone": nn.Linear(1, 1)}), {"bakbone.*": {}}))
mistake(lambda: trainer(opt=torch.optim.lr_scheduler.StepLR(torch.optim.Adam([X.clone()]), 1)))
# checkpoints and runs
mistake(lambda: trainer(resume=True).fit(loader(X, Y)))
mistake(lambda: trainer(resume="nope", callbacks=check()).fit(loader(X, Y)))
mistake(lambda: trainer(callbacks=check()).load_best())
mistake(lambda: trainer().load_best())
# steps
mistake(lambda: trainer().record("norm", 1.0))
mistake(lambda: trainer().fit(train_tasks=Recording(loader(X, Y))))
mistake(lambda: EpochTask(loader(X, Y)).model)
mistake(lambda: trainer().fit(train_tasks=EpochTask(loader(X, Y), metric=accuracy)))


mistake(lambda: trainer().fit([(X[:16], Y[:16]), None, (X[16:32], Y[16:32]), None]))


@mistake
def a_mini_batch_that_does_not_fit() -> None:
    class Small(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            if len(x) > 8:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return super().forward(x)

    trainer(Small(4, 3), on_oom="split").fit(loader(X, Y))


@mistake
def a_step_without_a_closure() -> None:
    class Own(EpochTask):
        def train_step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> None:
            self.loss(self.model(*batch_x), batch_y)

    model = nn.Linear(4, 3)
    opt = torch.optim.LBFGS(model.parameters())
    trainer(model, F.cross_entropy, opt).fit(train_tasks=Own(loader(X, Y)))


class Locked(Callback):
    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


@mistake
def a_share_of_a_stream() -> None:
    class Stream:
        def __iter__(self) -> Iterator[Any]:
            yield X[:16], Y[:16]

    trainer(limit_train_batches=0.5).fit(Stream())


@mistake
def more_steps_than_max_steps() -> None:
    one = trainer(max_steps=4)
    one.fit(loader(X, Y))
    one.fit(loader(X, Y))


@mistake
def val_every_without_validation() -> None:
    trainer(val_every=2).fit(loader(X, Y))


@mistake
def a_dry_run_with_a_lock() -> None:
    trainer(callbacks=Locked(), dry_run=True).fit(loader(X, Y))


@mistake
def a_metric_of_each_sample() -> None:
    def acc(preds: Tensor, targets: Tensor) -> Tensor:
        return (preds.argmax(1) == targets).float()

    trainer(metrics=acc).fit(loader(X, Y))


@mistake
def a_metric_of_nothing() -> None:
    def acc(preds: Tensor, targets: Tensor) -> None: ...

    trainer(metrics=acc).fit(loader(X, Y))


@mistake
def a_metric_of_outputs_alone() -> None:
    def acc(preds: Tensor) -> float:
        return 1.0

    trainer(metrics=acc).fit(loader(X, Y))


@mistake
def a_metric_of_no_direction() -> None:
    def score(preds: Tensor, targets: Tensor) -> float:
        return 1.0

    trainer(metrics=score, callbacks=CheckCallback("score")).fit(loader(X, Y), loader(X, Y))


@mistake
def a_step_without_backward() -> None:
    class S(EpochTask):
        def train_step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> None:
            self.model(*batch_x)

    trainer().fit(train_tasks=S(loader(X, Y)))


@mistake
def a_step_that_returns_its_loss() -> None:
    class S(EpochTask):
        def train_step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> Any:
            return self.loss(self.model(*batch_x), batch_y)

    trainer().fit(train_tasks=S(loader(X, Y)))


@mistake
def a_step_of_another_name() -> None:
    class S(EpochTask):
        def training_step(self, batch: Any, batch_idx: int) -> None: ...


@mistake
def gradients_in_a_test() -> None:
    class S(EpochTask):
        def evaluate_step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> None:
            torch.autograd.grad(self.model(*batch_x).sum(), self.model.weight)

    trainer().test(tasks=S(loader(X, Y)))


@mistake
def a_misspelt_hook() -> None:
    class C(Callback):
        def on_epoch_end(self, trainer: Any) -> None: ...

    trainer(callbacks=C())


@mistake
def a_hook_with_other_arguments() -> None:
    class C(Callback):
        def on_after_epoch(self, trainer: Any, epoch: int) -> None: ...

    trainer(callbacks=C())


@mistake
def a_schedule_of_steps() -> None:
    model = nn.Linear(4, 3)
    opt = torch.optim.Adam(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(opt, 0.1, total_steps=500)
    trainer(model, opt=Optimizer(opt, schedule), epochs=5).fit(loader(X, Y))


@mistake
def runs_of_one_id() -> None:
    for resume in (False, False, "auto"):
        again = trainer(running_id="a", resume=resume, callbacks=check(), console="auto")
        again.fit(loader(X, Y))


@mistake
def a_second_fit() -> None:
    done = trainer()
    done.fit(loader(X, Y))
    done.fit(loader(X, Y))


@mistake
def another_model() -> None:
    trainer(running_id="b", callbacks=check()).fit(loader(X, Y))
    trainer(nn.Linear(4, 5)).load_weights("b")


@mistake
def an_operation_without_a_deterministic_form() -> None:
    model = nn.Sequential(nn.Linear(4, 4), Pooling(), nn.Linear(4, 3))
    trainer(model, deterministic=True).fit(loader(X, Y))


@mistake
def a_folder_in_use() -> None:
    Path("logs/c").mkdir(parents=True)
    lock = RunLock(Path("logs/c").absolute())
    lock.acquire()
    try:
        trainer(running_id="c", callbacks=check()).fit(loader(X, Y))
    finally:
        lock.release()


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """What is said about each mistake: the error with its notes, warnings, what is printed."""
    texts = []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("mistakes"))
        for make in MISTAKES:
            with (
                warnings.catch_warnings(record=True) as caught,
                contextlib.redirect_stdout(io.StringIO()) as printed,
            ):
                warnings.simplefilter("always")
                try:
                    make()
                    parts = []
                except Exception as error:
                    parts = [str(error), *getattr(error, "__notes__", [])]
            parts += [str(warning.message) for warning in caught]
            texts.append("\n".join([*parts, printed.getvalue()]))
        yield texts


@pytest.mark.parametrize("heading", [text for text in HEADINGS if text not in OF_PROCESSES])
def test_the_message_is_one_that_is_said(heading: str, said: list[str]) -> None:
    parts = [re.escape(part.strip()) for part in heading.split("…")]
    pattern = re.compile(r"[^\0]*?".join(parts))
    assert any(pattern.search(text) for text in said), "no mistake has this message"


def test_the_page_has_the_messages() -> None:
    assert len(HEADINGS) > 50
    assert set(OF_PROCESSES) <= set(HEADINGS)
