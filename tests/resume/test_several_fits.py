"""A script with several fits, killed in any of them, goes on in the one it was in."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from deepepochs import Callback, CheckCallback

sys.path.insert(0, str(Path(__file__).parent))
from exact_runs import base_fit, flat, through_a_file


class StopAt(Callback):
    """Stops after a training mini-batch, counted over all fits; so does the script."""

    def __init__(self, num: int) -> None:
        super().__init__()
        self.num = num

    def on_after_train_batch(self, trainer: Any, **others: Any) -> None:
        if trainer.progress.num_train_batches == self.num:
            trainer.stop("broken off")


class BrokenOff(Exception):
    """The process ends here."""


def script(folder: Path, stop_at: int = -1, between: bool = False) -> Any:
    """Two fits with something random in between."""
    callbacks = [CheckCallback("loss", ckpt_dir=folder), StopAt(stop_at)]
    fit = base_fit(*callbacks, running_id="r", resume="auto")

    def run(epochs: int) -> Any:
        history = fit.trainer.fit(**fit.options, epochs=epochs)
        if fit.trainer.stop_reason == "broken off":
            raise BrokenOff
        return dict(history)

    first = run(2)
    if between:
        raise BrokenOff
    torch.rand(3)
    second = run(3)
    return first, second, through_a_file(fit.trainer.state_dict()), torch.rand(2)


@pytest.mark.parametrize("stop_at", [3, 7, 9, 13, 18, None])
def test_broken_off_in_either_fit_or_between_them_the_script_ends_the_same(
    stop_at: int | None, tmp_path: Path
) -> None:
    whole = script(tmp_path / "whole")
    assert [len(history["train"]["loss"]) for history in whole[:2]] == [2, 3]
    with pytest.raises(BrokenOff):
        script(tmp_path / "r", stop_at or -1, between=stop_at is None)
    assert flat(script(tmp_path / "r")) == flat(whole)


Between = Callable[[Any], Any]


def try_it(trainer: Any) -> Any:
    return trainer.test(base_fit().options["val_dl"])


def lower_the_rate(trainer: Any) -> None:
    for group in trainer.opt[0].param_groups:
        group["lr"] *= 0.1


def new_head(trainer: Any) -> None:
    trainer.model[4] = nn.Linear(6, 5)
    trainer.opt[0].opt.add_param_group({"params": list(trainer.model[4].parameters())})


def pseudo_labels(trainer: Any) -> Any:
    inputs = torch.randn(12, 4)
    labels = trainer.predict(DataLoader(TensorDataset(inputs), 4), with_targets=False).argmax(1)
    return DataLoader(TensorDataset(inputs, labels), 3, shuffle=True)


def random_part(trainer: Any) -> Any:
    inputs, labels = torch.arange(80.0).reshape(20, 4), torch.arange(20) % 2
    chosen = torch.randperm(20)[:12]
    return DataLoader(TensorDataset(inputs[chosen], labels[chosen]), 3)


def long_script(folder: Path, between: Between, stop_at: int = -1, num_fits: int = 3) -> Any:
    """Fits of an epoch, with lines of the script between them."""
    callbacks = [CheckCallback("loss", ckpt_dir=folder, every_n_batches=1), StopAt(stop_at)]
    fit = base_fit(*callbacks, running_id="r", resume="auto")
    results: list[Any] = []
    for index in range(num_fits):
        train_dl = fit.options["train_dl"]
        if index:
            given = between(fit.trainer)
            train_dl = given if isinstance(given, DataLoader) else train_dl
            results.append(given if isinstance(given, dict) else None)
        results.append(dict(fit.trainer.fit(train_dl, fit.options["val_dl"], epochs=1)))
        if fit.trainer.stop_reason == "broken off":
            raise BrokenOff
    return results, through_a_file(fit.trainer.state_dict()), torch.rand(2)


@pytest.mark.parametrize("between", [try_it, lower_the_rate, new_head, pseudo_labels, random_part])
@pytest.mark.parametrize("stop_at", [5, 7, 8])
def test_lines_between_two_fits_act_on_what_they_acted_on(
    between: Between, stop_at: int, tmp_path: Path
) -> None:
    whole = long_script(tmp_path / "whole", between, num_fits=2)
    with pytest.raises(BrokenOff):
        long_script(tmp_path / "r", between, stop_at, num_fits=2)
    assert flat(long_script(tmp_path / "r", between, num_fits=2)) == flat(whole)


@pytest.mark.parametrize("between", [lower_the_rate, random_part])
@pytest.mark.parametrize("stop_at", [6, 9, 12])
def test_a_script_of_three_fits_ends_the_same(
    between: Between, stop_at: int, tmp_path: Path
) -> None:
    whole = long_script(tmp_path / "whole", between)
    with pytest.raises(BrokenOff):
        long_script(tmp_path / "r", between, stop_at)
    assert flat(long_script(tmp_path / "r", between)) == flat(whole)


def test_a_test_that_sees_other_weights_than_it_has_seen_is_told(tmp_path: Path) -> None:
    with pytest.raises(BrokenOff):
        long_script(tmp_path, try_it, stop_at=10)
    with pytest.warns(UserWarning, match="only the end of the last finished fit is kept"):
        long_script(tmp_path, try_it)


def test_a_missing_end_of_a_fit_is_told_where_the_weights_are_asked_for(tmp_path: Path) -> None:
    for between, is_told in ((lower_the_rate, False), (try_it, True)):
        folder = tmp_path / between.__name__
        with pytest.raises(BrokenOff):
            long_script(folder, between, stop_at=6, num_fits=2)
        (folder / "r" / "last-fit.ckpt").unlink()
        if is_told:
            with pytest.warns(
                UserWarning, match=r"test\(\) is called between .* no .*last-fit\.ckpt"
            ):
                long_script(folder, between, num_fits=2)
        else:
            long_script(folder, between, num_fits=2)


def test_the_history_between_skipped_fits_is_that_of_the_skipped_ones(tmp_path: Path) -> None:
    with pytest.raises(BrokenOff):
        long_script(tmp_path, lower_the_rate, stop_at=10)
    seen = []

    def look(trainer: Any) -> None:
        lower_the_rate(trainer)
        seen.append((list(trainer.history.epochs), trainer.init_epoch))

    long_script(tmp_path, look)
    assert seen == [([0], 1), ([0, 1], 2)]
