"""`InterpretCallback`: confusion matrices and the most extreme samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from event_reader import (
    assert_same_bits,
    image_size,
    loaders,
    read_events,
    run_bits,
    small_data,
    small_trainer,
)
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from deepepochs import (
    Callback,
    CheckCallback,
    ConfigError,
    InterpretCallback,
    InterpreteCallback,
    MetricError,
    Trainer,
)
from deepepochs.callbacks.interpret import TopSamples
from deepepochs.errors import DataError
from deepepochs.show.figures import as_picture, class_of, figure_to_array, figure_to_svg
from deepepochs.show.plots import confusion_figure
from deepepochs.stages import Stage

each_loss = nn.CrossEntropyLoss(reduction="none")


@pytest.fixture(autouse=True)
def no_window(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Without a display nothing may be shown."""
    import matplotlib.pyplot as plt

    def show(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("plt.show was called")

    monkeypatch.setattr(plt, "show", show)
    return []


def expected_matrix(model: nn.Module, data: TensorDataset) -> torch.Tensor:
    from sklearn.metrics import confusion_matrix

    points, targets = data.tensors
    with torch.no_grad():
        preds = model.eval()(points).argmax(1)
    return torch.tensor(confusion_matrix(targets, preds, labels=range(3)))


def test_the_matrix_is_that_of_scikit_learn_and_of_the_latest_stage(tmp_path: Path) -> None:
    interpret = InterpretCallback(log_dir=tmp_path)
    trainer = small_trainer(callbacks=interpret)
    assert interpret.confusion_matrix is None
    trainer.fit(*loaders())
    assert set(interpret.matrices) == {Stage.TRAIN, Stage.VAL}
    assert torch.equal(
        interpret.confusion_matrix, expected_matrix(trainer.model, small_data(16, seed=4))
    )
    assert interpret.matrices[Stage.TRAIN].sum() == 48  # of the last epoch alone
    trainer.test(DataLoader(small_data(), 8))
    assert torch.equal(interpret.confusion_matrix, expected_matrix(trainer.model, small_data()))


def test_each_epoch_has_its_picture(tmp_path: Path) -> None:
    interpret = InterpretCallback(each_loss, k=4, log_dir=tmp_path)
    trainer = small_trainer(callbacks=interpret, running_id="a", epochs=3)
    trainer.fit(*loaders(), val_freq=2)
    trainer.test(loaders()[1])
    events = read_events(tmp_path / "a")
    assert set(events.Tags()["images"]) == {
        "train_confusion_matrixes", "val_confusion_matrixes", "test_confusion_matrix",
    }  # fmt: skip
    assert [e.step for e in events.Images("train_confusion_matrixes")] == [1, 2, 3]
    assert [e.step for e in events.Images("val_confusion_matrixes")] == [2]
    width, height = image_size(tmp_path / "a", "test_confusion_matrix")
    assert width > 300
    assert height > 300


def test_only_the_stages_asked_for_have_matrices(tmp_path: Path) -> None:
    interpret = InterpretCallback(log_dir=tmp_path, stages=("val",))
    trainer = small_trainer(callbacks=interpret, running_id="a")
    trainer.fit(*loaders())
    trainer.test(loaders()[1])
    assert set(interpret.matrices) == {Stage.VAL}
    assert read_events(tmp_path / "a").Tags()["images"] == ["val_confusion_matrixes"]


@pytest.mark.parametrize("metric_patch", ["tensor", "confusion"])
def test_it_changes_no_bit(tmp_path: Path, metric_patch: str) -> None:
    def share(conf_mat: torch.Tensor, targets: Any = None) -> torch.Tensor:
        if targets is not None:
            return (conf_mat.argmax(1) == targets).double().mean()
        return conf_mat.diagonal().sum() / conf_mat.sum()

    options = {"metrics": [share], "metric_patch": metric_patch}
    interpret = InterpretCallback(each_loss, log_dir=tmp_path)
    assert_same_bits(run_bits(callbacks=interpret, **options), run_bits(**options))


@pytest.mark.parametrize("mode", ["max", "min"])
def test_the_kept_samples_are_the_most_extreme_with_all_that_belongs_to_them(
    tmp_path: Path, mode: str
) -> None:
    interpret = InterpretCallback(each_loss, k=5, mode=mode, log_dir=tmp_path)
    trainer = small_trainer(callbacks=interpret)
    trainer.fit(loaders()[0])
    assert interpret.top_samples() == []
    trainer.test(DataLoader(small_data(), 8))
    points, targets = small_data().tensors
    with torch.no_grad():
        outputs = trainer.model.eval()(points)
    losses = each_loss(outputs, targets)
    order = losses.sort(descending=mode == "max").indices[:5]
    samples = interpret.top_samples()
    assert [sample[0] for sample in samples] == pytest.approx(losses[order].tolist())
    for (_, output, target, point), index in zip(samples, order, strict=True):
        assert torch.allclose(output, outputs[index], atol=1e-6)
        assert torch.equal(target, targets[index])
        assert torch.equal(point, points[index])
    assert interpret.top()[0][0] == samples[0][0]


@given(
    st.lists(st.lists(st.sampled_from([0.0, 1.0, 2.0, float("nan")]), max_size=6), max_size=5),
    st.integers(1, 8),
    st.sampled_from(["max", "min"]),
)
def test_ties_are_kept_in_the_order_of_the_data(
    batches: list[list[float]], k: int, mode: str
) -> None:
    top = TopSamples(k, mode)
    for start, batch in enumerate(batches):
        places = torch.arange(len(batch)) + 100 * start
        top.add(torch.tensor(batch), places, places, (places,))
    flat = [(v, 100 * s + i) for s, batch in enumerate(batches) for i, v in enumerate(batch)]

    def key(entry: tuple[float, int]) -> tuple[float, int]:
        value = float("inf") if np.isnan(entry[0]) else entry[0]
        return (-value if mode == "max" else value, entry[1])

    assert [int(place) for _, place, *_ in top.samples()] == [p for _, p in sorted(flat, key=key)][
        :k
    ]


def test_memory_is_that_of_k_samples_whatever_the_data() -> None:
    import gc

    class Marked(torch.Tensor):
        pass

    top = TopSamples(3)
    for step in range(50):
        batch = torch.rand(64, 100)
        top.add(batch[:, 0] + step, batch, batch, (batch,))
    gc.collect()
    kept = [tensor for sample in top.samples() for tensor in sample[1:]]
    assert len(kept) == 9
    assert all(tensor.untyped_storage().nbytes() == 400 for tensor in kept)  # copies, no views


def test_several_inputs_come_as_a_tuple_and_dicts_as_dicts() -> None:
    top = TopSamples(1)
    two = torch.eye(2)
    top.add(torch.tensor([0.0, 1.0]), {"a": two}, [two, two], (two, 2 * two))
    value, output, target, inputs = top.samples()[0]
    assert value == 1.0
    assert output["a"].tolist() == target[0].tolist() == [0, 1]
    assert [tensor.tolist() for tensor in inputs] == [[0, 1], [0, 2]]


@pytest.mark.parametrize("shape", [(-1, 1), (-1,)])
def test_a_single_column_of_probabilities_is_two_classes(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    points = torch.randn(40, 4)
    targets = (points[:, 0] > 0).float().reshape(shape)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 1)

        def forward(self, x: Any) -> Any:
            return torch.sigmoid(self.layer(x)).reshape(shape)

    interpret = InterpretCallback(
        lambda p, t: F.binary_cross_entropy(p, t, reduction="none").reshape(-1), k=3,
        log_dir=tmp_path, class_names=["small", "large"],
    )  # fmt: skip
    trainer = Trainer(Net(), F.binary_cross_entropy, epochs=1, callbacks=interpret, show_info=False)
    trainer.fit(DataLoader(TensorDataset(points, targets), 8))
    trainer.test(DataLoader(TensorDataset(points, targets), 8))
    with torch.no_grad():
        preds = (trainer.model.eval()(points) > 0.5).flatten().long()
    counts = torch.zeros(2, 2, dtype=torch.int64)
    for target, pred in zip(targets.flatten().long(), preds, strict=True):
        counts[target, pred] += 1
    assert torch.equal(interpret.confusion_matrix, counts)
    assert len(interpret.top()) == 3


def test_without_classes_there_is_a_warning_and_the_samples_are_kept(tmp_path: Path) -> None:
    points = torch.randn(16, 4)
    data = DataLoader(TensorDataset(points, points.sum(1, keepdim=True)), 8)
    interpret = InterpretCallback(lambda p, t: (p - t).abs()[:, 0], k=2, log_dir=tmp_path)
    trainer = Trainer(nn.Linear(4, 1), F.mse_loss, epochs=1, callbacks=interpret, show_info=False)
    with pytest.warns(UserWarning) as warned:
        trainer.fit(data)
    assert any("draws no confusion matrix" in str(w.message) for w in warned)
    trainer.test(data)
    assert len(interpret.top()) == 2
    assert interpret.confusion_matrix is None
    with pytest.raises(DataError, match=r"run fit\(\) or test\(\)"):
        interpret.plot_confusion()


def test_a_metric_that_is_reduced_is_refused_with_the_way_out(tmp_path: Path) -> None:
    trainer = small_trainer(callbacks=InterpretCallback(F.cross_entropy, log_dir=tmp_path))
    with pytest.raises(MetricError, match="reduction='none'"):
        trainer.test(loaders()[1])


def test_a_wrong_number_of_classes_is_an_error(tmp_path: Path) -> None:
    trainer = small_trainer(callbacks=InterpretCallback(class_num=4, log_dir=tmp_path))
    with pytest.raises(MetricError, match="num_classes is 4"):
        trainer.fit(loaders()[0])


def test_ids_have_as_many_classes_as_are_asked_for(tmp_path: Path) -> None:
    class Ids(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x[:, 0] > 0).long()

    data = DataLoader(TensorDataset(torch.tensor([[1.0], [-1.0]]), torch.tensor([1, 2])), 1)
    interpret = InterpretCallback(class_num=4, log_dir=tmp_path)
    trainer = Trainer(Ids(1, 1), lambda p, t: torch.zeros(()), callbacks=interpret, show_info=False)
    trainer.test(data)
    assert interpret.confusion_matrix is not None
    assert interpret.confusion_matrix.tolist() == [[0] * 4, [0, 1, 0, 0], [1, 0, 0, 0], [0] * 4]


@pytest.mark.parametrize(
    "arguments", [{"k": 0}, {"mode": "best"}, {"stages": ("fit",)}, {"metric": 3}, {"class_num": 1}]
)
def test_arguments_that_cannot_be_right_are_refused(arguments: Any) -> None:
    with pytest.raises(ConfigError):
        InterpretCallback(**arguments)


def test_the_name_of_0_6_is_the_same_class() -> None:
    assert InterpreteCallback is InterpretCallback


def image_run(tmp_path: Path, **arguments: Any) -> tuple[InterpretCallback, Trainer]:
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    images = torch.tensor(pixels[:256] / 16, dtype=torch.float32).reshape(-1, 1, 8, 8)
    data = DataLoader(TensorDataset(images, torch.tensor(labels[:256])), 32)
    interpret = InterpretCallback(
        each_loss, k=12, log_dir=tmp_path, image_data=True,
        class_names=["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"],
        **arguments,
    )  # fmt: skip
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    trainer = small_trainer(model, callbacks=interpret, running_id="a")
    trainer.fit(data)
    trainer.test(data)
    return interpret, trainer


def test_images_are_drawn_with_prediction_target_and_value(tmp_path: Path) -> None:
    interpret, _ = image_run(tmp_path)
    assert "top_imgs" in read_events(tmp_path / "a").Tags()["images"]
    figure = interpret.plot_top()
    assert len(figure.axes) == 12
    value, output, target, image = interpret.top()[0]
    names = interpret.class_names
    assert names is not None
    assert figure.axes[0].get_title() == (
        f"predicted {names[int(output.argmax())]}\ntrue {names[int(target)]}\n{value:.3g}"
    )
    assert np.array_equal(figure.axes[0].images[0].get_array(), image[0].numpy())


def test_the_matrix_is_drawn_with_the_names_of_the_classes(tmp_path: Path) -> None:
    interpret, _ = image_run(tmp_path)
    figure = interpret.plot_confusion(title_info="digits")
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert labels == interpret.class_names
    assert figure.axes[0].get_title() == "digits"
    others = interpret.plot_confusion(class_names=list("abcdefghij"), show=False)
    assert [label.get_text() for label in others.axes[0].get_yticklabels()] == list("abcdefghij")


def labels_of(figure: Any) -> list[str]:
    """The names at the rows of a matrix, which are those at its columns."""
    axes = figure.axes[0]
    rows, columns = axes.get_yticklabels(), axes.get_xticklabels()
    assert [label.get_text() for label in rows] == [label.get_text() for label in columns]
    return [label.get_text() for label in rows]


def test_the_picture_for_tensorboard_has_the_shares_as_colours_and_the_counts_as_text() -> None:
    counts = torch.tensor([[4, 0, 0], [1, 3, 0], [0, 7, 7]])
    figure = confusion_figure(counts, title="val, epoch 1")
    (axes,) = figure.axes  # and no scale of colours
    assert axes.get_title() == "val, epoch 1"
    assert axes.images[0].get_array().tolist() == [[1, 0, 0], [0.25, 0.75, 0], [0, 0.5, 0.5]]
    written = {text.get_position(): (text.get_text(), text.get_color()) for text in axes.texts}
    assert written == {  # zeros are not written; white letters on dark
        (0, 0): ("4", "white"), (0, 1): ("1", "black"), (1, 1): ("3", "white"),
        (1, 2): ("7", "black"), (2, 2): ("7", "black"),
    }  # fmt: skip
    picture = figure_to_array(figure)
    for colour in ([247, 251, 255], [8, 48, 107], [0, 0, 0], [255, 255, 255]):
        assert (picture == colour).all(axis=2).any()


@pytest.mark.parametrize("num", [1, 2, 10, 30, 31, 100, 1700])
def test_the_picture_shows_any_number_of_classes(num: int) -> None:
    picture = figure_to_array(confusion_figure(torch.eye(num, dtype=torch.int64)))
    assert picture.dtype == np.uint8
    assert 380 <= len(picture) <= 1750
    assert picture.shape[1] <= 1750
    distances = abs(picture.astype(int) - [8, 48, 107]).sum(axis=2)
    assert distances.min() <= (0 if num < 1000 else 150)  # of very many a pixel is several


def test_as_many_names_are_written_as_there_is_room_for() -> None:
    for num in (2, 30, 31, 100, 1700):
        labels = labels_of(confusion_figure(torch.eye(num, dtype=torch.int64)))
        assert labels == [str(index) for index in range(0, num, int(labels[1]))]
        assert min(num, 15) <= len(labels) <= 120


def test_a_name_stays_on_one_line_and_is_no_formula() -> None:
    counts = torch.eye(2, dtype=torch.int64)
    figure = confusion_figure(counts, ["T-shirt\ntop", "$5 or $10"])
    assert labels_of(figure) == ["T-shirt top", r"\$5 or \$10"]
    assert "$5 or $10" in figure_to_svg(figure)


def test_the_picture_names_the_classes(tmp_path: Path) -> None:
    counts = torch.eye(3, dtype=torch.int64)
    plain = confusion_figure(counts)
    named = confusion_figure(counts, ["ant", "bee", "a rather long name of a class"])
    assert labels_of(named) == ["ant", "bee", "a rather long…"]
    assert named.get_figwidth() > plain.get_figwidth()
    sides = [
        figure_to_array(figure).shape and figure.axes[0].bbox.width for figure in (plain, named)
    ]
    assert sides[0] == pytest.approx(sides[1], rel=0.1)  # the matrix is as large as before
    longer = confusion_figure(counts, ["ant", "bee", "a rather long name of a class" * 9])
    assert labels_of(longer) == labels_of(named)
    with pytest.raises(DataError, match="3 classes and 2 class_names"):
        confusion_figure(counts, ["ant", "bee"])


def test_a_character_that_the_font_lacks_is_a_box_without_a_warning() -> None:
    figure = confusion_figure(torch.eye(2, dtype=torch.int64), ["猫", "狗"])
    figure_to_array(figure)
    assert "猫" in figure_to_svg(figure)


def test_inputs_that_are_no_images_give_a_warning(tmp_path: Path) -> None:
    interpret = InterpretCallback(each_loss, log_dir=tmp_path, image_data=True)
    trainer = small_trainer(callbacks=interpret)
    with pytest.warns(RuntimeWarning, match=r"\[6\].*no image"):
        trainer.test(loaders()[1])


@pytest.mark.parametrize(
    ("shape", "drawn"),
    [
        ((8, 8), (8, 8)), ((1, 8, 9), (8, 9)), ((3, 8, 9), (8, 9, 3)),
        ((8, 9, 3), (8, 9, 3)), ((5, 8, 9), (5, 8)),
    ],
)  # fmt: skip
def test_images_of_every_layout_can_be_drawn(
    shape: tuple[int, ...], drawn: tuple[int, ...]
) -> None:
    picture = as_picture(torch.randn(shape))
    assert picture.shape == drawn
    assert picture.min() == 0
    assert picture.max() == pytest.approx(1)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (torch.tensor([0.1, 2.0, 0.3]), "b"), (torch.tensor(2), "c"), (torch.tensor([0.9]), "b"),
        (torch.tensor(3.25), "3.25"), (torch.tensor(7), "7"), ("text", "text"),
        (torch.zeros(2, 2), "[2, 2]"),
    ],
)  # fmt: skip
def test_outputs_and_targets_are_named(value: Any, shown: str) -> None:
    assert class_of(value, ["a", "b", "c"]) == shown


def test_a_resumed_epoch_counts_what_came_before(tmp_path: Path) -> None:
    class Cut(Callback):
        def on_after_train_batch(self, trainer: Any, **others: Any) -> None:
            if trainer.progress.num_train_batches == 9:
                raise MemoryError

    def fit(name: str, *more: Callback, **arguments: Any) -> Any:
        interpret = InterpretCallback(log_dir=tmp_path)
        check = CheckCallback("loss", "train", ckpt_dir=tmp_path, every_n_batches=2)
        trainer = small_trainer(callbacks=[check, interpret, *more], running_id=name, **arguments)
        trainer.fit(*loaders())
        return interpret.matrices

    torch.manual_seed(3)
    whole = fit("whole")
    torch.manual_seed(3)
    with pytest.raises(MemoryError):
        fit("cut", Cut())
    resumed = fit("cut", resume="auto")
    assert torch.equal(resumed[Stage.TRAIN], whole[Stage.TRAIN])
    assert torch.equal(resumed[Stage.VAL], whole[Stage.VAL])
    images = read_events(tmp_path / "cut").Images("train_confusion_matrixes")
    assert [image.step for image in images] == [1, 2]
