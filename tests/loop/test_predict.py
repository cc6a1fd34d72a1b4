"""predict: the model's outputs, joined on the CPU in the loader's order, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from deepepochs import Callback, DataError, EpochTask, Trainer

torch.manual_seed(7)
X, Y = torch.randn(10, 3), torch.arange(10) % 2
DL = DataLoader(TensorDataset(X, Y), batch_size=4)


class Net(nn.Module):
    """Puts out a tensor, a tuple or a dict."""

    def __init__(self, output: str = "tensor") -> None:
        super().__init__()
        self.output = output
        self.layers = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))

    def forward(self, x: Tensor) -> Any:
        out = self.layers(x)
        if self.output == "tuple":
            return out, (x.sum(1), x)
        return {"out": out, "sums": x.sum(1)} if self.output == "dict" else out


def make_trainer(model: nn.Module | None = None, loss: Any = F.cross_entropy, **kw: Any) -> Trainer:
    return Trainer(Net() if model is None else model, loss, epochs=1, show_info=False, **kw)


def outputs_of(trainer: Trainer) -> Any:
    """What the model gives for all inputs at once, in evaluation mode."""
    trainer.model.eval()
    with torch.no_grad():
        out = trainer.model(X)
    trainer.model.train()
    return out


LOADERS: dict[str, Any] = {
    "pairs": DL,
    "inputs alone": DataLoader(X, batch_size=4),  # type: ignore[arg-type]
    "tuples of one input": DataLoader(TensorDataset(X), batch_size=4),
    "dicts": [{"x": X[:4]}, {"x": X[4:]}],
    "without labels": [(X[:4], None), (X[4:], None)],
    "one by one": DataLoader(TensorDataset(X, Y), batch_size=1),
}


@pytest.mark.parametrize("kind", LOADERS)
def test_outputs_come_joined_in_the_order_of_the_loader(kind: str) -> None:
    trainer = make_trainer()
    predicted = trainer.predict(LOADERS[kind])
    assert predicted.shape == (10, 4)
    assert torch.allclose(predicted, outputs_of(trainer), atol=1e-6)
    assert predicted.device.type == "cpu" and not predicted.requires_grad


def test_tuple_outputs_are_joined_part_by_part() -> None:
    trainer = make_trainer(Net("tuple"))
    out, (sums, inputs) = trainer.predict(DL)
    expected = outputs_of(trainer)
    assert torch.allclose(out, expected[0], atol=1e-6)
    assert sums.equal(X.sum(1)) and inputs.equal(X)


def test_dict_outputs_are_joined_key_by_key() -> None:
    trainer = make_trainer(Net("dict"))
    predicted = trainer.predict(DL)
    assert list(predicted) == ["out", "sums"]
    assert torch.allclose(predicted["out"], outputs_of(trainer)["out"], atol=1e-6)
    assert predicted["sums"].equal(X.sum(1))


def test_several_inputs_are_told_from_targets_as_asked() -> None:
    class Adding(nn.Linear):
        def forward(self, x: Tensor, more: Tensor | None = None) -> Tensor:
            return super().forward(x if more is None else x + more)

    trainer = make_trainer(Adding(3, 2))
    with torch.no_grad():
        plain, doubled = trainer.model(X), trainer.model(X, X)
    assert trainer.predict([(X, X)]).equal(plain)
    assert trainer.predict([(X, X)], with_targets=False).equal(doubled)
    assert trainer.predict([(X, X, Y)], with_targets=True).equal(doubled)
    own_loss = make_trainer(trainer.model, loss=None)
    assert own_loss.predict([(X, X)]).equal(doubled)


def test_modes_and_gradient_mode_are_put_back() -> None:
    trainer = make_trainer()
    trainer.model.train()
    frozen: Any = trainer.model.layers[1]  # type: ignore[index]
    frozen.eval()
    modes = [module.training for module in trainer.model.modules()]
    state = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.predict(DL)
    assert [module.training for module in trainer.model.modules()] == modes
    assert torch.is_grad_enabled()
    assert all(state[name].equal(value) for name, value in trainer.model.state_dict().items())


def test_modes_are_put_back_after_an_error() -> None:
    trainer = make_trainer()
    with pytest.raises(RuntimeError):
        trainer.predict([(torch.zeros(2, 9), Y[:2])])
    assert all(module.training for module in trainer.model.modules())
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("shuffle", [True, False])
def test_random_states_move_as_by_walking_the_loader(shuffle: bool) -> None:
    loader = DataLoader(TensorDataset(X, Y), batch_size=4, shuffle=shuffle)
    trainer = make_trainer()
    torch.manual_seed(3)
    order = torch.cat([batch[0] for batch in loader])
    expected = torch.get_rng_state()
    torch.manual_seed(3)
    predicted = trainer.predict(loader)
    assert torch.get_rng_state().equal(expected)
    trainer.model.eval()
    with torch.no_grad():
        assert torch.allclose(predicted, trainer.model(order), atol=1e-6)


def test_it_calls_no_hook_and_leaves_no_trace_in_the_run() -> None:
    class Counting(Callback):
        def __init__(self) -> None:
            super().__init__()
            self.count = 0

        def on_before_test_epochs(self, **others: Any) -> None:
            self.count += 1

        def on_before_test_forward(self, **others: Any) -> None:
            self.count += 1

        def on_before_train_forward(self, **others: Any) -> None:
            self.count += 1

    counting = Counting()
    trainer = make_trainer(callbacks=counting)
    progress = trainer.progress
    trainer.predict(DL)
    assert counting.count == 0
    assert trainer.progress == progress and trainer.history == {} and trainer.run is None


def test_inside_a_fit_it_changes_nothing_of_the_fit() -> None:
    class Predicting(Callback):
        def on_after_train_batch(self, *, trainer: Any, **others: Any) -> None:
            self.predicted = trainer.predict([(X, Y)])  # a loader that draws nothing

    results = []
    for callback in (Predicting(), Callback()):
        torch.manual_seed(1)
        trainer = make_trainer(callbacks=callback)
        history = trainer.fit(DL, DL)
        results.append((dict(history), [p.tolist() for p in trainer.model.parameters()]))
    assert results[0] == results[1]


def test_a_model_that_returns_nothing_is_told() -> None:
    class Forgets(nn.Linear):
        def forward(self, inputs: torch.Tensor) -> None:  # type: ignore[override]
            super().forward(inputs)

    trainer = Trainer(Forgets(3, 2), nn.MSELoss(), show_info=False)
    with pytest.raises(DataError, match="got None"):
        trainer.predict([(X, Y)])


def test_an_empty_loader_gives_an_empty_list_and_a_warning() -> None:
    with pytest.warns(UserWarning, match="no mini-batch"):
        assert make_trainer().predict([]) == []


def test_a_task_lends_its_loader() -> None:
    trainer = make_trainer()
    assert trainer.predict(EpochTask(DL).dataloader).equal(trainer.predict(DL))
