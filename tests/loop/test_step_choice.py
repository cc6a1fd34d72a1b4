"""Which step runs, what it is given, which verbs it reaches, and what is checked about it."""

from __future__ import annotations

import itertools
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from deepepochs import EpochTask, MeanPatch, Optimizers, Trainer, TrainerBase, ValuePatch
from deepepochs.errors import ConfigError, MetricError, StepError
from deepepochs.stages import Stage
from deepepochs.steps import Steps, resolve_step

STEPS = ("step", "train_step", "val_step", "test_step", "evaluate_step")
SUBSETS = [names for size in range(len(STEPS) + 1) for names in itertools.combinations(STEPS, size)]

# The owner-first rule, written out: for each stage, who is asked in which order.
TABLE = {
    "train": ["task.step", "task.train_step", "trainer.step", "trainer.train_step"],
    "val": [
        "task.step", "task.val_step", "task.evaluate_step",
        "trainer.step", "trainer.val_step", "trainer.evaluate_step",
    ],
    "test": [
        "task.step", "task.test_step", "task.evaluate_step",
        "trainer.step", "trainer.test_step", "trainer.evaluate_step",
    ],
}  # fmt: skip


def expected(stage: str, on_task: tuple[str, ...], on_trainer: tuple[str, ...]) -> str:
    defined = {f"task.{name}" for name in on_task} | {f"trainer.{name}" for name in on_trainer}
    return next((name for name in TABLE[stage] if name in defined), "default")


def noting_step(owner: str, name: str, calls: list[str]) -> Any:
    def step(self: Any, batch_x: Any, batch_y: Any, **step_args: Any) -> None:
        calls.append(f"{owner}.{name}")
        self.loss(self.model(*batch_x), batch_y)

    step.__name__ = name
    return step


def class_with(owner: str, base: type, names: tuple[str, ...], calls: list[str]) -> Any:
    return type(f"My{base.__name__}", (base,), {n: noting_step(owner, n, calls) for n in names})


def data(num: int = 4, size: int = 4) -> DataLoader[Any]:
    inputs = torch.arange(num * 3.0).reshape(num, 3) / 10
    return DataLoader(TensorDataset(inputs, inputs.sum(1, keepdim=True)), batch_size=size)


def trainer_of(cls: Any = Trainer, **options: Any) -> Any:
    options = {"loss": nn.MSELoss(), "epochs": 1, "show_info": False, **options}
    return cls(nn.Linear(3, 1), **options)


@pytest.mark.parametrize("on_task", SUBSETS, ids="+".join)
def test_the_step_is_the_one_of_the_owner_first_table(on_task: tuple[str, ...]) -> None:
    calls: list[str] = []
    task = class_with("task", EpochTask, on_task, calls)(data())
    for on_trainer in SUBSETS:
        trainer_class = class_with("trainer", TrainerBase, on_trainer, calls)
        trainer = object.__new__(trainer_class)
        for stage in Stage.TRAIN, Stage.VAL, Stage.TEST:
            owner, _, name = expected(stage.value, on_task, on_trainer).partition(".")
            step: Any = resolve_step(task, trainer, stage)
            if owner == "default":
                owner, name = "task", f"{stage.value}_step"
                assert step.__func__ is getattr(Steps, name)
            assert step.__self__ is (task if owner == "task" else trainer), on_trainer
            assert step.__name__ == name, on_trainer


@pytest.mark.parametrize("on_trainer", [(), STEPS, ("evaluate_step", "train_step")], ids="+".join)
def test_the_step_of_the_table_is_the_one_that_runs(on_trainer: tuple[str, ...]) -> None:
    loader = data(1, 1)
    calls: list[str] = []
    trainer_class = class_with("trainer", TrainerBase, on_trainer, calls)
    for on_task in SUBSETS:
        task_class = class_with("task", EpochTask, on_task, calls)
        trainer = trainer_of(trainer_class)
        calls.clear()
        trainer.fit(train_tasks=task_class(loader), val_tasks=task_class(loader))
        trainer.test(tasks=task_class(loader))
        wanted = [expected(stage, on_task, on_trainer) for stage in ("train", "val", "test")]
        assert calls == [name for name in wanted if name != "default"], on_task


def test_the_default_step_calls_the_model_with_a_tuple_or_with_keywords() -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, one: torch.Tensor, two: torch.Tensor) -> torch.Tensor:
            return self.scale * (one + two).mean()

    pairs = [(torch.ones(2), torch.zeros(2))]
    dicts = [{"two": torch.ones(2), "one": torch.zeros(2)}]
    for loader in (pairs, dicts):
        history = Trainer(Sum(), epochs=1, show_info=False).fit(loader)
        assert history["train"]["loss"] == [1.0]


def test_a_step_inherited_from_a_base_task_counts_as_defined() -> None:
    calls: list[str] = []

    class Base(EpochTask):
        train_step = noting_step("base", "train_step", calls)

    class Derived(Base):
        pass

    trainer_of().fit(train_tasks=Derived(data()))
    assert calls == ["base.train_step"]


def test_batch_x_is_a_tuple_and_batch_y_the_last_element() -> None:
    seen: list[Any] = []

    class Look(EpochTask):
        def step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> None:
            seen.append((type(batch_x).__mro__, len(batch_x), batch_y.shape))
            self.loss(self.model(*batch_x), batch_y)

    trainer_of().fit(train_tasks=Look(data()))
    assert seen[0][1:] == (1, (4, 1)) and tuple in seen[0][0]


def test_step_args_reach_every_step_however_they_are_given() -> None:
    seen: list[Any] = []

    class Args(EpochTask):
        def train_step(self, batch_x: Any, batch_y: Any, scale: float, **others: Any) -> None:
            seen.append((scale, others))
            self.loss(self.model(*batch_x) * scale, batch_y)

        evaluate_step = train_step

    loader, trainer = data(), trainer_of()
    trainer.fit(
        train_tasks=Args(loader, scale=2.0, more=1),
        val_tasks=Args(loader, step_args={"scale": 3.0}),
    )
    trainer.test(tasks=Args(loader, step_args={"scale": 4.0}, more=2))
    assert seen == [(2.0, {"more": 1}), (3.0, {}), (4.0, {"more": 2})]


def test_super_train_step_is_the_default_at_trainer_and_task() -> None:
    def weights(task_class: Any, trainer_class: Any) -> list[float]:
        torch.manual_seed(0)
        trainer = trainer_of(trainer_class)
        trainer.opt = Optimizers([torch.optim.SGD(trainer.model.parameters(), lr=0.1)])
        trainer.fit(train_tasks=task_class(data()), val_tasks=task_class(data()))
        return [v for p in trainer.model.parameters() for v in p.flatten().tolist()]

    class Task(EpochTask):
        def train_step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> Any:
            return super().train_step((batch_x[0] * 2,), batch_y, **step_args)

        def evaluate_step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> Any:
            return super().evaluate_step(batch_x, batch_y, **step_args)

    class MyTrainer(TrainerBase):
        def train_step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> Any:
            return super().train_step((batch_x[0] * 2,), batch_y, **step_args)

        def evaluate_step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> Any:
            return super().evaluate_step(batch_x, batch_y, **step_args)

    assert weights(Task, Trainer) == weights(EpochTask, MyTrainer)
    assert weights(Task, Trainer) != weights(EpochTask, Trainer)


# The verbs. Each is overridden at the trainer or at the task, with a step of neither, the
# trainer or the task: the override must be reached wherever the step is defined.

VERB_NAMES = ("loss", "backward", "optimize", "do_metric", "call_model")


def overriding(base: type, verbs: tuple[str, ...], calls: list[str], owner: str) -> Any:
    def make(verb: str) -> Any:
        def method(self: Any, *args: Any, **options: Any) -> Any:
            calls.append(f"{owner}.{verb}")
            return getattr(super(cls, self), verb)(*args, **options)

        method.__name__ = verb
        return method

    cls: Any = type(f"My{base.__name__}", (base,), {verb: make(verb) for verb in verbs})
    return cls


@pytest.mark.parametrize("step_at", ["nowhere", "task"])
@pytest.mark.parametrize("override_at", ["task", "trainer"])
def test_an_overridden_verb_is_used_by_the_default_step_and_by_a_step_of_the_task(
    override_at: str, step_at: str
) -> None:
    calls: list[str] = []
    task_class: Any = EpochTask
    trainer_class: Any = Trainer
    if override_at == "task":
        task_class = overriding(EpochTask, VERB_NAMES, calls, "task")
    else:
        trainer_class = overriding(TrainerBase, VERB_NAMES, calls, "trainer")
    if step_at == "task":

        class Stepping(task_class):  # type: ignore[misc]
            def step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> None:
                self.loss(self.call_model(batch_x), batch_y)

        task_class = Stepping
    trainer_of(trainer_class).fit(train_tasks=task_class(data()))
    order = ["call_model", "loss", "backward", "optimize", "do_metric"]
    assert calls == [f"{override_at}.{verb}" for verb in order]


def test_an_overridden_verb_of_the_trainer_is_used_by_a_step_of_the_trainer() -> None:
    calls: list[str] = []

    class Stepping(overriding(TrainerBase, VERB_NAMES, calls, "trainer")):  # type: ignore[misc]
        def step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> None:
            self.loss(self.call_model(batch_x), batch_y)

    trainer_of(Stepping).fit(data())
    assert calls == [
        f"trainer.{verb}" for verb in ("call_model", "loss", "backward", "optimize", "do_metric")
    ]


def test_the_verb_of_the_task_beats_that_of_the_trainer() -> None:
    calls: list[str] = []
    trainer_class = overriding(TrainerBase, ("loss", "backward"), calls, "trainer")
    task_class = overriding(EpochTask, ("loss",), calls, "task")
    trainer_of(trainer_class).fit(train_tasks=task_class(data()))
    assert calls == ["task.loss", "trainer.backward"]


def test_a_loss_overridden_at_the_task_changes_what_is_learnt() -> None:
    class Halved(EpochTask):
        def loss(self, model_out: Any, batch_y: Any, **options: Any) -> Any:
            return super().loss(model_out, batch_y, **{**options, "loss_adjust": 0.5})

    def bias(task_class: Any) -> float:
        torch.manual_seed(0)
        model = nn.Linear(3, 1)
        opt = torch.optim.SGD(model.parameters(), 0.1)
        before = model.bias.item()
        trainer = Trainer(model, nn.MSELoss(), opt, epochs=1, show_info=False)
        trainer.fit(train_tasks=task_class(data()))
        return model.bias.item() - before

    assert bias(Halved) == pytest.approx(bias(EpochTask) / 2)


def test_an_overridden_verb_of_a_task_that_the_step_of_the_trainer_cannot_reach_is_told() -> None:
    class MyTrainer(TrainerBase):
        def step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> None:
            self.loss(self.model(*batch_x), batch_y)

    class MyTask(EpochTask):
        def loss(self, model_out: Any, batch_y: Any, **options: Any) -> Any:
            return super().loss(model_out, batch_y, **options)

    text = r"MyTask\.loss is not used.*MyTrainer\.step"
    with pytest.warns(UserWarning, match=text):
        trainer_of(MyTrainer).fit(train_tasks=MyTask(data()))


# What is checked.


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("training_step", "train_step"),
        ("validation_step", "val_step"),
        ("trainstep", "train_step"),
        ("evalute_step", "evaluate_step"),
        ("eval_step", "evaluate_step"),
        ("test_steps", "test_step"),
    ],
)
@pytest.mark.parametrize("base", [EpochTask, TrainerBase])
def test_a_misspelt_step_warns_with_the_right_name(base: type, wrong: str, right: str) -> None:
    with pytest.warns(UserWarning, match=rf"Mine\.{wrong} is never called.*'{right}'"):
        type("Mine", (base,), {wrong: lambda self, batch_x, batch_y: None})


def test_other_methods_and_right_names_do_not_warn() -> None:
    names = (*STEPS, "prepare", "stage_two", "sample", "next_stop", "tests", "_train_stepp")
    type("Mine", (EpochTask,), {name: lambda self, *args, **kwargs: None for name in names})


def test_a_tuple_that_a_step_gives_to_the_model_is_told_with_its_shape() -> None:
    class Wrong(EpochTask):
        def step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> None:
            self.loss(self.model(batch_x), batch_y)

    with pytest.raises(TypeError) as caught:
        trainer_of().fit(train_tasks=Wrong(data()))
    problem, remedy, *_ = str(caught.value).splitlines()
    assert problem.startswith("batch_x is always a tuple") and "(float32 [4, 3],)" in problem
    assert remedy == "Call self.model(*batch_x)."


def test_the_note_is_not_put_on_an_error_of_the_library_itself() -> None:
    with pytest.raises(StepError) as caught:
        trainer_of(loss=nn.MSELoss(reduction="none")).fit(data())
    assert not getattr(caught.value, "__notes__", [])


def test_a_training_step_without_backward_warns_once_and_names_the_step() -> None:
    class Lazy(EpochTask):
        def train_step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> None:
            self.model(*batch_x)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        trainer_of(epochs=3).fit(train_tasks=Lazy(data(12)))
    texts = [str(warning.message) for warning in caught]
    assert len(texts) == 1
    assert "Lazy.train_step returned without a backward pass" in texts[0]


def test_a_validation_step_without_backward_is_right() -> None:
    class Quiet(EpochTask):
        def val_step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> None:
            self.do_metric(self.loss_fn(self.model(*batch_x), batch_y))

    trainer_of().fit(data(), val_tasks=Quiet(data()))


@pytest.mark.parametrize("how", ["loss twice", "metric twice", "loss then do_metric"])
def test_recording_twice_in_a_mini_batch_raises_and_names_the_step(how: str) -> None:
    def error(preds: Any, targets: Any) -> Any:
        return (preds - targets).abs().mean()

    class Twice(EpochTask):
        def step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> None:
            model_out = self.model(*batch_x)
            if how == "loss twice":
                self.loss(model_out, batch_y, do_optimize=False)
                self.loss(self.model(*batch_x), batch_y)
            elif how == "metric twice":
                self.do_metric(None, model_out, batch_y)
                self.do_metric(None, model_out, batch_y)
            else:
                self.do_metric(self.loss(model_out, batch_y), model_out, batch_y)

    with pytest.raises(MetricError, match=r"Twice\.step recorded .*twice.*do_metric=False"):
        trainer_of(metrics=error).fit(train_tasks=Twice(data()))


def test_a_second_mini_batch_may_record_again() -> None:
    trainer_of().fit(data(8))


@pytest.mark.parametrize(
    ("loss", "shown"),
    [
        (nn.MSELoss(reduction="none"), r"\[4, 1\]"),
        (lambda out, y: (out - y).flatten(), r"\[4\]"),
        (lambda out, y: 0.5, "a float"),
        (lambda out, y: None, "None"),
    ],
    ids=["matrix", "vector", "float", "None"],
)
def test_a_loss_that_is_no_scalar_raises_with_its_shape(loss: Any, shown: str) -> None:
    with pytest.raises(StepError, match=shown):
        trainer_of(loss=loss).fit(data())


def test_a_loss_that_is_no_scalar_raises_in_a_test_too() -> None:
    trainer = trainer_of(loss=lambda out, y: (out - y).flatten())
    with pytest.raises(StepError, match=r"\[4\]"):
        trainer.test(data())


@pytest.mark.parametrize(
    ("returned", "shown"),
    [
        (0.91, r"returned a float.*None or a dict of patches and numbers.*TensorPatch"),
        ([1], r"returned a list"),
        (
            {"acc": "0.91"},
            r"'acc': '0\.91'}: values must be patches, numbers or 0-d tensors, and '0\.91' is a str",
        ),
        (
            {"acc": torch.zeros(3)},
            r"'acc': \.\.\.}: values must be patches, numbers or 0-d tensors, and this is a tensor "
            r"\[3\]\. Take its mean, or wrap it, .*ValuePatch\(batch_size\)\.load",
        ),
    ],
    ids=["float", "list", "dict of texts", "dict of tensors"],
)
@pytest.mark.parametrize("stage", ["train", "val", "test"])
def test_a_wrong_return_raises_and_shows_the_fix(stage: str, returned: Any, shown: str) -> None:
    class MyTask(EpochTask):
        def step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> Any:
            self.loss(self.model(*batch_x), batch_y)
            return returned

    trainer = trainer_of()
    with pytest.raises(StepError, match=rf"(?s)MyTask\.step {shown}|MyTask\.step.*{shown}"):
        if stage == "train":
            trainer.fit(train_tasks=MyTask(data()))
        elif stage == "val":
            trainer.fit(data(), val_tasks=MyTask(data()))
        else:
            trainer.test(tasks=MyTask(data()))


def test_what_a_step_returns_is_added_to_loss_and_metrics_and_wins_over_them() -> None:
    def error(preds: Any, targets: Any) -> Any:
        return (preds - targets).abs().mean()

    class Returns(EpochTask):
        def step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> Any:
            model_out = self.model(*batch_x)
            self.loss(model_out, batch_y)
            return {
                "error": ValuePatch(len(batch_y)).load(42.0),
                "loss": ValuePatch(len(batch_y)).load(7.0),
                "own": MeanPatch(error, len(batch_y)).load(model_out, batch_y),
                "key": ValuePatch(len(batch_y), name="named").load(1.0),
            }

    result = trainer_of(metrics=error).test(tasks=Returns(data(8)))
    assert list(result) == ["loss", "error", "own", "named"]
    assert (result["error"], result["loss"], result["named"]) == (42.0, 7.0, 1.0)
    assert np.isfinite(result["own"]) and result["own"] != 42.0


@pytest.mark.parametrize(
    "step",
    [
        lambda self, batch_x: None,
        lambda self: None,
        lambda self, batch_x, batch_y, scale: None,
        lambda self, batch_x, batch_y, more, **step_args: None,
    ],
    ids=["one argument", "none", "a missing one", "a missing one beside others"],
)
def test_a_step_that_cannot_be_called_raises_before_the_first_mini_batch(step: Any) -> None:
    step.__name__ = "train_step"
    step.__qualname__ = "Mine.train_step"
    mine: Any = type("Mine", (EpochTask,), {"train_step": step})
    with pytest.raises(ConfigError, match=r"Mine\.train_step.*batch_x, batch_y"):
        trainer_of().fit(train_tasks=mine(data()))


def test_step_args_that_the_step_does_not_take_raise_before_the_first_mini_batch() -> None:
    class Strict(EpochTask):
        def step(self, batch_x: Any, batch_y: Any) -> None:
            self.loss(self.model(*batch_x), batch_y)

    with pytest.raises(ConfigError, match="temperature"):
        trainer_of().fit(train_tasks=Strict(data(), temperature=2.0))


def test_verbs_outside_a_pass_raise_a_sentence() -> None:
    trainer = trainer_of()
    with pytest.raises(Exception, match=r"inside a step|fit\(\) or test\(\)"):
        trainer.loss(torch.zeros(1), torch.zeros(1))


def test_an_unbound_task_says_what_to_do_and_a_typo_is_an_attribute_error() -> None:
    task = EpochTask(data())
    for name in ("model", "loss_fn", "opt", "device", "accelerator", "trainer", "stage"):
        with pytest.raises(RuntimeError, match=r"fit\(\) or test\(\)"):
            getattr(task, name)
    with pytest.raises(AttributeError, match="modle"):
        task.modle  # noqa: B018
    trainer_of(loss=F.mse_loss).test(tasks=task)
    with pytest.raises(AttributeError, match="modle"):
        task.modle  # noqa: B018
