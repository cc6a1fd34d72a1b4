"""The values of a stage of several tasks, computed in one go and after a resume."""

from __future__ import annotations

from deepepochs.patches import ValuePatch
from deepepochs.patches.totals import PassPatches, StageTotals


def of_pass(name: str, number: float, weight: int) -> PassPatches:
    return PassPatches({name: ValuePatch(weight).load(number)})


def test_a_loss_that_the_last_task_does_not_compute_is_pooled_after_a_resume() -> None:
    totals, last = StageTotals(), of_pass("f1", 0.5, 1)
    totals.add("day", of_pass("loss", 1.0, 30))
    totals.add("night", of_pass("loss", 3.0, 10))
    saved = totals.state_dict(running=last, known={"loss", "f1"})
    resumed = StageTotals()
    resumed.load_state_dict(saved)
    for stage in (totals, resumed):
        stage.add("dawn", last)
    assert resumed.metrics() == totals.metrics()
    assert totals.metrics()["loss"] == 1.5
