"""Counters and history: what `fit` returns, and that it survives a checkpoint to the bit."""

from __future__ import annotations

import copy
import csv
import io
import json
import math
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from deepepochs.errors import CheckpointMismatch, ConfigError
from deepepochs.history import History, Progress, Results
from deepepochs.show.figures import COLORS


def through_a_file(state: Any) -> Any:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.fixture
def history() -> History:
    made = History()
    made.add_epoch(0, {"loss": 2.5, "acc": np.float32(0.1)})
    made.add_epoch(1, {"loss": 2.25, "acc": np.float32(0.2)}, {"loss": 2.0, "acc": 0.3})
    made.add_epoch(2, {"loss": 1.0 / 3.0, "acc": np.float32(0.3)})
    made.add_epoch(3, {"loss": 1.5, "acc": np.float32(0.4)}, {"loss": 1.25, "acc": 0.5})
    return made


def test_it_equals_a_plain_dict_of_the_same_content(history: History) -> None:
    assert history == {
        "train": {
            "loss": [2.5, 2.25, 1.0 / 3.0, 1.5],
            "acc": [np.float32(v) for v in (0.1, 0.2, 0.3, 0.4)],
        },
        "val": {"loss": [2.0, 1.25], "acc": [0.3, 0.5]},
    }
    assert isinstance(history, dict)


def test_values_are_floats_which_json_takes(history: History) -> None:
    values = [value for table in history.values() for column in table.values() for value in column]
    assert all(type(value) is float for value in values)
    assert json.loads(json.dumps(history)) == history


def test_without_an_epoch_it_is_empty_and_without_validation_has_no_val() -> None:
    history = History()
    assert history == {}
    history.add_epoch(0, {"loss": 1.0})
    assert list(history) == ["train"]


def test_epoch_indices_are_kept_for_each_row(history: History) -> None:
    assert (history.epochs, history.val_epochs) == ([0, 1, 2, 3], [1, 3])


def test_loss_comes_first_wherever_it_came() -> None:
    history = History()
    history.add_epoch(0, {"b": 1.0, "a": 1.0})
    history.add_epoch(1, {"a": 1.0, "loss": 2.0, "b": 1.0})
    assert list(history["train"]) == ["loss", "b", "a"]


def test_a_metric_that_was_not_computed_in_an_epoch_is_nan_there() -> None:
    history = History()
    history.add_epoch(0, {"loss": 1.0, "early": np.array([1, 2])})
    history.add_epoch(1, {"loss": 2.0, "late": np.float32(3.0)})
    train = history["train"]
    np.testing.assert_array_equal(train["late"], [math.nan, 3.0])
    np.testing.assert_array_equal(train["early"], [[1.0, 2.0], [math.nan, math.nan]])


def test_a_history_with_nan_is_printed_drawn_written_and_saved(tmp_path: Path) -> None:
    history = History()
    history.add_epoch(0, {"loss": 1.0})
    history.add_epoch(1, {"loss": 2.0, "late": 3.0, "each": [1.0, 2.0]})
    assert repr(history).splitlines()[1].split() == ["1", "1.0000*", "nan", "[nan", "nan]"]
    assert len(history.plot().axes) == 3
    text = history.to_csv(tmp_path / "history.csv").read_text(encoding="utf-8")
    assert text.splitlines()[1] == "1,1.0,nan,nan,nan"
    again = History()
    again.load_state_dict(through_a_file(history.state_dict()))
    np.testing.assert_array_equal(again["train"]["late"], [math.nan, 3.0])
    assert again.since(1)["train"]["late"] == [3.0]


def test_a_later_change_of_a_value_that_was_added_does_not_show() -> None:
    value, history = torch.tensor(1.0), History()
    history.add_epoch(0, {"loss": value})
    value.add_(5)
    assert history["train"]["loss"] == [1.0]


@pytest.mark.parametrize("value", [2, True, 0.5, torch.tensor(0.5), torch.tensor(0.5).bfloat16()])
def test_every_kind_of_number_is_taken(value: Any) -> None:
    history = History()
    history.add_epoch(0, {"loss": value})
    assert history["train"]["loss"] == [float(value)]


def test_since_gives_the_later_epochs(history: History) -> None:
    later = history.since(2)
    assert later["train"]["loss"] == [1.0 / 3.0, 1.5]
    assert later["val"] == {"loss": [1.25], "acc": [0.5]}
    assert (later.epochs, later.val_epochs) == ([2, 3], [3])


def test_since_without_later_epochs_is_empty(history: History) -> None:
    assert history.since(4) == {}
    assert list(history.since(0)) == ["train", "val"]


def test_adding_to_what_since_gave_leaves_the_whole_alone(history: History) -> None:
    later = history.since(3)
    later.add_epoch(4, {"loss": 0.5, "acc": 0.5})
    assert len(history["train"]["loss"]) == 4


def test_a_history_survives_a_checkpoint_to_the_bit(history: History) -> None:
    history.add_epoch(4, {"loss": 0.1, "recall": torch.tensor([0.1, 0.2])}, {"acc": 0.7, "n": 3})
    again = History()
    again.add_epoch(9, {"other": 1.0}, {"other": 1.0})
    again.load_state_dict(through_a_file(history.state_dict()))
    assert (again.epochs, again.val_epochs) == (history.epochs, history.val_epochs)
    assert list(again) == list(history)
    for stage, table in history.items():
        assert list(again[stage]) == list(table)
        for name, values in table.items():
            for value, restored in zip(values, again[stage][name], strict=True):
                assert type(value) is type(restored)
                assert np.array(value).tobytes() == np.array(restored).tobytes()


def test_values_of_changing_shape_survive_too() -> None:
    history = History()
    history.add_epoch(0, {"acc": np.float32([0.1, 0.2])})
    history.add_epoch(1, {"acc": 0.1})
    again = History()
    again.load_state_dict(through_a_file(history.state_dict()))
    first, second = again["train"]["acc"]
    assert (first.dtype, second) == (np.float32, 0.1)


def test_restoring_one_without_validation_removes_val(history: History) -> None:
    history.load_state_dict(History().state_dict())
    assert history == {}
    assert history.epochs == history.val_epochs == []


def test_copies_and_pickles_keep_everything(history: History) -> None:
    for again in (copy.deepcopy(history), pickle.loads(pickle.dumps(history))):
        assert again == history
        assert again.val_epochs == [1, 3]


def test_a_csv_has_a_row_per_epoch_and_blanks_without_validation(
    history: History, tmp_path: Path
) -> None:
    path = history.to_csv(tmp_path / "history.csv")
    rows = list(csv.reader(path.read_text(encoding="utf-8").splitlines()))
    assert rows[0] == ["epoch", "train_loss", "train_acc", "val_loss", "val_acc"]
    assert rows[1] == ["1", "2.5", str(float(np.float32(0.1))), "", ""]
    assert [float(cell) for cell in rows[2]] == [2, 2.25, np.float32(0.2), 2.0, np.float32(0.3)]
    assert len(rows) == 5


def test_a_csv_keeps_every_bit(history: History, tmp_path: Path) -> None:
    path = history.to_csv(tmp_path / "history.csv")
    rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    assert float(rows[2]["train_loss"]) == 1.0 / 3.0
    assert np.float32(rows[0]["train_acc"]) == np.float32(0.1)


def test_a_csv_gives_each_entry_of_a_vector_its_column(tmp_path: Path) -> None:
    history = History()
    history.add_epoch(0, {"recall": np.array([0.5, 0.25])})
    text = history.to_csv(tmp_path / "history.csv").read_text(encoding="utf-8")
    assert text == "epoch,train_recall[0],train_recall[1]\n1,0.5,0.25\n"


def test_a_plot_has_a_train_and_a_val_line_for_each_metric(
    history: History, tmp_path: Path
) -> None:
    figure = history.plot()
    loss, acc = figure.axes
    assert (loss.get_title(), acc.get_title()) == ("loss", "acc")
    train, val = loss.get_lines()
    assert (train.get_color(), val.get_color()) == (COLORS["train"], COLORS["val"])
    assert (train.get_label(), val.get_label()) == ("train", "val")
    assert list(train.get_xdata()) == [1, 2, 3, 4]
    assert list(val.get_xdata()) == [2, 4]
    assert list(val.get_ydata()) == [2.0, 1.25]
    figure.savefig(tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 1000


def test_a_plot_leaves_no_figure_behind_in_pyplot(history: History) -> None:
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    history.plot(["loss"])
    assert plt.get_fignums() == before


def test_a_plot_of_a_vector_has_a_line_per_entry() -> None:
    history = History()
    for idx in range(3):
        history.add_epoch(idx, {"recall": np.array([0.1, 0.2]) * idx})
    labels = [line.get_label() for line in history.plot().axes[0].get_lines()]
    assert labels == ["train[0]", "train[1]"]


def test_a_plot_of_an_unknown_metric_names_those_there_are(history: History) -> None:
    with pytest.raises(ConfigError, match="no metric 'f1': there are 'loss', 'acc'"):
        history.plot(["f1"])
    with pytest.raises(ConfigError, match="no epoch was run"):
        History().plot()


def test_it_prints_as_a_table_of_epochs(history: History) -> None:
    assert repr(history.since(1)).splitlines() == [
        "epoch  train loss  train acc  val loss   val acc",
        "    2      2.2500     0.2000    2.0000    0.3000",
        "    3      0.3333     0.3000",
        "    4      1.5000     0.4000    1.2500*   0.5000*",
        "* best",
    ]
    assert repr(History()) == "History without epochs"


def test_a_long_one_prints_its_ends_and_its_best_epoch() -> None:
    history = History()
    for idx in range(1000):
        history.add_epoch(idx, {"loss": abs(idx - 499.0)})
    lines = repr(history).splitlines()
    assert len(lines) == 25
    first = [line.split()[0] for line in lines]
    assert first[:2] + first[10:15] == ["epoch", "1", "10", "...", "500", "...", "991"]
    assert lines[12].endswith("0.0000*")


def test_one_wider_than_the_terminal_prints_a_table_of_each_stage(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    assert repr(history.since(2)).splitlines() == [
        "train",
        "epoch    loss     acc",
        "    3  0.3333  0.3000",
        "    4  1.5000  0.4000",
        "val",
        "epoch    loss      acc",
        "    3",
        "    4  1.2500*  0.5000*",
        "* best",
    ]


@pytest.mark.parametrize("columns", [30, 60, 80])
@pytest.mark.parametrize("validates", [True, False])
def test_with_many_metrics_it_prints_parts_as_wide_as_the_terminal(
    columns: int, validates: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    metrics = {"loss": 0.5, **{f"metric_{n}": n / 16 for n in range(12)}}
    history = History()
    for idx in range(3):
        history.add_epoch(idx, metrics, metrics if validates else None)
    results = [Results(metrics), Results({f"{t}/{n}": v for t in "ab" for n, v in metrics.items()})]
    for shown in map(repr, [history, *results]):
        assert max(map(len, shown.splitlines())) <= columns
        assert all(f"{n / 16:.4f}" in shown and f"metric_{n}" in shown for n in range(12))
    parts = [line for line in repr(results[1]).splitlines() if line.startswith("a ")]
    assert len(parts) == sum(line.startswith(" ") for line in repr(results[1]).splitlines()) > 1


def test_a_table_that_fits_is_one_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert repr(Results({"loss": 0.5, "acc": 0.25})).splitlines() == [
        "  loss     acc",
        "0.5000  0.2500",
    ]


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("history", "write history['train'] and history['val'], for"),
        ("loss", "write history['train']['loss'] and history['val']['loss']"),
        ("val_loss", "write history['val']['loss']"),
        ("zebra", "has no attribute 'zebra'"),
    ],
)
def test_an_attribute_that_is_none_is_told_as_an_entry(
    history: History, name: str, advice: str
) -> None:
    with pytest.raises(AttributeError, match=re.escape(advice)):
        getattr(history, name)
    with pytest.raises(AttributeError, match=r"write results\['accuracy'\]"):
        _ = Results({"accuracy": 1.0}).accuracy
    assert not hasattr(Results(), "accuracy")


@pytest.mark.parametrize("name", ["curves.png", "out/Curves.PDF"])
def test_the_name_of_a_file_is_for_savefig(history: History, name: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"history.plot().savefig({name!r})")):
        history.plot(name)


def test_timing_is_kept_apart_from_the_metrics(history: History) -> None:
    assert history.timing == {}
    history.timing["loading"] = 1.5
    assert "timing" not in history.state_dict()
    assert history.since(2).timing == {"loading": 1.5}


def test_progress_goes_through_its_state() -> None:
    progress = Progress(epoch_idx=2, num_train_batches=30, num_val_batches=4, num_steps=15)
    assert Progress.from_state(through_a_file(progress.state_dict())) == progress
    assert Progress() == (0, 0, 0, 0)


def test_progress_is_frozen() -> None:
    with pytest.raises(AttributeError):
        Progress().epoch_idx = 3  # type: ignore[misc]


def test_a_progress_state_that_lacks_a_counter_is_refused() -> None:
    with pytest.raises(CheckpointMismatch, match="is missing num_val_batches, num_steps"):
        Progress.from_state({"epoch_idx": 1, "num_train_batches": 3})


def test_the_best_epoch_is_a_part_of_best() -> None:
    with pytest.raises(AttributeError, match=r"write history\.best\(\)\.epoch"):
        _ = History().best_epoch  # type: ignore[attr-defined]
