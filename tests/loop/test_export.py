"""A model as a program: what `trainer.export` writes runs without the library, on any batch size."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from deepepochs import Callback, CheckCallback, Trainer
from deepepochs.errors import ConfigError, DataError, MissingExtraError

X = torch.randn(30, 4, generator=torch.Generator().manual_seed(2))
Y = X[:, :3].argmax(1)


def make_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3)
    )


def loader(**options: Any) -> DataLoader[Any]:
    return DataLoader(TensorDataset(X, Y), **{"batch_size": 10, **options})


def made(**options: Any) -> Trainer:
    model = make_model()
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    return Trainer(model, F.cross_entropy, opt, **{"epochs": 3, "console": "off", **options})


def program(path: Path) -> Any:
    return torch.export.load(path).module()


def test_the_program_computes_what_predict_gives_for_any_number_of_samples(tmp_path: Path) -> None:
    trainer = made()
    trainer.fit(loader(shuffle=True))
    path = trainer.export(tmp_path / "new" / "model.pt2")
    for number in (1, 7, 30):
        expected = trainer.predict([X[:number]], with_targets=False)
        assert torch.allclose(program(path)(X[:number]), expected, atol=1e-6)


def test_the_best_weights_are_written_and_the_present_ones_stay(tmp_path: Path) -> None:
    class Spoils(Callback):
        """The second epoch is the best one, since the third has other weights."""

        def on_before_val_epochs(self, trainer: Any, tasks: Any, epoch_idx: int) -> None:
            if epoch_idx == 2:
                with torch.no_grad():
                    trainer.model[0].weight.add_(10.0)

    check = CheckCallback("loss", ckpt_dir=tmp_path)
    trainer = made(callbacks=[check, Spoils()])
    trainer.fit(loader(), loader())
    present = [weight.detach().clone() for weight in trainer.model.parameters()]
    path = trainer.export(tmp_path / "model.pt2")
    assert torch.allclose(program(path)(X), trainer.predict(loader(), best=True), atol=1e-6)
    assert not torch.allclose(program(path)(X), trainer.predict(loader()), atol=1e-2)
    assert all(map(torch.equal, present, trainer.model.parameters()))


def test_it_runs_where_the_library_and_the_model_are_unknown(tmp_path: Path) -> None:
    path = made().export(tmp_path / "model.pt2", data=loader())
    code = (
        "import sys, torch; sys.modules['deepepochs'] = None\n"
        f"print(torch.export.load({str(path)!r}).module()(torch.zeros(5, 4)).shape)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.split("\n")[0] == "torch.Size([5, 3])"


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x: Tensor, *, mask: Tensor, scale: Tensor | None = None) -> dict[str, Tensor]:
        out = self.layer(x) * mask[:, None]
        return {"logits": out if scale is None else out * scale}


def test_a_dict_is_called_by_names_and_what_all_samples_share_has_a_fixed_shape(
    tmp_path: Path,
) -> None:
    trainer = Trainer(TwoInputs(), console="off")
    batch = {"x": X[:6], "mask": torch.ones(6), "scale": torch.tensor([2.0, 3.0])}
    path = trainer.export(tmp_path / "model.pt2", data=[batch])
    given = {"x": X[:4], "mask": torch.ones(4), "scale": torch.tensor([2.0, 3.0])}
    expected = trainer.model(**given)["logits"]
    assert torch.equal(program(path)(**given)["logits"], expected)


def test_one_sample_is_example_enough(tmp_path: Path) -> None:
    path = made().export(tmp_path / "model.pt2", data=loader(batch_size=1))
    assert program(path)(X).shape == (30, 3)


def test_nothing_is_drawn_for_the_example(tmp_path: Path) -> None:
    def trained(*, exports: bool) -> Tensor:
        trainer = made(epochs=1)
        torch.manual_seed(3)
        shuffled = loader(shuffle=True, generator=torch.Generator().manual_seed(1))
        trainer.fit(shuffled)
        if exports:
            trainer.export(tmp_path / "model.pt2")
        trainer.fit(shuffled, epochs=1)
        return torch.cat([weight.detach().flatten() for weight in trainer.model.parameters()])

    assert torch.equal(trained(exports=True), trained(exports=False))


def test_without_data_it_asks_for_them(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has run no fit: give export\(path, data=loader\)"):
        made().export(tmp_path / "model.pt2")
    with pytest.raises(DataError, match="no example input"):
        made().export(tmp_path / "model.pt2", data=[])


def test_a_wrong_name_or_format_is_told_at_once() -> None:
    with pytest.raises(ConfigError, match=r"ends in '\.pt2'"):
        made().export("model.onnx")
    with pytest.raises(ConfigError, match="give one of 'torch', 'onnx'"):
        made().export("model.pt2", format="torchscript")


@pytest.mark.skipif(find_spec("onnxscript") is not None, reason="the packages are there")
def test_onnx_says_what_to_install() -> None:
    with pytest.raises(MissingExtraError, match=r"onnxscript: pip install 'deepepochs\[onnx\]'"):
        made().export("model.onnx", format="onnx")


@pytest.mark.skipif(find_spec("onnxruntime") is None, reason="needs onnxruntime")
def test_onnx_computes_the_same(tmp_path: Path) -> None:
    import onnxruntime  # type: ignore[import-not-found]

    trainer = made()
    path = trainer.export(tmp_path / "model.onnx", format="onnx", data=loader())
    session = onnxruntime.InferenceSession(str(path))
    (outputs,) = session.run(None, {session.get_inputs()[0].name: X[:7].numpy()})
    assert torch.allclose(torch.tensor(outputs), trainer.predict([X[:7]]), atol=1e-5)


def test_a_model_for_one_number_of_samples_is_refused(tmp_path: Path) -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.layer(x.reshape(10, 4))
            return out

    with pytest.raises(ConfigError, match=r"Fixed cannot be exported with any number of samples"):
        Trainer(Fixed(), F.cross_entropy, console="off").export(
            tmp_path / "model.pt2", data=loader()
        )
