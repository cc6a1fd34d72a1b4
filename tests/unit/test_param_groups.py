"""Parameter groups by the names of weights: which weight is where, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import deepepochs
from deepepochs import ConfigError, Optimizer, Trainer, param_groups


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 4)
        self.backbone = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm([6]), nn.Linear(6, 6))
        self.norm = nn.LayerNorm([2, 3])
        self.head = nn.Linear(6, 3)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.backbone(self.embedding(x)).view(-1, 2, 3)).flatten(1)
        return self.head(x) * self.scale  # type: ignore[no-any-return]


def named(model: nn.Module, groups: list[dict[str, Any]]) -> dict[str, list[str]]:
    """The names of the weights of each group, by its name."""
    names = {id(weight): name for name, weight in model.named_parameters()}
    return {group["name"]: [names[id(w)] for w in group["params"]] for group in groups}


def test_the_first_pattern_that_matches_has_the_weight_and_the_rest_is_the_default() -> None:
    model = Net()
    groups = param_groups(
        model,
        {
            "backbone.0": {"lr": 1e-5},
            "backbone.*": {"lr": 1e-4},
            ("*.weight", "scale"): {"lr": 0.1},
        },
    )
    assert named(model, groups) == {
        "backbone.0": ["backbone.0.weight", "backbone.0.bias"],
        "backbone.*": [f"backbone.{i}.{kind}" for i in (1, 2) for kind in ("weight", "bias")],
        "*.weight, scale": ["scale", "embedding.weight", "norm.weight", "head.weight"],
        "default": ["norm.bias", "head.bias"],
    }
    assert [group.get("lr") for group in groups] == [1e-5, 1e-4, 0.1, None]


def test_norms_biases_and_single_numbers_get_no_decay_unless_a_group_says_so() -> None:
    model = Net()
    groups = param_groups(model, {"head": {"weight_decay": 0.3}}, weight_decay=0.05)
    assert {group["name"]: group["weight_decay"] for group in groups} == {
        "head": 0.3, "default": 0.05, "default (no decay)": 0.0,
    }  # fmt: skip
    assert named(model, groups)["default"] == [
        "embedding.weight", "backbone.0.weight", "backbone.2.weight",
    ]  # fmt: skip
    decayed = {id(w) for group in groups for w in group["params"]}
    assert len(decayed) == sum(len(group["params"]) for group in groups) == 12


def test_none_freezes_and_leaves_the_weights_out() -> None:
    model = Net()
    groups = param_groups(model, {"backbone": None, "embedding": None})
    assert list(named(model, groups)) == ["default"]
    frozen = {name for name, weight in model.named_parameters() if not weight.requires_grad}
    assert frozen == {n for n, _ in model.named_parameters() if n[:4] in ("back", "embe")}


def test_tied_weights_are_in_one_group() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    groups = param_groups(model, {"0": {"lr": 0.1}})
    assert [len(group["params"]) for group in groups] == [2, 1]


def test_an_optimizer_and_its_schedule_keep_rates_and_names() -> None:
    model = Net()
    opt = torch.optim.AdamW(param_groups(model, {"backbone": {"lr": 0.01}}, weight_decay=0.1), 0.1)
    schedule = torch.optim.lr_scheduler.ExponentialLR(opt, 0.5)
    trainer = Trainer(model, F.cross_entropy, Optimizer(opt, schedule), epochs=2, console="off")
    trainer.fit([(torch.arange(5), torch.arange(5) % 3)])
    rates = {group["name"]: group["lr"] for group in trainer.opt[0].param_groups}
    assert rates == pytest.approx({
        "backbone": 0.0025, "backbone (no decay)": 0.0025,
        "default": 0.025, "default (no decay)": 0.025,
    })  # fmt: skip


@pytest.mark.parametrize(
    ("patterns", "told"),
    [
        (
            {"bakbone.*": {"lr": 1}},
            "'bakbone.*' matches no weight of the model. Did you mean 'backbone'?",
        ),
        ({("heat", "haed"): {}}, "Did you mean 'head'?"),
        ({"*": {}, "head": {}}, "such as head.weight, are in the groups of earlier patterns"),
        ({"head": 0.1}, "the options of 'head' are 0.1. Give a dict"),
        ({"head": {"learning_rate": 1}}, "Did you mean 'lr'?"),
        ({"*": None}, "all weights of the model are frozen"),
        (["head"], "give a dict, such as {'backbone.*': {'lr': 1e-4}}"),
        ({3: {}}, "3 is no pattern of names"),
    ],
    ids=str,
)
def test_a_mistake_is_told(patterns: Any, told: str) -> None:
    with pytest.raises(ConfigError) as info:
        param_groups(Net(), patterns)
    assert told in str(info.value)


def test_parameters_instead_of_a_model_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"give an nn\.Module to param_groups"):
        param_groups(Net().parameters())  # type: ignore[arg-type]


def test_it_is_loaded_when_it_is_asked_for() -> None:
    assert "param_groups" in dir(deepepochs)
