"""The small tools that scripts written for 0.6 use, and the import paths they use them by."""

from __future__ import annotations

import copy
import functools
import importlib
import math
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from deepepochs import metrics as dm
from deepepochs.arguments import default_loss
from deepepochs.errors import ConfigError, DataError, StepError
from deepepochs.legacy.mappings import concat_dicts, ddict, flatten_dict, keyset, listify, sum_dicts
from deepepochs.legacy.naming import check_path, make_runningid, rename
from deepepochs.legacy.reductions import Moveing, MovingAverage, TopKQueue, groupby_apply
from deepepochs.legacy.yaml import load_yaml
from deepepochs.patches import CountsPatch, make_patch
from deepepochs.patches.base import metric_name
from deepepochs.patches.plan import plan_metrics
from deepepochs.show.plots import SeriesPlots, draw_confusion, plot_confusion

# ---- ddict


def test_a_ddict_reads_sets_and_deletes_keys_as_attributes() -> None:
    d = ddict({"a": 1}, b=2)
    d.c = 3
    del d.a
    assert d == {"b": 2, "c": 3} and d.b == 2 and isinstance(d, dict)


@pytest.mark.parametrize("how", ["init", "item", "attribute", "update", "setdefault", "or", "ior"])
def test_a_dict_put_into_a_ddict_becomes_one_whatever_the_way(how: str) -> None:
    inner = {"b": {"c": 1}}
    d = ddict(a=inner) if how == "init" else ddict()
    if how == "item":
        d["a"] = inner
    elif how == "attribute":
        d.a = inner
    elif how == "update":
        d.update(a=inner)
    elif how == "setdefault":
        assert d.setdefault("a", inner).b.c == 1
    elif how == "or":
        d = d | {"a": inner}
    elif how == "ior":
        d |= {"a": inner}
    assert type(d) is ddict and d.a.b.c == 1
    assert type(inner["b"]) is dict, "the dict given must stay as it is"


def test_a_missing_key_of_a_ddict_is_an_attribute_error() -> None:
    d = ddict(width=1)
    with pytest.raises(AttributeError, match=r"no key 'widht'; the keys are \['width'\]"):
        _ = d.widht
    with pytest.raises(AttributeError, match="no key 'widht'"):
        del d.widht
    assert not hasattr(d, "widht")


def test_a_ddict_lets_no_key_hide_a_method_of_dict() -> None:
    d = ddict()
    with pytest.raises(AttributeError, match=r"d\['items'\]"):
        d.items = 3
    d["items"] = 3
    assert d["items"] == 3 and list(d.items()) == [("items", 3)]


def test_a_ddict_survives_copy_and_pickle() -> None:
    d = ddict(a={"b": [1]})
    for again in (copy.deepcopy(d), pickle.loads(pickle.dumps(d)), d.copy(), copy.copy(d)):
        assert type(again) is ddict and type(again.a) is ddict and again == d
    assert copy.deepcopy(d).a.b is not d.a.b


# ---- lists and dicts


def test_listify_lists_what_is_several() -> None:
    given_list = [1, 2]
    assert listify(given_list) is given_list
    assert listify((1, 2)) == listify(iter([1, 2])) == listify(range(1, 3)) == [1, 2]
    assert listify(None) == []


@pytest.mark.parametrize(
    "one",
    [
        {"a": 1},
        "text",
        b"bytes",
        3,
        len,
        torch.zeros(3),
        np.zeros(3),
        nn.Sequential(nn.Linear(1, 1), nn.ReLU()),
        DataLoader(torch.zeros(3, 1)),  # type: ignore[arg-type]
    ],
    ids=lambda one: type(one).__name__,
)
def test_listify_makes_one_thing_one_element_though_it_be_iterable(one: Any) -> None:
    result = listify(one)
    assert len(result) == 1 and result[0] is one


def test_flatten_dict_joins_keys_with_what_stands_above_them() -> None:
    d = {"a": {"b": 1, "c": {"d": 2}}, "e": 3, "none": {}}
    assert flatten_dict(d) == {"a.b": 1, "a.c.d": 2, "e": 3}
    assert flatten_dict(d, "top", "/") == {"top/a/b": 1, "top/a/c/d": 2, "top/e": 3}
    assert flatten_dict({"": {"acc": 1}, "x": 2}) == {"acc": 1, "x": 2}


def test_flatten_dict_refuses_two_values_for_one_key() -> None:
    with pytest.raises(ConfigError, match=r"'a\.b'"):
        flatten_dict({"a.b": 1, "a": {"b": 2}})


def test_keyset_lists_all_keys_in_the_order_of_their_first_dict() -> None:
    assert keyset([{"b": 1, "a": 1}, {"c": 1, "a": 1}]) == ["b", "a", "c"]
    assert keyset([]) == []


def test_concat_dicts_fills_with_0_and_makes_tensors_arrays() -> None:
    dicts = [{"a": torch.tensor(1.0)}, {"b": 2}]
    result = concat_dicts(d for d in dicts)
    assert isinstance(result["a"][0], np.ndarray) and result == {"a": [1.0, 0], "b": [0, 2]}
    assert isinstance(concat_dicts(dicts, to_np=False)["a"][0], torch.Tensor)
    assert concat_dicts([]) == {}


def test_sum_dicts_sums_numbers_and_tensors_and_leaves_its_arguments() -> None:
    first = {"a": torch.tensor([1.0, 2.0]), "n": 1}
    result = sum_dicts([first, {"a": torch.tensor([3.0, 4.0])}, {"n": 2}])
    assert result.a.tolist() == [4, 6] and result.n == 3 and type(result) is ddict
    assert first["a"].tolist() == [1, 2]  # type: ignore[attr-defined]
    as_arrays = sum_dicts([first], to_np=True)
    assert isinstance(as_arrays.a, np.ndarray) and type(as_arrays) is ddict
    assert sum_dicts([]) == {}


# ---- names and folders


def test_a_running_id_has_only_the_parts_given_and_0_is_given() -> None:
    stamp, *parts = make_runningid("mnist", 0, "wide").split("-")
    assert parts == ["mnist", "0", "wide"] and stamp.isdigit()
    assert "-" not in make_runningid()
    assert make_runningid(other_info="x").endswith("-x")


@pytest.mark.parametrize("precision", [0, 1, 2, 6])
def test_the_precision_of_a_running_id_is_its_decimals_of_the_second(
    precision: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.time_ns", lambda: 1_700_000_000_987_654_321)
    expected = "1700000000987654321"[: 10 + precision]
    assert make_runningid(time_precision=precision) == expected


def test_a_negative_precision_is_refused() -> None:
    with pytest.raises(ConfigError, match="time_precision=-1"):
        make_runningid(time_precision=-1)


def test_rename_changes_the_name_of_the_same_function() -> None:
    def accuracy() -> int:
        return 1

    assert rename("acc")(accuracy) is accuracy and accuracy.__name__ == "acc"
    partial = functools.partial(max, 3)
    assert rename("")(partial) is partial and vars(partial)["__name__"] == ""


@rename("top")
def top_accuracy(preds: Any, targets: Any) -> Any:
    return dm.accuracy(preds, targets)


def test_rename_leaves_a_function_that_is_there_already_as_it_is() -> None:
    """Others know it by its name, as ``metrics='accuracy'`` and PyTorch do."""
    for function in (dm.accuracy, F.l1_loss, top_accuracy):
        name = function.__name__
        renamed = rename("mine")(function)
        assert (renamed.__name__, function.__name__) == ("mine", name)
        assert metric_name(pickle.loads(pickle.dumps(renamed))) == "mine"
    assert top_accuracy.__name__ == "top"
    names = [name for name, _ in plan_metrics([[dm.accuracy, rename("acc")(dm.accuracy)]], "auto")]
    assert names == ["accuracy", "acc"]
    assert type(make_patch(rename("acc")(dm.accuracy), "auto")(1)) is CountsPatch


def test_rename_wraps_what_takes_no_name() -> None:
    renamed = rename("longest")(max)
    assert renamed.__name__ == "longest" and renamed(1, 3) == 3 and max.__name__ == "max"


def test_check_path_makes_the_folder_and_gives_the_path(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    assert check_path(folder) is folder and folder.is_dir()
    assert check_path(str(folder), create=False) == str(folder)


def test_check_path_refuses_a_missing_folder_and_a_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no folder"):
        check_path(tmp_path / "none", create=False)
    assert not (tmp_path / "none").exists()
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="is a file"):
        check_path(tmp_path / "file")


# ---- the model's own loss


def test_the_default_loss_is_the_output_or_its_entry() -> None:
    loss = torch.tensor(1.0)
    assert default_loss(loss, None) is loss and default_loss({"loss": loss}) is loss


def test_an_output_without_its_loss_is_refused() -> None:
    with pytest.raises(StepError, match=r"'logits'.*no 'loss'"):
        default_loss({"logits": 1})


# ---- reductions


@given(st.lists(st.integers(-99, 99), min_size=1, max_size=20), st.integers(1, 5))
def test_a_moving_average_is_the_mean_of_the_latest_values(values: list[int], length: int) -> None:
    smooth = MovingAverage(length)
    for i, value in enumerate(values):
        latest = values[max(0, i + 1 - length) : i + 1]
        assert smooth(value) == sum(latest) / len(latest)


def test_a_moving_average_of_tensors_keeps_no_graph() -> None:
    smooth = Moveing(2)
    smooth(torch.tensor(1.0, requires_grad=True))
    result = smooth(torch.tensor(2.0, requires_grad=True))
    assert result.item() == 1.5 and not result.requires_grad


@given(st.lists(st.integers(0, 5), max_size=20), st.integers(1, 6))
def test_a_top_k_queue_keeps_the_k_largest_and_of_equal_ones_the_first(
    scores: list[int], k: int
) -> None:
    queue = TopKQueue(k)
    for i, score in enumerate(scores):
        queue.put((score, i))
    expected = sorted(((s, i) for i, s in enumerate(scores)), key=lambda x: (-x[0], x[1]))[:k]
    assert queue.items() == expected and len(queue) == len(expected)


def test_a_top_k_queue_takes_tensors_with_equal_scores_and_ranks_nan_last() -> None:
    queue = TopKQueue(2)
    for score in (math.nan, 1.0, 1.0):
        queue.put((torch.tensor(score), torch.zeros(3)))
    assert [item[0].item() for item in queue.items()] == [1.0, 1.0]


def test_groupby_apply_is_right_for_keys_in_any_order() -> None:
    values, keys = torch.tensor([[1.0], [2.0], [5.0], [4.0]]), torch.tensor([7, 3, 7, -1])
    assert groupby_apply(values, keys).tolist() == [[4.0], [2.0], [3.0]]
    assert groupby_apply(values, keys, "sum").tolist() == [[4.0], [2.0], [6.0]]


@given(st.permutations(range(6)))
def test_groupby_apply_does_not_depend_on_the_order_of_rows(order: list[int]) -> None:
    values, keys = torch.arange(12.0).view(6, 2), torch.tensor([0, 0, 1, 1, 1, 5])
    assert torch.equal(groupby_apply(values[order], keys[order]), groupby_apply(values, keys))


def test_groupby_apply_averages_integers_and_passes_gradients() -> None:
    assert groupby_apply(torch.tensor([1, 2]), torch.tensor([0, 0])).item() == 1.5
    assert groupby_apply(torch.tensor([1, 2]), torch.tensor([0, 0]), "sum").dtype == torch.int64
    values = torch.ones(2, requires_grad=True)
    groupby_apply(values, torch.tensor([0, 0])).sum().backward()
    assert values.grad is not None and values.grad.tolist() == [0.5, 0.5]


@pytest.mark.parametrize("make", [lambda: MovingAverage(0), lambda: TopKQueue(0)])
def test_sizes_below_1_are_refused(make: Any) -> None:
    with pytest.raises(ConfigError, match="=0: give a number of at least 1"):
        make()


def test_groupby_apply_refuses_other_reductions_and_shapes() -> None:
    with pytest.raises(ConfigError, match="'max'"):
        groupby_apply(torch.ones(2), torch.ones(2), "max")
    with pytest.raises(DataError, match=r"values \[2\] and keys \[3\]"):
        groupby_apply(torch.ones(2), torch.ones(3))


# ---- YAML


def written(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text, encoding="utf8")
    return path


def test_yaml_tags_join_and_compute(tmp_path: Path) -> None:
    config = load_yaml(
        written(
            tmp_path,
            "root: &root data\nn: &n 4\npath: &p !path [*root, mnist, 3]\njoin: !join [*p, x]\n"
            "str: !str [run, 1, -, *n]\ncat: !cat [[1, 2], b]\necho: !echo [first, second]\n"
            "sum: !sum [1, *n, 0.5]\nmul: !mul [2, !sum [1, 2], *n]\n",
        )
    )
    path = f"data{os.sep}mnist{os.sep}3"
    assert config.path == path and config.join == path + os.sep + "x"
    assert (config.str, config.cat, config.echo) == ("run1-4", "[1, 2]b", "first")
    assert (config.sum, config.mul) == (5.5, 24)


def test_yaml_mappings_become_ddicts_in_lists_too(tmp_path: Path) -> None:
    text = "a: &a {b: {c: 1}}\nlist: [{d: 2}]\nagain: *a\nmerged: {<<: *a, e: 中}\n"
    config = load_yaml(str(written(tmp_path, text)))
    assert type(config) is ddict and config.a.b.c == 1 and config.list[0].d == 2
    assert config.again is config.a and config.merged == {"b": {"c": 1}, "e": "中"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1.5e3", 1.5e3),
        ("-2E+4", -2e4),
        (".5e1", 5.0),
        ("1e", "1e"),
        ("'1e-3'", "1e-3"),
        ("10", 10),
    ],
)
def test_yaml_numbers_with_an_exponent_are_numbers(text: str, value: Any, tmp_path: Path) -> None:
    read = load_yaml(written(tmp_path, f"x: {text}")).x
    assert read == value and type(read) is type(value)


def test_reading_a_file_leaves_the_loaders_of_pyyaml_alone(tmp_path: Path) -> None:
    load_yaml(written(tmp_path, "x: !sum [1]"))
    assert yaml.safe_load("x: 1e-3") == {"x": "1e-3"}
    assert type(yaml.safe_load("x: 1")) is dict
    with pytest.raises(yaml.YAMLError):
        yaml.safe_load("!sum [1]")


def test_an_empty_yaml_file_is_an_empty_ddict(tmp_path: Path) -> None:
    assert load_yaml(written(tmp_path, "# nothing\n")) == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1\n- 2", "holds a list at its top level"),
        ("x: [", "cannot be read as YAML"),
        ("x: !sum 3", "!sum is unknown, or not before a list"),
        ("x: !nope [3]", "!nope is unknown"),
        ("x: !sum [a, 1]", r"!sum cannot take \['a', 1\]"),
        ("x: !echo []", "!echo cannot take"),
        ("x: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
        ("x: !!python/name:os.system", "could not determine a constructor"),
    ],
)
def test_a_bad_yaml_file_is_refused_by_its_name(text: str, message: str, tmp_path: Path) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_yaml(path)
    assert str(path) in str(caught.value)


def test_a_missing_yaml_file_is_file_not_found(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_yaml(tmp_path / "none.yaml")


# ---- figures


@pytest.fixture
def closed_figures() -> Iterator[None]:
    plt.close("all")
    yield
    plt.close("all")
    plt.ioff()


@pytest.mark.usefixtures("closed_figures")
def test_series_plots_append_a_point_to_each_line() -> None:
    plots = SeriesPlots(["loss", ["precision", "recall"], "lr"], colums=2)
    plots.add(0.5, [0.1, torch.tensor(0.2)], 1)
    plots.add(0.25, (0.3, 0.4), 2)
    first, second, third, unused = plots.figure.axes
    assert first.lines[0].get_xydata().tolist() == [[0, 0.5], [1, 0.25]]
    assert [line.get_label() for line in second.lines] == ["precision", "recall"]
    assert second.lines[1].get_ydata().tolist() == pytest.approx([0.2, 0.4])
    assert third.lines[0].get_ydata().tolist() == [1, 2] and not unused.get_visible()
    assert first.get_xlim()[1] >= 1 and first.get_ylim()[1] >= 0.5
    assert plt.isinteractive()
    plots.ioff()
    assert not plt.isinteractive()


@pytest.mark.usefixtures("closed_figures")
@pytest.mark.parametrize("values", [(1,), (1, 2), (1, [2]), ([1], [2, 3]), (1, [2, 3], 4)])
def test_series_plots_refuse_values_of_another_shape_and_add_none(values: Any) -> None:
    plots = SeriesPlots(["loss", ["precision", "recall"]])
    with pytest.raises(ConfigError, match="in the shape of"):
        plots.add(*values)
    assert all(len(line.get_xdata()) == 0 for axes in plots.figure.axes for line in axes.lines)


@pytest.mark.usefixtures("closed_figures")
def test_series_plots_refuse_bad_arguments() -> None:
    with pytest.raises(ConfigError, match="columns=0"):
        SeriesPlots(["loss"], 0)
    with pytest.raises(ConfigError, match="plots='loss'"):
        SeriesPlots("loss")
    with pytest.raises(ConfigError, match=r"plots=\[\]"):
        SeriesPlots([])
    assert not plt.get_fignums()


@pytest.mark.usefixtures("closed_figures")
def test_a_confusion_plot_writes_counts_and_shares_of_the_true_class() -> None:
    matrix = torch.tensor([[3, 1], [0, 0]])
    figure = plot_confusion(matrix, 2, ["cat", "dog"], norm_dec=1, cmap="Greens", info="epoch 1")
    axes = figure.axes[0]
    assert [t.get_text() for t in axes.texts] == ["3\n75.0%", "1\n25.0%"]
    assert [t.get_position() for t in axes.texts][1] == (1, 0)
    assert [t.get_text() for t in axes.get_yticklabels()] == ["cat", "dog"]
    assert axes.get_title() == "epoch 1" and axes.images[0].get_cmap().name == "Greens"
    figure.canvas.draw()


@pytest.mark.usefixtures("closed_figures")
def test_a_confusion_plot_refuses_what_does_not_fit_and_leaves_no_figure() -> None:
    with pytest.raises(DataError, match=r"shape \[2, 2\], and there are 3 classes"):
        plot_confusion(np.eye(2), 3)
    with pytest.raises(DataError, match="2 classes and 1 class_names"):
        plot_confusion(np.eye(2, dtype=int), 2, ["cat"])
    assert not plt.get_fignums()


@pytest.mark.usefixtures("closed_figures")
def test_a_confusion_matrix_can_be_drawn_without_pyplot() -> None:
    figure = Figure()
    draw_confusion(figure, np.ones((2, 2), dtype=int), 2)
    assert len(figure.axes[0].texts) == 4 and not plt.get_fignums()


# ---- the import paths of 0.6

OLD_PATHS = {
    "loops": "set_seed make_runningid rename batch_size listify ddict concat TensorTuple "
    "tensor_tuple TensorDict compose_data clone_value flatten_dict concat_dicts sum_dicts keyset "
    "to_numpy detach_clone check_path default_loss StopLoopException LoopException seed detach",
    "tools": "SeriesPlots Moveing TopKQueue batches groupby_apply plot_confusion load_yaml "
    "LinearCosineScheduler",
    "optimizer": "Optimizer Optimizers LinearCosineScheduler",
}


@pytest.mark.parametrize("module", OLD_PATHS)
def test_a_module_of_0_6_still_exports_its_names(module: str) -> None:
    loaded = importlib.import_module(f"deepepochs.{module}")
    assert sorted(loaded.__all__) == sorted(OLD_PATHS[module].split())
    for name in loaded.__all__:
        assert callable(getattr(loaded, name))


def test_a_name_that_loops_never_had_is_an_attribute_error() -> None:
    loops = importlib.import_module("deepepochs.loops")
    with pytest.raises(AttributeError, match="no attribute 'set_sead'"):
        _ = loops.set_sead


def test_importing_the_tools_loads_neither_matplotlib_nor_yaml() -> None:
    script = (
        "import sys, deepepochs.tools, deepepochs.loops\n"
        "print({'matplotlib', 'yaml'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stdout + done.stderr
