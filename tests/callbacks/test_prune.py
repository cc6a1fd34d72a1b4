"""Optuna prunes a trial through a callback; a study in a file goes on after an interruption."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from deepepochs import CheckCallback, PruneCallback, Trainer
from deepepochs.errors import CallbackException, ConfigError, ConfigTypeError, MissingExtraError

optuna = pytest.importorskip("optuna")
optuna.logging.set_verbosity(optuna.logging.ERROR)
X = torch.randn(60, 4, generator=torch.Generator().manual_seed(1))
DL = DataLoader(TensorDataset(X, X[:, :3].argmax(1)), batch_size=20)


class After(optuna.pruners.BasePruner):  # type: ignore[misc,name-defined]
    """Prunes every trial but the first, after its second report."""

    def prune(self, study: Any, trial: Any) -> bool:
        return bool(trial.number > 0 and trial.last_step >= 1)


def fitted(trial: Any, *callbacks: Any, epochs: int = 4, **options: Any) -> Trainer:
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    opt = torch.optim.SGD(model.parameters(), lr=trial.suggest_float("lr", 0.01, 0.1))
    trainer = Trainer(
        model, F.cross_entropy, opt, epochs, metrics="accuracy", console="off",
        callbacks=[*callbacks, PruneCallback(trial, options.pop("monitor", "loss"), **options)],
        running_id=f"trial-{trial.number}",
    )  # fmt: skip
    trainer.fit(DL, DL)
    return trainer


def study(**options: Any) -> Any:
    return optuna.create_study(
        sampler=optuna.samplers.RandomSampler(seed=0), pruner=After(), **options
    )


def test_a_pruned_trial_ends_after_its_epoch_and_its_files_are_whole(tmp_path: Path) -> None:
    def objective(trial: Any) -> float:
        check = CheckCallback("loss", ckpt_dir=tmp_path)
        return float(fitted(trial, check).history["val"]["loss"][-1])

    searched = study()
    searched.optimize(objective, n_trials=2)
    assert [trial.state.name for trial in searched.trials] == ["COMPLETE", "PRUNED"]
    assert [len(trial.intermediate_values) for trial in searched.trials] == [4, 2]
    record = json.loads((tmp_path / "trial-1" / "run.json").read_text())
    assert record["state"] == "finished" and record["reason"] == "trial 1 was pruned"
    assert record["epochs_done"] == 2


def test_the_values_are_those_of_the_history() -> None:
    kept: list[Any] = []

    def objective(trial: Any) -> float:
        trainer = fitted(trial, monitor="accuracy")
        kept.append(trainer.history["val"]["accuracy"])
        return float(kept[0][-1])

    searched = study(direction="maximize")
    searched.optimize(objective, n_trials=1)
    assert list(searched.trials[0].intermediate_values.values()) == kept[0]


def test_a_study_that_looks_the_wrong_way_is_told() -> None:
    searched = study()  # minimises
    with pytest.warns(UserWarning, match="a higher accuracy is better"):
        searched.optimize(lambda trial: fitted(trial, monitor="accuracy") and 1.0, n_trials=1)


def test_a_metric_that_is_not_there_is_an_error_before_the_first_epoch() -> None:
    with pytest.raises(CallbackException, match="PruneCallback monitors 'acc'"):
        study().optimize(lambda trial: fitted(trial, monitor="acc") and 1.0, n_trials=1)


def test_an_interrupted_search_goes_on_in_its_file(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'search.db'}"

    def objective(trial: Any) -> float:
        return float(fitted(trial).history["val"]["loss"][-1])

    def broken(trial: Any) -> float:
        if trial.number == 2:
            raise KeyboardInterrupt
        return objective(trial)

    first = study(storage=storage, study_name="s")
    with pytest.raises(KeyboardInterrupt):
        first.optimize(broken, n_trials=4)
    again = study(storage=storage, study_name="s", load_if_exists=True)
    again.optimize(objective, n_trials=2)
    states = [trial.state.name for trial in again.trials]
    assert states[:2] == ["COMPLETE", "PRUNED"] and len(states) == 5


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ((None,), ConfigTypeError, "give the trial that Optuna gives"),
        ((optuna.trial.FixedTrial({}), ""), ConfigTypeError, "name of a metric"),
        ((optuna.trial.FixedTrial({}), "loss", "test"), ConfigError, "give 'val' or 'train'"),
    ],
)
def test_a_wrong_argument_is_told(arguments: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        PruneCallback(*arguments)


def test_without_optuna_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingExtraError, match=r"deepepochs\[search\]"):
        PruneCallback(object())
