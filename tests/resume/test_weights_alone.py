"""`load_weights` takes weights from whatever has them, and `save_weights` writes them plainly."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from deepepochs import (
    CheckCallback,
    CheckpointDamaged,
    CheckpointError,
    CheckpointMismatch,
    CheckpointNotFound,
    ConfigError,
    ConfigTypeError,
    Trainer,
)
from deepepochs.checkpoint import load

generator = torch.Generator().manual_seed(4)
LOADER = [
    (torch.randn(8, 4, generator=generator), torch.randint(3, (8,), generator=generator))
    for _ in range(3)
]


def make_model(seed: int = 0, classes: int = 3) -> nn.Sequential:
    torch.manual_seed(seed)
    body = [nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU()]
    return nn.Sequential(*body, nn.Linear(6, classes))


def new(model: nn.Module, **options: Any) -> Trainer:
    return Trainer(model, F.cross_entropy, device="cpu", show_info=False, **options)


def same(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    """A run of two epochs with SGD, whose last state differs from its best."""
    folder = tmp_path_factory.mktemp("runs")
    model = make_model()
    trainer = Trainer(
        model, F.cross_entropy, torch.optim.SGD(model.parameters(), 0.1, momentum=0.9), epochs=2,
        callbacks=CheckCallback("loss", mode="min", ckpt_dir=folder), running_id="sgd",
        show_info=False,
    )  # fmt: skip
    trainer.fit(LOADER, LOADER)
    return trainer


# --- from where


def test_a_checkpoint_gives_its_weights_to_a_trainer_with_another_optimizer(run: Trainer) -> None:
    other = new(make_model(1))  # with Adam
    before = other.opt.state_dict()
    assert other.load_weights(run.run_dir / "best.ckpt") is other
    assert same(other.model.state_dict(), load(run.run_dir / "best.ckpt")["model"])
    assert repr(other.opt.state_dict()) == repr(before)
    assert other.progress.epoch_idx == 0 and not other.is_resumed


@pytest.mark.parametrize(
    "form", ["whole state", "of a trainer", "state_dict", "model", "lightning"]
)
def test_a_dict_may_be_a_state_or_have_one(form: str, run: Trainer) -> None:
    weights = {name: value.clone() for name, value in run.model.state_dict().items()}
    given = {
        "whole state": lambda: load(run.run_dir / "checkpoint.ckpt"),
        "of a trainer": run.state_dict,
        "state_dict": lambda: weights,
        "model": lambda: {"model": weights, "epoch": 3},
        "lightning": lambda: {
            "state_dict": {f"net.{name}": value for name, value in weights.items()}, "epoch": 3
        },
    }[form]()  # fmt: skip
    other = new(make_model(1))
    other.load_weights(given)
    assert same(other.model.state_dict(), weights)


@pytest.mark.parametrize("name", ["w.pt", "w.pth", "old.pt", "w.safetensors"])
def test_a_plain_file_is_read(name: str, run: Trainer, tmp_path: Path) -> None:
    path = tmp_path / name
    weights = dict(run.model.state_dict())
    if path.suffix == ".safetensors":
        import safetensors.torch

        safetensors.torch.save_file(weights, path)
    else:
        torch.save(weights, path, _use_new_zipfile_serialization=path.stem != "old")
    other = new(make_model(1))
    other.load_weights(path)
    assert same(other.model.state_dict(), weights)


def test_a_run_is_given_by_its_folder_or_its_id(
    run: Trainer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = load(run.run_dir / "checkpoint.ckpt")["model"]
    other = new(make_model(1), callbacks=CheckCallback("loss", ckpt_dir=run.run_dir.parent))
    for source in (run.run_dir, str(run.run_dir), "sgd"):
        other.load_weights(make_model(2).state_dict())
        other.load_weights(source)
        assert same(other.model.state_dict(), last)
        assert f"loading weights of {run.run_dir / 'checkpoint.ckpt'}" in capsys.readouterr().out


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_names_of_a_wrapped_model_are_those_of_the_model(prefix: str, run: Trainer) -> None:
    weights = run.model.state_dict()
    other = new(make_model(1))
    other.load_weights({prefix + name: value for name, value in weights.items()})
    assert same(other.model.state_dict(), weights)


def test_a_compiled_model_takes_plain_names_and_saves_plain_ones(
    run: Trainer, tmp_path: Path
) -> None:
    weights = run.model.state_dict()
    compiled: Any = torch.compile(make_model(1), backend="eager")
    other = new(compiled)
    other.load_weights(weights)
    assert same(compiled._orig_mod.state_dict(), weights)
    path = other.save_weights(tmp_path / "w.pt")
    assert list(torch.load(path, weights_only=True)) == list(weights)


def test_a_frozen_layer_stays_frozen(run: Trainer) -> None:
    model = make_model(1)
    model[0].requires_grad_(False)
    trainer = new(model, epochs=1)
    trainer.load_weights(run.run_dir)
    frozen = model[0].weight.clone()
    trainer.fit(LOADER)
    assert not model[0].weight.requires_grad and torch.equal(model[0].weight, frozen)


def test_a_whole_checkpoint_that_unfreezes_layers_says_so(run: Trainer) -> None:
    model = make_model(1)
    model[0].requires_grad_(False)
    opt = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    trainer = new(model, opt=opt, callbacks=CheckCallback("loss", mode="min"))
    with pytest.warns(
        UserWarning, match=r"requires_grad as it was saved: 0\.weight \(trained now\)"
    ):
        trainer.load_checkpoint(run.run_dir)


def test_the_loss_function_s_own_weights_come_with_a_checkpoint_and_its_settings_do_not() -> None:
    class Scaled(nn.Module):
        def __init__(self, scale: float) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(scale))

        def forward(self, model_out: Any, targets: Any) -> Any:
            return F.cross_entropy(model_out * self.scale, targets)

    learned, other = Scaled(2.0), Scaled(1.0)
    state = Trainer(make_model(), learned).state_dict()
    Trainer(make_model(), other).load_weights(state)
    assert other.scale.item() == 2.0

    of_old, of_new = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([3.0, 2.0, 1.0])
    state = Trainer(make_model(), nn.CrossEntropyLoss(of_old)).state_dict()
    loss = nn.CrossEntropyLoss(of_new)
    Trainer(make_model(), loss).load_weights(state)
    assert torch.equal(loss.weight, of_new)  # type: ignore[arg-type]
    new(make_model()).load_weights(state)  # a loss without any state: no error


# --- what does not fit


def test_another_head_is_refused_by_name_and_nothing_is_changed(run: Trainer) -> None:
    other = new(make_model(1, classes=5))
    before = {name: value.clone() for name, value in other.model.state_dict().items()}
    with pytest.raises(
        CheckpointMismatch, match=r"3\.weight is \[3, 6\], and here \[5, 6\]"
    ) as met:
        other.load_weights(run.run_dir)
    assert "strict=False" in str(met.value)
    assert same(other.model.state_dict(), before)


def test_what_fits_is_taken_where_asked_and_the_rest_is_told(
    run: Trainer, capsys: pytest.CaptureFixture[str]
) -> None:
    other = new(nn.Sequential(*make_model(1, classes=5), nn.Linear(5, 2)))
    head = other.model.state_dict()["3.weight"].clone()
    capsys.readouterr()
    other.load_weights({**run.model.state_dict(), "more": torch.ones(1)}, strict=False)
    found = other.model.state_dict()
    assert torch.equal(found["0.weight"], run.model.state_dict()["0.weight"])
    assert torch.equal(found["3.weight"], head)
    assert capsys.readouterr().out == (
        "loading weights of a dict: 7 of 11 entries were loaded; left as they were: 3.weight (is "
        "[3, 6], and here [5, 6]), 3.bias (is [3], and here [5]), 4.weight, 4.bias; not used: more\n"
    )


def test_entries_of_another_type_are_converted_where_what_fits_is_taken(run: Trainer) -> None:
    half = {name: value.half() for name, value in run.model.state_dict().items()}
    other = new(make_model(1))
    with pytest.raises(CheckpointMismatch, match=r"is torch\.float16, and here torch\.float32"):
        other.load_weights(half)
    other.load_weights(half, strict=False)
    assert torch.equal(other.model.state_dict()["0.weight"], half["0.weight"].float())


WRONG: dict[str, tuple[Any, type[Exception], str]] = {
    "nothing fits": (
        {"body.weight": torch.ones(2)},
        CheckpointMismatch,
        "No entry fits this model",
    ),
    "no weights": ({"epoch": 3}, CheckpointMismatch, r"No weights were found.*'state_dict'"),
    "empty": ({}, CheckpointMismatch, "No weights were found"),
    "a module": (nn.Linear(4, 3), ConfigTypeError, "load_weights got a Linear"),
    "none": (None, ConfigTypeError, "load_weights got a NoneType"),
    "no file": ("nowhere/w.pt", CheckpointNotFound, "nowhere"),
    "no run": ("nobody", CheckpointNotFound, "no run of that id"),
    "no number": (12, CheckpointNotFound, "no run of that id"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_holds_no_weights_is_refused(case: str) -> None:
    source, error, sentence = WRONG[case]
    trainer = new(make_model())
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    with pytest.raises(error, match=sentence):
        trainer.load_weights(source, strict=False)
    assert same(trainer.model.state_dict(), before)


def test_files_that_are_none_of_weights_are_refused(tmp_path: Path) -> None:
    trainer = new(make_model())
    torch.save(make_model(), tmp_path / "model.pt")  # code
    torch.save([1, 2], tmp_path / "list.pt")
    (tmp_path / "torn.pt").write_bytes((tmp_path / "model.pt").read_bytes()[:-300])
    (tmp_path / "torn.safetensors").write_bytes(b"12345678{}")
    for name, sentence in (
        ("model.pt", "refused"), ("list.pt", "holds a list"), ("torn.pt", "damaged"),
        ("torn.safetensors", "cannot be read"),
    ):  # fmt: skip
        with pytest.raises(CheckpointDamaged, match=sentence):
            trainer.load_weights(tmp_path / name)


# --- save_weights


@pytest.mark.parametrize("name", ["w.pt", "deep/er/w.bin", "w.safetensors"])
def test_a_file_of_weights_can_be_read_by_others(name: str, run: Trainer, tmp_path: Path) -> None:
    path = run.save_weights(tmp_path / name)
    assert path == tmp_path / name
    model = make_model(1)
    if path.suffix == ".safetensors":
        import safetensors.torch

        model.load_state_dict(safetensors.torch.load_file(path))
    else:
        model.load_state_dict(torch.load(path, weights_only=True))
    assert same(model.state_dict(), run.model.state_dict())
    assert [found.name for found in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_tied_weights_and_views_can_be_saved(suffix: str, tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)
            self.two.weight = self.one.weight
            self.view = nn.Parameter(torch.ones(1000)[:2])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.two(self.one(x))
            return out

    trainer = new(Tied())
    path = trainer.save_weights(tmp_path / f"w.{suffix}")
    assert path.stat().st_size < 3000
    other = new(Tied())
    other.load_weights(path)
    assert same(other.model.state_dict(), trainer.model.state_dict())


def test_weights_that_cannot_be_saved_leave_the_old_file(run: Trainer, tmp_path: Path) -> None:
    class Extra(nn.Linear):
        def get_extra_state(self) -> Any:
            return {"a": 1}

        def set_extra_state(self, state: Any) -> None:
            pass

    path = run.save_weights(tmp_path / "w.pt")
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match="_extra_state is a dict"):
        new(Extra(4, 3)).save_weights(path)
    assert path.read_bytes() == before
    with pytest.raises(CheckpointError, match="a folder of that name"):
        run.save_weights(tmp_path)


def test_a_flag_that_is_none_is_refused(run: Trainer) -> None:
    with pytest.raises(ConfigError, match="strict='no'"):
        run.load_weights(run.model.state_dict(), strict="no")  # type: ignore[arg-type]


def test_weights_for_inference_need_no_loss_and_no_optimizer(run: Trainer) -> None:
    other = Trainer(make_model(1), device="cpu", show_info=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        other.load_weights(run.run_dir)
        found = other.predict([(x,) for x, _ in LOADER])
    assert torch.equal(found, run.predict([(x,) for x, _ in LOADER]))


@pytest.mark.parametrize("resume", ["run", True, "auto"])
def test_a_run_of_another_model_is_told_with_its_file_and_the_way_out(
    resume: Any, tmp_path: Path
) -> None:
    data = [(torch.randn(6, 4), torch.randn(6, 2))]

    def make(num_out: int, **options: Any) -> Trainer:
        check = CheckCallback("loss", "train", ckpt_dir=tmp_path)
        return Trainer(
            nn.Linear(4, num_out), lambda out, y: out.mean(), epochs=1, callbacks=check,
            running_id="run", show_info=False, **options,
        )  # fmt: skip

    make(2).fit(data)
    with pytest.raises(CheckpointMismatch) as met:
        make(3, resume=resume).fit(data)
    problem, remedy = str(met.value).splitlines()
    assert f"{tmp_path / 'run' / 'checkpoint.ckpt'} is of another model: weight is" in problem
    assert (
        "for a new run give another running_id, or resume=False. load_weights takes the" in remedy
    )
    with pytest.raises(CheckpointMismatch) as met:
        make(3).load_weights(tmp_path / "run")
    assert "checkpoint.ckpt is of another model" in str(met.value)
    assert "hook" not in str(met.value)
