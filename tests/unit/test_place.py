"""A Place, an EpochState and a FitLog, each made alone: where a run is, and where it resumes."""

from __future__ import annotations

import pytest
import torch

from deepepochs.errors import CheckpointMismatch
from deepepochs.fit.epochs import FitLog, FitSpan
from deepepochs.patches import ValuePatch
from deepepochs.patches.totals import PassPatches
from deepepochs.stages import Stage
from deepepochs.state.place import EpochState, Place


def patches(loss: float, weight: int = 1) -> PassPatches:
    return PassPatches({"loss": ValuePatch(weight).load(loss)})


def test_a_place_is_set_from_a_load_until_it_is_cleared() -> None:
    place = Place()
    assert not place.is_set
    place.keep("loaders", {"train/0": 1})
    assert not place.is_set  # without counters there is nothing to resume
    place.keep("progress", {"epoch_idx": 2})
    assert place.is_set
    assert place.get("progress") == {"epoch_idx": 2}
    place.clear()
    assert not place.is_set
    assert place.get("loaders") is None


def test_an_epoch_opens_each_stage_once_and_counts_its_passes() -> None:
    epoch = EpochState(3)
    assert epoch.begin_stage(Stage.TRAIN, ["a", "b"])
    assert not epoch.begin_stage(Stage.TRAIN, ["a", "b"])
    epoch.totals[Stage.TRAIN].add("a", patches(1.0))
    assert epoch.num_done(Stage.TRAIN) == 1


def test_a_stage_that_has_ended_keeps_its_values_and_drops_its_patches() -> None:
    epoch = EpochState(0)
    epoch.begin_stage(Stage.VAL, ["0"])
    epoch.totals[Stage.VAL].add("0", patches(0.5))
    assert epoch.end_stage(Stage.VAL, {"loss": 0.5}) == {"loss": 0.5}
    assert epoch.metrics == {Stage.VAL: {"loss": 0.5}}
    assert epoch.totals[Stage.VAL].passes == [("0", {})]


def test_an_epoch_resumes_with_the_values_the_passes_and_the_waiting_run_that_it_had() -> None:
    epoch = EpochState(4)
    epoch.begin_stage(Stage.TRAIN, ["a", "b"])
    epoch.totals[Stage.TRAIN].add("a", patches(1.0, 3))
    epoch.begin_stage(Stage.VAL, ["0"])
    epoch.end_stage(Stage.VAL, {"loss": 0.25, "recall": [0.5, 1.0]})
    state = epoch.state_dict(None)
    again = EpochState.from_state({**state, "run": {"batch_idx": 7}})
    assert again.epoch_idx == 4
    assert again.begun == epoch.begun
    assert again.num_done(Stage.TRAIN) == 1
    assert again.totals[Stage.TRAIN].metrics() == {"loss": 1.0}
    assert again.metrics[Stage.VAL]["loss"] == 0.25
    assert again.metrics[Stage.VAL]["recall"].tolist() == [0.5, 1.0]
    assert again.state_dict(None)["run"] == again.waiting == {"batch_idx": 7}
    again.resume()
    assert again.waiting is None


def test_the_values_of_an_earlier_file_are_tensors_and_load_as_numbers_and_arrays() -> None:
    state = EpochState(0).state_dict(None)
    state["metrics"] = {"train": {"loss": torch.tensor(0.1), "recall": torch.tensor([0.5, 1.0])}}
    values = EpochState.from_state(state).metrics[Stage.TRAIN]
    assert type(values["loss"]) is float
    assert values["recall"].tolist() == [0.5, 1.0]


def test_only_a_stage_that_is_under_way_must_have_the_tasks_that_it_had() -> None:
    epoch = EpochState(0)
    epoch.begin_stage(Stage.TRAIN, ["a", "b"])
    epoch.check_tasks({Stage.TRAIN: ["a", "b"]})
    with pytest.raises(CheckpointMismatch, match="with the tasks"):
        epoch.check_tasks({Stage.TRAIN: ["a"]})
    epoch.end_stage(Stage.TRAIN, {"loss": 1.0})
    epoch.check_tasks({Stage.TRAIN: ["a"]})


def called(log: FitLog, epochs: int | None = None) -> FitSpan:
    """Call a fit that runs all of its epochs."""
    span = log.next(epochs, resumes=False)
    log.begin(span, {}, resumes=False)
    for _ in range(span.start, span.end):
        log.end_epoch()
    return span


def test_the_first_fit_has_as_many_epochs_as_it_says_and_a_later_one_that_many_more() -> None:
    log = FitLog(5)
    assert log.next(None, resumes=False) == FitSpan(0, 5)
    assert called(log, 2) == FitSpan(0, 2)
    assert log.max_epochs == 2
    assert called(log, 3) == FitSpan(2, 5)


def test_to_ask_for_the_next_fit_changes_nothing() -> None:
    log = FitLog(5)
    before = log.state_dict(), log.num_calls, log.max_epochs
    log.next(2, resumes=False)
    assert (log.state_dict(), log.num_calls, log.max_epochs) == before


def test_a_script_that_is_started_again_skips_the_finished_fits_and_resumes_the_last() -> None:
    log = FitLog(2)
    called(log)
    log.begin(log.next(3, resumes=False), {"val_freq": "1"}, resumes=False)
    log.end_epoch()
    state = log.state_dict()

    again = FitLog(2)
    again.replay(state["fit_starts"])
    skipped = again.next(None, resumes=False)
    assert skipped == FitSpan(0, 2, is_past=True)
    again.skip(skipped)
    again.load_state_dict(state)
    assert again.progress.epoch_idx == 3
    assert again.next(3, resumes=True) == FitSpan(2, 5)
    with pytest.warns(UserWarning, match=r"val_freq is 2 \(1 in the checkpoint\)"):
        again.warn_of_other_settings({"val_freq": "2"})
