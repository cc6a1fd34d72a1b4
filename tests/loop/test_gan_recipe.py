"""The recipe for adversarial training of docs/recipes/gan.md, against the loop by hand, to the bit."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from deepepochs import Trainer

PAGE = Path(__file__).parents[2] / "docs" / "recipes" / "gan.md"
INPUTS = torch.randn(48, 2, generator=torch.Generator().manual_seed(6))
DL = DataLoader(TensorDataset(INPUTS, torch.zeros(48)), batch_size=8)


def recipe() -> dict[str, Any]:
    """The names that the code block of the page defines."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (block,) = (text for text in blocks if "class GanTask" in text)
    code = block[: block.index("gan = Gan()")]
    names: dict[str, Any] = {}
    exec("import torch\nfrom torch import nn\nfrom torch.nn import functional as F", names)
    exec("from deepepochs import EpochTask, ValuePatch", names)
    exec(code, names)
    return names


NAMES = recipe()
realness = NAMES["realness"]


def gan() -> tuple[Any, list[torch.optim.Optimizer]]:
    torch.manual_seed(0)
    model = NAMES["Gan"]()
    return model, [
        torch.optim.SGD(model.generator.parameters(), 0.1, momentum=0.9),
        torch.optim.Adam(model.critic.parameters(), 0.01),
    ]


def weights(model: nn.Module) -> list[Tensor]:
    return [weight.detach().clone() for weight in model.parameters()]


def by_hand(accumulate: int, *, freezes: bool = True) -> list[Tensor]:
    """Sum the gradients of each window; each optimizer's step is of its own loss alone."""
    model, (of_generator, of_critic) = gan()
    generator, critic = model.generator, model.critic
    torch.manual_seed(1)
    for index, (real, _) in enumerate(batch for _ in range(2) for batch in DL):
        closes = index % accumulate == accumulate - 1
        fake = generator(torch.randn(len(real), 2))
        (realness(critic(real), 1.0) + realness(critic(fake.detach()), 0.0)).backward()
        if closes:
            step(of_critic, accumulate)
        of_generator_alone = list(generator.parameters())
        loss = realness(critic(fake), 1.0)
        loss.backward(inputs=of_generator_alone if freezes else None)
        if closes:
            step(of_generator, accumulate)
            of_critic.zero_grad()
    return weights(model)


def step(opt: torch.optim.Optimizer, accumulate: int) -> None:
    for weight in opt.param_groups[0]["params"]:
        if accumulate > 1:
            weight.grad.mul_(1 / accumulate)
    opt.step()
    opt.zero_grad()


def by_recipe(accumulate: int) -> list[Tensor]:
    model, opts = gan()
    trainer = Trainer(model, opt=opts, epochs=2, grad_accumulate=accumulate, show_info=False)
    torch.manual_seed(1)
    trainer.fit(train_tasks=NAMES["GanTask"](DL))
    assert all(weight.requires_grad for weight in model.parameters())
    return weights(model)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_the_recipe_trains_as_the_loop_by_hand(accumulate: int) -> None:
    assert all(map(torch.equal, by_recipe(accumulate), by_hand(accumulate)))


def test_a_critic_that_is_not_frozen_would_be_seen() -> None:
    frozen, not_frozen = by_hand(3), by_hand(3, freezes=False)
    assert not all(map(torch.equal, frozen, not_frozen))
    assert all(map(torch.equal, by_hand(1), by_hand(1, freezes=False)))
