"""From every kind of mini-batch to loss and metrics: compared with plain computations."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from deepepochs import Callback, EpochTask, LinearCosineScheduler, Optimizer, Trainer
from deepepochs import metrics as dm

torch.manual_seed(5)
X, Z = torch.randn(10, 3), torch.randn(10, 3)
Y = (X[:, 0] > 0).long()
SIZES = [(0, 4), (4, 8), (8, 10)]


class Pair(NamedTuple):
    inputs: Any
    targets: Any


class Net(nn.Module):
    """A linear layer called in the many ways that mini-batches ask for."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.linear = nn.Linear(3, 2)

    def forward(self, x: Any, more: Any = None) -> Tensor:
        out: Tensor = self.linear(x)
        if more is None:
            return out
        for extra in more.values() if isinstance(more, dict) else [more]:
            for part in extra if isinstance(extra, (list, tuple)) else [extra]:
                out = out + self.linear(part)
        return out


class Streamed(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        yield from zip(X, Y, strict=True)


def cut(make: Callable[[slice], Any]) -> list[Any]:
    return [make(slice(first, last)) for first, last in SIZES]


def make_trainer(loss: Any = F.cross_entropy, model: Any = None, **options: Any) -> Trainer:
    model = Net() if model is None else model
    opt = options.pop("opt", None) or torch.optim.SGD(model.parameters(), lr=0.1)
    return Trainer(model, loss, opt, **{"epochs": 1, "show_info": False, **options})


def plain_training(outputs: Callable[[nn.Module, slice], Tensor]) -> tuple[list[float], float]:
    """Weights and epoch loss of a loop written by hand."""
    model = Net()
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    total = 0.0
    for first, last in SIZES:
        value = F.cross_entropy(outputs(model, slice(first, last)), Y[first:last])
        opt.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        opt.step()
        total += value.item() * (last - first)
    return weights(model), total / len(X)


def weights(model: nn.Module) -> list[float]:
    return [value for p in model.parameters() for value in p.flatten().tolist()]


def both(model: nn.Module, part: slice) -> Tensor:
    linear: Any = model.linear
    out: Tensor = linear(X[part]) + linear(Z[part])
    return out


def single(model: nn.Module, part: slice) -> Tensor:
    out: Tensor = model.linear(X[part])  # type: ignore[operator]
    return out


KINDS: dict[str, tuple[Callable[[slice], Any], Callable[[nn.Module, slice], Tensor]]] = {
    "tuple": (lambda s: (X[s], Y[s]), single),
    "list": (lambda s: [X[s], Y[s]], single),
    "named tuple": (lambda s: Pair(X[s], Y[s]), single),
    "two inputs": (lambda s: (X[s], Z[s], Y[s]), both),
    "nested list": (lambda s: [X[s], [Z[s]], Y[s]], both),
    "nested dict": (lambda s: (X[s], {"a": Z[s]}, Y[s]), both),
    "list in a dict": (lambda s: (X[s], {"a": [Z[s]]}, Y[s]), both),
    "named tuple of a dict": (lambda s: (X[s], Pair({"a": Z[s]}, None)[0], Y[s]), both),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_container_trains_as_the_plain_loop(kind: str) -> None:
    make, outputs = KINDS[kind]
    trainer = make_trainer(metrics=[dm.accuracy])
    history = trainer.fit(cut(make))
    expected, loss = plain_training(outputs)
    assert weights(trainer.model) == expected
    assert history["train"]["loss"][0] == loss
    tested = trainer.test(cut(make))
    with torch.no_grad():
        out = outputs(trainer.model, slice(0, 10))
    assert tested["accuracy"] == pytest.approx((out.argmax(1) == Y).float().mean().item())


@pytest.mark.parametrize("num_targets", [1, 2])
def test_batch_x_is_a_tuple_and_batch_y_exactly_the_last_element(num_targets: int) -> None:
    seen: list[Any] = []

    class Looking(EpochTask):
        def step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> None:
            seen.append((batch_x, batch_y))
            target = batch_y if num_targets == 1 else batch_y[0]
            self.loss(self.model(*batch_x), target)

    target = Y[:4] if num_targets == 1 else [Y[:4], Z[:4]]
    make_trainer().test(tasks=Looking([[X[:4], target]]))
    [(batch_x, batch_y)] = seen
    assert isinstance(batch_x, tuple) and len(batch_x) == 1 and batch_x[0].equal(X[:4])
    if num_targets == 1:
        assert batch_y.equal(Y[:4])
    else:
        assert isinstance(batch_y, tuple) and len(batch_y) == 2


def test_several_targets_reach_loss_and_metric_together() -> None:
    def loss(model_out: Tensor, targets: Any) -> Tensor:
        return F.cross_entropy(model_out, targets[0]) + F.mse_loss(model_out, targets[1][:, :2])

    def distance(preds: Tensor, targets: Any) -> Tensor:
        apart: Tensor = (preds - targets[1][:, :2]).abs().mean()
        return apart

    trainer = make_trainer(loss, metrics=[distance])
    values = trainer.test(cut(lambda s: (X[s], (Y[s], Z[s]))))
    with torch.no_grad():
        out = trainer.model(X)
    assert values["loss"] == pytest.approx(loss(out, (Y, Z)).item(), rel=1e-6)
    assert values["distance"] == pytest.approx(distance(out, (Y, Z)).item(), rel=1e-6)


def test_without_labels_the_target_is_none_in_loss_and_metric() -> None:
    seen: list[Any] = []

    def loss(model_out: Tensor, targets: Any) -> Tensor:
        seen.append(targets)
        return model_out.pow(2).mean()

    def spread(preds: Tensor, targets: Any) -> Tensor:
        seen.append(targets)
        return preds.std()

    trainer = make_trainer(loss, metrics=[spread])
    values = trainer.test(cut(lambda s: (X[s], None)))
    with torch.no_grad():
        out = trainer.model(X)
    assert values["spread"] == pytest.approx(out.std().item(), rel=1e-6)
    assert values["loss"] == pytest.approx(out.pow(2).mean().item(), rel=1e-6)
    assert all(target is None or set(target) == {None} for target in seen)


class OwnLoss(nn.Module):
    """Computes its loss itself, as models of Hugging Face do."""

    def __init__(self, as_dict: bool) -> None:
        super().__init__()
        self.as_dict = as_dict
        self.net = Net()

    def forward(self, x: Tensor, labels: Tensor) -> Any:
        out = self.net(x)
        loss = F.cross_entropy(out, labels)
        return {"loss": loss, "out": out} if self.as_dict else loss


@pytest.mark.parametrize("as_dict", [True, False])
@pytest.mark.parametrize("named", [True, False])
def test_without_a_loss_function_the_whole_mini_batch_is_input(as_dict: bool, named: bool) -> None:
    def make(part: slice) -> Any:
        return {"x": X[part], "labels": Y[part]} if named else (X[part], Y[part])

    trainer = make_trainer(None, OwnLoss(as_dict))
    history = trainer.fit(cut(make))
    expected, loss = plain_training(single)
    assert weights(trainer.model) == expected
    assert history["train"]["loss"][0] == loss


def test_a_metric_of_a_dict_output_gets_the_dict() -> None:
    def sure(preds: Any, targets: Any) -> Tensor:
        assert targets is None or set(targets) == {None}
        top: Tensor = preds["out"].softmax(1).max(1).values.mean()
        return top

    trainer = make_trainer(None, OwnLoss(True), metrics=[sure], metric_patch="mean")
    values = trainer.test(cut(lambda s: {"x": X[s], "labels": Y[s]}))
    with torch.no_grad():
        expected = trainer.model(X, Y)["out"].softmax(1).max(1).values.mean().item()
    assert values["sure"] == pytest.approx(expected, rel=1e-6)


def test_a_dict_mini_batch_weighs_its_samples_not_its_keys() -> None:
    trainer = make_trainer(None, OwnLoss(True))
    values = trainer.test(cut(lambda s: {"x": X[s], "labels": Y[s]}))
    with torch.no_grad():
        assert values["loss"] == pytest.approx(trainer.model(X, Y)["loss"].item(), rel=1e-6)


WEIGHTS: dict[str, tuple[Any, list[float]]] = {
    "guessed": (None, [4, 4, 2]),
    "int": (7, [1, 1, 1]),
    "function": (lambda x, y: int(y.sum()) + 1, [float(Y[a:b].sum()) + 1 for a, b in SIZES]),
    "function of a bare input": (lambda x, y: x.shape[0] ** 2, [16, 16, 4]),
    "function gives a tensor": (lambda x, y: torch.tensor(len(y)), [4, 4, 2]),
}


@pytest.mark.filterwarnings("ignore:batch_size=7 was given")
@pytest.mark.parametrize("kind", WEIGHTS)
@pytest.mark.parametrize("stage", ["fit", "test", "task"])
def test_mini_batches_weigh_in_the_mean_what_batch_size_says(kind: str, stage: str) -> None:
    batch_size, expected = WEIGHTS[kind]
    trainer = make_trainer()
    loader = cut(lambda s: (X[s], Y[s]))
    with torch.no_grad():
        losses = [F.cross_entropy(trainer.model(X[a:b]), Y[a:b]).item() for a, b in SIZES]
    mean = sum(w * v for w, v in zip(expected, losses, strict=True)) / sum(expected)
    if stage == "fit":
        trainer.opt[0].opt.param_groups[0]["lr"] = 0.0
        history = trainer.fit(loader, loader, batch_size=batch_size)
        assert history["val"]["loss"][0] == pytest.approx(mean, rel=1e-6)
        value = history["train"]["loss"][0]
    elif stage == "test":
        value = trainer.test(loader, batch_size=batch_size)["loss"]
    else:
        value = trainer.test(tasks=EpochTask(loader, batch_size=batch_size))["loss"]
    assert value == pytest.approx(mean, rel=1e-6)


def test_a_batch_size_function_of_several_inputs_gets_them_all() -> None:
    seen: list[Any] = []

    def count(batch_x: Any, batch_y: Any) -> int:
        seen.append(batch_x)
        return len(batch_y)

    make_trainer().test([(X, Z, Y)], batch_size=count)
    assert len(seen[0]) == 2 and seen[0][1].equal(Z)


@pytest.mark.parametrize("size", [1, 3, 4, 10])
@pytest.mark.parametrize("patch", ["tensor", "mean", "confusion"])
def test_values_do_not_depend_on_how_the_data_are_cut(size: int, patch: str) -> None:
    def share(conf_mat: Tensor) -> Any:
        return conf_mat.diag().sum() / conf_mat.sum()

    metric = share if patch == "confusion" else dm.accuracy
    trainer = make_trainer(metrics=[metric], metric_patch=patch)
    values = trainer.test(DataLoader(TensorDataset(X, Y), batch_size=size))
    with torch.no_grad():
        out = trainer.model(X)
    name = "share" if patch == "confusion" else "accuracy"
    assert values["loss"] == pytest.approx(F.cross_entropy(out, Y).item(), rel=1e-6)
    assert values[name] == pytest.approx((out.argmax(1) == Y).float().mean().item(), rel=1e-6)


def test_loaders_without_length_do_as_those_with_one_in_every_stage(
    capsys: pytest.CaptureFixture[str],
) -> None:
    results = []
    for data in (TensorDataset(X, Y), Streamed()):
        loader: Any = DataLoader(data, batch_size=4)
        torch.manual_seed(0)
        trainer = make_trainer(epochs=2, metrics=[dm.accuracy], grad_accumulate=2)
        history = trainer.fit(loader, val_tasks=[EpochTask(loader), EpochTask(loader)])
        predicted = trainer.predict(loader).tolist()
        values = (dict(history), trainer.test(loader), predicted, weights(trainer.model))
        without_times = re.sub(r"[\d.]+s\b", "#s", capsys.readouterr().out)
        results.append((values, trainer.progress, without_times))
    assert results[0] == results[1]


def test_a_loader_without_length_goes_with_a_schedule_by_steps() -> None:
    rates = []

    class Watching(Callback):
        def on_after_train_batch(self, *, trainer: Any, **others: Any) -> None:
            rates.append(trainer.opt.get_current_lr()[0])

    model = Net()
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    schedule = LinearCosineScheduler(sgd, max_val=0.4, warmup_steps=4, total_steps=6)
    trainer = make_trainer(
        model=model, opt=Optimizer(sgd, schedule, sched_on="step"), callbacks=Watching(), epochs=2
    )
    trainer.fit(DataLoader(Streamed(), batch_size=4))
    by_hand = torch.optim.SGD(Net().parameters(), lr=0.1)
    schedule = LinearCosineScheduler(by_hand, max_val=0.4, warmup_steps=4, total_steps=6)
    expected = []
    for _ in range(6):
        by_hand.step()
        schedule.step()
        expected.append(by_hand.param_groups[0]["lr"])
    assert rates == expected
    assert len(set(rates)) > 3


def test_a_task_over_a_loader_without_length_says_so() -> None:
    task = EpochTask(DataLoader(Streamed(), batch_size=4))
    assert task.length is None
    with pytest.raises(TypeError):
        len(task)
    assert EpochTask([1, 2]).length == EpochTask([1, 2]).batchs == 2


class Noting:
    """A mini-batch that notes whether it was moved."""

    def __init__(self, moves: list[str]) -> None:
        self.moves = moves

    def to(self, device: Any) -> Noting:
        self.moves.append(str(device))
        return self

    def __len__(self) -> int:
        return 4


class OfNoting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, batch: Noting) -> Tensor:
        return self.weight * len(batch)


@pytest.mark.parametrize("moves_training", [True, False])
def test_training_data_stay_where_they_are_if_asked(moves_training: bool) -> None:
    moved: dict[str, list[str]] = {"train": [], "val": [], "test": [], "predict": []}
    loaders = {stage: [(Noting(moves), None)] for stage, moves in moved.items()}
    trainer = make_trainer(
        lambda model_out, targets: model_out, OfNoting(), auto_traindata_to_device=moves_training
    )
    trainer.fit(loaders["train"], loaders["val"])
    trainer.test(loaders["test"])
    trainer.predict(loaders["predict"])
    assert moved == {
        "train": ["cpu"] if moves_training else [], "val": ["cpu"], "test": ["cpu"],
        "predict": ["cpu"],
    }  # fmt: skip


def test_graphs_train_as_in_the_plain_loop() -> None:
    pytest.importorskip("torch_geometric")
    from torch_geometric.data import Data
    from torch_geometric.loader import DataLoader as GraphLoader

    graphs = [
        Data(x=torch.randn(num, 3), edge_index=torch.tensor([[0, 1], [1, 0]]), y=torch.tensor([k]))
        for num, k in [(3, 0), (4, 1), (2, 0), (5, 1), (3, 1)]
    ]

    class GraphNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(1)
            self.linear = nn.Linear(3, 2)

        def forward(self, graph: Any) -> Tensor:
            sums = torch.zeros(graph.num_graphs, 3).index_add_(0, graph.batch, graph.x)
            out: Tensor = self.linear(sums)
            return out

    class GraphTask(EpochTask):
        def step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> None:
            assert batch_y is None
            self.loss(self.model(*batch_x), batch_x[0].y)

    loader = GraphLoader(graphs, batch_size=2)
    trainer = make_trainer(model=GraphNet())
    task = GraphTask(loader, metrics=[dm.accuracy], batch_size=lambda graph, _: graph.num_graphs)
    history = trainer.fit(train_tasks=task)

    model = GraphNet()
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    total, right = 0.0, 0
    for graph in loader:
        out = model(graph)
        value = F.cross_entropy(out, graph.y)
        opt.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        opt.step()
        total += value.item() * graph.num_graphs
        right += int((out.argmax(1) == graph.y).sum())
    assert weights(trainer.model) == weights(model)
    assert history["train"]["loss"][0] == pytest.approx(total / 5)
    assert history["train"]["accuracy"][0] == pytest.approx(right / 5)


def test_a_mini_batch_of_one_keeps_its_dimension_everywhere() -> None:
    shapes: list[Any] = []

    def weigh(batch_x: Tensor, batch_y: Tensor) -> int:
        shapes.append((tuple(batch_x.shape), tuple(batch_y.shape)))
        return len(batch_x)

    make_trainer(metrics=[dm.accuracy]).test([(X[:1], Y[:1])], batch_size=weigh)
    assert shapes == [((1, 3), (1,))]
