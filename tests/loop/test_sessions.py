"""What surrounds the passes: tests inside a fit, fits after a stop, and what is put back."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Subset, TensorDataset

from deepepochs import Callback, EpochTask, StopLoopException, Trainer
from deepepochs.errors import LoopException


class Doing(Callback):
    """Calls a function in one hook."""

    def __init__(self, hook: str, action: Any) -> None:
        super().__init__()
        self.hook, self.action, self.count = hook, action, 0

    def _act(self, hook: str, trainer: Any) -> None:
        if hook == self.hook:
            self.count += 1
            self.action(trainer)

    def on_before_fit(self, trainer: Any, **others: Any) -> None:
        self._act("on_before_fit", trainer)

    def on_before_epoch(self, trainer: Any, **others: Any) -> None:
        self._act("on_before_epoch", trainer)

    def on_after_train_batch(self, trainer: Any, **others: Any) -> None:
        self._act("on_after_train_batch", trainer)

    def on_after_epoch(self, trainer: Any, **others: Any) -> None:
        self._act("on_after_epoch", trainer)

    def on_after_fit(self, trainer: Any) -> None:
        self._act("on_after_fit", trainer)


def train_dl(digits: TensorDataset, num: int = 96) -> DataLoader[Any]:
    return DataLoader(Subset(digits, range(num)), batch_size=32)


def make_trainer(callbacks: Any = None, **options: Any) -> Trainer:
    torch.manual_seed(1)
    model = nn.Linear(64, 10)
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    options = {"epochs": 2, "show_info": False, **options}
    return Trainer(model, F.cross_entropy, opt, callbacks=callbacks, **options)


def weights(trainer: Trainer) -> list[float]:
    return [value for p in trainer.model.parameters() for value in p.flatten().tolist()]


HOOKS = ["on_before_fit", "on_before_epoch", "on_after_train_batch", "on_after_epoch"]


@pytest.mark.parametrize("hook", [*HOOKS, "on_after_fit"])
def test_a_test_inside_a_hook_of_a_fit_changes_nothing_of_the_fit(
    digits: TensorDataset, hook: str
) -> None:
    results: list[dict[str, Any]] = []
    loader, tested = train_dl(digits), DataLoader(Subset(digits, range(96, 160)), batch_size=32)

    def test_in_hook(trainer: Trainer) -> None:
        results.append(trainer.test(tested))

    with_test, without = make_trainer(Doing(hook, test_in_hook)), make_trainer()
    history, plain = with_test.fit(loader, loader), without.fit(loader, loader)
    assert weights(with_test) == weights(without)
    assert history == plain
    assert results and all(set(result) == {"loss"} for result in results)
    assert with_test.progress == without.progress
    if hook == "on_after_fit":
        assert results[-1] == without.test(tested)


def shuffling(digits: TensorDataset) -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(2)
    return DataLoader(Subset(digits, range(48)), 16, shuffle=True, generator=generator)


INSIDE: dict[str, Any] = {
    "a test": lambda trainer, train, val: trainer.test(DataLoader(train.dataset, 16, shuffle=True)),
    "a test on the training loader": lambda trainer, train, val: trainer.test(train),
    "a test on the validation loader": lambda trainer, train, val: trainer.test(val),
    "predict": lambda trainer, train, val: trainer.predict(val),
    "find_lr": lambda trainer, train, val: trainer.find_lr(train, max_batch=4),
}


@pytest.mark.parametrize("hook", ["on_after_train_batch", "on_after_epoch"])
@pytest.mark.parametrize("call", INSIDE)
def test_a_call_inside_a_fit_draws_nothing_of_the_fit(
    digits: TensorDataset, call: str, hook: str
) -> None:
    def run(action: Any) -> Any:
        train, val = shuffling(digits), shuffling(digits)
        inside = Doing(hook, lambda trainer: action(trainer, train, val))
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(64, 10), nn.Dropout(0.5))
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        trainer = Trainer(model, F.cross_entropy, opt, 2, callbacks=inside, show_info=False)
        return trainer.fit(train, val), weights(trainer), torch.rand(3).tolist()

    assert run(INSIDE[call]) == run(lambda *given: None)


def test_a_hook_that_walks_a_loader_by_itself_does_draw(digits: TensorDataset) -> None:
    def run(action: Any) -> list[float]:
        torch.manual_seed(1)
        trainer = make_trainer(Doing("on_after_epoch", action))
        trainer.fit(train_dl(digits))
        return torch.rand(3).tolist()

    loader = train_dl(digits)
    assert run(lambda trainer: list(loader)) != run(lambda trainer: None)


def test_a_stop_asked_for_before_a_test_in_the_same_hook_counts_after_the_test(
    digits: TensorDataset,
) -> None:
    loader = train_dl(digits)
    results = []

    def stop_and_test(trainer: Trainer) -> None:
        trainer.stop("enough")
        results.append(trainer.test(loader))

    trainer = make_trainer(Doing("on_after_epoch", stop_and_test), epochs=9)
    assert len(trainer.fit(loader)["train"]["loss"]) == 1
    assert [set(result) for result in results] == [{"loss"}]
    assert trainer.stop_reason == "enough"


@pytest.mark.parametrize("hook", HOOKS)
def test_a_stopped_fit_can_be_followed_by_another(digits: TensorDataset, hook: str) -> None:
    doing = Doing(hook, lambda trainer: trainer.stop("enough"))
    trainer = make_trainer(doing, epochs=3)
    data = train_dl(digits)
    trainer.fit(data)
    doing.hook = "none"
    done = trainer.init_epoch
    assert done == (1 if hook == "on_after_epoch" else 0)
    assert len(trainer.fit(data, epochs=2)["train"]["loss"]) == 2
    assert trainer.init_epoch == done + 2
    assert trainer.stop_reason is None


@pytest.mark.parametrize("how", ["stop in a window", "gradients of the user", "interrupt in step"])
def test_gradients_left_over_from_before_are_not_part_of_a_fit(
    digits: TensorDataset, how: str
) -> None:
    class Cut(EpochTask):
        def step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> None:
            self.loss(self.model(*batch_x), batch_y, do_optimize=False)
            raise StopLoopException

    trainer, control = make_trainer(grad_accumulate=2), make_trainer(grad_accumulate=2)
    if how == "stop in a window":
        trainer.callbacks.append(Doing("on_after_train_batch", lambda t: t.stop()))
        trainer.fit(train_dl(digits))
        trainer.callbacks.pop()
        assert weights(trainer) == weights(control)
    elif how == "gradients of the user":
        F.cross_entropy(trainer.model(digits[:8][0]), digits[:8][1]).backward()
    else:
        trainer.fit(train_tasks=Cut(train_dl(digits)))
    assert trainer.model.weight.grad is not None  # so that the control means something
    trainer.fit(train_dl(digits), epochs=1)
    control.fit(train_dl(digits), epochs=1)
    assert weights(trainer) == weights(control)


@pytest.mark.parametrize("ending", ["finished", "stopped", "error"])
def test_modes_hooks_and_gradient_mode_are_put_back(digits: TensorDataset, ending: str) -> None:
    def end(trainer: Trainer) -> None:
        if ending == "stopped":
            trainer.stop()
        elif ending == "error":
            raise RuntimeError("no disk")

    class Watching(Doing):
        def on_before_train_forward(self, trainer: Any) -> None:
            pass

        def on_after_val_forward(self, trainer: Any, model_out: Any) -> None:
            pass

    model = nn.Sequential(nn.Linear(64, 16), nn.BatchNorm1d(16), nn.Dropout(), nn.Linear(16, 10))
    model.train()
    model[1].eval()  # frozen by the user
    trainer = Trainer(
        model, F.cross_entropy, epochs=1, show_info=False,
        callbacks=Watching("on_after_train_batch", end),
    )  # fmt: skip
    modes = [module.training for module in model.modules()]
    if ending == "error":
        with pytest.raises(RuntimeError, match="no disk"):
            trainer.fit(train_dl(digits), train_dl(digits))
    else:
        trainer.fit(train_dl(digits), train_dl(digits))
    assert [module.training for module in model.modules()] == modes
    assert not model._forward_hooks and not model._forward_pre_hooks
    assert torch.is_grad_enabled()
    assert trainer.run is None and trainer.session is None
    trainer.callbacks.pop()
    trainer.fit(train_dl(digits), epochs=1)


def test_the_lists_given_by_the_user_stay_as_they_were(digits: TensorDataset) -> None:
    loader = train_dl(digits)
    callbacks, metrics = [Callback()], [lambda preds, targets: 0.0]
    train, val, test = [EpochTask(loader)], [EpochTask(loader)], [EpochTask(loader)]
    lists = [callbacks, metrics, train, val, test]
    before = [list(one) for one in lists]
    trainer = make_trainer(callbacks, metrics=metrics)
    trainer.fit(train_tasks=train, val_dl=loader, val_tasks=val, metrics=metrics)
    trainer.test(loader, tasks=test, metrics=metrics)
    assert lists == before
    assert all(task.metrics == [] for task in (*train, *val, *test))


def test_a_stop_in_the_first_pass_of_a_test_leaves_no_values(digits: TensorDataset) -> None:
    class Stopping(Callback):
        def on_after_test_batch(self, trainer: Any, **others: Any) -> None:
            trainer.stop("enough")

    assert make_trainer(Stopping()).test(train_dl(digits)) == {}


def test_an_error_in_a_hook_is_noted_with_the_class_and_the_hook(digits: TensorDataset) -> None:
    class Mine(Doing):
        pass

    def fail(trainer: Any) -> None:
        raise RuntimeError("no disk")

    with pytest.raises(RuntimeError, match="no disk") as caught:
        make_trainer(Mine("on_after_epoch", fail)).fit(train_dl(digits))
    notes = "\n".join([str(caught.value), *getattr(caught.value, "__notes__", [])])
    assert "raised in Mine.on_after_epoch of a callback" in notes


@pytest.mark.parametrize("batch_idx", [0, 1, 2])
def test_a_stop_in_any_mini_batch_calls_the_savers_once_at_a_save_point(
    digits: TensorDataset, batch_idx: int
) -> None:
    saved: list[tuple[int, bool]] = []

    class Saving(Callback):
        def on_before_fit(self, trainer: Any, epochs: int) -> None:
            trainer.add_saver(self.save)

        def save(self, trainer: Trainer) -> None:
            saved.append((trainer.progress.num_train_batches, trainer.run is None))

        def on_after_train_batch(self, trainer: Any, metrics: Any, batch_idx: int) -> None:
            if batch_idx == self.stop_at:
                trainer.stop()

        stop_at = batch_idx

    trainer = make_trainer(Saving())
    trainer.fit(train_dl(digits), train_dl(digits))
    # After the last mini-batch the pass ends, and the save point lies before the validation.
    assert saved == [(batch_idx + 1, batch_idx == 2)]


def test_a_test_inside_a_stopped_mini_batch_does_not_save(digits: TensorDataset) -> None:
    saved: list[int] = []
    loader = train_dl(digits)

    def stop_and_test(trainer: Trainer) -> None:
        trainer.stop()
        trainer.test(loader)
        assert not saved

    class Saving(Doing):
        def on_before_fit(self, trainer: Any, **others: Any) -> None:
            trainer.add_saver(lambda t: saved.append(t.progress.num_train_batches))

    make_trainer(Saving("on_after_train_batch", stop_and_test)).fit(loader)
    assert saved == [1]


def test_a_fit_inside_a_fit_is_refused(digits: TensorDataset) -> None:
    loader = train_dl(digits)
    inner = Doing("on_after_epoch", lambda trainer: trainer.fit(loader, epochs=1))
    with pytest.raises(LoopException, match="inside a running fit"):
        make_trainer(inner).fit(loader)


def test_a_whole_state_is_refused_inside_a_fit(digits: TensorDataset) -> None:
    rewind = Doing("on_after_train_batch", lambda trainer: trainer.load_state_dict({}))
    with pytest.raises(LoopException, match="load_weights"):
        make_trainer(rewind).fit(train_dl(digits))


def test_an_error_that_a_hook_catches_is_not_told_to_callbacks(digits: TensorDataset) -> None:
    told: list[BaseException] = []

    class Catching(Doing):
        def on_exception(self, exception: BaseException, **others: Any) -> None:
            told.append(exception)

    def fail_and_catch(trainer: Trainer) -> None:
        with pytest.raises(ZeroDivisionError):
            trainer.test(train_dl(digits), metrics=[lambda preds, targets: 1 / 0])

    make_trainer(Catching("on_after_epoch", fail_and_catch)).fit(train_dl(digits))
    assert told == []


def test_forward_hooks_are_told_of_each_forward_once(digits: TensorDataset) -> None:
    seen: list[str] = []

    class Forwards(Doing):
        def on_after_train_forward(self, **others: Any) -> None:
            seen.append("train")

        def on_after_test_forward(self, **others: Any) -> None:
            seen.append("test")

    loader = train_dl(digits)

    def look(trainer: Trainer) -> None:
        trainer.test(loader)
        trainer.predict(loader)

    make_trainer(Forwards("on_after_epoch", look), epochs=1).fit(loader)
    assert (seen.count("train"), seen.count("test")) == (len(loader), len(loader))
