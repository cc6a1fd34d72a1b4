"""The values of a stage of several tasks, computed in one go and after a resume."""

from __future__ import annotations

from deepepochs.patches import PatchBase, ValuePatch
from deepepochs.patches.totals import StageTotals


def value(number: float, weight: int) -> dict[str, PatchBase]:
    return {"loss": ValuePatch(weight).load(number)}


def test_a_loss_that_the_last_task_does_not_compute_is_pooled_after_a_resume() -> None:
    totals, last = StageTotals(), {"f1": ValuePatch(1).load(0.5)}
    totals.add("day", value(1.0, 30))
    totals.add("night", value(3.0, 10))
    saved = totals.state_dict(running=last, known={"loss", "f1"})
    resumed = StageTotals()
    resumed.load_state_dict(saved)
    for stage in (totals, resumed):
        stage.add("dawn", last)
    assert resumed.metrics() == totals.metrics()
    assert totals.metrics()["loss"] == 1.5
