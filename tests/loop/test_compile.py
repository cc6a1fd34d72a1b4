"""``compile_model=True``: the model is compiled, in one piece, whatever else is switched on."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from deepepochs import (
    Callback,
    CheckCallback,
    GradClipCallback,
    LogCallback,
    RunRecordCallback,
    TimingCallback,
    Trainer,
)
from deepepochs.metrics import accuracy

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = plain_layers()

    def forward(self, x: Tensor) -> Any:
        return self.layers(x)


def plain_layers() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 3))


class Watching(Callback):
    """Has the hooks that are called around the model itself."""

    def __init__(self) -> None:
        super().__init__()
        self.num_seen = 0

    def on_after_train_forward(self, model_out: Tensor, **others: Any) -> None:
        self.num_seen += len(model_out)

    def on_before_val_forward(self, **others: Any) -> None:
        self.num_seen += 1


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Collects what is compiled; it runs as it is, so that results are those of no compiler."""
    compiled: list[Any] = []

    def backend(graph: torch.fx.GraphModule, example_inputs: list[Any]) -> Any:
        compiled.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    return compiled


def train(make: Callable[[], nn.Module], folder: Path, *, compiled: bool) -> list[float]:
    torch.manual_seed(0)
    model = make()
    data = TensorDataset(torch.randn(100, 8), torch.randint(0, 3, (100,)))
    watching = Watching()
    trainer = Trainer(
        model,
        F.cross_entropy,
        torch.optim.Adam(model.parameters(), lr=1e-2),
        epochs=2,
        metrics=accuracy,
        callbacks=[
            CheckCallback("loss", ckpt_dir=folder),
            GradClipCallback(1.0),
            LogCallback(log_dir=folder),
            RunRecordCallback(log_dir=folder),
            TimingCallback(),
            watching,
        ],
        compile_model=compiled,
        grad_accumulate=2,
        show_info=False,
    )
    loader = DataLoader(data, batch_size=16, shuffle=True)
    history = trainer.fit(loader, DataLoader(data, batch_size=20))
    assert watching.num_seen == 2 * (100 + 5)
    tested = trainer.test(DataLoader(data, batch_size=20))
    trainer.close_logger()
    return [*map(float, history["train"]["loss"]), float(tested["loss"])]


@pytest.mark.parametrize("make", [Net, plain_layers])
def test_the_model_is_compiled_in_one_piece(
    make: Callable[[], nn.Module], graphs: list[Any], tmp_path: Path
) -> None:
    expected = train(make, tmp_path / "plain", compiled=False)
    assert not graphs
    assert train(make, tmp_path / "compiled", compiled=True) == expected
    # In training with 16 samples, then with any number, and in validation.
    assert 1 <= len(graphs) <= 3
    for graph in graphs:
        assert [node.target for node in graph.graph.nodes].count(F.linear) == 2
    assert not torch._dynamo.utils.counters["graph_break"]


@pytest.mark.parametrize("make", [Net, plain_layers])
def test_a_summary_compiles_nothing(make: Callable[[], nn.Module], graphs: list[Any]) -> None:
    trainer = Trainer(make(), F.cross_entropy, compile_model=True, console="off", device="cpu")
    assert trainer.summary(torch.randn(5, 8)).layers[0].output == "[5, 3]"
    assert not graphs
