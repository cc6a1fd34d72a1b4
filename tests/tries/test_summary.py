"""`trainer.summary()`: layers, shapes, parameters and memory, and no trace."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from deepepochs import ConfigError, DataError, EpochTask, Optimizer, Trainer
from deepepochs.tries.summary import ModelSummary, fitted

X, Y = torch.randn(48, 6), torch.arange(48) % 3


@pytest.fixture(autouse=True)
def in_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")


def net() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(inplace=True), nn.Dropout(0.3), nn.Linear(8, 3)
    )


def loader(**options: Any) -> DataLoader[Any]:
    return DataLoader(TensorDataset(X, Y), 8, **options)


def trainer(model: nn.Module | None = None, opt: Any = None, **options: Any) -> Trainer:
    options = {"loss": F.cross_entropy, "epochs": 1, "console": "off", "device": "cpu", **options}
    return Trainer(net() if model is None else model, opt=opt, **options)


def rows(summary: ModelSummary) -> dict[str, tuple[str, int]]:
    return {layer.name: (layer.output, layer.parameters) for layer in summary.layers}


def test_before_the_first_fit_it_has_layers_and_parameters_without_data() -> None:
    summary = trainer().summary()
    assert rows(summary) == {
        "": ("", 0), "0": ("", 56), "1": ("", 16), "2": ("", 0), "3": ("", 0), "4": ("", 27),
    }  # fmt: skip
    assert (summary.parameters, summary.trainable) == (99, 99)
    assert "output" not in str(summary).split("\n")[0]


@pytest.mark.parametrize(
    "data",
    [loader(), next(iter(loader())), X[:8], [(X[:8], Y[:8])], [X[:8], Y[:8]], (X[:8],)],
    ids=["loader", "mini-batch", "input", "list of mini-batches", "list", "tuple of one"],
)
def test_data_give_the_shapes(data: Any) -> None:
    summary = trainer().summary(data)
    assert [layer.output for layer in summary.layers] == [
        "[8, 3]", "[8, 8]", "[8, 8]", "[8, 8]", "[8, 8]", "[8, 3]",
    ]  # fmt: skip
    assert summary.num_samples == 8


def test_the_memory_is_that_of_weights_gradients_optimizer_and_outputs() -> None:
    memory = trainer().summary(X[:8]).memory
    assert memory.weights == 4 * 99 + 4 * 16 + 8  # statistics, and their counter
    assert memory.gradients == 4 * 99
    assert memory.optimizer == 2 * 4 * 99  # Adam
    # Both linear layers and the norm; ReLU works in place, and dropout is off.
    assert memory.outputs == 4 * 8 * (8 + 8 + 3)


OPTIMIZERS = {
    "SGD": (lambda p: torch.optim.SGD(p, 0.1), 0),
    "momentum": (lambda p: torch.optim.SGD(p, 0.1, momentum=0.9), 1),
    "AdamW": (lambda p: torch.optim.AdamW(p), 2),
    "amsgrad": (lambda p: torch.optim.Adam(p, amsgrad=True), 3),
    "RMSprop": (lambda p: torch.optim.RMSprop(p, centered=True), 2),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_state_of_an_optimizer_is_what_its_first_step_makes(name: str) -> None:
    make, times = OPTIMIZERS[name]
    model = net()
    one = trainer(model, make(model.parameters()))
    assert one.summary().memory.optimizer == times * 4 * 99
    assert not one.opt[0].opt.state
    one.fit(loader())
    found = one.summary().memory.optimizer
    assert found is not None and times * 4 * 99 <= found <= times * 4 * 99 + 4 * 6  # step counts


def test_a_schedule_of_the_optimizer_does_not_step() -> None:
    model = net()
    opt = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.StepLR(opt, 1)
    one = trainer(model, Optimizer(opt, schedule))
    assert one.summary().memory.optimizer == 4 * 99
    assert schedule.last_epoch == 0


def test_the_state_of_an_optimizer_that_cannot_be_known_is_not_guessed() -> None:
    class Own(torch.optim.SGD):
        pass

    model = net()
    summary = trainer(model, Own(model.parameters(), 0.1)).summary()
    assert summary.memory.optimizer is None
    assert "an unknown amount for the optimizer" in " ".join(str(summary).split())


def test_frozen_weights_have_a_column_and_no_gradients() -> None:
    model = net()
    model[0].requires_grad_(False)
    summary = trainer(model, torch.optim.SGD(model[4].parameters(), 0.1)).summary()
    assert (summary.parameters, summary.trainable) == (99, 43)
    assert summary.memory.gradients == 4 * 43
    assert str(summary).split("\n")[0].split() == ["layer", "kind", "parameters", "frozen"]
    assert str(summary).split("\n")[2].split() == ["0", "Linear", "56", "56"]


class Deep(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(6, 6)
        self.body = nn.Sequential(nn.Sequential(nn.Linear(6, 6), nn.ReLU()), nn.Linear(6, 3))
        self.scale = nn.Parameter(torch.ones(6))

    def forward(self, x: Any) -> Any:
        return self.body(self.stem(x) * self.scale)


@pytest.mark.parametrize(
    ("depth", "names"),
    [
        (0, [""]),
        (1, ["", "stem", "body"]),
        (2, ["", "stem", "body", "body.0", "body.1"]),
        (None, ["", "stem", "body", "body.0", "body.0.0", "body.0.1", "body.1"]),
    ],
)
def test_the_rows_below_a_depth_are_counted_above_it(depth: int | None, names: list[str]) -> None:
    summary = trainer(Deep()).summary(X[:8], depth=depth)
    assert [layer.name for layer in summary.layers] == names
    assert summary.parameters == sum(weight.numel() for weight in Deep().parameters())
    assert summary.memory.outputs == 4 * 8 * (6 + 6 + 6 + 3)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.again = self.first
        self.tied = nn.Linear(6, 6, bias=False)
        self.tied.weight = self.first.weight
        self.head = nn.Linear(6, 3)

    def forward(self, x: Any) -> Any:
        return self.head(self.tied(self.again(self.first(x))))


def test_a_module_or_a_weight_that_is_shared_counts_once() -> None:
    summary = trainer(Tied()).summary(X[:8])
    first, again, tied = summary.layers[1:4]
    assert (first.parameters, first.calls) == (42, 2)
    assert (again.parameters, again.same_as, tied.parameters) == (0, "first", 0)
    assert summary.parameters == sum(weight.numel() for weight in Tied().parameters())
    assert "as first" in str(summary) and "[8, 6] x2" in str(summary)


def test_dicts_and_several_inputs_are_given_as_a_step_gives_them() -> None:
    class ByName(nn.Linear):
        def forward(self, x: Any) -> Any:
            return {"logits": super().forward(x), "hidden": (x, None)}

    one = trainer(ByName(6, 3), targets="labels")
    summary = one.summary({"x": X[:8], "labels": Y[:8]})
    assert summary.layers[0].output == "{logits: [8, 3], hidden: ([8, 6], None)}"

    class Both(nn.Bilinear):
        pass

    assert trainer(Both(6, 6, 3)).summary((X, X, Y)).layers[0].output == "[48, 3]"


def test_a_model_that_returns_its_loss_gets_the_whole_mini_batch() -> None:
    class WithLoss(nn.Linear):
        def forward(self, x: Any, labels: Any) -> Any:
            return {"loss": F.cross_entropy(super().forward(x), labels)}

    summary = trainer(WithLoss(6, 3), loss=None).summary(loader())
    assert summary.layers[0].output == "{loss: []}"


def test_an_object_that_can_be_moved_is_a_mini_batch_also_if_it_can_be_walked() -> None:
    class Graph:
        x = X[:8]

        def to(self, device: Any, non_blocking: bool = False) -> Graph:
            return self

        def __iter__(self) -> Any:
            yield "x", self.x

    class Nodes(nn.Linear):
        def forward(self, graph: Any) -> Any:
            return super().forward(graph.x)

    assert trainer(Nodes(6, 3), loss=None).summary(Graph()).layers[0].output == "[8, 3]"


def test_layers_that_give_several_tensors_show_the_shapes_of_each() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(6, 4, batch_first=True)
            self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

        def forward(self, x: Any) -> Any:
            out, _ = self.lstm(x)
            return self.attention(out, out, out)[0]

    summary = trainer(Recurrent()).summary(torch.randn(2, 5, 6))
    assert [layer.output for layer in summary.layers] == [
        "[2, 5, 4]", "([2, 5, 4], ([1, 2, 4], [1, 2, 4]))", "([2, 5, 4], [2, 5, 5])", "",
    ]  # fmt: skip
    # The attention calls no layer for its last product, so that its own outputs count.
    assert summary.memory.outputs == 4 * (40 + 8 + 8 + 40 + 50)


def test_lazy_layers_have_shapes_with_data_and_stay_lazy() -> None:
    one = trainer(nn.Sequential(nn.LazyLinear(4), nn.Linear(4, 3)))
    assert "those of lazy layers are not there yet" in str(one.summary())
    summary = one.summary(X[:8])
    assert rows(summary)["0"] == ("[8, 4]", 28)
    assert "lazy" not in str(summary)
    assert isinstance(one.model[0], nn.LazyLinear)


def test_a_layer_that_is_not_called_says_so_and_a_list_of_layers_is_none() -> None:
    class Some(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used = nn.ModuleList([nn.Linear(6, 3)])
            self.idle = nn.Linear(6, 3)

        def forward(self, x: Any) -> Any:
            return self.used[0](x)

    lines = str(trainer(Some()).summary(X[:8])).split("\n")
    assert "not called" in lines[4] and "idle" in lines[4]
    assert "not called" not in lines[2]


def test_the_layers_inside_of_a_transformer_are_called() -> None:
    model = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    assert torch.backends.mha.get_fastpath_enabled()
    summary = trainer(model).summary(torch.randn(4, 5, 8))
    assert rows(summary)["linear1"] == ("[4, 5, 16]", 144)
    assert torch.backends.mha.get_fastpath_enabled()


def test_it_leaves_no_trace() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = net()
            self.register_buffer("calls", torch.zeros(()), persistent=False)

        def forward(self, x: Any) -> Any:
            self.calls += 1
            random.random(), np.random.rand(), torch.rand(1)
            return self.inner(x)

    one = trainer(Counting())
    one.model.inner[1].eval()
    data = loader(shuffle=True, generator=torch.Generator().manual_seed(3))

    def state() -> Any:
        values = {name: value.clone() for name, value in one.model.state_dict().items()}
        modes = [module.training for module in one.model.modules()]
        hooks = [len(module._forward_hooks) for module in one.model.modules()]
        draws = [random.getstate(), np.random.get_state()[2], torch.get_rng_state().tolist()]
        own = data.generator.get_state().tolist()
        return (
            str(values),
            modes,
            hooks,
            draws,
            own,
            one.model.calls.item(),
            one.model.inner[0].weight.grad,
        )

    before = state()
    one.summary(data)
    one.summary(X)
    one.summary()
    assert state() == before


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_fit_after_it_is_the_fit_without_it(num_workers: int) -> None:
    def losses(*, looks: bool) -> Any:
        one = trainer(opt=None, epochs=2)
        torch.manual_seed(5)
        data = loader(shuffle=True, num_workers=num_workers, persistent_workers=num_workers > 0)
        if looks:
            one.summary(data)
        return one.fit(data)["train"]["loss"], torch.get_rng_state().tolist()

    assert losses(looks=True) == losses(looks=False)


def test_inside_of_a_fit_it_changes_nothing_either() -> None:
    def losses(*, looks: bool) -> Any:
        class Looking(EpochTask):
            def train_step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> None:
                if looks:
                    self.trainer.summary(batch_x[0])
                self.loss(self.call_model(batch_x), batch_y)

        one = trainer()
        torch.manual_seed(5)
        return one.fit(train_tasks=Looking(loader(shuffle=True)))["train"]["loss"]

    assert losses(looks=True) == losses(looks=False)


def test_mixed_precision_is_that_of_the_training() -> None:
    assert trainer(precision="bf16").summary(X[:8]).layers[0].output == "[8, 3]"


@pytest.mark.parametrize("columns", [40, 60, 200])
def test_the_table_fits_the_terminal(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    class AModelWithAVeryLongNameOfItsClass(Deep):
        pass

    monkeypatch.setenv("COLUMNS", str(columns))
    summary = trainer(AModelWithAVeryLongNameOfItsClass()).summary(X[:8])
    assert max(map(len, str(summary).split("\n"))) <= columns
    assert ("…" in str(summary)) is (columns < 100)


def test_names_in_wide_characters_stand_in_their_columns() -> None:
    head, row = fitted([["layer", "kind", "parameters"], ["编码器", "Linear", "15"]], 80)
    assert (head.index("kind"), row.index("Linear")) == (8, 5)


def test_a_notebook_gets_a_table_with_all_texts_escaped() -> None:
    html = trainer().summary(X[:8])._repr_html_()
    assert html.count("<table") == 2 and "[8, 3]" in html
    assert repr(trainer().summary()).startswith("layer")


def mistakes() -> dict[str, tuple[Any, type[Exception], str]]:
    return {
        "data set": (lambda: TensorDataset(X, Y), ConfigError, "give a loader, a mini-batch or an"),
        "number": (lambda: 8, ConfigError, "summary() got int: give a loader"),
        "iterator": (lambda: iter(loader()), ConfigError, "which can be walked only once"),
        "empty": (list, DataError, "a loader that gives no mini-batch"),
        "shape": (lambda: X[:, :4], RuntimeError, "In summary(): batch_x is (float32 [48, 4],)"),
    }


@pytest.mark.parametrize("name", mistakes())
def test_what_is_no_data_is_told(name: str) -> None:
    make, kind, words = mistakes()[name]
    with pytest.raises(kind) as caught:
        trainer().summary(make())
    assert words in "\n".join([str(caught.value), *getattr(caught.value, "__notes__", [])])


def test_another_depth_is_refused() -> None:
    with pytest.raises(ConfigError, match="depth=-1: give an int of at least 0"):
        trainer().summary(depth=-1)


def test_a_model_that_cannot_be_copied_is_told_what_is_possible() -> None:
    model = net()
    model.kept = model[0](X[:1])  # with a graph
    with pytest.raises(ConfigError, match=r"cannot be copied .* without data"):
        trainer(model).summary(X[:8])
    assert trainer(model).summary().parameters == 99
