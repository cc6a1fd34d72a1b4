"""Reading what came out: names that are elsewhere, the best epoch, pandas, plots and reprs."""

from __future__ import annotations

import copy
import functools
import inspect
import json
import math
import pickle
import re
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from deepepochs import (
    Callback,
    ConfigError,
    ConfusionMetrics,
    DeepEpochsError,
    EpochTask,
    History,
    MeanPatch,
    MetricNotFound,
    MissingExtraError,
    Optimizer,
    Optimizers,
    TensorPatch,
    Trainer,
    ValuePatch,
)
from deepepochs.history import Best, Results
from deepepochs.metrics import accuracy
from deepepochs.show.figures import COLORS


def history_of(train: dict[str, list[Any]], val: dict[str, list[Any]] | None = None) -> History:
    made = History()
    for idx in range(len(next(iter(train.values())))):
        rows = [
            None if table is None else {name: values[idx] for name, values in table.items()}
            for table in (train, val)
        ]
        made.add_epoch(idx, rows[0] or {}, rows[1])
    return made


@pytest.fixture
def history() -> History:
    return history_of(
        {"loss": [2.0, 1.0, 0.5], "accuracy": [0.2, 0.6, 0.9]},
        {"loss": [2.5, 0.8, 1.5], "accuracy": [0.3, 0.7, 0.5]},
    )


# --- names


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("val_loss", "it is history['val']['loss']."),
        ("train_accuracy", "it is history['train']['accuracy']."),
        ("validation/loss", "it is history['val']['loss']."),
        ("val_acc", "did you mean history['val']['accuracy']?"),
        ("train_los", "did you mean history['train']['loss']?"),
        ("loss", "it is history['train']['loss'] and history['val']['loss']."),
        ("acc", "did you mean history['train']['accuracy'] or history['val']['accuracy']?"),
        ("epoch", "there are 'train' and 'val', with loss, accuracy."),
        ("f1", "there are 'train' and 'val', with loss, accuracy."),
        ("test", "the results of a test are what trainer.test() returns."),
        ("test_accuracy", "the results of a test are what trainer.test() returns."),
        (0, "there are 'train' and 'val', with loss, accuracy."),
    ],
)
def test_a_name_that_a_history_does_not_have_is_answered(
    history: History, name: Any, answer: str
) -> None:
    with pytest.raises(KeyError) as error:
        history[name]
    assert str(error.value) == f"history[{name!r}]: {answer}"
    assert isinstance(error.value, DeepEpochsError)


def test_what_is_not_there_yet_is_said() -> None:
    with pytest.raises(MetricNotFound, match="the history is empty, for no epoch was run"):
        History()["train"]
    trained = history_of({"loss": [1.0]})
    for name in ("val", "val_loss"):
        with pytest.raises(MetricNotFound, match=r"no epoch was validated.*fit\(train_dl, val_dl"):
            trained[name]
    assert trained.get("val") is None
    assert "val" not in trained


def test_a_stage_answers_too(history: History) -> None:
    for table in (
        history["val"],
        history.since(1)["val"],
        pickle.loads(pickle.dumps(history))["val"],
    ):
        with pytest.raises(MetricNotFound, match=r"'acc' in this stage.*Did you mean 'accuracy'\?"):
            table["acc"]
    again = History()
    again.load_state_dict(history.state_dict())
    with pytest.raises(MetricNotFound, match="there are loss, accuracy"):
        again["train"]["f1"]


def test_results_are_a_dict_that_prints_as_a_table() -> None:
    results = Results({"loss": 0.25, "accuracy": 0.9375})
    assert results == {"loss": 0.25, "accuracy": 0.9375}
    assert json.loads(json.dumps(results)) == results
    assert dict(**results) == {**results} == results
    assert repr(results).splitlines() == ["  loss  accuracy", "0.2500    0.9375"]
    for again in (copy.deepcopy(results), pickle.loads(pickle.dumps(results))):
        assert (again, type(again)) == (results, Results)
    assert repr(Results()) == "Results without metrics"


@pytest.mark.parametrize("name", ["acc", "test_acc", "val/accuracy", "accuracies"])
def test_results_say_which_name_may_be_meant(name: str) -> None:
    with pytest.raises(KeyError, match=r"in these results; .* Did you mean 'accuracy'\?"):
        Results({"loss": 0.25, "accuracy": 0.9375})[name]


def test_a_test_gives_results() -> None:
    trainer = Trainer(nn.Linear(2, 2), F.cross_entropy, metrics=accuracy, show_info=False)
    data = [(torch.randn(4, 2), torch.tensor([0, 1, 0, 1]))]
    tasks = [EpochTask(data, name="day"), EpochTask(data, name="night")]
    results = trainer.test(tasks=tasks)
    assert type(results) is Results
    assert [line.split()[0] for line in repr(results).splitlines()] == [
        "loss",
        "all",
        "day",
        "night",
    ]
    with pytest.raises(KeyError, match="Did you mean 'night/loss'"):
        results["night_loss"]


# --- the best epoch


def test_the_best_epoch_is_that_of_validation_if_there_is_one(history: History) -> None:
    assert history.best() == history.best("loss") == history.best("val_loss") == (2, 0.8)
    assert history.best("train_loss") == Best(epoch=3, value=0.5)
    assert history.best("accuracy") == (2, 0.7)
    assert history.best("accuracy", "min") == (1, 0.3)
    assert history.since(2).best("train_loss") == (3, 0.5)


def test_epochs_are_counted_where_not_all_are_validated() -> None:
    made = History()
    for idx in range(6):
        made.add_epoch(idx, {"loss": 1.0}, {"loss": abs(idx - 3.0)} if idx % 2 else None)
    assert made.best("loss") == (4, 0.0)


def test_of_equal_values_the_first_is_best_and_nan_is_none() -> None:
    made = history_of({"loss": [math.nan, 1.0, 1.0, math.inf], "mine": [math.nan] * 4})
    assert made.best("loss") == (2, 1.0)
    with pytest.raises(ConfigError, match="no epoch has a single finite number"):
        made.best("mine", "max")


def test_a_metric_whose_direction_is_unknown_asks_for_it() -> None:
    made = history_of({"loss": [1.0, 2.0], "score": [1.0, 2.0]})
    with pytest.raises(
        ConfigError, match=r"give history.best\('score', mode='max'\) or mode='min'"
    ):
        made.best("score")
    assert made.best("score", "max") == (2, 2.0)
    with pytest.raises(ConfigError, match="mode='most': give one of 'max', 'min'"):
        made.best("score", "most")
    assert "score" in made.plot().axes[1].get_title()  # drawn without a best epoch
    with pytest.raises(KeyError, match=r"'val_score' in the history.*Did you mean 'train_score'\?"):
        made.best("val_score")


def test_a_direction_that_the_metric_declares_is_used() -> None:
    def score(preds: Any, targets: Any) -> float:
        return 1 / (1 + trainer.init_epoch)

    score.direction = "max"  # type: ignore[attr-defined]
    metric = functools.partial(score)
    trainer = Trainer(nn.Linear(2, 2), F.cross_entropy, epochs=2, show_info=False)
    data = [(torch.randn(4, 2), torch.tensor([0, 1, 0, 1]))]
    tasks = [EpochTask(data, metrics=metric, name=name) for name in "ab"]
    history = trainer.fit(data, val_tasks=tasks, metrics=[])
    assert history.best("a/score") == (1, 1.0)
    assert pickle.loads(pickle.dumps(trainer.history)).best("b/score").epoch == 1


def test_a_direction_of_another_meaning_is_no_error() -> None:
    def heading(preds: Any, targets: Any) -> float:
        return 0.5

    heading.direction = "north"  # type: ignore[attr-defined]
    trainer = Trainer(nn.Linear(2, 2), F.cross_entropy, epochs=1, show_info=False)
    history = trainer.fit([(torch.randn(4, 2), torch.tensor([0, 1, 0, 1]))], metrics=heading)
    with pytest.raises(ConfigError, match="mode='max'"):
        history.best("heading")


# --- pandas


def test_a_table_of_pandas_has_a_row_per_epoch_and_nan_where_nothing_is() -> None:
    pd = pytest.importorskip("pandas")
    made = History()
    made.add_epoch(0, {"loss": 2.0})
    made.add_epoch(1, {"loss": 1.0, "recall": np.array([0.5, 0.25])}, {"loss": 1.5})
    frame = made.to_pandas()
    assert list(frame.columns) == ["train_loss", "train_recall[0]", "train_recall[1]", "val_loss"]
    assert (frame.index.name, list(frame.index)) == ("epoch", [1, 2])
    assert list(frame["train_loss"]) == [2.0, 1.0]
    assert frame["val_loss"].isna().tolist() == [True, False]
    assert frame["train_recall[1]"].isna().tolist() == [True, False]
    assert set(map(str, frame.dtypes)) == {"float64"}
    assert isinstance(History().to_pandas(), pd.DataFrame)


def test_the_columns_are_those_of_the_csv(history: History, tmp_path: Any) -> None:
    pd = pytest.importorskip("pandas")
    read = pd.read_csv(history.to_csv(tmp_path / "history.csv"), index_col="epoch")
    pd.testing.assert_frame_equal(read, history.to_pandas())


def test_without_pandas_the_command_is_given(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingExtraError, match="pip install pandas"):
        history.to_pandas()


# --- plots


def names_of(axes: Any) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]


@pytest.mark.parametrize(("num", "grid"), [(1, (1, 1)), (2, (1, 2)), (3, (1, 3)), (7, (3, 3))])
def test_there_are_at_most_three_plots_side_by_side(num: int, grid: tuple[int, int]) -> None:
    figure = history_of({f"m{i}": [1.0, 2.0] for i in range(num)}).plot()
    assert len(figure.axes) == num
    for place, axes in enumerate(figure.axes):
        spec = axes.get_subplotspec()
        assert spec is not None
        assert (*spec.get_geometry()[:2], spec.num1) == (*grid, place)


def test_the_best_epoch_is_marked(history: History) -> None:
    loss, acc = history.plot().axes
    assert names_of(loss) == ["train", "val", "best: 0.8 (epoch 2)"]
    assert names_of(acc) == ["train", "val", "best: 0.7 (epoch 2)"]
    (star,) = loss.collections
    assert np.asarray(star.get_offsets()).tolist() == [[2, 0.8]]


def test_one_epoch_shows_points_and_no_best() -> None:
    (axes,) = history_of({"loss": [1.0]}, {"loss": [2.0]}).plot().axes
    assert [line.get_marker() for line in axes.get_lines()] == [".", "."]
    assert names_of(axes) == ["train", "val"]
    assert list(axes.get_xticks()) == [1]


def test_60_epochs_of_6_metrics_are_drawn_in_a_readable_size() -> None:
    values = [1.0 / (i + 1) for i in range(60)]
    figure = history_of(dict.fromkeys(("loss", "a", "b", "c", "d", "e"), values)).plot()
    figure.canvas.draw()
    width, height = figure.get_size_inches() * figure.dpi
    boxes = [axes.get_position() for axes in figure.axes]
    assert len({round(box.x0, 2) for box in boxes}) == 3
    assert len({round(box.y0, 2) for box in boxes}) == 2
    assert all(box.width * width > 250 and box.height * height > 150 for box in boxes)
    titles = [axes.title.get_window_extent() for axes in figure.axes]
    assert not any(a.overlaps(b) for i, a in enumerate(titles) for b in titles[:i])


@pytest.mark.parametrize("num", [2, 8, 9, 60, 1000])
def test_epochs_are_whole_numbers_from_1(num: int) -> None:
    (axes,) = history_of({"loss": [1.0 / (i + 1) for i in range(num)]}).plot().axes
    low, high = axes.get_xlim()
    ticks = [tick for tick in axes.get_xticks() if low <= tick <= high]
    assert 2 <= len(ticks) <= 9
    assert all(tick == int(tick) >= 1 for tick in ticks)
    assert axes.get_lines()[0].get_marker() == ("." if num < 50 else "")


def test_epochs_without_a_value_are_left_out() -> None:
    made = history_of({"loss": [1.0, math.nan, 3.0], "late": [math.nan, math.inf, 2.0]})
    loss, late = made.plot().axes
    assert list(loss.get_lines()[0].get_xdata()) == [1, 3]
    assert list(late.get_lines()[0].get_xdata()) == [3]
    (axes,) = history_of({"loss": [math.nan, math.nan]}).plot().axes
    assert [text.get_text() for text in axes.texts] == ["no finite value"]


def test_a_loss_that_falls_far_has_a_logarithmic_axis_that_says_so() -> None:
    (axes,) = history_of({"loss": [2.0 / 2**i for i in range(12)]}).plot().axes
    assert (axes.get_yscale(), axes.get_ylabel()) == ("log", "logarithmic")
    for values in ([0.01, 0.5, 0.99], [2.0, 1.0, -0.5], [2.0, 1.0, 0.5]):
        (axes,) = history_of({"loss": values}).plot().axes
        assert axes.get_yscale() == "linear"


def test_a_long_vector_is_drawn_as_its_mean_and_range() -> None:
    values = [np.linspace(0, 1, 256) * scale for scale in (1.0, 2.0)]
    (axes,) = history_of({"recall": values}, {"recall": values}).plot().axes
    assert names_of(axes) == ["train, mean and range of 256", "val, mean and range of 256"]
    train, _ = axes.get_lines()
    assert list(train.get_ydata()) == pytest.approx([0.5, 1.0])
    assert train.get_color() == COLORS["train"]


def test_vectors_of_changing_length_and_absent_ones_are_drawn() -> None:
    values = [np.array([0.5, 0.25]), 0.75, np.array([math.nan, 1.0])]
    (axes,) = history_of({"recall": values}).plot().axes
    assert [list(line.get_xdata()) for line in axes.get_lines()] == [[1, 2], [1, 3]]
    many = [np.full(9, math.nan), np.arange(9.0)]
    (axes,) = history_of({"recall": many}).plot().axes
    assert list(axes.get_lines()[0].get_xdata()) == [2]


def test_a_name_with_dollars_is_no_formula(tmp_path: Any) -> None:
    history_of({r"cost $\bad$": [1.0]}).plot().savefig(tmp_path / "plot.png")


def test_a_figure_can_be_pickled_and_is_one_of_matplotlib(history: History) -> None:
    from matplotlib.figure import Figure

    figure = history.plot()
    assert isinstance(figure, Figure)
    assert len(pickle.loads(pickle.dumps(figure)).axes) == 2


def test_a_notebook_gets_one_image_of_each_metric() -> None:
    made = history_of({f"m{i}": [1.0, 2.0] for i in range(15)})
    html = made._repr_html_()
    assert html.count("<img") == 12
    assert html.count("<table") == 2
    assert History()._repr_html_() == "<p>History without epochs</p>"


# --- reprs


def test_an_optimizer_says_class_rate_and_schedule() -> None:
    weights = [nn.Parameter(torch.ones(1)) for _ in range(5)]
    sgd = torch.optim.SGD([{"params": [w], "lr": 0.1 / (i + 1)} for i, w in enumerate(weights)])
    assert repr(Optimizer(sgd)) == "Optimizer(SGD, lr=[0.1, 0.05, 0.03333, ...])"
    adam = torch.optim.Adam(weights, lr=torch.tensor(1e-4))
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(adam, mode="max")
    shown = Optimizer(adam, plateau, monitor="accuracy")
    assert repr(shown) == (
        "Optimizer(Adam, lr=0.0001, ReduceLROnPlateau on 'epoch', monitor='accuracy')"
    )
    assert repr(Optimizers([shown])) == f"[{shown!r}]"


def test_a_task_says_name_length_metrics_and_stage() -> None:
    data = [(torch.randn(4, 2), torch.tensor([0, 1, 0, 1]))] * 3
    seen = []

    class Mine(EpochTask):
        def train_step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> None:
            seen.append(repr(self))
            self.loss(self.model(*batch_x), batch_y)

    task = Mine(data, metrics=[accuracy], name="night")
    assert repr(task) == "Mine 'night': 3 mini-batches of list; metrics: accuracy"
    Trainer(nn.Linear(2, 2), F.cross_entropy, epochs=1, show_info=False).fit(train_tasks=task)
    assert seen[0] == f"{task!r}; runs in train"

    class Endless:
        def __iter__(self) -> Any:
            return iter(data)

    assert repr(EpochTask(Endless())) == "EpochTask: ? mini-batches of Endless"
    assert repr(EpochTask(data[:1])) == "EpochTask: 1 mini-batch of list"
    assert "super().__init__" in repr(EpochTask.__new__(EpochTask))


def test_a_trainer_says_what_trains_and_how_far_it_is() -> None:
    model = nn.Sequential(nn.Linear(40, 50), nn.LazyLinear(2))
    trainer = Trainer(model, F.cross_entropy, torch.optim.SGD(model[0].parameters(), 0.1), epochs=3,
                      running_id="a", metrics=[accuracy])  # fmt: skip
    assert repr(trainer).splitlines() == [
        "Trainer of run 'a', 0 of 3 epochs",
        "  model:     Sequential, 2,050 parameters",
        "  optimizer: Optimizer(SGD, lr=0.1)",
        "  metrics:   accuracy",
        "  device:    cpu",
    ]
    assert "<td" in trainer._repr_html_()


def test_a_trainer_in_a_hook_says_so_too() -> None:
    class Look(Callback):
        def on_after_epoch(self, trainer: Any, **others: Any) -> None:
            self.seen = repr(trainer)

    look = Look()
    data = [(torch.randn(4, 2), torch.tensor([0, 1, 0, 1]))]
    Trainer(nn.Linear(2, 2), F.cross_entropy, epochs=2, callbacks=look, show_info=False).fit(data)
    assert re.match(r"Trainer of run '.*', 1 of 2 epochs", look.seen)


def test_a_trainer_whose_making_has_failed_can_be_shown() -> None:
    assert repr(Trainer.__new__(Trainer)).startswith("<deepepochs.trainer.Trainer object")
    assert Trainer.__new__(Trainer)._repr_html_() is None


def test_what_an_object_has_can_be_asked() -> None:
    task = EpochTask([(torch.zeros(2, 1), torch.zeros(2, 1))])
    for asked in (Trainer(nn.Linear(1, 1), console="off"), task):
        assert "train_step" in dict(inspect.getmembers(asked))
    assert not hasattr(task, "model")


def test_a_subclass_that_has_not_called_init_is_told_so() -> None:
    class Mine(Trainer):
        def __init__(self, model: nn.Module) -> None:
            self.layers = list(model.children()), self.model

    with pytest.raises(AttributeError, match=r"'model': Mine.__init__ has not called super\(\)"):
        Mine(nn.Sequential(nn.Linear(1, 1)))


def test_a_patch_says_how_much_is_in_it() -> None:
    outputs, targets = torch.eye(4)[[0, 1, 2]], torch.tensor([0, 1, 3])
    assert repr(ValuePatch(2).load(0.5)) == "ValuePatch(mean 0.5, weight 2)"
    assert repr(ValuePatch(2).load({"a": 1.0, "b": 2.0})) == "ValuePatch(means of a, b)"
    assert repr(ValuePatch(2).load(torch.ones(3))) == "ValuePatch(weight 2)"
    mean = MeanPatch(accuracy, 3).load(outputs, targets)
    assert repr(mean) == "MeanPatch(accuracy, mean 0.6667, weight 3)"
    kept = TensorPatch(accuracy).load(outputs, targets)
    assert repr(kept + kept) == "TensorPatch(accuracy, 6 outputs)"
    assert repr(ConfusionMetrics(name=None).load(outputs, targets)) == "ConfusionMetrics(3 samples)"
    assert repr(TensorPatch(accuracy)) == "TensorPatch(accuracy)"
