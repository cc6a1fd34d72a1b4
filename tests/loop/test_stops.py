"""A fit that ends within an epoch: what was trained counts, and the next fit goes on to the bit."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from deepepochs import Callback, CheckCallback, Optimizer, Trainer
from deepepochs.callbacks.run_record import RunRecordCallback

X = torch.randn(40, 3, generator=torch.Generator().manual_seed(7))
Y = torch.arange(40) % 2
NUM = 10  # mini-batches of an epoch


def loader(**options: Any) -> DataLoader[Any]:
    return DataLoader(TensorDataset(X, Y), 4, **{"shuffle": True, **options})


class StopAt(Callback):
    """Stops after a mini-batch of training, counted over the run, once."""

    def __init__(self, at: int, hook: str = "train", **options: Any) -> None:
        super().__init__()
        self.at = at
        self.hook = hook
        self.options = options
        self.seen = 0

    def count(self, hook: str, trainer: Any) -> None:
        if hook == self.hook:
            self.seen += 1
            if self.seen == self.at:
                trainer.stop("enough", **self.options)

    def on_after_train_batch(self, trainer: Any, **others: Any) -> None:
        self.count("train", trainer)

    def on_after_val_batch(self, trainer: Any, **others: Any) -> None:
        self.count("val", trainer)


def make_trainer(*callbacks: Callback, scheduler: bool = True, **options: Any) -> Trainer:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 2))
    opt: Any = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    if scheduler:
        opt = Optimizer(opt, torch.optim.lr_scheduler.ReduceLROnPlateau(opt, patience=0))
    options = {"epochs": 3, "console": "off", "device": "cpu", **options}
    return Trainer(model, F.cross_entropy, opt, callbacks=[*callbacks], **options)


def outcome(trainer: Trainer) -> Any:
    """All that must be the same: weights, rates, history, counters and the next number drawn."""
    history = {stage: dict(table) for stage, table in trainer.history.items()}
    weights = {name: value.tolist() for name, value in trainer.model.state_dict().items()}
    rates = trainer.opt.get_current_lr()
    draws = torch.rand(2).tolist()
    return history, trainer.history.partial, weights, rates, trainer.progress, draws


def fits(*fit_loaders: Any, trainer: Trainer, num: int = 2, **options: Any) -> Any:
    for _ in range(num):
        trainer.fit(*fit_loaders, **options)
    return outcome(trainer)


STOPS = {
    "in the first epoch": StopAt(3),
    "in the second epoch": StopAt(NUM + 4),
    "with a validation": StopAt(NUM + 4, validate=True),
    "at the last mini-batch": StopAt(NUM),
    "at the last mini-batch with a validation": StopAt(NUM, validate=True),
    "in the validation": StopAt(NUM + 3, hook="val"),
    "in the validation, which is ended": StopAt(NUM + 3, hook="val", validate=True),
}


@pytest.mark.parametrize("where", STOPS)
@pytest.mark.parametrize("options", [{}, {"grad_accumulate": 3}, {"limit_train_batches": 0.5}])
def test_the_next_fit_goes_on_to_the_bit(where: str, options: dict[str, Any]) -> None:
    stop = STOPS[where]
    stopper = StopAt(stop.at, stop.hook, **stop.options)
    train_dl, val_dl = loader(), loader(shuffle=False)
    trainer = make_trainer(stopper, **options)
    found = fits(train_dl, val_dl, trainer=trainer)
    assert found == fits(loader(), loader(shuffle=False), trainer=make_trainer(**options), num=1)


@pytest.mark.parametrize("at", [3, NUM, NUM + 4])
def test_the_history_has_the_part_that_was_trained_and_says_so(at: int) -> None:
    trainer = make_trainer(StopAt(at))
    history = trainer.fit(loader())
    whole, part = divmod(at, NUM)
    assert history.epochs == list(range(whole + bool(part)))
    assert history.partial == ({whole: part / NUM} if part else {})
    assert trainer.init_epoch == whole
    assert trainer.progress.num_steps == trainer.progress.num_train_batches == at
    assert trainer.stop_reason == "enough"
    if part:
        assert f"{whole + 1} ({part / NUM:.0%})" in repr(history)


def test_the_values_of_the_part_are_those_of_its_mini_batches() -> None:
    stopped = make_trainer(StopAt(4)).fit(loader())
    limited = make_trainer(limit_train_batches=4, epochs=1).fit(loader())
    assert stopped["train"]["loss"] == limited["train"]["loss"]


def test_a_validation_runs_before_the_stop_if_it_is_asked_for() -> None:
    data = loader(), loader(shuffle=False)
    assert "val" not in make_trainer(StopAt(4)).fit(*data)
    asked = make_trainer(StopAt(4, validate=True)).fit(*data)
    assert asked.val_epochs == [0] and asked.partial == {0: 0.4}


def test_a_stop_that_asks_for_it_validates_in_an_epoch_that_would_not() -> None:
    trainer = make_trainer(StopAt(NUM, validate=True))
    history = trainer.fit(loader(), loader(shuffle=False), val_freq=3)
    assert history.val_epochs == [0] and history.partial == {0: 1.0}
    trainer.fit(loader(), val_freq=3)


def test_of_several_stops_the_first_reason_counts_and_each_validation_that_is_asked_for() -> None:
    class Twice(Callback):
        def __init__(self, first: bool) -> None:
            super().__init__()
            self.first = first

        def on_after_train_batch(self, trainer: Any, **others: Any) -> None:
            trainer.stop("first", validate=self.first)
            trainer.stop("second", validate=not self.first)

        def on_before_val_epochs(self, trainer: Any, **others: Any) -> None:
            trainer.stop("third")

    for first in (True, False):
        trainer = make_trainer(Twice(first))
        history = trainer.fit(loader(), loader(shuffle=False))
        assert trainer.stop_reason == "first" and history.val_epochs == [0]


def test_schedulers_do_not_move_for_a_part_of_an_epoch() -> None:
    def rate(stop: StopAt | None) -> Any:
        trainer = make_trainer(*[stop] if stop else [], scheduler=False)
        opt = trainer.opt[0].opt
        schedule = torch.optim.lr_scheduler.ExponentialLR(opt, 0.5)
        other = Trainer(
            trainer.model, F.cross_entropy, Optimizer(opt, schedule), epochs=2, console="off",
            callbacks=list(trainer.callbacks[1:]),
        )  # fmt: skip
        other.fit(loader(), loader(shuffle=False))
        return opt.param_groups[0]["lr"]

    assert rate(None) == 0.025
    assert rate(StopAt(4, validate=True)) == 0.1
    assert rate(StopAt(NUM + 4, validate=True)) == 0.05


def test_a_fit_on_other_data_leaves_the_part_as_an_epoch() -> None:
    trainer = make_trainer(StopAt(4))
    trainer.fit(loader())
    history = trainer.fit(loader(), epochs=2)
    assert history.epochs == [1, 2] and not history.partial
    assert trainer.history.epochs == [0, 1, 2] and trainer.history.partial == {0: 0.4}
    assert trainer.init_epoch == 3


def test_the_state_after_a_stop_is_that_of_the_stop() -> None:
    data = loader(), loader(shuffle=False)
    trainer = make_trainer(StopAt(NUM + 4, validate=True))
    trainer.fit(*data)
    state = trainer.state_dict()
    other = make_trainer(StopAt(10**6, validate=True))
    other.load_state_dict(state)
    other.fit(loader(), loader(shuffle=False))
    assert outcome(other) == fits(
        loader(), loader(shuffle=False), trainer=make_trainer(StopAt(10**6)), num=1
    )


def test_max_steps_ends_the_fit_after_that_step_validated() -> None:
    trainer = make_trainer(max_steps=14, epochs=1000)
    history = trainer.fit(loader(), loader(shuffle=False))
    assert trainer.progress.num_steps == 14
    assert history.epochs == history.val_epochs == [0, 1] and history.partial == {1: 0.4}
    assert trainer.stop_reason == "max_steps=14 is reached" and trainer.max_epochs == 2


def test_max_steps_at_the_end_of_an_epoch_leaves_whole_epochs() -> None:
    trainer = make_trainer(max_steps=2 * NUM, epochs=1000)
    history = trainer.fit(loader(), loader(shuffle=False))
    assert history.val_epochs == [0, 1] and not history.partial and trainer.init_epoch == 2
    with pytest.warns(
        UserWarning, match="runs no epoch: max_steps=20 is reached. Give the trainer"
    ):
        trainer.fit(loader(), loader(shuffle=False))


def test_max_steps_counts_windows_and_not_mini_batches() -> None:
    trainer = make_trainer(max_steps=5, grad_accumulate=4, epochs=1000)
    history = trainer.fit(loader())
    assert trainer.progress.num_train_batches == NUM + 8 and history.partial == {1: 0.8}


def test_epochs_end_a_fit_before_max_steps_if_they_are_given() -> None:
    assert make_trainer(max_steps=100, epochs=2).fit(loader()).epochs == [0, 1]


def test_a_loader_without_an_end_is_trained_on_for_max_steps() -> None:
    class Endless:
        def __iter__(self) -> Any:
            while True:
                yield X[:4], Y[:4]

    trainer = make_trainer(max_steps=7, epochs=1000)
    history = trainer.fit(Endless())
    assert trainer.progress.num_steps == 7 and math.isnan(history.partial[0])


def test_a_schedule_of_max_steps_is_not_warned_of() -> None:
    trainer = make_trainer(scheduler=False)
    opt = trainer.opt[0].opt
    schedule = torch.optim.lr_scheduler.OneCycleLR(opt, 0.1, total_steps=14)
    optimizer = Optimizer(opt, schedule, sched_on="step")
    other = Trainer(trainer.model, F.cross_entropy, optimizer, max_steps=14, console="off")
    assert other.fit(loader()).partial == {1: 0.4}


class Slow(Callback):
    """Lets an hour pass after a mini-batch, for the fit's clock."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at

    def on_after_train_batch(self, trainer: Any, **others: Any) -> None:
        if trainer.progress.num_train_batches == self.at:
            trainer.fits.spend(3600)


def test_max_time_ends_the_fit_after_the_mini_batch_validated() -> None:
    trainer = make_trainer(Slow(4), max_time="1h")
    history = trainer.fit(loader(), loader(shuffle=False))
    assert history.partial == {0: 0.4} and history.val_epochs == [0]
    assert str(trainer.stop_reason).startswith("max_time is over, after 1:00:0")


BETWEEN = ("on_after_train_epoch", "on_after_train_epochs", "on_before_val_epochs")
HOOKS_OF_VALIDATION = ("on_before_val_epoch", "on_after_val_batch", "on_after_val_epoch")


@pytest.mark.parametrize("hook", [*BETWEEN, *HOOKS_OF_VALIDATION, "on_after_val_epochs"])
def test_an_epoch_whose_training_is_done_when_the_time_is_over_is_whole_with_its_validation(
    hook: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def late(self: Any, *, trainer: Any, **others: Any) -> None:
        trainer.fits.spend(3600)

    slow: Any = type("Slow", (Callback,), {hook: late})
    trainer = make_trainer(slow(), max_time="1h", console="rows")
    history = trainer.fit(loader(), loader(shuffle=False))
    assert dict(history.partial) == {} and history.val_epochs == [0]
    assert trainer.init_epoch == 1
    assert "stopped in validation" not in capsys.readouterr().out
    one = make_trainer(epochs=1)
    one.fit(loader(), loader(shuffle=False))
    assert history["val"] == one.history["val"]


def test_an_epoch_that_is_whole_and_validated_out_of_turn_is_not_said_to_be_stopped_in_validation(
    capsys: pytest.CaptureFixture[str],
) -> None:
    trainer = make_trainer(StopAt(NUM, validate=True), console="rows", scheduler=False)
    history = trainer.fit(loader(), loader(shuffle=False), val_freq=2)
    assert history.val_epochs == [0]
    assert "stopped in validation" not in capsys.readouterr().out
    other = make_trainer(StopAt(4, "val"), console="rows", scheduler=False)
    assert other.fit(loader(), loader(shuffle=False)).partial == {0: 1.0}
    assert "(stopped in validation)" in capsys.readouterr().out


def hour_at(hook: str, at: int = 0, reason: str = "") -> Any:
    """Make a callback that lets an hour pass in a hook of an epoch, or stops there, validated."""

    def late(self: Any, trainer: Any, **others: Any) -> None:
        if others.get("epoch_idx", trainer.init_epoch) != at:
            return
        if reason:
            trainer.stop(reason, validate=True)
        else:
            trainer.fits.spend(3600)

    return type("HourAt", (Callback,), {hook: late})()


@pytest.mark.parametrize(
    ("hook", "at", "reason"),
    [
        ("on_after_train_epochs", 0, ""),
        *[(hook, at, reason) for hook, at in (("on_after_epoch", 0), ("on_before_epoch", 1))
          for reason in ("", "enough")],
    ],
)  # fmt: skip
def test_a_fit_that_ends_between_epochs_validates_first_where_the_last_epoch_has_not(
    hook: str, at: int, reason: str
) -> None:
    hour = hour_at(hook, at, reason)
    trainer = make_trainer(hour, max_time="1h", epochs=4)
    history = trainer.fit(data := loader(), val := loader(shuffle=False), val_freq=2)
    assert trainer.init_epoch == 1 and history.val_epochs == [0]
    assert history.steps == {"train": [NUM], "val": [NUM]}
    loss = trainer.test(val)["loss"]
    assert history["val"]["loss"] == [loss]
    trainer.callbacks.remove(hour)
    if reason:  # the next fit goes on to the bit
        found = fits(data, val, trainer=trainer, num=1, val_freq=2)
        whole = make_trainer(epochs=4)
        assert found == fits(loader(), loader(shuffle=False), trainer=whole, num=1, val_freq=2)


def test_a_validation_after_a_stop_between_epochs_comes_once_and_only_after_training() -> None:
    trainer = make_trainer(hour_at("on_after_epoch", 1), max_time="1h")
    assert trainer.fit(loader(), loader(), val_freq=2).val_epochs == [1]
    every = make_trainer(hour_at("on_after_epoch"), max_time="1h", val_every=NUM)
    assert every.fit(loader(), loader(), val_freq=2).steps["val"] == [NUM]
    begun = make_trainer(hour_at("on_before_epoch", reason="no"))
    assert not begun.fit(loader(), loader(), val_freq=2)


def test_the_best_of_a_validation_after_a_stop_between_epochs_is_kept_and_a_resume_goes_on(
    tmp_path: Path,
) -> None:
    def run(folder: str, *callbacks: Callback, max_time: str) -> Trainer:
        trainer = checked(tmp_path / folder, max_time=max_time, epochs=4)
        trainer.callbacks.extend(callbacks)
        trainer.fit(loader(), loader(shuffle=False), val_freq=2)
        return trainer

    stopped = run("parts", hour_at("on_after_epoch"), max_time="1h")
    value = stopped.history["val"]["loss"][-1]
    assert stopped.history.val_epochs == [0] and stopped.progress.num_steps == NUM
    assert stopped.test(loader(shuffle=False))["loss"] == value
    header, row = (tmp_path / "parts/run/metrics.csv").read_text().splitlines()
    assert header == "epoch,train_loss,val_loss" and row.endswith(f",{value}")
    gone_on, whole = run("parts", max_time="9h"), run("whole", max_time="9h")
    tables = [(tmp_path / folder / "run/metrics.csv").read_text() for folder in ("parts", "whole")]
    assert tables[0] == tables[1]
    assert outcome(gone_on)[:-1] == outcome(whole)[:-1] and gone_on.history.val_epochs == [1, 3]


def test_max_time_counts_the_time_before_a_resume(tmp_path: Path) -> None:
    def run(stop_at: int = 1000, **options: Any) -> Trainer:
        check = CheckCallback("loss", ckpt_dir=tmp_path)
        names = {"running_id": "run", "resume": "auto", "epochs": 3, **options}
        trainer = make_trainer(check, Slow(4), StopAt(stop_at), **names)
        trainer.fit(loader(), loader(shuffle=False))
        return trainer

    assert run(NUM + 2, max_time="3h").stop_reason == "enough"
    assert run(max_time="61m").init_epoch == 3
    assert run(max_time="59m", epochs=4).stop_reason is None


def checked(folder: Path, **options: Any) -> Trainer:
    check = CheckCallback("loss", ckpt_dir=folder)
    return make_trainer(check, running_id="run", resume="auto", **{"epochs": 1000, **options})


@pytest.mark.parametrize("val_freq", [1, 2])
@pytest.mark.parametrize("first", [4, NUM, NUM + 4])
def test_a_larger_max_steps_goes_on_to_the_bit(first: int, val_freq: int, tmp_path: Path) -> None:
    for steps in (first, 27, 27):
        trainer = checked(tmp_path / "parts", max_steps=steps)
        trainer.fit(loader(), loader(shuffle=False), val_freq=val_freq)
        assert trainer.progress.num_steps == steps
    whole = checked(tmp_path / "whole", max_steps=27)
    whole.fit(loader(), loader(shuffle=False), val_freq=val_freq)
    ends = [outcome(one)[:-1] for one in (trainer, whole)]
    assert ends[0] == ends[1] and whole.history.partial == {2: 0.7}
    best = [one.test(loader(shuffle=False)) for one in (trainer, whole)]
    assert best[0] == best[1]


class Better(Callback):
    """Makes the weights good or bad before a validation, by the number of the epoch."""

    def __init__(self, good: list[int]) -> None:
        super().__init__()
        self.good = good

    def on_before_val_epochs(self, trainer: Any, epoch_idx: int, **others: Any) -> None:
        with torch.no_grad():
            trainer.model[-1].weight.zero_()
            trainer.model[-1].weight[0].fill_(0.0 if epoch_idx in self.good else 9.0)


def test_the_weights_at_the_stop_may_be_the_best_and_are_kept(tmp_path: Path) -> None:
    trainer = checked(tmp_path, max_steps=NUM + 4)
    trainer.callbacks.append(Better([1]))
    history = trainer.fit(loader(), val_dl := loader(shuffle=False))
    assert history["val"]["loss"][1] < history["val"]["loss"][0]
    assert trainer.test(val_dl)["loss"] == history["val"]["loss"][1]
    assert not trainer.load_best().model[-1].weight.any()  # type: ignore[index]


def test_the_best_of_whole_epochs_is_there_again_when_the_run_goes_on(tmp_path: Path) -> None:
    for steps in (NUM + 4, 3 * NUM):
        trainer = checked(tmp_path, max_steps=steps)
        good = [1] if steps == NUM + 4 else []
        trainer.callbacks.append(Better(good))
        trainer.fit(loader(), val_dl := loader(shuffle=False))
    losses = trainer.history["val"]["loss"]
    assert len(losses) == 3
    assert trainer.test(val_dl)["loss"] == min(float(loss) for loss in losses)


def test_the_part_does_not_use_up_patience(tmp_path: Path) -> None:
    check = CheckCallback("loss", ckpt_dir=tmp_path, patience=1)
    trainer = make_trainer(check, Better([0]), StopAt(NUM + 4, validate=True))
    trainer.fit(loader(), loader(shuffle=False))
    assert trainer.stop_reason == "enough"


def test_the_table_and_the_record_of_the_run_mark_the_part(tmp_path: Path) -> None:
    record = RunRecordCallback(tmp_path)
    trainer = make_trainer(record, StopAt(NUM + 4, validate=True), running_id="run")
    trainer.fit(train_dl := loader(), val_dl := loader(shuffle=False))
    rows = (tmp_path / "run/metrics.csv").read_text().splitlines()
    assert rows[0] == "epoch,train_loss,val_loss,part"
    assert rows[1].endswith(",") and rows[2].endswith(",0.4")
    assert record.record(trainer)["epochs_done"] == 1
    assert record.record(trainer)["partial"] == {"2": 0.4}
    trainer.fit(train_dl, val_dl)
    rows = (tmp_path / "run/metrics.csv").read_text().splitlines()
    assert rows[0] == "epoch,train_loss,val_loss" and len(rows) == 4
    assert record.record(trainer)["partial"] == {}


def test_the_record_has_the_arguments_that_are_not_the_usual_ones(tmp_path: Path) -> None:
    record = RunRecordCallback(tmp_path)
    options: Any = {"ema": 0.9, "max_steps": 15, "limit_val_batches": 0.5, "on_oom": "split"}
    trainer = make_trainer(record, **options)
    trainer.fit(loader(), loader(shuffle=False))
    settings = record.record(trainer)["settings"]
    assert options.items() - settings.items() == {("ema", 0.9)}
    assert settings["ema"] == "EMA(0.9)"
    assert "val_every" not in settings and "deterministic" not in settings


def test_the_console_marks_the_row_of_the_part(capsys: pytest.CaptureFixture[str]) -> None:
    make_trainer(StopAt(4), console="rows", show_info=False).fit(loader())
    assert "  (40% of the epoch)" in capsys.readouterr().out.splitlines()[2]


def test_several_training_tasks_are_counted_by_their_parts() -> None:
    from deepepochs import EpochTask

    tasks = [EpochTask(loader(), name="a"), EpochTask(loader(), name="b")]
    trainer = make_trainer(StopAt(NUM + 4))
    history = trainer.fit(train_tasks=tasks)
    assert history.partial == {0: 0.7} and "b/loss" in history["train"]
    trainer.fit(train_tasks=tasks)
    found, whole = outcome(trainer), make_trainer()
    whole.fit(train_tasks=[EpochTask(loader(), name="a"), EpochTask(loader(), name="b")])
    assert found == outcome(whole)


class Rounding(torch.optim.SGD):
    """Has other weights in evaluation, and does not find the old ones again to the bit."""

    is_training = False

    def scale(self, factor: float) -> None:
        with torch.no_grad():
            for weight in self.param_groups[0]["params"]:
                weight.mul_(factor)

    def train(self) -> None:
        if not self.is_training:
            self.scale(1 / 1.1)
        self.is_training = True

    def eval(self) -> None:
        if self.is_training:
            self.scale(1.1)
        self.is_training = False


def test_weights_that_an_optimizer_has_in_training_are_there_again() -> None:
    def fit(*stop: Callback) -> Any:
        torch.manual_seed(1)
        model = nn.Linear(3, 2)
        opt = Rounding(model.parameters(), lr=0.1)
        options: Any = {"epochs": 2, "console": "off", "device": "cpu", "callbacks": [*stop]}
        trainer = Trainer(model, F.cross_entropy, opt, **options)
        return fits(loader(), loader(), trainer=trainer, num=1 + len(stop))

    assert fit(StopAt(4, validate=True)) == fit()


def test_a_fit_in_which_no_step_is_made_ends() -> None:
    from deepepochs import EpochTask

    class Idle(EpochTask):
        def train_step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> None:
            self.loss(self.model(*batch_x), batch_y, do_optimize=False)

    trainer = make_trainer(max_steps=5, epochs=1000)
    with pytest.warns(RuntimeWarning, match="no optimizer step"):
        assert trainer.fit(train_tasks=Idle(loader())).epochs == [0, 1]
