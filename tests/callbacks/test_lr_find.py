"""The learning-rate search: what it tries, what it suggests, and that it leaves no trace."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from event_reader import assert_same_bits, loaders, outcome, small_data, small_trainer
from torch import nn
from torch.utils.data import DataLoader, Dataset

from deepepochs import (
    Callback,
    CallbackException,
    CheckCallback,
    ConfigError,
    EpochTask,
    GradClipCallback,
    LogCallback,
    LoopException,
    LRCurve,
    LRFindCallback,
    Optimizer,
    Trainer,
)
from deepepochs.callbacks import lr_find
from deepepochs.errors import DataError


@pytest.fixture(autouse=True)
def in_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def shows(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The calls of ``plt.show``."""
    import matplotlib.pyplot as plt

    calls: list[Any] = []
    monkeypatch.setattr(plt, "show", lambda *args, **kwargs: calls.append(args))
    return calls


class Augmented(Dataset[Any]):
    """Draws a random number for each sample, from the global generator."""

    def __init__(self) -> None:
        self.inner = small_data()

    def __len__(self) -> int:
        return len(self.inner)

    def __getitem__(self, index: int) -> Any:
        point, target = self.inner[index]
        return point + 0.1 * torch.randn(6), target


def full_trainer(**arguments: Any) -> Trainer:
    """With all that a search could disturb: momentum, schedule, statistics, dropout."""
    trainer = small_trainer(**arguments)
    sgd = trainer.opt[0].opt
    schedule = torch.optim.lr_scheduler.OneCycleLR(sgd, 0.2, total_steps=12)
    return small_trainer(trainer.model, opt=Optimizer(sgd, schedule, sched_on="step"), **arguments)


def test_the_rates_rise_geometrically_over_short_epochs() -> None:
    curve = small_trainer().find_lr(loaders()[0], max_batch=20, min_lr=1e-4, max_lr=1e-2)
    expected = [1e-4 * 100 ** ((i + 1) / 20) for i in range(20)]
    assert curve.lrs == pytest.approx(expected)  # three epochs of six mini-batches, and two
    assert len(curve.losses) == 20


def test_a_mean_of_ten_times_the_best_ends_the_search() -> None:
    model = nn.Linear(6, 3)
    curve = small_trainer(model).find_lr(loaders()[0], max_batch=200, min_lr=1e-3, max_lr=1e6)
    assert len(curve.lrs) < 200
    latest = [curve.losses[max(0, end - 5) : end] for end in range(1, len(curve.losses) + 1)]
    *means, last = [sum(losses) / len(losses) for losses in latest]
    assert last > 10 * min(means)
    assert all(mean <= 10 * min(means[: i + 1]) for i, mean in enumerate(means))


def test_the_noise_of_single_mini_batches_ends_no_search() -> None:
    """A model that is trained has losses near 0, now and then one of many times the best."""
    losses = [0.1, 0.001, 0.1, 0.2] * 5

    class Noisy(nn.Linear):
        num = -1

        def forward(self, x: Any) -> Any:
            self.num += 1
            return super().forward(x)

    def loss_fn(model_out: Any, targets: Any) -> Any:
        return model_out.sum() * 0 + losses[model.num]

    model = Noisy(6, 3)
    trainer = Trainer(model, loss_fn, torch.optim.SGD(model.parameters(), 0.1), show_info=False)
    assert len(trainer.find_lr(loaders()[0], max_batch=20).losses) == 20


def test_a_loss_that_is_not_finite_ends_the_search_without_an_error() -> None:
    class Bursting(nn.Linear):
        num = 0

        def forward(self, x: Any) -> Any:
            self.num += 1
            return super().forward(x) * (math.inf if self.num == 5 else 1)

    curve = small_trainer(Bursting(6, 3)).find_lr(loaders()[0])
    assert len(curve.losses) == 5
    assert not math.isfinite(curve.losses[-1])


@pytest.mark.parametrize(("num_workers", "persistent"), [(0, False), (2, False), (2, True)])
@pytest.mark.parametrize("own_generator", [False, True])
def test_a_fit_after_a_search_is_the_fit_without_it(
    num_workers: int, persistent: bool, own_generator: bool
) -> None:
    def fit(*, search: bool) -> Any:
        trainer = full_trainer()
        torch.manual_seed(9)
        generator = torch.Generator().manual_seed(2) if own_generator else None
        train_dl = DataLoader(
            Augmented(),
            8,
            shuffle=True,
            num_workers=num_workers,
            persistent_workers=persistent,
            generator=generator,
        )
        if search:
            assert len(trainer.find_lr(train_dl, max_batch=15, max_lr=0.5).lrs) == 15
        history = trainer.fit(train_dl, loaders()[1])
        rates = trainer.opt.get_current_lr()
        return (*outcome(trainer, history), rates, trainer.opt.state_dict())

    with_search, without = fit(search=True), fit(search=False)
    assert_same_bits(with_search, without)
    assert with_search[3] == without[3]
    momenta = [
        [entry["momentum_buffer"] for entry in run[4][0]["opt_state"]["state"].values()]
        for run in (with_search, without)
    ]
    assert all(torch.equal(a, b) for a, b in zip(*momenta, strict=True))


def test_a_search_between_two_fits_changes_nothing() -> None:
    def fit(*, search: bool) -> Any:
        trainer = small_trainer(epochs=1)
        torch.manual_seed(9)
        train_dl, val_dl = loaders()
        trainer.fit(train_dl, val_dl)
        before = trainer.progress, trainer.history.epochs[:], trainer.running_id
        if search:
            trainer.find_lr(train_dl, max_batch=9)
        assert (trainer.progress, trainer.history.epochs, trainer.running_id) == before
        trainer.fit(train_dl, val_dl, epochs=2)
        return outcome(trainer, trainer.history)

    assert_same_bits(fit(search=True), fit(search=False))


def test_the_search_does_train_while_it_lasts() -> None:
    """Lest the tests above compare two runs that never moved."""
    trainer = small_trainer()
    curve = trainer.find_lr(DataLoader(small_data(), 48), max_batch=40, max_lr=0.5)
    assert min(curve.losses) < 0.8 * curve.losses[0]


def test_waiting_gradients_and_hidden_buffers_come_back() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 3)
            self.register_buffer("calls", torch.zeros(()), persistent=False)

        def forward(self, x: Any) -> Any:
            self.calls += 1
            return self.layer(x)

    model = Counting()
    trainer = small_trainer(model)
    model.layer.weight.grad = torch.ones(3, 6)
    trainer.find_lr(loaders()[0], max_batch=5)
    assert torch.equal(model.layer.weight.grad, torch.ones(3, 6))
    assert model.layer.bias.grad is None
    assert model.calls == 0


def test_modes_of_layers_come_back() -> None:
    trainer = small_trainer()
    trainer.model[1].eval()
    trainer.find_lr(loaders()[0], max_batch=3)
    assert [layer.training for layer in trainer.model] == [True, False, True, True, True]


def test_an_error_in_the_search_leaves_no_trace_either() -> None:
    class Failing(EpochTask):
        def train_step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> None:
            self.loss(self.model(*batch_x), batch_y)
            if self.run is not None and self.run.batch_idx == 3:
                raise ZeroDivisionError

    trainer = full_trainer()
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    random = torch.get_rng_state()
    with pytest.raises(ZeroDivisionError):
        trainer.find_lr(train_tasks=Failing(loaders()[0]))
    assert all(torch.equal(v, before[k]) for k, v in trainer.model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert trainer.opt[0].scheduler is not None
    assert trainer.on_nan == "stop"


def test_callbacks_take_no_part_but_clipping_does(tmp_path: Path) -> None:
    seen = []

    class Watcher(Callback):
        def on_before_train_batch(self, **others: Any) -> None:
            seen.append(1)

    check = CheckCallback("loss", "train", ckpt_dir=tmp_path / "ckpt")
    callbacks = [Watcher(), check, LogCallback(tmp_path / "logs"), GradClipCallback(1e-9)]
    trainer = small_trainer(nn.Linear(6, 3), callbacks=callbacks)
    curve = trainer.find_lr(DataLoader(small_data(), 48), max_batch=10)
    assert not seen
    assert not list(tmp_path.iterdir())
    assert curve.losses == pytest.approx([curve.losses[0]] * 10)  # steps of no length
    assert [type(cbk).__name__ for cbk in trainer.callbacks][1:] == [
        "Watcher", "CheckCallback", "LogCallback", "GradClipCallback",
    ]  # fmt: skip


def test_of_several_optimizers_one_is_searched_and_the_others_keep_their_rates() -> None:
    def two(**arguments: Any) -> Trainer:
        model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
        opts = [
            torch.optim.SGD(model[0].parameters(), 0.1),
            torch.optim.Adam(model[2].parameters()),
        ]
        return small_trainer(model, opt=opts, **arguments)

    class Rates(EpochTask):
        def train_step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> None:
            self.loss(self.model(*batch_x), batch_y)
            rates.append(self.opt.get_current_lr())

    rates: list[list[float]] = []
    trainer = two()
    curve = trainer.find_lr(train_tasks=Rates(loaders()[0]), max_batch=7, opt_id=1)
    assert [rate for rate, _ in rates] == [0.1] * 7
    assert [rate for _, rate in rates] == curve.lrs
    assert trainer.opt.get_current_lr() == [0.1, 0.001]
    with pytest.raises(ConfigError, match="2 optimizers, so give 0 to 1"):
        trainer.find_lr(loaders()[0])
    with pytest.raises(CallbackException, match=r"opt_id=0\) to 1"):
        two(callbacks=LRFindCallback()).fit(loaders()[0])


def test_groups_keep_their_proportion() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 3))
    groups = [{"params": model[0].parameters(), "lr": 0.2}, {"params": model[1].parameters()}]
    opt = torch.optim.SGD(groups, lr=0.1)
    seen = []

    class Rates(EpochTask):
        def train_step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> None:
            self.loss(self.model(*batch_x), batch_y)
            seen.append([group["lr"] for group in self.opt[0].param_groups])

    curve = small_trainer(model, opt=opt).find_lr(train_tasks=Rates(loaders()[0]), max_batch=4)
    assert [first for first, _ in seen] == curve.lrs
    assert all(second == pytest.approx(first / 2) for first, second in seen)


def test_the_callback_searches_ends_the_fit_and_leaves_no_trace(
    tmp_path: Path, shows: list[Any]
) -> None:
    def fit(*, search: bool) -> Any:
        finder = LRFindCallback(max_batch=15, max_lr=0.5)
        trainer = full_trainer(callbacks=[finder] if search else [], running_id="a")
        torch.manual_seed(9)
        train_dl, val_dl = loaders()
        if search:
            assert trainer.fit(train_dl, val_dl) == {}
            assert len(finder.lrs) == len(finder.losses) == 15
            assert finder.curve is not None
            trainer.callbacks.remove(finder)
        history = trainer.fit(train_dl, val_dl)
        return outcome(trainer, history)

    assert_same_bits(fit(search=True), fit(search=False))
    assert (tmp_path / "logs" / "a" / "lr_find.png").read_bytes().startswith(b"\x89PNG")
    assert not shows


def test_with_a_display_the_plot_is_shown(
    shows: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import matplotlib.pyplot as plt

    monkeypatch.setattr(lr_find, "can_show", lambda: True)
    small_trainer(callbacks=LRFindCallback(max_batch=4)).fit(loaders()[0])
    assert len(shows) == 1
    plt.close("all")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_batch": 0}, "max_batch=0"),
        ({"min_lr": 0.0}, "min_lr=0.0"),
        ({"min_lr": 1.0, "max_lr": 0.1}, "0 < min_lr < max_lr"),
    ],
)
def test_ranges_that_cannot_be_are_refused(arguments: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LRFindCallback(**arguments)
    with pytest.raises(ConfigError, match=message):
        small_trainer().find_lr(loaders()[0], **arguments)


def test_the_data_are_given_once() -> None:
    train_dl = loaders()[0]
    for arguments in ({}, {"train_dl": train_dl, "train_tasks": EpochTask(train_dl)}):
        with pytest.raises(LoopException, match="one of train_dl and train_tasks"):
            small_trainer().find_lr(**arguments)


def test_lazy_layers_are_refused_before_they_come_to_be() -> None:
    model = nn.LazyLinear(3)
    trainer = small_trainer(model, opt=torch.optim.SGD(model.parameters(), 0.1))
    with pytest.raises(ConfigError, match="lazy layers"):
        trainer.find_lr(loaders()[0])


def valley_curve() -> LRCurve:
    """Flat, a slope that steepens to the rate 1e-2 and then flattens, and a burst."""
    lrs = [10 ** (i / 20 - 5) for i in range(100)]
    losses = [3 - 2 / (1 + math.exp(-8 * (math.log10(lr) + 2))) for lr in lrs]
    return LRCurve(
        lrs, [loss if lr < 0.3 else loss + 100 * lr for lr, loss in zip(lrs, losses, strict=True)]
    )


def test_suggestions_follow_their_definitions() -> None:
    """By another road: NumPy's polynomials, and the slope of the curve without its noise."""
    import numpy as np

    curve = valley_curve()
    lrs, losses = np.array(curve.lrs[10:-5]), np.array(curve.smoothed[10:-5])
    lowest = int(losses.argmin())
    slopes = [
        np.polyfit(np.log(lrs[i - 7 : i + 8]), losses[i - 7 : i + 8], 1)[0]
        for i in range(7, lowest)
    ]
    assert curve.suggestion.steepest == lrs[7 + int(np.argmin(slopes))]
    assert curve.suggestion.steepest == pytest.approx(1e-2, rel=0.13)
    half = (losses[: lowest + 1].max() + losses[lowest]) / 2
    assert curve.suggestion.valley == lrs[int((losses <= half).argmax())]
    assert curve.suggestion.valley == pytest.approx(1e-2, rel=0.3)


def test_smoothing_leans_to_no_side_and_does_not_lag() -> None:
    assert LRCurve([1, 2, 3], [2.0, 2.0, 2.0]).smoothed == pytest.approx([2, 2, 2])
    assert LRCurve([1, 2], [1.0, 3.0]).smoothed == [1, 3]
    line = [5.0 - i / 10 for i in range(40)]
    assert LRCurve(range(1, 41), line).smoothed == pytest.approx(line)
    tent = [abs(i - 50.0) for i in range(101)]
    smoothed = LRCurve(range(1, 102), tent).smoothed
    assert smoothed.index(min(smoothed)) == 50


def test_a_burst_does_not_hide_where_the_rise_begins() -> None:
    lrs = [10 ** (i / 20 - 5) for i in range(100)]
    losses = [2.0 - i / 50 for i in range(90)] + [10.0**i for i in range(10)]
    smoothed = LRCurve(lrs, losses).smoothed
    assert max(smoothed) < 5
    assert 80 < smoothed.index(min(smoothed)) < 90


NOT_CLEAR = "does not clearly fall"


def test_a_loss_that_never_falls_suggests_nothing_but_can_be_drawn(tmp_path: Path) -> None:
    curve = LRCurve([10**-i for i in range(30, 0, -1)], [float(i) for i in range(30)])
    with pytest.raises(DataError, match=NOT_CLEAR):
        _ = curve.suggestion
    with pytest.raises(DataError, match="max_batch"):
        _ = LRCurve([0.1], [1.0]).suggestion
    figure = curve.plot()
    figure.savefig(tmp_path / "plot.png")
    assert NOT_CLEAR in figure.axes[0].get_title()
    LRCurve([], []).plot().savefig(tmp_path / "empty.png")


@pytest.mark.parametrize("num", [30, 100, 1000])
def test_noise_alone_suggests_nothing(num: int) -> None:
    """A model that is trained, or data that have nothing to learn."""
    lrs = [10 ** (6 * i / num - 6) for i in range(num)]
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        curve = LRCurve(lrs, (2 + 0.3 * torch.randn(num, generator=generator)).tolist())
        with pytest.raises(DataError, match=NOT_CLEAR):
            _ = curve.suggestion
        assert NOT_CLEAR in repr(curve)


@pytest.mark.parametrize("num", [30, 100, 1000])
def test_a_fall_in_noise_is_found(num: int) -> None:
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        noise = (0.3 * torch.randn(num, generator=generator)).tolist()
        lrs = [10 ** (6 * i / num - 6) for i in range(num)]
        falls = [2 / (1 + math.exp(4 * (math.log10(lr) + 3))) for lr in lrs]
        curve = LRCurve(lrs, [fall + one for fall, one in zip(falls, noise, strict=True)])
        assert curve.suggestion.valley == pytest.approx(1e-3, rel=1.5)


@pytest.mark.parametrize("losses", [[math.inf] * 9, [math.nan] * 9, [3.0, math.nan, 1.0]])
def test_losses_that_are_not_finite_are_drawn_and_suggest_nothing(
    losses: list[float], tmp_path: Path
) -> None:
    curve = LRCurve([10.0**i for i in range(len(losses))], losses)
    assert "no suggestion" in repr(curve)
    curve.plot().savefig(tmp_path / "plot.png")


def test_the_plot_shows_the_suggestions(tmp_path: Path) -> None:
    figure = valley_curve().plot()
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert labels[:2] == ["loss", "smoothed"]
    assert [label.split(":")[0] for label in labels[2:]] == ["the loss falls", "steepest", "valley"]
    assert figure.axes[0].get_xscale() == "log"
    valley = f"{valley_curve().suggestion.valley:.2g}"
    assert figure.axes[0].get_title() == f"Learning rates: try {valley}"
    assert f"valley {valley}" in repr(valley_curve())


def test_a_suggested_rate_trains_better_than_ones_far_from_it() -> None:
    torch.manual_seed(0)
    train_dl = DataLoader(small_data(384), 16, shuffle=True)
    best = small_trainer().find_lr(train_dl).suggestion.valley

    def loss_with(lr: float) -> float:
        model = small_trainer().model
        trainer = small_trainer(model, opt=torch.optim.SGD(model.parameters(), lr), epochs=1)
        return float(trainer.fit(train_dl)["train"]["loss"][-1])

    assert loss_with(best) < min(loss_with(best / 300), loss_with(best * 300))


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.SGD, torch.optim.AdamW])
def test_both_suggestions_as_one_rate_are_refused_with_the_way_to_choose(kind: Any) -> None:
    both = valley_curve().suggestion
    with pytest.raises(TypeError, match=r"two learning rates: give \.valley"):
        kind([torch.ones(1, requires_grad=True)], lr=both)
    assert both < both._replace(steepest=9.0) and both >= tuple(both)
