"""The best weights of a run: a test borrows them, `load_best` takes them, no other run gets them."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from deepepochs import (
    Callback,
    CallbackException,
    CheckCallback,
    CheckpointDamaged,
    CheckpointNotFound,
    ConfigError,
    Optimizer,
    Trainer,
    ValuePatch,
)
from deepepochs.checkpoint import load

generator = torch.Generator().manual_seed(4)
LOADER = [
    (torch.randn(8, 4, generator=generator), torch.randint(3, (8,), generator=generator))
    for _ in range(3)
]
INPUTS = [(x,) for x, _ in LOADER]


class Scripted(Trainer):
    """Its validation has a value `cost` for each epoch, from a list, and another one, `other`."""

    costs: tuple[float, ...] = ()

    def val_step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> Any:
        super().val_step(batch_x, batch_y)
        cost = self.costs[self.init_epoch]
        return {"cost": ValuePatch(1).load(cost), "other": ValuePatch(1).load(-cost)}


class InTest(Callback):
    """Copies the weights that a test uses."""

    def __init__(self) -> None:
        super().__init__()
        self.weights: dict[str, torch.Tensor] = {}

    def on_before_test_batch(self, trainer: Any, **others: Any) -> None:
        self.weights = weights_of(trainer)


def weights_of(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def same(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def make(
    folder: Path, *costs: float, epochs: int | None = None, callbacks: Any = (), **options: Any
) -> Scripted:
    check = options.pop("check", {})
    seed = options.pop("seed", 0)
    check = CheckCallback(
        **{"monitor": "cost", "mode": "min", "ckpt_dir": folder, **check}  # type: ignore[arg-type]
    )
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.3), nn.Linear(6, 3)
    )
    opt = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    scheduled = Optimizer(opt, torch.optim.lr_scheduler.StepLR(opt, 1, 0.5))
    trainer = Scripted(
        model, options.pop("loss", F.cross_entropy), scheduled, epochs or len(costs), "cpu",
        callbacks=[check, *callbacks], **{"running_id": "r", "show_info": False, **options},
    )  # fmt: skip
    trainer.costs = costs
    return trainer


def warned(action: Callable[[], Any]) -> tuple[Any, list[str]]:
    """What a function gives, and the texts of its warnings."""
    with warnings.catch_warnings(record=True) as met:
        warnings.simplefilter("always")
        return action(), [str(warning.message) for warning in met]


def best_of(folder: Path) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = load(folder / "best.ckpt")["model"]
    return weights


# --- a test


def test_a_test_uses_the_best_weights_and_puts_back_those_that_it_found(tmp_path: Path) -> None:
    tested = InTest()
    trainer = make(tmp_path, 1.0, 2.0, 3.0, callbacks=[tested])
    trainer.fit(LOADER, LOADER)
    last = weights_of(trainer)
    trainer.test(LOADER)
    assert same(tested.weights, best_of(trainer.run_dir))
    assert same(weights_of(trainer), last)
    assert not same(tested.weights, last)  # a control


def test_one_line_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = make(tmp_path, 1.0, 2.0)
    trainer.fit(LOADER, LOADER)
    capsys.readouterr()
    trainer.test(LOADER)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "loading best model from running ID r (val cost 1)" and len(lines) == 2


@pytest.mark.parametrize("tests", [0, 1, 2])
def test_tests_between_two_fits_change_no_bit_of_the_second(tests: int, tmp_path: Path) -> None:
    def second(folder: str, num_tests: int) -> Any:
        trainer = make(tmp_path / folder, 1.0, 2.0, 3.0, 4.0, epochs=2)
        trainer.fit(LOADER, LOADER)
        for _ in range(num_tests):
            trainer.test(LOADER)
        torch.manual_seed(1)
        trainer.fit(LOADER, LOADER, epochs=2)
        return weights_of(trainer), trainer.opt.get_current_lr()

    (plain, rates), (found, found_rates) = second("a", 0), second("b", tests)
    assert same(plain, found) and rates == found_rates


def test_a_test_that_fails_puts_the_weights_back(tmp_path: Path) -> None:
    class Fails(Callback):
        def on_after_test_batch(self, **others: Any) -> None:
            raise ZeroDivisionError

    trainer = make(tmp_path, 1.0, 2.0, callbacks=[Fails()])
    trainer.fit(LOADER, LOADER)
    last = weights_of(trainer)
    with pytest.raises(ZeroDivisionError):
        trainer.test(LOADER)
    assert same(weights_of(trainer), last)


def test_the_momentum_of_the_optimizer_is_not_touched(tmp_path: Path) -> None:
    trainer = make(tmp_path, 1.0, 2.0)
    trainer.fit(LOADER, LOADER)
    buffers = [state["momentum_buffer"] for state in trainer.opt[0].opt.state.values()]
    before = [(buffer, buffer.clone()) for buffer in buffers]
    trainer.test(LOADER)
    after = [state["momentum_buffer"] for state in trainer.opt[0].opt.state.values()]
    for (buffer, value), now in zip(before, after, strict=True):
        assert buffer is now and torch.equal(value, now)


def test_a_test_in_a_hook_of_a_fit_uses_the_present_weights(tmp_path: Path) -> None:
    tested = InTest()

    class TestsInside(Callback):
        def on_after_epoch(self, trainer: Any, epoch_idx: int, **others: Any) -> None:
            if epoch_idx == 2:
                trainer.test(LOADER)
                assert same(tested.weights, weights_of(trainer))

    trainer = make(tmp_path, 1.0, 2.0, 3.0, callbacks=[tested, TestsInside()])
    trainer.fit(LOADER, LOADER)
    assert tested.weights and not same(tested.weights, best_of(trainer.run_dir))


def test_weights_that_a_user_has_loaded_are_the_ones_that_are_tested(tmp_path: Path) -> None:
    tested = InTest()
    trainer = make(tmp_path, 1.0, 2.0, 3.0, epochs=2, callbacks=[tested])
    trainer.fit(LOADER, LOADER)
    given = {name: value + 1 for name, value in weights_of(trainer).items()}
    trainer.load_weights(given)
    trainer.test(LOADER)
    assert same(tested.weights, given)
    trainer.fit(LOADER, LOADER, epochs=1)  # from here on the best of the run again
    trainer.test(LOADER)
    assert same(tested.weights, best_of(trainer.run_dir))


def test_a_callback_that_swaps_weights_in_a_test_has_its_own(tmp_path: Path) -> None:
    class Average(Callback):
        """Tests with zeros, as a moving average would with its own weights."""

        def on_before_test_epochs(self, trainer: Any, **others: Any) -> None:
            self.own = weights_of(trainer)
            with torch.no_grad():
                for weight in trainer.model.parameters():
                    weight.zero_()

        def on_after_test_epochs(self, trainer: Any, **others: Any) -> None:
            trainer.model.load_state_dict(self.own)

    tested = InTest()
    trainer = make(tmp_path, 1.0, 2.0, callbacks=[Average(), tested])
    trainer.fit(LOADER, LOADER)
    last = weights_of(trainer)
    trainer.test(LOADER)
    assert not any(tested.weights[name].any() for name, _ in trainer.model.named_parameters())
    assert same(weights_of(trainer), last)


def test_tied_weights_stay_tied(tmp_path: Path) -> None:
    trainer = make(tmp_path, 1.0, 2.0)
    torch.manual_seed(0)
    first = nn.Linear(4, 4)
    second = nn.Linear(4, 4)
    second.weight = first.weight
    model = nn.Sequential(first, nn.ReLU(), second)
    trainer = Scripted(
        model, F.cross_entropy, torch.optim.SGD(model.parameters(), 0.1), 2, running_id="t",
        callbacks=CheckCallback("cost", mode="min", ckpt_dir=tmp_path), show_info=False,
    )  # fmt: skip
    trainer.costs = (1.0, 2.0)
    trainer.fit(LOADER, LOADER)
    trainer.test(LOADER)
    trainer.load_best()
    assert second.weight is first.weight
    assert torch.equal(first.weight, best_of(trainer.run_dir)["0.weight"])


def test_the_learned_weights_of_a_loss_are_part_of_the_best(tmp_path: Path) -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, model_out: Any, targets: Any) -> Any:
            return F.cross_entropy(model_out * self.scale, targets)

    loss = Scaled()
    trainer = make(tmp_path, 1.0, 2.0, loss=loss)
    trainer.opt[0].opt.add_param_group({"params": [loss.scale]})
    trainer.fit(LOADER, LOADER)
    last = loss.scale.item()
    trainer.test(LOADER)
    assert loss.scale.item() == last
    trainer.load_best()
    assert loss.scale.item() == load(trainer.run_dir / "best.ckpt")["loss_fn"]["scale"].item()
    assert loss.scale.item() != last


# --- the file


def test_a_best_file_that_is_gone_is_told_and_the_present_weights_are_tested(
    tmp_path: Path,
) -> None:
    tested = InTest()
    trainer = make(tmp_path, 1.0, 2.0, callbacks=[tested])
    trainer.fit(LOADER, LOADER)
    (trainer.run_dir / "best.ckpt").unlink()
    with pytest.warns(
        UserWarning, match=r"weights that the trainer has now.*best\.ckpt.*not there"
    ):
        trainer.test(LOADER)
    assert same(tested.weights, weights_of(trainer))
    with pytest.raises(CheckpointNotFound, match="not there any more"):
        trainer.load_best()


def test_a_damaged_best_file_is_an_error_and_changes_nothing(tmp_path: Path) -> None:
    trainer = make(tmp_path, 1.0, 2.0)
    trainer.fit(LOADER, LOADER)
    last = weights_of(trainer)
    path = trainer.run_dir / "best.ckpt"
    path.write_bytes(path.read_bytes()[:-100])
    for wrong in (trainer.test, trainer.predict):
        with pytest.raises(CheckpointDamaged, match=r"best\.ckpt"):
            wrong(LOADER) if wrong == trainer.test else wrong(INPUTS, best=True)
    assert same(weights_of(trainer), last) and trainer.session is None


# --- load_best and predict(best=True)


def test_load_best_takes_the_best_weights_for_good(tmp_path: Path) -> None:
    trainer = make(tmp_path, 1.0, 2.0, check={"save_best": False})
    trainer.fit(LOADER, LOADER)
    rates = trainer.opt.get_current_lr()
    assert trainer.load_best() is trainer
    assert same(weights_of(trainer), best_of(trainer.run_dir))
    assert trainer.opt.get_current_lr() == rates


def test_predict_uses_the_best_weights_where_asked(tmp_path: Path) -> None:
    trainer = make(tmp_path, 1.0, 2.0)
    trainer.fit(LOADER, LOADER)
    last = weights_of(trainer)
    present, best = trainer.predict(INPUTS), trainer.predict(INPUTS, best=True)
    assert same(weights_of(trainer), last)
    assert not torch.equal(present, best)
    assert torch.equal(trainer.load_best().predict(INPUTS), best)


@pytest.mark.parametrize("order", [-5, 5])
def test_in_a_hook_after_the_check_the_best_may_be_the_present_weights(
    order: int, tmp_path: Path
) -> None:
    class Ask(Callback):
        def __init__(self) -> None:
            super().__init__()
            self.order = order
            self.got: list[bool] = []

        def on_after_epoch(self, trainer: Any, epoch_idx: int, **others: Any) -> None:
            if epoch_idx:
                present = trainer.predict(INPUTS, with_targets=False)
                best = trainer.predict(INPUTS, with_targets=False, best=True)
                self.got.append(torch.equal(present, best))
                before = weights_of(trainer)
                trainer.load_best()
                assert same(before, weights_of(trainer)) is self.got[-1]

    ask = Ask()
    trainer = make(tmp_path, 0.5, 0.4, 0.6, callbacks=[ask])
    trainer.fit(LOADER, LOADER)
    # An outer callback comes after the check, an inner one before it.
    assert ask.got == ([True, False] if order < 0 else [False, False])


@pytest.mark.parametrize("mode", ["max", None])
def test_a_mode_that_nothing_tells_is_that_of_the_resumed_run(
    mode: str | None, tmp_path: Path
) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        first = make(tmp_path, 0.5, 0.9, check={"mode": mode}, running_id="a")
        first.fit(LOADER, LOADER)
    assert len(caught) == (mode is None)  # it asks for the mode
    check = {"mode": None}
    again = make(tmp_path, 0.5, 0.9, 0.7, check=check, running_id="a", resume="auto")
    again.fit(LOADER, LOADER)  # without a warning
    assert again.checker.best_values == ([0.9] if mode == "max" else [0.5])


def test_without_best_weights_they_cannot_be_loaded(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="without a CheckCallback"):
        Trainer(nn.Linear(4, 3)).load_best()
    with pytest.raises(CheckpointNotFound, match="no best state yet"):
        make(tmp_path, 1.0).load_best()
    with pytest.raises(CheckpointNotFound, match="no best state yet"):
        make(tmp_path, 1.0).predict(INPUTS, best=True)


def test_the_best_of_an_earlier_run_of_the_id_is_not_taken(tmp_path: Path) -> None:
    make(tmp_path, 1.0).fit(LOADER, LOADER)
    other = make(tmp_path, 1.0, seed=1)
    with pytest.raises(CheckpointNotFound, match="no best state yet"):
        other.load_best()


# --- other runs, other metrics


def test_a_callback_that_another_trainer_had_begins_anew(tmp_path: Path) -> None:
    first = make(tmp_path, 0.5, 2.0)
    first.fit(LOADER, LOADER)
    second = make(tmp_path, 1.0, 2.0, running_id="second", seed=1)
    second.callbacks[:] = [second.default_cbk, first.checker]
    second.fit(LOADER, LOADER)
    assert second.checker.best_values == [1.0]
    assert same(weights_of(second.load_best()), best_of(tmp_path / "second"))


def test_a_run_resumed_from_the_file_of_another_has_its_best_states(tmp_path: Path) -> None:
    costs = (0.1, 0.5, 0.6, 0.7)
    make(tmp_path, 0.9, 0.8, running_id="b", seed=7).fit(LOADER, LOADER)
    source = make(tmp_path, *costs, epochs=2, running_id="a", check={"keep": 2})
    source.fit(LOADER, LOADER)
    tested = InTest()
    path = str(tmp_path / "a" / "checkpoint.ckpt")
    check = {"keep": 2}
    again = make(tmp_path, *costs, running_id="b", resume=path, callbacks=[tested], check=check)
    again.fit(LOADER, LOADER)
    with pytest.warns(UserWarning, match="No epoch of this run was better"):
        again.test(LOADER)
    assert same(tested.weights, best_of(tmp_path / "a"))
    assert same(best_of(tmp_path / "b"), best_of(tmp_path / "a"))
    assert load(tmp_path / "b" / "best-2.ckpt")["progress"]["epoch_idx"] == 2


def test_a_better_epoch_after_such_a_resume_is_the_best_without_a_word(tmp_path: Path) -> None:
    costs = (0.5, 0.6, 0.1)
    make(tmp_path, *costs, epochs=2, running_id="a").fit(LOADER, LOADER)
    again = make(tmp_path, *costs, running_id="b", resume=str(tmp_path / "a" / "best.ckpt"))
    again.fit(LOADER, LOADER)
    again.test(LOADER)
    assert load(tmp_path / "b" / "best.ckpt")["progress"]["epoch_idx"] == 3


def test_a_best_state_of_an_abandoned_future_is_not_used(tmp_path: Path) -> None:
    make(tmp_path, 0.5, 0.4, 0.3).fit(LOADER, LOADER)
    costs = (0.5, 0.4, 0.6, 0.7)
    previous = str(tmp_path / "r" / "previous.ckpt")
    again = make(tmp_path, *costs, resume=previous)
    again.fit(LOADER, LOADER)
    with pytest.warns(
        UserWarning, match=r"is not of this run, whose best cost is 0\.4: it has 0\.3"
    ):
        again.test(LOADER)


def test_the_folder_of_the_run_by_another_path_is_no_other_run(tmp_path: Path) -> None:
    make(tmp_path, 0.5, 0.6).fit(LOADER, LOADER)
    (tmp_path / "link").symlink_to(tmp_path)
    path = str(tmp_path / "link" / "r" / "checkpoint.ckpt")
    again = make(tmp_path, 0.5, 0.6, 0.7, resume=path)
    again.fit(LOADER, LOADER)
    again.test(LOADER)  # without a warning
    assert load(tmp_path / "r" / "best.ckpt")["progress"]["epoch_idx"] == 1


CHANGED: dict[str, tuple[dict[str, Any], str]] = {
    "monitor": ({"monitor": "other"}, r"1, is of val 'cost'.*monitors val 'other'"),
    "stage": ({"monitor": "loss", "on_stage": "train"}, r"is of val 'cost'.*monitors train 'loss'"),
    "mode": ({"mode": "max"}, r"was found with mode='min'.*has mode='max'"),
}


@pytest.mark.parametrize("what", CHANGED)
def test_with_another_monitor_the_best_begins_anew_and_says_so(what: str, tmp_path: Path) -> None:
    changed, sentence = CHANGED[what]
    make(tmp_path, 1.0, 2.0, check={"patience": 2}).fit(LOADER, LOADER)
    check = {"patience": 2, **changed}
    again = make(tmp_path, 1.0, 2.0, 1.5, 1.2, resume=True, check=check)
    history, told = warned(lambda: again.fit(LOADER, LOADER))
    assert len([text for text in told if re.search(f"{sentence}.*best value is reset", text)]) == 1
    assert len(history["train"]["loss"]) == 4  # the patience was not used up
    state = load(tmp_path / "r" / "best.ckpt")
    assert state["progress"]["epoch_idx"] >= 3
    again.test(LOADER)  # without a warning


def test_with_the_same_monitor_it_goes_on_without_a_word(tmp_path: Path) -> None:
    make(tmp_path, 1.0, 2.0).fit(LOADER, LOADER)
    again = make(tmp_path, 1.0, 2.0, 3.0, resume=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again.fit(LOADER, LOADER)
        again.test(LOADER)
    assert again.checker.best_values == [1.0]


def test_best_states_of_the_former_monitor_are_not_kept_among_the_new(tmp_path: Path) -> None:
    make(tmp_path, 3.0, 1.0, 2.0, check={"keep": 3}).fit(LOADER, LOADER)
    check = {"keep": 3, "monitor": "other"}
    again = make(tmp_path, 3.0, 1.0, 2.0, 4.0, resume=True, check=check)
    warned(lambda: again.fit(LOADER, LOADER))
    assert sorted(path.name for path in (tmp_path / "r").glob("best*")) == ["best.ckpt"]


def test_of_two_callbacks_each_has_its_own_best_and_a_test_uses_that_of_the_first(
    tmp_path: Path,
) -> None:
    tested = InTest()
    second = CheckCallback("other", mode="min", ckpt_dir=tmp_path / "second")
    trainer = make(tmp_path / "first", 1.0, 3.0, 2.0, callbacks=[second, tested])
    trainer.fit(LOADER, LOADER)
    trainer.test(LOADER)
    assert same(tested.weights, best_of(tmp_path / "first" / "r"))
    epochs = [
        load(tmp_path / name / "r" / "best.ckpt")["progress"]["epoch_idx"]
        for name in ("first", "second")
    ]
    assert epochs == [1, 2]


def test_a_finished_run_that_is_started_again_is_tested_with_its_best(tmp_path: Path) -> None:
    make(tmp_path, 1.0, 2.0).fit(LOADER, LOADER)
    tested = InTest()
    again = make(tmp_path, 1.0, 2.0, resume="auto", seed=3, callbacks=[tested])
    again.fit(LOADER, LOADER)
    again.test(LOADER)
    assert same(tested.weights, best_of(tmp_path / "r"))


def test_a_run_that_a_later_one_has_moved_aside_is_tested_with_its_own_best(tmp_path: Path) -> None:
    tested = InTest()
    first = make(tmp_path, 1.0, 2.0, callbacks=[tested])
    first.fit(LOADER, LOADER)
    own = best_of(tmp_path / "r")
    make(tmp_path, 1.0, 2.0, seed=5).fit(LOADER, LOADER)
    first.test(LOADER)
    assert same(tested.weights, own)


def test_a_fit_refused_for_its_monitor_moves_no_folder(tmp_path: Path) -> None:
    make(tmp_path, 1.0).fit(LOADER, LOADER)
    with pytest.raises(CallbackException, match="does not validate"):
        make(tmp_path, 1.0).fit(LOADER)
    assert [path.name for path in tmp_path.iterdir()] == ["r"]
    assert (tmp_path / "r" / "best.ckpt").exists()
