"""Scripts in the shape of those of release 0.6 run, and compute what a plain loop computes.

One test for each kind of example of that release, with its names and arguments as a
user's script has them. Steps take `batch_x` as the tuple that it was before 0.6.12 and is
here; the rest is as it was.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR
from torch.utils.data import DataLoader, TensorDataset

from deepepochs import (
    Callback,
    CheckCallback,
    ConfusionMetrics,
    EpochTask,
    MeanPatch,
    Optimizer,
    PatchBase,
    TensorPatch,
    Trainer,
    TrainerBase,
    ValuePatch,
    batches,
    concat,
    rename,
    set_seed,
    sum_dicts,
)
from deepepochs import metrics as dm

Digits = TensorDataset


def new_model(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))


def loaders(digits: Digits, size: int = 30) -> tuple[DataLoader[Any], ...]:
    """120 images to train, 50 to validate, 70 to test; last mini-batches are smaller."""
    x, y = digits.tensors
    cuts = (slice(0, 120), slice(120, 170), slice(170, 240))
    return tuple(DataLoader(TensorDataset(x[cut], y[cut]), batch_size=size) for cut in cuts)


def train_by_hand(
    model: nn.Module,
    opts: list[torch.optim.Optimizer],
    loader: Any,
    epochs: int,
    after_step: Callable[[], None] = lambda: None,
    after_epoch: Callable[[], None] = lambda: None,
) -> list[float]:
    """Give the loss of each epoch: the mean over its samples."""
    losses = []
    for _ in range(epochs):
        total, num = 0.0, 0
        for x, y in loader:
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            for opt in opts:
                opt.step()
            for opt in opts:
                opt.zero_grad()
            after_step()
            total, num = total + loss.item() * len(y), num + len(y)
        after_epoch()
        losses.append(total / num)
    return losses


@torch.no_grad()
def outputs(model: nn.Module, loader: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs and labels of a whole loader."""
    parts = [(model(x), y) for x, y in loader]
    return torch.cat([out for out, _ in parts]), torch.cat([y for _, y in parts])


def assert_same_weights(one: nn.Module, two: nn.Module) -> None:
    for name, weight in one.state_dict().items():
        assert torch.equal(weight, two.state_dict()[name]), name


def adam(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=5e-3)


def acc(preds: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return (preds.argmax(1) == targets).float().mean()


def test_1_basic_use(digits: Digits) -> None:
    train_dl, val_dl, test_dl = loaders(digits)
    model = new_model()
    opt = torch.optim.Adam(model.parameters(), lr=5e-3)
    trainer = Trainer(model, F.cross_entropy, opt=opt, epochs=2, device="cpu")
    progress = trainer.fit(train_dl, val_dl)
    test_rst = trainer.test(test_dl)

    plain = new_model()
    losses = train_by_hand(plain, [adam(plain)], train_dl, 2)
    assert_same_weights(model, plain)
    assert progress["train"]["loss"] == losses
    assert all(isinstance(loss, float) for loss in progress["val"]["loss"])
    assert progress["val"]["loss"][-1] == pytest.approx(
        F.cross_entropy(*outputs(plain, val_dl)).item(), abs=1e-6
    )
    assert test_rst["loss"] == pytest.approx(
        F.cross_entropy(*outputs(plain, test_dl)).item(), abs=1e-6
    )


def test_2_common_arguments(digits: Digits, capsys: pytest.CaptureFixture[str]) -> None:
    train_dl, val_dl, test_dl = loaders(digits)
    model = new_model()
    trainer = Trainer(
        model,
        F.cross_entropy,
        adam(model),
        epochs=4,
        device="cpu",
        callbacks=None,
        metrics=[acc],
        metric_patch="tensor",
        resume=False,
        running_id=None,
        hyper_params=None,
        log_long=True,
        log_batch=False,
        log_tqdm=True,
        show_info=False,
        compile_model=False,
    )
    progress = trainer.fit(train_dl, val_dl, metrics=None, val_freq=2, do_val_loss=False)
    test_rst = trainer.test(test_dl, metrics=None, do_loss=False)

    plain = new_model()
    train_by_hand(plain, [adam(plain)], train_dl, 4)
    assert_same_weights(model, plain)
    assert [len(progress["train"]["acc"]), len(progress["val"]["acc"])] == [4, 2]
    assert "loss" not in progress["val"]
    assert progress["val"]["acc"][-1] == pytest.approx(acc(*outputs(plain, val_dl)).item())
    assert test_rst == {"acc": pytest.approx(acc(*outputs(plain, test_dl)).item())}
    out, err = capsys.readouterr()
    assert f"{progress['val']['acc'][-1]:.7f}" in out and err == ""


@pytest.mark.filterwarnings("ignore:batch_size=7 was given")
def test_3_metrics(digits: Digits) -> None:
    train_dl, val_dl, test_dl = loaders(digits)

    @rename("")
    def metrics(preds: Any, targets: Any) -> dict[str, Any]:
        return {
            "r": dm.recall(preds, targets, average="macro"),
            "p": dm.precision(preds, targets, average="weighted"),
        }

    @rename("m.")
    def multi_metrics(preds: Any, targets: Any) -> dict[str, Any]:
        matrix = dm.confusion_matrix(preds, targets, 10)
        return {"f1": dm.f1(conf_mat=matrix, average="macro"), "a": dm.accuracy(conf_mat=matrix)}

    seen = []

    def size(batch_x: Any, batch_y: Any) -> int:
        seen.append((type(batch_x), batch_x.shape))
        return len(batch_y)

    model = new_model()
    trainer = Trainer(model, F.cross_entropy, adam(model), epochs=1, metrics=[acc])
    progress = trainer.fit(
        train_dl,
        val_dl,
        metrics=[multi_metrics],
        train_metrics=[metrics],
        val_metrics=[dm.accuracy],
        batch_size=size,
    )
    test_rst = trainer.test(test_dl, metrics=[metrics], batch_size=7)

    assert list(progress["train"]) == ["loss", "r", "p", "m.f1", "m.a", "acc"]
    assert list(progress["val"]) == ["loss", "accuracy", "m.f1", "m.a", "acc"]
    assert list(test_rst) == ["loss", "r", "p", "acc"]
    assert set(seen) == {(torch.Tensor, torch.Size([n, 64])) for n in (30, 20)}
    preds, targets = outputs(model, val_dl)
    for name in ("accuracy", "m.a", "acc"):
        assert progress["val"][name][0] == pytest.approx(acc(preds, targets).item())
    each = [F.cross_entropy(model(x), y).item() for x, y in test_dl]
    assert test_rst["loss"] == pytest.approx(sum(each) / 3), "each mini-batch weighs 7"
    preds, targets = outputs(model, test_dl)
    for name, value in metrics(preds, targets).items():
        assert test_rst[name] == pytest.approx(value.item())


def test_4_checkpoint_and_early_stop(
    digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    train_dl, val_dl, test_dl = loaders(digits)

    def script(epochs: int, seed: int) -> tuple[Trainer, Any]:
        model = new_model(seed)
        opt = torch.optim.Adam(model.parameters(), lr=0.1)
        checker = CheckCallback("loss", on_stage="val", mode="min", patience=2, save_best=False)
        trainer = Trainer(
            model,
            F.cross_entropy,
            opt,
            epochs=epochs,
            callbacks=checker,
            metrics=[acc],
            resume=True,
            running_id=1,
        )
        progress = trainer.fit(train_dl, val_dl)
        return trainer, progress

    script(2, seed=0)  # there is nothing to go on from
    assert Path("logs/1/checkpoint.ckpt").is_file()
    trainer, progress = script(1000, seed=1)  # other weights, which the checkpoint replaces
    test_rst = trainer.test(test_dl)

    plain, losses = new_model(), []
    opt = torch.optim.Adam(plain.parameters(), lr=0.1)
    while len(losses) < 3 or min(losses[-2:]) < min(losses[:-2]):
        train_by_hand(plain, [opt], train_dl, 1)
        losses.append(F.cross_entropy(*outputs(plain, val_dl)).item())
    assert trainer.init_epoch == len(losses) > 3
    assert [float(loss) for loss in progress["val"]["loss"]] == pytest.approx(losses, abs=1e-6)
    assert_same_weights(trainer.model, plain)
    # save_best=False: the test uses the last weights, which are not the best.
    assert test_rst["acc"] == pytest.approx(acc(*outputs(plain, test_dl)).item())


def test_9_learning_rate_schedule(digits: Digits) -> None:
    train_dl, val_dl, _ = loaders(digits)

    def made(model: nn.Module) -> tuple[torch.optim.Optimizer, Any]:
        opt = torch.optim.Adam(model.parameters(), lr=2e-4)
        return opt, OneCycleLR(opt, max_lr=1e-2, total_steps=3 * len(train_dl))

    model = new_model()
    opt, sched = made(model)
    trainer = Trainer(
        model, F.cross_entropy, Optimizer(opt, sched, sched_on="step"), epochs=3, device="cpu"
    )
    trainer.fit(train_dl, val_dl)

    plain = new_model()
    plain_opt, plain_sched = made(plain)
    train_by_hand(plain, [plain_opt], train_dl, 3, after_step=plain_sched.step)
    assert_same_weights(model, plain)
    assert trainer.opt.get_last_lr() == [plain_sched.get_last_lr()]
    assert trainer.opt.get_current_lr() == plain_sched.get_last_lr()


def test_10_two_optimizers_over_the_same_weights(digits: Digits) -> None:
    train_dl, val_dl, _ = loaders(digits)

    def made(model: nn.Module) -> list[tuple[torch.optim.Optimizer, Any]]:
        one = torch.optim.Adam(model.parameters(), lr=2e-3)
        two = torch.optim.SGD(model.parameters(), lr=1e-2)
        return [(one, CosineAnnealingLR(one, 3)), (two, CosineAnnealingLR(two, 6))]

    model = new_model()
    opts = [Optimizer(opt, sched, sched_on="epoch") for opt, sched in made(model)]
    Trainer(model, F.cross_entropy, opts, epochs=3).fit(train_dl, val_dl)

    plain = new_model()
    (one, sched_one), (two, sched_two) = made(plain)

    def after_epoch() -> None:
        sched_one.step()
        sched_two.step()

    train_by_hand(plain, [one, two], train_dl, 3, after_epoch=after_epoch)
    assert_same_weights(model, plain)


@pytest.mark.filterwarnings("ignore:batch_size=30 was given")
def test_11_several_loaders(digits: Digits) -> None:
    one, two, three = loaders(digits)
    model = new_model()
    trainer = Trainer(model, F.cross_entropy, adam(model), epochs=2, metrics=[acc])
    train_tasks = [
        EpochTask(one, metrics=[dm.accuracy], step_args={}),
        EpochTask(two, batch_size=30, step_args={}),
    ]
    val_tasks = [EpochTask(two, metrics=[acc], do_loss=True), EpochTask(three, do_loss=False)]
    progress = trainer.fit(train_tasks=train_tasks, val_tasks=val_tasks)
    test_rst = trainer.test(tasks=[EpochTask(two), EpochTask(three)])

    plain = new_model()
    opt = adam(plain)
    for _ in range(2):
        train_by_hand(plain, [opt], one, 1)
        train_by_hand(plain, [opt], two, 1)
    assert_same_weights(model, plain)
    assert train_tasks[0].step_args == {}
    both = acc(*outputs(plain, [*two, *three])).item()
    assert test_rst["acc"] == progress["val"]["acc"][-1] == pytest.approx(both)
    assert test_rst["1/acc"] == pytest.approx(acc(*outputs(plain, three)).item())
    assert progress["val"]["loss"][-1] == pytest.approx(
        F.cross_entropy(*outputs(plain, two)).item(), abs=1e-6
    )


class Graph:
    """What a library of graphs hands over: one object that knows how to move."""

    def __init__(self, x: torch.Tensor, weights: torch.Tensor) -> None:
        self.x, self.weights, self.moves = x, weights, 0

    def to(self, *args: Any, **kwargs: Any) -> Graph:
        moved = Graph(self.x.to(*args, **kwargs), self.weights.to(*args, **kwargs))
        moved.moves = self.moves + 1
        return moved


def test_12_nodes_of_a_graph(digits: Digits) -> None:
    x, y = (tensor[:60] for tensor in digits.tensors)
    graph = Graph(x, torch.softmax(-torch.cdist(x, x), 1))
    train_mask, val_mask = torch.arange(60) < 40, torch.arange(60) >= 40
    moves = []

    class GCN(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = new_model()

        def forward(self, graph: Graph, scale: Any) -> torch.Tensor:
            moves.append(graph.moves)
            return graph.weights @ self.body(graph.x * scale)

    def loss(preds: Any, targets: Any) -> torch.Tensor:
        y, mask = targets
        return F.cross_entropy(preds[mask], y[mask])

    @rename("acc")
    def masked_acc(preds: Any, targets: Any) -> torch.Tensor:
        y, mask = targets
        return acc(preds[mask], y[mask])

    scale = torch.tensor(2.0)
    train_dl = DataLoader([(graph, scale, (y, train_mask))], batch_size=None)
    val_dl = DataLoader([(graph, scale, (y, val_mask))], batch_size=None)
    model = GCN()
    trainer = Trainer(
        model, loss, torch.optim.Adam(model.parameters(), lr=0.01), epochs=5, metrics=[masked_acc]
    )
    progress = trainer.fit(train_dl, val_dl, batch_size=None)
    assert set(moves) == {1}

    plain = GCN()
    opt, losses = torch.optim.Adam(plain.parameters(), lr=0.01), []
    for _ in range(5):
        value = loss(plain(graph, scale), (y, train_mask))
        value.backward()
        opt.step()
        opt.zero_grad()
        losses.append(value.item())
    assert_same_weights(model, plain)
    assert progress["train"]["loss"] == losses
    assert progress["val"]["acc"][-1] == masked_acc(plain(graph, scale), (y, val_mask)).item()


def test_14_own_callback(digits: Digits) -> None:
    train_dl, val_dl, _ = loaders(digits)

    class InitCallback(Callback):
        def __init__(self, priority: int = 1) -> None:
            super().__init__(priority)

        def on_before_fit(self, trainer: Any, epochs: int) -> None:
            set_seed(7)
            for p in trainer.model.parameters():
                nn.init.normal_(p, std=0.1)

    model = new_model()
    opt = torch.optim.Adam(model.parameters(), lr=5e-3)
    trainer = Trainer(model, F.cross_entropy, opt, epochs=1, callbacks=InitCallback())
    trainer.fit(train_dl, val_dl)

    plain = new_model()
    set_seed(7)
    for weight in plain.parameters():
        nn.init.normal_(weight, std=0.1)
    train_by_hand(plain, [adam(plain)], train_dl, 1)
    assert_same_weights(model, plain)


def test_15_steps_of_a_trainer(digits: Digits) -> None:
    train_dl, val_dl, test_dl = loaders(digits)

    class MyTrainer(TrainerBase):
        def train_step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> Any:
            model_out = self.model(*batch_x)
            self.loss(model_out, batch_y)

        def evaluate_step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> Any:
            model_out = self.model(*batch_x)
            self.loss(model_out, batch_y)
            return {"my_acc": TensorPatch(acc).load(model_out, batch_y)}

    model = new_model()
    trainer = MyTrainer(model, F.cross_entropy, adam(model), epochs=2, metrics=[acc])
    progress = trainer.fit(train_dl, val_dl)
    test_rst = trainer.test(test_dl)

    plain = new_model()
    losses = train_by_hand(plain, [adam(plain)], train_dl, 2)
    assert_same_weights(model, plain)
    assert progress["train"]["loss"] == losses
    assert list(progress["train"]) == ["loss", "acc"]
    assert list(test_rst) == ["loss", "acc", "my_acc"]
    assert (
        test_rst["my_acc"] == test_rst["acc"] == pytest.approx(acc(*outputs(plain, test_dl)).item())
    )


def test_16_three_steps_of_a_task(digits: Digits) -> None:
    train_dl, val_dl, test_dl = loaders(digits)
    calls = []

    class MyTask(EpochTask):
        def train_step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> Any:
            calls.append(("train", step_args))
            self.loss(self.model(*batch_x), batch_y)

        def val_step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> Any:
            calls.append(("val", step_args))
            self.loss(self.model(*batch_x), batch_y)

        def test_step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> Any:
            calls.append(("test", step_args))
            model_out = self.model(*batch_x)
            assert self.loss(model_out, batch_y) is None
            return {"acc": TensorPatch(acc).load(model_out, batch_y)}

    model = new_model()
    trainer = Trainer(model, F.cross_entropy, adam(model), epochs=1)
    progress = trainer.fit(
        train_tasks=[MyTask(train_dl, hello="world")], val_tasks=[MyTask(val_dl)]
    )
    test_rst = trainer.test(tasks=[MyTask(test_dl, do_loss=False)])

    plain = new_model()
    assert progress["train"]["loss"] == train_by_hand(plain, [adam(plain)], train_dl, 1)
    assert_same_weights(model, plain)
    assert calls == [("train", {"hello": "world"})] * 4 + [("val", {})] * 2 + [("test", {})] * 3
    assert test_rst == {"acc": pytest.approx(acc(*outputs(plain, test_dl)).item())}


def test_17_one_step_of_a_task(digits: Digits) -> None:
    train_dl, val_dl, test_dl = loaders(digits)

    class MyTask(EpochTask):
        def step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> Any:
            model_out = self.model(*batch_x)
            self.loss(model_out, batch_y)
            return {"my_acc": TensorPatch(acc).load(model_out, batch_y)}

        def train_step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> Any:
            raise AssertionError("step comes first")

        val_step = test_step = evaluate_step = train_step

    model = new_model()
    trainer = Trainer(model, F.cross_entropy, adam(model), epochs=2)
    progress = trainer.fit(train_tasks=MyTask(train_dl), val_tasks=MyTask(val_dl))
    test_rst = trainer.test(tasks=MyTask(test_dl, do_loss=False))

    plain = new_model()
    assert progress["train"]["loss"] == train_by_hand(plain, [adam(plain)], train_dl, 2)
    assert_same_weights(model, plain)
    assert test_rst == {"my_acc": pytest.approx(acc(*outputs(plain, test_dl)).item())}


def test_18_metrics_of_the_confusion_matrix(digits: Digits) -> None:
    train_dl, val_dl, test_dl = loaders(digits)

    @rename("")
    def metrics(conf_mat: torch.Tensor) -> dict[str, Any]:
        return {
            "acc": dm.accuracy(conf_mat=conf_mat),
            "p": dm.precision(conf_mat=conf_mat, average="macro"),
            "r": dm.recall(conf_mat=conf_mat, average="weighted"),
            "f1": dm.f1(conf_mat=conf_mat, average="macro"),
            "fb": dm.fbeta(conf_mat=conf_mat, beta=2, average="macro"),
        }

    set_seed(100)
    model = new_model()
    trainer = Trainer(
        model,
        F.cross_entropy,
        adam(model),
        epochs=2,
        metrics=[metrics],
        metric_patch="confusion",
    )
    trainer.fit(train_dl, val_dl)
    test_rst = trainer.test(test_dl)

    plain = new_model()
    train_by_hand(plain, [adam(plain)], train_dl, 2)
    preds, targets = outputs(plain, test_dl)
    matrix = torch.zeros(10, 10, dtype=torch.long)
    for target, pred in zip(targets, preds.argmax(1), strict=True):
        matrix[target, pred] += 1
    assert list(test_rst) == ["loss", "acc", "p", "r", "f1", "fb"]
    for name, value in metrics(matrix).items():
        assert test_rst[name] == value.item()
    assert test_rst["acc"] == pytest.approx(acc(preds, targets).item())


def test_19_built_in_patches(digits: Digits) -> None:
    train_dl, val_dl, test_dl = loaders(digits)

    class MyTask(EpochTask):
        def evaluate_step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> Any:
            model_out = self.model(*batch_x)
            loss = self.loss(model_out, batch_y, do_metric=False)
            n = len(batch_y)
            return {
                "my_loss": ValuePatch(n).load(loss),
                "tensor": TensorPatch(acc).load(model_out, batch_y),
                "mean": MeanPatch(acc, n).load(model_out, batch_y),
                "renamed": ValuePatch(n, name="by_name").load({".a": loss, ".b": 1.0}),
                "C.": ConfusionMetrics(metrics=["accuracy"], name="C.").load(model_out, batch_y),
            }

    model = new_model()
    trainer = Trainer(model, F.cross_entropy, adam(model), epochs=1)
    trainer.fit(train_dl, val_tasks=MyTask(val_dl))
    test_rst = trainer.test(tasks=MyTask(test_dl))

    preds, targets = outputs(model, test_dl)
    assert list(test_rst) == ["my_loss", "tensor", "mean", "by_name.a", "by_name.b", "C.acc"]
    loss, right = F.cross_entropy(preds, targets).item(), acc(preds, targets).item()
    assert list(test_rst.values()) == pytest.approx([loss, right, right, loss, 1.0, right])


class CountPatch(PatchBase):
    """A patch as 0.6's users wrote them: counts in a dict, joined by `sum_dicts`."""

    def __init__(self, num_classes: int, name: str | None = None) -> None:
        super().__init__(name)
        self.num_classes = num_classes

    def load(self, preds: torch.Tensor, targets: torch.Tensor) -> CountPatch:
        hits = preds.argmax(1) == targets
        self.counts: Any = sum_dicts(
            {f"hit{c}": hits[targets == c].sum(), f"num{c}": (targets == c).sum()}
            for c in range(self.num_classes)
        )
        return self

    def add(self, obj: CountPatch) -> CountPatch:
        self.counts = sum_dicts([self.counts, obj.counts])
        return self

    def forward(self) -> dict[str, Any]:
        counts = self.counts
        return {
            "all": sum(counts[f"hit{c}"] for c in range(self.num_classes))
            / sum(counts[f"num{c}"] for c in range(self.num_classes)),
            "seven": counts.hit7 / counts.num7,
        }


def test_20_own_patch(digits: Digits) -> None:
    train_dl, _, test_dl = loaders(digits)

    class MyTask(EpochTask):
        def step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> Any:
            model_out = self.model(*batch_x)
            self.loss(model_out, batch_y)
            return {"c.": CountPatch(10).load(model_out, batch_y)}

    model = new_model()
    trainer = Trainer(model, F.cross_entropy, adam(model), epochs=3)
    trainer.fit(train_tasks=MyTask(train_dl))
    test_rst = trainer.test(tasks=MyTask(test_dl))

    preds, targets = outputs(model, test_dl)
    sevens = targets == 7
    assert test_rst["c.seven"] == pytest.approx(acc(preds[sevens], targets[sevens]).item())
    assert test_rst["c.all"] == pytest.approx(acc(preds, targets).item())


def test_20_own_patch_goes_on_after_it_was_saved(digits: Digits) -> None:
    y = digits.tensors[1]
    preds = F.one_hot(y.roll(1), 10).float()
    one = CountPatch(10).load(preds[:40], y[:40])
    two = CountPatch(10).load(preds[40:90], y[40:90])
    restored = CountPatch(10)
    restored.load_state_dict(one.state_dict())
    assert restored() == one()
    assert (restored + two)() == (one + two)() == CountPatch(10).load(preds[:90], y[:90])()


def test_22_sub_batches(digits: Digits) -> None:
    train_dl, val_dl, test_dl = loaders(digits)

    class SubBatchTrainer(TrainerBase):
        def train_step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> Any:
            outs, loss_sum = [], 0.0
            for sub_x, sub_y in batches([*batch_x, batch_y], 8):
                sub_x, sub_y = sub_x.to(self.device), sub_y.to(self.device)
                share = len(sub_y) / len(batch_y)
                model_out = self.model(sub_x)
                loss = self.loss(
                    model_out, sub_y, loss_adjust=share, do_optimize=False, do_metric=False
                )
                outs.append(model_out)
                loss_sum += loss.item() * share
            self.optimize()
            self.do_metric(loss_sum, concat(outs), batch_y.to(self.device))

    set_seed(1.0)
    model = new_model()
    trainer = SubBatchTrainer(
        model,
        F.cross_entropy,
        torch.optim.SGD(model.parameters(), lr=0.1),
        epochs=3,
        device="cpu",
        metrics=[acc],
        auto_traindata_to_device=False,
    )
    progress = trainer.fit(train_dl, val_dl)
    test_rst = trainer.test(test_dl, do_loss=False)

    plain = new_model()
    losses = train_by_hand(plain, [torch.optim.SGD(plain.parameters(), lr=0.1)], train_dl, 3)
    for one, two in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-6)
    assert [float(loss) for loss in progress["train"]["loss"]] == pytest.approx(losses, abs=1e-6)
    assert list(progress["train"]) == ["loss", "acc"]
    assert test_rst == {"acc": pytest.approx(acc(*outputs(plain, test_dl)).item())}


def test_24_dict_batches_and_a_model_that_gives_its_loss(digits: Digits) -> None:
    x, y = (tensor[:50] for tensor in digits.tensors)
    samples = [{"image": image, "label": label} for image, label in zip(x, y, strict=True)]
    dl = DataLoader(samples, batch_size=20)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = new_model()

        def forward(self, image: Any, label: Any) -> dict[str, Any]:
            out = self.body(image)
            return {"loss": F.cross_entropy(out, label), "out": out}

    class MyTask(EpochTask):
        def step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> Any:
            assert batch_y is None
            model_out = self.model(**batch_x)
            self.loss(model_out, batch_y)
            patch = TensorPatch(acc).load(model_out["out"], batch_x["label"])
            return {"acc": patch}

    model = Model()
    trainer = Trainer(model, loss=None, opt=adam(model), epochs=2)
    by_default = trainer.fit(dl, dl)
    by_step = trainer.fit(train_tasks=MyTask(dl), val_tasks=MyTask(dl), epochs=1)

    plain = new_model()
    pairs = [(batch["image"], batch["label"]) for batch in dl]
    losses = train_by_hand(plain, [adam(plain)], pairs, 3)
    assert_same_weights(model.body, plain)
    assert [*by_default["train"]["loss"], *by_step["train"]["loss"]] == losses
    preds, targets = outputs(plain, pairs)
    assert by_step["val"]["loss"][0] == pytest.approx(F.cross_entropy(preds, targets).item())
    assert by_step["val"]["acc"][0] == pytest.approx(acc(preds, targets).item())


def test_the_long_example_with_functions_of_torchmetrics(
    digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    functional = pytest.importorskip("torchmetrics").functional
    monkeypatch.chdir(tmp_path)
    train_dl, val_dl, test_dl = loaders(digits)

    def tm_acc(preds: Any, targets: Any) -> Any:
        return functional.accuracy(preds, targets, task="multiclass", num_classes=10)

    @rename("tm_f1")
    def tm_f1(preds: Any, targets: Any) -> Any:
        return functional.f1_score(
            preds, targets, task="multiclass", num_classes=10, average="macro"
        )

    model = new_model()
    trainer = Trainer(
        model,
        F.cross_entropy,
        Optimizer(adam(model)),
        epochs=4,
        # Of the two validations the first is the worse, and so "best" is not what is there.
        callbacks=[CheckCallback("tm_acc", on_stage="val", mode="min", patience=0)],
        metrics=[tm_acc],
    )
    with pytest.warns(UserWarning, match="a higher tm_acc is better"):
        progress = trainer.fit(train_dl, val_dl, val_freq=2, val_metrics=[tm_f1])
    test_rst = trainer.test(test_dl, metrics=[tm_f1])
    assert progress["val"]["tm_acc"][0] < progress["val"]["tm_acc"][1]
    trainer.load_best()

    plain = new_model()
    train_by_hand(plain, [adam(plain)], train_dl, 2)
    assert len(progress["val"]["tm_f1"]) == 2
    assert_same_weights(model, plain)  # of the "best" validation
    preds, targets = outputs(plain, test_dl)
    assert test_rst["tm_acc"] == pytest.approx(acc(preds, targets).item())
    assert test_rst["tm_f1"] == pytest.approx(tm_f1(preds, targets).item())
