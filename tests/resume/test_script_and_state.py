"""Where a script and the state differ, it is said what is used, or refused by name."""

from __future__ import annotations

import copy
import itertools
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, TensorDataset

from deepepochs import Callback, CheckCallback, LogCallback, Optimizer, Trainer
from deepepochs.errors import CheckpointError, CheckpointMismatch, CheckpointNotFound

Make = Callable[[nn.Module], Any]


def batches(size: int = 4, num: int = 16) -> DataLoader[Any]:
    g = torch.Generator().manual_seed(1)
    return DataLoader(TensorDataset(torch.randn(num, 4, generator=g), torch.arange(num) % 3), size)


def trainer_of(opt: Make, **options: Any) -> Trainer:
    torch.manual_seed(0)
    model = nn.Linear(4, 3, bias=False)
    options = {"epochs": 1, "show_info": False, **options}
    return Trainer(model, options.pop("loss", F.cross_entropy), opt(model), **options)


def sgd(lr: float = 0.1, **options: Any) -> Make:
    return lambda model: torch.optim.SGD(model.parameters(), lr=lr, **options)


def scheduled(schedule: Callable[[Any], Any], lr: float = 0.1, on: str = "step") -> Make:
    def make(model: nn.Module) -> Optimizer:
        opt = torch.optim.SGD(model.parameters(), lr=lr)
        return Optimizer(opt, schedule(opt), sched_on=on)

    return make


def saved_by(opt: Make) -> dict[str, Any]:
    trainer = trainer_of(opt)
    trainer.fit(batches())
    return copy.deepcopy(trainer.state_dict())


def falling(rate: float) -> Callable[[int], float]:
    return lambda step: rate**step


S = lr_scheduler
DIFFERENT: dict[str, tuple[Make, Make, str]] = {
    "rate": (sgd(), sgd(0.5), r"the SGD goes on with lr=0.1 \(0.5 in the script\)"),
    "momentum": (sgd(momentum=0.9), sgd(), r"momentum=0.9 \(0 in the script\)"),
    "foreach": (sgd(), sgd(foreach=True), r"foreach=None \(True in the script\)"),
    "length": (
        scheduled(lambda o: S.CosineAnnealingLR(o, 8)),
        scheduled(lambda o: S.CosineAnnealingLR(o, 16)),
        r"the SGD's schedule goes on with T_max=8 \(16 in the script\)",
    ),
    "inner": (
        scheduled(lambda o: S.SequentialLR(o, [S.ConstantLR(o), S.StepLR(o, 3)], [2])),
        scheduled(lambda o: S.SequentialLR(o, [S.ConstantLR(o), S.StepLR(o, 5)], [2])),
        r"1\.step_size=3 \(5 in the script\)",
    ),
    "milestones": (
        scheduled(lambda o: S.MultiStepLR(o, [2, 3])),
        scheduled(lambda o: S.MultiStepLR(o, [2, 9])),
        r"milestones=\(2, 3\) \(\(2, 9\) in the script\)",
    ),
    "shorter cycle": (
        scheduled(lambda o: S.OneCycleLR(o, 0.1, total_steps=20)),
        scheduled(lambda o: S.OneCycleLR(o, 0.1, total_steps=12)),
        r"total_steps=20 \(12 in the script\)",
    ),
    "function": (
        scheduled(lambda o: S.LambdaLR(o, falling(0.5))),
        scheduled(lambda o: S.LambdaLR(o, falling(0.9))),
        r"follows the function in the script \(rate=0.9\), and was saved with .*rate=0.5",
    ),
    "moves": (
        scheduled(lambda o: S.StepLR(o, 2)),
        scheduled(lambda o: S.StepLR(o, 2), on="epoch"),
        "steps after each epoch, as the script says; in the checkpoint it stepped after each step",
    ),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_what_the_script_has_set_otherwise_is_said_in_one_warning(name: str) -> None:
    saved, here, text = DIFFERENT[name]
    state = saved_by(saved)
    with pytest.warns(UserWarning, match=text) as found:
        trainer_of(here).load_state_dict(copy.deepcopy(state))
    assert len(found) == 1
    assert found[0].filename == __file__


@pytest.mark.parametrize("name", DIFFERENT)
def test_what_is_the_same_in_the_script_is_not_mentioned_however_far_the_run_is(name: str) -> None:
    saved, _, _ = DIFFERENT[name]
    state = saved_by(saved)
    trainer_of(saved).load_state_dict(state)  # a warning would be an error


def test_a_rate_that_the_run_has_reached_by_hand_is_not_mentioned() -> None:
    first = trainer_of(sgd())
    first.load_state_dict(saved_by(sgd()))
    first.opt[0].param_groups[0]["lr"] = 0.5
    trainer_of(sgd(0.5)).load_state_dict(first.state_dict())


def test_it_is_said_at_each_resume_as_long_as_the_script_differs() -> None:
    state = saved_by(sgd())
    for _ in range(2):
        trainer = trainer_of(sgd(0.5))
        with pytest.warns(UserWarning, match="lr=0.1"):
            trainer.load_state_dict(state)
        state = copy.deepcopy(trainer.state_dict())


@pytest.mark.parametrize("form", [lambda loss: loss, lambda loss: lambda out, y: loss(out, y)])
def test_other_class_weights_are_said(form: Callable[[nn.Module], Any]) -> None:
    def trained(weights: list[float]) -> Trainer:
        loss = form(nn.CrossEntropyLoss(weight=torch.tensor(weights)))
        return trainer_of(sgd(), loss=loss, epochs=2)

    first = trained([1.0, 2.0, 3.0])
    first.fit(batches(), epochs=1)
    state = first.state_dict()
    same, other = trained([1.0, 2.0, 3.0]), trained([1.0, 1.0, 1.0])
    same.load_state_dict(state)
    with pytest.warns(UserWarning, match=r"goes on with weight=\[1.0, 2.0, 3.0\] \(\[1.0, 1.0"):
        other.load_state_dict(state)


def test_other_groups_are_said() -> None:
    def joined(model: nn.Module) -> Any:
        return torch.optim.Adam(model.parameters())

    def apart(model: Any) -> Any:
        return torch.optim.Adam([{"params": [model.weight]}, {"params": [model.bias]}])

    def trainer(opt: Make) -> Trainer:
        model = nn.Linear(4, 3)
        return Trainer(model, F.cross_entropy, opt(model), epochs=1, show_info=False)

    with pytest.warns(UserWarning, match=r"groups of \[2\] parameters \(\[1, 1\] in the script\)"):
        trainer(apart).load_state_dict(trainer(joined).state_dict())


def test_a_cycle_that_the_script_makes_longer_is_refused() -> None:
    state = saved_by(scheduled(lambda o: S.OneCycleLR(o, 0.1, total_steps=8)))
    trainer = trainer_of(scheduled(lambda o: S.OneCycleLR(o, 0.1, total_steps=16)))
    with pytest.raises(
        CheckpointMismatch, match="ends after 8 steps, and that of the script after 16"
    ):
        trainer.load_state_dict(state)
    assert not trainer.is_resumed


def variants() -> Iterator[tuple[str, Make]]:
    """The optimizers of torch, each with the options that its step depends on."""
    names = "SGD Adam AdamW Adamax NAdam RAdam Adagrad Adadelta RMSprop Rprop ASGD Adafactor Muon"
    options: dict[str, list[dict[str, Any]]] = {
        "SGD": [{"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}, {"maximize": True}],
        "Adam": [{"amsgrad": True}, {"foreach": True}, {"weight_decay": 0.1}],
        "AdamW": [{"amsgrad": True}],
        "RMSprop": [{"centered": True}, {"momentum": 0.9}],
        "Adagrad": [{"lr_decay": 0.1}],
        "NAdam": [{"decoupled_weight_decay": True}],
    }
    for name in names.split():
        if not hasattr(torch.optim, name):  # Muon is newer than the oldest torch
            continue
        for chosen in [{}, *options.get(name, [])]:
            shown = f"{name} {chosen}" if chosen else name
            yield shown, partial(_optimizer, getattr(torch.optim, name), chosen)


def _optimizer(cls: Any, options: Mapping[str, Any], model: nn.Module) -> Any:
    return cls(model.parameters(), lr=0.01, **options)


def test_every_pair_of_optimizers_is_exact_or_said_or_refused() -> None:
    found: dict[str, list[tuple[str, str]]] = {"exact": [], "said": [], "refused": []}
    made = dict(variants())
    states = {name: saved_by(opt) for name, opt in made.items()}
    weights = {}
    for name, state in states.items():
        trainer = trainer_of(made[name], epochs=2)
        trainer.load_state_dict(copy.deepcopy(state))
        trainer.fit(batches())
        weights[name] = trainer.model.weight
    for saved, here in itertools.product(states, repeat=2):
        trainer = trainer_of(made[here], epochs=2)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            try:
                trainer.load_state_dict(copy.deepcopy(states[saved]))
            except CheckpointError:
                found["refused"].append((saved, here))
                continue
            trainer.fit(batches())
        assert torch.equal(trainer.model.weight, weights[saved]), (saved, here)
        found["said" if told else "exact"].append((saved, here))
    assert found["exact"] == [(name, name) for name in states]
    assert len(found["said"]) > 20
    assert len(found["refused"]) > 300


def fit_to(folder: Path, stop: bool, **options: Any) -> Trainer:
    """A run of two epochs, the first of which is run if it is to stop."""
    fit = options.pop("fit", {})
    callbacks = [CheckCallback(options.pop("monitor", "loss"), "train", ckpt_dir=folder)]
    callbacks += options.pop("callbacks", [])
    names = {"running_id": "r", "resume": False if stop else "auto", "callbacks": callbacks}
    trainer = trainer_of(sgd(), epochs=1 if stop else 2, **names, **options)
    trainer.fit(**{"train_dl": batches(), "val_dl": batches(), **fit})
    return trainer


@pytest.mark.parametrize(
    ("saved", "here", "text"),
    [
        ({}, {"fit": {"val_freq": 2}}, r"val_freq is 2 \(1 in the checkpoint\)"),
        ({}, {"precision": "bf16"}, r"precision is bf16 \(no in the checkpoint\)"),
        ({}, {"fit": {"train_dl": batches(8)}}, r"train/0 is 2 mini-batches of 8 .*\(4 .* of 4 by"),
        ({}, {"loss": nn.MultiMarginLoss()}, r"loss is MultiMarginLoss \(cross_entropy in"),
        (
            {"loss": partial(F.cross_entropy, label_smoothing=0.1)},
            {"loss": partial(F.cross_entropy, label_smoothing=0.2)},
            r"loss is cross_entropy\(label_smoothing=0.2\) \(cross_entropy\(label_smoothing=0.1\)",
        ),
    ],
)
def test_a_fit_that_is_called_otherwise_is_said(
    saved: dict[str, Any], here: dict[str, Any], text: str, tmp_path: Path
) -> None:
    fit_to(tmp_path, stop=True, **saved)
    with pytest.warns(UserWarning, match=text):
        fit_to(tmp_path, stop=False, **here)
    # The run is now one of the new script.
    fit_to(tmp_path, stop=False, **here)


class Count(Callback):
    def __init__(self, name: str = "", step: int = 1) -> None:
        super().__init__()
        self.name = name
        self.step = step
        self.num = 0

    def on_after_train_batch(self, **others: Any) -> None:
        self.num += self.step

    def state_dict(self) -> dict[str, Any]:
        return {"num": self.num}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.num = state["num"]


class Other(Count):
    pass


def numbers(folder: Path, saved: list[Callback], here: list[Any]) -> list[int]:
    fit_to(folder, stop=True, callbacks=saved)
    fit_to(folder, stop=False, callbacks=here)
    return [callback.num for callback in here]


def test_callbacks_are_found_again_in_any_order(tmp_path: Path) -> None:
    saved = [Count("a"), Other(), Count("b", 10)]
    assert numbers(tmp_path, [*saved], [Count("b", 10), Other(), Count("a")]) == [80, 8, 8]


def test_a_callback_that_is_new_begins_at_its_beginning(tmp_path: Path) -> None:
    assert numbers(tmp_path, [Count("b", 10)], [Count("a"), Count("b", 10)]) == [4, 80]


def test_a_callback_that_is_left_out_is_said_and_the_others_are_right(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"the state of Count\(name='a', step=1\) is left out"):
        assert numbers(tmp_path, [Count("a"), Count("b", 10)], [Count("b", 10)]) == [80]


def test_a_callback_that_may_be_another_one_is_said(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"of Count\(name='a'\) goes to Count\(name='b'\)"):
        assert numbers(tmp_path, [Count("a")], [Count("b")]) == [8]


def test_a_callback_with_another_number_is_the_same_one(tmp_path: Path) -> None:
    assert numbers(tmp_path, [Count("a")], [Count("a", 10)]) == [44]


def test_another_monitor_is_said_once(tmp_path: Path) -> None:
    log = LogCallback(tmp_path)
    fit_to(tmp_path, stop=True, callbacks=[log])
    with pytest.warns(UserWarning) as found:
        fit_to(tmp_path, stop=False, monitor="accuracy", metrics=[accuracy])
    texts = [str(each.message) for each in found]
    [text] = [text for text in texts if "CheckCallback" in text]
    assert "monitors train 'accuracy'. The best value is reset" in text
    assert any("the state of a LogCallback is left out" in text for text in texts)


def accuracy(model_out: Any, targets: Any) -> Any:
    return (model_out.argmax(1) == targets).float().mean()


@pytest.mark.parametrize("form", ["file", "folder", "slash", "path", "path of a file", "id"])
def test_every_form_of_resume_finds_the_run(form: str, tmp_path: Path) -> None:
    folder = fit_to(tmp_path, stop=True).run_dir
    forms: dict[str, Any] = {
        "file": str(folder / "checkpoint.ckpt"),
        "folder": str(folder),
        "slash": f"{folder}/",
        "path": folder,
        "path of a file": folder / "best.ckpt",
        "id": "r",
    }
    check = CheckCallback("loss", "train", ckpt_dir=tmp_path)
    trainer = trainer_of(sgd(), epochs=2, resume=forms[form], callbacks=check)
    history = trainer.fit(batches(), batches())
    assert len(history["train"]["loss"]) == 2


def test_a_path_that_is_missing_says_what_there_is(tmp_path: Path) -> None:
    folder = fit_to(tmp_path, stop=True).run_dir
    check = CheckCallback("loss", "train", ckpt_dir=tmp_path)
    trainer = trainer_of(sgd(), resume=folder.with_name("other"), callbacks=check)
    with pytest.raises(CheckpointNotFound, match=f"in {tmp_path} there is r"):
        trainer.fit(batches(), batches())
