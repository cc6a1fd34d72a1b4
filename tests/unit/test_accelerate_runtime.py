"""Mixed precision, the fp16 scaler and the refusals of a run on Accelerate, in one process."""

from __future__ import annotations

import io
import warnings
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from deepepochs import Callback, ConfigError, GradClipCallback, Optimizer, Trainer
from deepepochs.data.seeding import CommonStreams
from deepepochs.runtime.outside_weights import parts_of
from deepepochs.runtime.shares import EveryNth, Shares

X = torch.randn(22, 4, generator=torch.Generator().manual_seed(1))
DATA = TensorDataset(X, X.sum(1, keepdim=True))


def make_trainer(device: Any, callbacks: Any = None, **options: Any) -> Trainer:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.ReLU(), nn.Linear(8, 1))
    if "opt" not in options:
        opt = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
        schedule = torch.optim.lr_scheduler.StepLR(opt, 1, 0.9)
        options["opt"] = Optimizer(opt, schedule, sched_on="step")
    else:
        options["opt"] = options["opt"](model)
    return Trainer(
        model, F.mse_loss, device=device, epochs=2, show_info=False, log_batch=False,
        callbacks=callbacks, **options,
    )  # fmt: skip


def weights(trainer: Trainer) -> list[torch.Tensor]:
    return [
        weight.detach().clone() for weight in trainer.runtime.unwrap(trainer.model).parameters()
    ]


def with_scaler(init_scale: float = 1024.0) -> Accelerator:
    # Accelerate refuses fp16 on a CPU, where PyTorch's scaler works all the same.
    accelerator = Accelerator(cpu=True)
    accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=init_scale, growth_interval=3)
    return accelerator


class KeepState(Callback):
    """Keeps the state after one mini-batch of the second epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.saved: bytes = b""

    def on_after_train_batch(self, trainer: Any, metrics: Any, batch_idx: int) -> None:
        if trainer.init_epoch == 1 and batch_idx == 2:
            trainer.request_save(self.keep)

    def keep(self, trainer: Any) -> None:
        file = io.BytesIO()
        torch.save(trainer.state_dict(), file)
        self.saved = file.getvalue()


class SeeGradients(Callback):
    """Notes the norm of the gradients before each optimizer step."""

    order = 10

    def __init__(self) -> None:
        super().__init__()
        self.norms: list[float] = []

    def on_before_optimize(self, trainer: Any, optimize_index: Any) -> None:
        gradients = trainer.opt.gradients()
        self.norms.append(float(torch.stack([g.norm() for g in gradients]).norm()))


def test_bf16_computes_in_bf16_and_keeps_weights_in_float32() -> None:
    dtypes = set()

    class See(Callback):
        def on_after_train_forward(self, trainer: Any, model_out: Any) -> None:
            dtypes.add(model_out.dtype)

    seen: list[torch.dtype] = []
    trainer = make_trainer("cpu", precision="bf16")
    inner = trainer.runtime.unwrap(trainer.model)[0]
    inner.register_forward_hook(lambda _module, _inputs, out: seen.append(out.dtype))
    trainer.fit(DataLoader(DATA, 8))
    assert set(seen) == {torch.bfloat16}
    assert {weight.dtype for weight in weights(trainer)} == {torch.float32}
    plain = make_trainer("cpu")
    plain.fit(DataLoader(DATA, 8))
    pairs = list(zip(weights(trainer), weights(plain), strict=True))
    assert not all(torch.equal(a, b) for a, b in pairs)
    assert all(torch.allclose(a, b, atol=0.02) for a, b in pairs)


def test_a_bf16_run_with_clipping_and_accumulation_resumes_to_the_bit() -> None:
    def make(keeper: KeepState) -> Trainer:
        return make_trainer(
            "cpu", [keeper, GradClipCallback(0.5, 2)], precision="bf16", grad_accumulate=2
        )

    keeper = KeepState()
    trainer = make(keeper)
    trainer.fit(DataLoader(DATA, 4, shuffle=True))
    expected = weights(trainer)
    resumed = make(KeepState())
    resumed.load_state_dict(torch.load(io.BytesIO(keeper.saved), weights_only=True))
    resumed.fit(DataLoader(DATA, 4, shuffle=True))
    assert all(torch.equal(a, b) for a, b in zip(expected, weights(resumed), strict=True))


@pytest.mark.parametrize("one_at_a_time", [False, True])
def test_a_scaler_changes_no_numbers_with_clipping_events_and_several_optimizers(
    one_at_a_time: bool,
) -> None:
    class Stepping(Trainer):
        def train_step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> None:
            if not one_at_a_time:
                self.loss(self.model(*batch_x), batch_y)
                return
            self.loss(self.model(*batch_x), batch_y, do_optimize=False)
            self.optimize(0)
            self.optimize(1)

    def run(device: Any) -> tuple[list[torch.Tensor], list[float]]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
        opts = [torch.optim.SGD(model[i].parameters(), 0.05) for i in (0, 2)]
        seen = SeeGradients()
        trainer = Stepping(
            model, F.mse_loss, opts, device=device, epochs=3, show_info=False, log_batch=False,
            callbacks=[GradClipCallback(0.3, 2), seen],
        )  # fmt: skip
        trainer.fit(DataLoader(DATA, 4))
        return weights(trainer), seen.norms

    expected, norms = run("cpu")
    # The growth interval of 3 changes the scale between optimizers.
    accelerator = with_scaler()
    scaled, scaled_norms = run(accelerator)
    assert accelerator.scaler.get_scale() > 1024.0
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(expected, scaled, strict=True))
    if not one_at_a_time:
        assert scaled_norms == pytest.approx(norms, rel=1e-4)


def test_a_step_that_the_scaler_leaves_out_moves_neither_weights_nor_the_schedule() -> None:
    class Overflow(Callback):
        def on_before_backward(self, trainer: Any, loss: Any) -> None:
            if trainer.run.batch_idx == 1 and trainer.init_epoch == 0:
                trainer.runtime.unwrap(trainer.model)[0].weight.grad = torch.full((8, 4), torch.inf)

    class Rates(Callback):
        def __init__(self) -> None:
            super().__init__()
            self.rates: list[float] = []

        def on_after_train_batch(self, trainer: Any, metrics: Any, batch_idx: int) -> None:
            self.rates.append(round(trainer.opt[0].get_current_lr() / 0.05, 6))

    rates = Rates()
    accelerator = with_scaler()
    trainer = make_trainer(accelerator, [Overflow(), rates])
    trainer.fit(DataLoader(DATA, 8), epochs=1)
    assert rates.rates == [0.9, 0.9, 0.81]
    assert accelerator.scaler.get_scale() == 512.0
    assert all(torch.isfinite(weight).all() for weight in weights(trainer))


def test_the_scaler_is_in_the_state_and_comes_back() -> None:
    keeper = KeepState()
    trainer = make_trainer(with_scaler(), keeper)
    trainer.fit(DataLoader(DATA, 4, shuffle=True))
    expected = weights(trainer), trainer.runtime.scaler.state_dict()
    resumed = make_trainer(with_scaler(init_scale=2.0), KeepState())
    state = torch.load(io.BytesIO(keeper.saved), weights_only=True)
    assert state["scaler"]["scale"] > 1024.0
    resumed.load_state_dict(state)
    resumed.fit(DataLoader(DATA, 4, shuffle=True))
    assert all(torch.equal(a, b) for a, b in zip(expected[0], weights(resumed), strict=True))
    assert resumed.runtime.scaler.state_dict() == expected[1]


def test_accumulating_twice_is_refused() -> None:
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=4)
    trainer = make_trainer(accelerator)
    with pytest.raises(ConfigError, match=r"accelerator\.accumulate.*grad_accumulate=4"):
        trainer.fit(DataLoader(DATA, 4))


def test_two_precisions_are_refused() -> None:
    accelerator = Accelerator(cpu=True)
    with pytest.raises(ConfigError, match="precision='bf16', and the Accelerator has 'no'"):
        make_trainer(accelerator, precision="bf16")


def test_another_precision_in_the_same_program_is_refused_with_a_sentence() -> None:
    make_trainer("cpu", precision="bf16")
    with pytest.raises(ConfigError, match="precision='fp16'"):
        make_trainer("cpu", precision="fp16")


def test_a_model_spread_over_processes_is_refused() -> None:
    accelerator = Accelerator(cpu=True)
    from accelerate.utils import DistributedType

    accelerator.state.distributed_type = DistributedType.FSDP
    with pytest.raises(ConfigError, match=r"FSDP, which is not supported.*fully_shard"):
        make_trainer(accelerator)


def test_a_trainer_without_a_device_in_one_of_several_processes_is_warned_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.warns(UserWarning, match=r"started in 2 processes.*\n.*device='auto'"):
        make_trainer(None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_trainer("cpu")


def test_a_loader_that_shares_out_by_itself_is_refused() -> None:
    shares = Shares(Accelerator(cpu=True))
    shares.num_processes = 2
    sampler = DistributedSampler(DATA, num_replicas=2, rank=0)
    with pytest.raises(ConfigError, match="DistributedSampler"):
        shares.of(DataLoader(DATA, 4, sampler=sampler))


def test_mini_batches_that_cannot_be_split_are_refused() -> None:
    from accelerate.utils import DataLoaderConfiguration

    plugin = DataLoaderConfiguration(split_batches=True)
    shares = Shares(Accelerator(cpu=True, dataloader_config=plugin))
    shares.num_processes = 3
    with pytest.raises(ConfigError, match="mini-batches of 4 samples cannot be shared by 3"):
        shares.of(DataLoader(DATA, 4))


@pytest.mark.parametrize("num", [0, 1, 2, 3, 7])
def test_the_shares_of_ready_batches_have_each_once_and_know_their_length(num: int) -> None:
    shares = [EveryNth(range(num), CommonStreams(3, rank)) for rank in range(3)]
    assert sorted(batch for share in shares for batch in share) == list(range(num))
    assert [len(share) for share in shares] == [len(list(share)) for share in shares]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_learns_on_a_gpu(precision: str) -> None:
    trainer = make_trainer("cuda", GradClipCallback(1.0, 2), precision=precision)
    history = trainer.fit(DataLoader(DATA, 8), epochs=5)
    assert history["train"]["loss"][-1] < history["train"]["loss"][0]
    assert (trainer.runtime.scaler is not None) == (precision == "fp16")


def test_weights_are_exchanged_in_parts_of_one_kind_and_of_a_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("deepepochs.runtime.outside_weights.LARGEST", 10)
    sizes = [4, 6, 1, 20, 3, 3]
    weights = [torch.zeros(n) for n in sizes] + [torch.zeros(2, dtype=torch.float64)]
    parts = list(parts_of(weights))
    assert [[w.numel() for w in part] for part in parts] == [[4, 6], [1], [20], [3, 3], [2]]
    assert {id(w) for part in parts for w in part} == {id(w) for w in weights}


def test_a_window_of_mini_batches_and_one_by_hand_resume_together() -> None:
    class ByHand(Trainer):
        def train_step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> None:
            with self.accelerator.accumulate(self.model):
                self.loss(self.model(*batch_x), batch_y)

    class Keep(Callback):
        state: Any = None

        def on_after_train_batch(self, trainer: Any, batch_idx: int, **others: Any) -> None:
            if batch_idx == 2:
                trainer.request_save(self.keep)

        def keep(self, trainer: Any) -> None:
            file = io.BytesIO()
            torch.save(trainer.state_dict(), file)
            self.state = torch.load(io.BytesIO(file.getvalue()), weights_only=True)

    def make(callbacks: Any = None) -> Trainer:
        torch.manual_seed(1)
        model = nn.Linear(4, 1)
        return ByHand(
            model, nn.MSELoss(), torch.optim.SGD(model.parameters(), 0.1), epochs=1,
            device=Accelerator(cpu=True, gradient_accumulation_steps=4), grad_accumulate=2,
            show_info=False, log_batch=False, callbacks=callbacks,
        )  # fmt: skip

    data = [(X[i : i + 3], X[i : i + 3, :1]) for i in range(0, 21, 3)]
    keep = Keep()
    unbroken, resumed = make(keep), make()
    unbroken.fit(data)
    resumed.load_state_dict(keep.state)
    resumed.fit(data)
    assert keep.state["epoch"]["run"]["by_hand"]["count"] == 3
    for one, other in zip(unbroken.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)
