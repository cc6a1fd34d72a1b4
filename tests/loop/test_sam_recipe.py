"""The recipe for two passes in a step of docs/recipes/sam.md, against the loop by hand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from deepepochs import CheckCallback, GradClipCallback, Trainer
from deepepochs.errors import ConfigError

PAGE = Path(__file__).parents[2] / "docs" / "recipes" / "sam.md"
X = torch.randn(42, 4, generator=torch.Generator().manual_seed(6))
DL = DataLoader(TensorDataset(X, X[:, :3].argmax(1)), batch_size=12)
RHO = 0.1


def recipe() -> dict[str, Any]:
    """The classes that the code blocks of the page define."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    exec("import torch\nfrom deepepochs import EpochTask", names)
    for name in ("class SAM", "class InParts"):
        (block,) = (text for text in blocks if name in text)
        exec(block[: block.index("model = make_model()")], names)
    return names


NAMES = recipe()


def made() -> tuple[nn.Module, Any]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    base = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return model, NAMES["SAM"](base, rho=RHO)


def by_hand(epochs: int, clip: float | None) -> list[Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    opt = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    weights = list(model.parameters())

    def gradients(inputs: Tensor, labels: Tensor) -> None:
        opt.zero_grad()
        F.cross_entropy(model(inputs), labels).backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(weights, clip)

    for inputs, labels in (batch for _ in range(epochs) for batch in DL):
        gradients(inputs, labels)
        before = [weight.detach().clone() for weight in weights]
        norm = torch.stack([weight.grad.norm() for weight in weights]).norm()  # type: ignore[union-attr]
        with torch.no_grad():
            for weight in weights:
                weight += weight.grad * float(RHO / (norm + 1e-12))
        gradients(inputs, labels)
        with torch.no_grad():
            for weight, value in zip(weights, before, strict=True):
                weight.copy_(value)
        opt.step()
    return weights


def largest_difference(model: nn.Module, weights: list[Tensor]) -> float:
    pairs = zip(model.parameters(), weights, strict=True)
    return max(float((one - other).detach().abs().max()) for one, other in pairs)


@pytest.mark.parametrize("clip", [None, 0.05])
def test_the_recipe_trains_as_the_loop_by_hand(clip: float | None) -> None:
    model, opt = made()
    callbacks = [] if clip is None else [GradClipCallback(clip, norm_type=2)]
    trainer = Trainer(model, F.cross_entropy, opt, 3, callbacks=callbacks, console="off")
    trainer.fit(DL)
    assert largest_difference(model, by_hand(3, clip)) < 1e-6
    assert trainer.progress.num_steps == 3 * len(DL)


def test_a_mini_batch_in_parts_has_the_gradient_and_the_metrics_of_the_whole() -> None:
    results = []
    for make in (Trainer.fit, fit_in_parts):
        model, opt = made()
        trainer = Trainer(model, F.cross_entropy, opt, 3, metrics="accuracy", console="off")
        history = make(trainer, DL)
        results.append((model, history["train"], trainer.progress.num_steps))
    (whole, values, steps), (model, in_parts, steps_in_parts) = results
    assert largest_difference(model, list(whole.parameters())) < 1e-6
    assert steps == steps_in_parts == 3 * len(DL)
    assert in_parts["loss"] == pytest.approx(values["loss"], abs=1e-6)
    assert in_parts["accuracy"] == values["accuracy"]


def fit_in_parts(trainer: Trainer, loader: Any) -> Any:
    return trainer.fit(train_tasks=NAMES["InParts"](loader, size=5))


def test_the_state_of_the_inner_optimizer_resumes(tmp_path: Path) -> None:
    def trained(epochs: int, *, resume: bool = False, folder: str = "a") -> nn.Module:
        model, opt = made()
        check = CheckCallback("loss", on_stage="train", ckpt_dir=tmp_path / folder)
        Trainer(
            model, F.cross_entropy, opt, epochs, callbacks=check, running_id="sam", console="off",
            resume="auto" if resume else False,
        ).fit(DL)  # fmt: skip
        return model

    whole = trained(4, folder="b")
    trained(2)
    assert largest_difference(trained(4, resume=True), list(whole.parameters())) == 0


def test_accumulation_is_refused() -> None:
    model, opt = made()
    with pytest.raises(ConfigError, match="grad_accumulate=4 does not work with SAM"):
        Trainer(model, F.cross_entropy, opt, grad_accumulate=4)
