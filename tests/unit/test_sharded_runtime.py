"""A sharded model in one process: its state, and what is refused."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from deepepochs import (
    CheckpointError,
    CheckpointMismatch,
    ConfigError,
    GradClipCallback,
    LogCallback,
    Trainer,
    checkpoint,
)
from deepepochs.runtime.sharded_tensors import refuse_layout

X = torch.randn(22, 4, generator=torch.Generator().manual_seed(1))
DATA = TensorDataset(X, X.sum(1, keepdim=True))


@pytest.fixture(autouse=True)
def one_process(tmp_path: Path) -> Iterator[None]:
    """A group of one process for each test."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def make_model(*, sharded: bool = True) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.ReLU(), nn.Linear(8, 1))
    if sharded:
        fully_shard(model[0], mesh=init_device_mesh("cpu", (1,)))
        fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
    return model


def make_trainer(model: nn.Module, device: Any = None, **options: Any) -> Trainer:
    options.setdefault("opt", torch.optim.AdamW(model.parameters(), 0.05))
    device = Accelerator(cpu=True) if device is None else device
    return Trainer(
        model, F.mse_loss, device=device, epochs=2, show_info=False, log_batch=False, **options
    )


def test_a_sharded_model_learns_what_a_whole_one_does() -> None:
    found = []
    for sharded in (True, False):
        trainer = make_trainer(
            make_model(sharded=sharded), grad_accumulate=2, callbacks=GradClipCallback(0.1, 2)
        )
        trainer.fit(DataLoader(DATA, 4), DataLoader(DATA, 8))
        found.append(trainer.state_dict())
    for name, weight in found[0]["model"].items():
        assert type(weight) is torch.Tensor
        torch.testing.assert_close(weight, found[1]["model"][name], rtol=1e-6, atol=1e-7)
    assert found[0].keys() == found[1].keys()


def test_the_state_is_that_of_a_whole_model_and_goes_both_ways(tmp_path: Path) -> None:
    trainer = make_trainer(make_model())
    trainer.fit(DataLoader(DATA, 4))
    checkpoint.save(tmp_path / "x.ckpt", trainer.state_dict())
    state = checkpoint.load(tmp_path / "x.ckpt")
    whole = make_trainer(make_model(sharded=False), "cpu")
    whole.load_state_dict(state)
    again = make_trainer(make_model())
    again.load_state_dict(whole.state_dict())
    entries = [entry for one in again.opt for entry in one.opt.state.values()]
    assert all(isinstance(entry["exp_avg"], DTensor) for entry in entries)
    assert all(isinstance(weight, DTensor) for weight in again.model.parameters())
    saved, back = trainer.state_dict(), again.state_dict()
    assert all(torch.equal(saved["model"][name], back["model"][name]) for name in saved["model"])
    for one, other in zip(
        saved["optimizers"][0]["opt_state"]["state"].values(),
        back["optimizers"][0]["opt_state"]["state"].values(),
        strict=True,
    ):
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_what_is_loaded_stays_the_callers() -> None:
    trainer = make_trainer(make_model())
    trainer.fit(DataLoader(DATA, 4))
    state = checkpoint_like(trainer.state_dict())
    kept = checkpoint_like(state)
    again = make_trainer(make_model())
    again.load_weights(state)
    again.fit(DataLoader(DATA, 4))
    for name, weight in state["model"].items():
        assert torch.equal(weight, kept["model"][name])
    for index, entry in state["optimizers"][0]["opt_state"]["state"].items():
        for key, value in entry.items():
            assert torch.equal(value, kept["optimizers"][0]["opt_state"]["state"][index][key])


def checkpoint_like(state: Any) -> Any:
    """A copy of the state that shares nothing with it."""
    if isinstance(state, dict):
        return {key: checkpoint_like(value) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return type(state)(checkpoint_like(value) for value in state)
    return state.clone() if isinstance(state, torch.Tensor) else state


def test_a_state_that_does_not_fit_changes_nothing() -> None:
    trainer = make_trainer(make_model())
    trainer.fit(DataLoader(DATA, 4), epochs=1)
    before = checkpoint_like(trainer.state_dict()["model"])
    state = checkpoint_like(trainer.state_dict())
    state["model"]["0.weight"] = torch.zeros(8, 5)
    with pytest.raises(CheckpointMismatch, match=r"0\.weight is \[8, 5\], and here \[8, 4\]"):
        trainer.load_weights(state)
    after = trainer.state_dict()["model"]
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_weights_loaded_after_a_validation_are_those_that_compute() -> None:
    trainer = make_trainer(make_model())
    trainer.fit(DataLoader(DATA, 4), epochs=1)
    state = checkpoint_like(trainer.state_dict())
    trainer.fit(DataLoader(DATA, 4), epochs=1)
    trainer.model.eval()
    with torch.no_grad():
        trainer.model(X)  # leaves the weights of the outermost layer whole
        trainer.load_weights(state)
        found = trainer.model(X)
    whole = make_model(sharded=False).eval()
    whole.load_state_dict(state["model"])
    torch.testing.assert_close(found, whole(X))


@pytest.mark.parametrize("device", ["cpu", "auto"])
def test_without_an_accelerator_it_is_refused(device: str) -> None:
    with pytest.raises(ConfigError, match=r"torchrun.*device='auto'.*Accelerator\(cpu=True\)"):
        make_trainer(make_model(), device)


def test_the_older_wrapper_is_refused() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that one process has nothing to share
        wrapped = FullyShardedDataParallel(nn.Linear(4, 1), device_id=torch.device("cpu"))
    with pytest.raises(ConfigError, match="FullyShardedDataParallel, which is not supported"):
        make_trainer(nn.Sequential(wrapped))


def test_a_model_of_which_only_layers_are_sharded_is_refused() -> None:
    model = make_model(sharded=False)
    fully_shard(model[0], mesh=init_device_mesh("cpu", (1,)))
    with pytest.raises(ConfigError, match="Layers of Sequential are sharded, and it is not"):
        make_trainer(model)


def test_a_weight_that_is_trained_and_not_sharded_is_refused() -> None:
    model = make_model(sharded=False)
    mesh = init_device_mesh("cpu", (1,))
    fully_shard(model, mesh=mesh, ignored_params={model[0].bias})
    with pytest.raises(ConfigError, match=r"0\.bias is trained and not sharded"):
        make_trainer(model)
    model[0].bias.requires_grad_(False)
    make_trainer(model).fit(DataLoader(DATA, 8), epochs=1)


def test_other_ways_to_spread_a_model_are_refused() -> None:
    model = make_model(sharded=False)
    mesh = init_device_mesh("cpu", (1, 1), mesh_dim_names=("data", "tensor"))
    parallelize_module(model, mesh["tensor"], {"0": ColwiseParallel()})
    with pytest.raises(ConfigError, match="are sharded, and it is not"):
        make_trainer(model)
    fully_shard(model, mesh=mesh["data"])
    with pytest.raises(ConfigError, match="tensor parallelism"):
        make_trainer(model)
    with pytest.raises(ConfigError, match="on 1 of 2 processes"):
        refuse_layout(make_model(), 2, torch.device("cpu"))


def test_weights_without_values_or_on_another_device_are_refused() -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(4, 1))
    fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
    with pytest.raises(ConfigError, match="on 'meta'"):
        make_trainer(model)
    with pytest.raises(ConfigError, match="on 'cpu', and the Accelerator on 'cuda'"):
        refuse_layout(make_model(), 1, torch.device("cuda"))


def test_a_precision_of_the_trainer_is_refused() -> None:
    with pytest.raises(ConfigError, match="MixedPrecisionPolicy"):
        make_trainer(make_model(), "cpu", precision="bf16")
    with pytest.raises(ConfigError, match="MixedPrecisionPolicy"):
        make_trainer(make_model(), Accelerator(cpu=True, mixed_precision="bf16"))


def test_a_loss_that_is_trained_is_refused() -> None:
    class Weighted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, out: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            return F.mse_loss(out, targets) * self.scale

    with pytest.raises(ConfigError, match="make the loss a part of the model"):
        Trainer(make_model(), Weighted(), device=Accelerator(cpu=True))


def test_an_optimizer_with_other_weights_is_refused() -> None:
    model = make_model()
    scale = torch.ones((), requires_grad=True)
    with pytest.raises(ConfigError, match="make them parameters of the model"):
        Trainer(
            model,
            F.mse_loss,
            torch.optim.SGD([*model.parameters(), scale], 0.1),
            device=Accelerator(cpu=True),
        )


def test_a_graph_and_a_proof_of_the_resume_are_refused(tmp_path: Path) -> None:
    trainer = make_trainer(make_model(), callbacks=LogCallback(tmp_path, log_graph=True))
    with pytest.raises(ConfigError, match="log_graph=True"):
        trainer.fit(DataLoader(DATA, 4))
    with pytest.raises(ConfigError, match="a sharded model"):
        trainer.verify_resume(DataLoader(DATA, 4))


class RowMeans(torch.optim.SGD):
    """Keeps what has another shape than its weight."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for weight in self.param_groups[0]["params"]:
            self.state[weight]["means"] = weight.grad.mean(-1, keepdim=True)
        super().step()


def test_an_optimizer_whose_state_could_not_be_brought_back_is_told_at_the_save() -> None:
    model = make_model()
    trainer = make_trainer(model, opt=RowMeans(model.parameters(), 0.1))
    trainer.fit(DataLoader(DATA, 8), epochs=1)
    with pytest.raises(CheckpointError, match=r"RowMeans keeps means \[8, 1\] of a sharded weight"):
        trainer.state_dict()
