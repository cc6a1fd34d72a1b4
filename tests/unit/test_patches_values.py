"""ValuePatch, MeanPatch, and what patches of users' own may rely on."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from deepepochs.errors import ConfigError, MetricError, PatchError
from deepepochs.metrics import accuracy
from deepepochs.nest.codec import from_plain, to_plain
from deepepochs.nest.operations import TensorTuple
from deepepochs.patches import MeanPatch, PatchBase, ValuePatch
from deepepochs.patches.values import FOLD_EVERY


@given(st.lists(st.tuples(st.floats(-10, 10), st.integers(0, 64)), min_size=1, max_size=20))
def test_a_running_sum_has_the_bits_of_a_hand_written_one(batches: list[tuple[float, int]]) -> None:
    patch, total, count = ValuePatch(0), 0.0, 0
    for mean, size in batches:
        patch.accumulate(mean, size)
        total += mean * size
        count += size
    assert patch() == total / count if count else math.isnan(patch())


@pytest.mark.parametrize(
    "value", [0.1, 3, True, np.float32(0.1), np.float64(0.1), np.array(0.1), torch.tensor(0.1)]
)
def test_the_value_of_one_batch_is_exact_and_a_float(value: Any) -> None:
    found = ValuePatch(3).load(value)()
    assert type(found) is float
    assert found == float(value)


def test_a_tensor_that_needs_gradients_is_taken_out_of_autograd() -> None:
    weight = torch.ones(3, requires_grad=True)
    assert not ValuePatch(2).load(weight * 2)().requires_grad
    assert ValuePatch(2).load((weight * 2).sum())() == 6.0


def test_a_batch_of_weight_zero_counts_nothing_even_if_it_is_nan() -> None:
    patch = ValuePatch(2).load(1.5) + ValuePatch(0).load(math.nan)
    assert patch() == 1.5


def test_no_weight_at_all_gives_nan() -> None:
    assert math.isnan(ValuePatch(0).load(1.0)())
    assert math.isnan((ValuePatch(0).load(1.0) + ValuePatch(0).load(2.0))())
    assert math.isnan(ValuePatch(0.0).load({"a": 1.0})()["a"])


@pytest.mark.parametrize("weight", [0.5, np.float32(0.5), np.int64(4), torch.tensor(0.25), True])
def test_weights_may_be_sums_of_sample_weights(weight: Any) -> None:
    patch = ValuePatch(weight).load(1.0) + ValuePatch(weight).load(3.0)
    assert patch() == 2.0


@pytest.mark.parametrize("weight", [-1, -0.5, math.nan, math.inf, None, "8", torch.tensor(-1)])
def test_a_weight_that_cannot_be_one_is_refused(weight: Any) -> None:
    with pytest.raises(ConfigError, match="batch_size="):
        ValuePatch(weight)


@pytest.mark.parametrize("value", [None, "0.5", [0.5], {"a": None}])
def test_a_value_that_cannot_be_averaged_is_refused(value: Any) -> None:
    with pytest.raises(MetricError):
        ValuePatch(1).load(value)


def test_a_key_that_some_batches_lack_is_averaged_over_those_that_have_it() -> None:
    patches = [
        ValuePatch(1).load({"a": 1.0}),
        ValuePatch(3).load({"a": 2.0, "b": {"c": 4.0}}),
        ValuePatch(1).load({"b": {"c": 8.0}}),
    ]
    assert sum(patches)() == {"a": 7 / 4, "b.c": 5.0}


class OnDevice(ValuePatch):
    """Treats every tensor as an accelerator's, to run that path where there is none."""

    def accumulate(self, mean_value: Any, weight: float) -> None:
        self.mean = None
        self._put_aside(mean_value, weight)


def losses(num: int) -> list[tuple[Tensor, int]]:
    return [(torch.rand(()), 32 if i % 50 else 7) for i in range(num)]


def test_values_of_a_device_stay_tensors_and_few_of_them_wait() -> None:
    patch, batches = OnDevice(0), losses(1000)
    for loss, size in batches:
        patch.accumulate(loss, size)
        assert len(patch.pending) < FOLD_EVERY
    value = patch()
    assert isinstance(value, Tensor)
    exact = sum(float(loss) * size for loss, size in batches) / sum(size for _, size in batches)
    assert value.item() == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize("stop", [1, FOLD_EVERY - 1, FOLD_EVERY, FOLD_EVERY + 5])
def test_looking_or_resuming_does_not_change_the_bits_of_a_sum_on_a_device(stop: int) -> None:
    straight, stopped = OnDevice(0), OnDevice(0)
    batches = losses(3 * FOLD_EVERY)
    for loss, size in batches:
        straight.accumulate(loss, size)
    for loss, size in batches[:stop]:
        stopped.accumulate(loss, size)
        stopped()
    file = io.BytesIO()
    torch.save(stopped.state_dict(), file)
    file.seek(0)
    resumed = OnDevice(0)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    for loss, size in batches[stop:]:
        resumed.accumulate(loss, size)
    assert torch.equal(resumed(), straight())


def test_patches_of_a_device_are_merged_without_a_sum_for_each() -> None:
    total = OnDevice(4).load(torch.tensor(1.0))
    for _ in range(FOLD_EVERY - 2):
        total = total.add(OnDevice(4).load(torch.tensor(1.0)))
    assert len(total.pending) == FOLD_EVERY - 1
    total = total.add(OnDevice(4).load(torch.tensor(1.0 + FOLD_EVERY)))
    assert not total.pending
    assert total().item() == 2.0


@pytest.mark.parametrize("make", [ValuePatch, lambda n: MeanPatch(accuracy, n)])
def test_memory_does_not_grow_with_the_number_of_batches(make: Any) -> None:
    scores, targets = torch.rand(8, 3), torch.arange(8) % 3
    data = (scores, targets) if isinstance(make(1), MeanPatch) else (scores.mean(),)

    def held(num_batches: int) -> int:
        total = make(8).load(*data)
        for _ in range(num_batches):
            total = total.add(make(8).load(*data))
        return len(repr(total.state_dict())) - len(repr(total.weight)) - len(repr(total.total))

    assert held(5) == held(300)


def test_the_metric_of_a_mean_patch_is_called_once_for_each_batch() -> None:
    calls = []

    def size(outputs: Tensor, targets: Tensor) -> int:
        calls.append(torch.is_grad_enabled())
        return len(outputs)

    patch = MeanPatch(size, 2).load(torch.ones(2), None)
    patch = patch + MeanPatch(size, 4).load(torch.ones(4), None)
    assert (patch(), patch(), calls) == (20 / 6, 20 / 6, [False, False])


def test_a_mean_patch_hands_several_outputs_to_the_metric_as_they_are() -> None:
    def gap(outputs: TensorTuple, targets: Any) -> Tensor:
        return (outputs[0] - outputs[1]).abs().mean()

    outputs = TensorTuple([torch.ones(2), torch.zeros(2)])
    assert MeanPatch(gap, 2).load(outputs, None)() == 1.0


def test_an_error_in_a_metric_tells_the_metric_and_what_it_was_given() -> None:
    def ratio(outputs: Tensor, targets: Tensor) -> float:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken") as caught:
        MeanPatch(ratio, 2).load(torch.ones(2, 3), None)
    shown = "".join(getattr(caught.value, "__notes__", [])) or str(caught.value)
    assert shown == "The metric 'ratio' was called with a tensor [2, 3] and None."


def test_a_metric_that_gives_no_number_is_named() -> None:
    def label(outputs: Tensor, targets: Tensor) -> str:
        return "good"

    with pytest.raises(MetricError, match=r"'label'.*a str"):
        MeanPatch(label, 2).load(torch.ones(2), None)


# ---- patches of users' own


class Forgetful(PatchBase):
    """Does not call ``super().__init__()``."""

    def __init__(self, texts: list[str]) -> None:
        self.counts = dict.fromkeys(texts, 1)

    def add(self, other: Forgetful) -> Forgetful:
        for text, count in other.counts.items():
            self.counts[text] = self.counts.get(text, 0) + count
        other.counts.clear()
        return self

    def forward(self) -> int:
        return max(self.counts.values())


def test_a_subclass_that_forgets_the_base_works() -> None:
    one, two = Forgetful(["a", "b"]), Forgetful(["a"])
    assert (one + two)() == 2
    assert (one.name, two.counts) == (None, {"a": 1})
    assert repr(one) == "Forgetful()"


def test_a_method_that_a_subclass_lacks_is_named() -> None:
    class Empty(PatchBase):
        pass

    with pytest.raises(PatchError, match="Empty has no load"):
        Empty().load(1)
    with pytest.raises(PatchError, match="Empty has no forward"):
        Empty()()
    with pytest.raises(PatchError, match="Empty has no add"):
        Empty() + Empty()


def test_an_add_without_return_is_told() -> None:
    class Silent(PatchBase):
        def add(self, other: Any) -> Any:
            pass

    with pytest.raises(PatchError, match=r"Silent\.add returned None.*return self"):
        Silent() + Silent()


class Holder(PatchBase):
    def __init__(self, **held: Any) -> None:
        super().__init__("held")
        self.__dict__.update(held)


def test_the_state_of_a_subclass_survives_a_file_whatever_plain_things_it_holds() -> None:
    held = {
        "array": np.arange(3, dtype=np.int16),
        "number": np.float32(0.1),
        "nested": [(1, "a"), {"t": torch.ones(2, dtype=torch.bfloat16)}],
        "many": {1, 2},
        "outputs": TensorTuple([torch.zeros(1)]),
        "nothing": None,
    }
    file = io.BytesIO()
    torch.save(to_plain(Holder(**held, metric=accuracy, best=[max, min]).state_dict()), file)
    file.seek(0)
    state = from_plain(torch.load(file, weights_only=True))
    assert list(state) == list(held)
    restored = Holder(metric=accuracy, stale=3)
    restored.load_state_dict(state)
    assert (restored.name, restored.metric) == ("held", accuracy)
    assert "stale" not in restored.__dict__
    for key, value in held.items():
        found = restored.__dict__[key]
        assert type(found) is type(value)
        assert repr(found) == repr(value)
        assert getattr(found, "dtype", None) == getattr(value, "dtype", None)


@pytest.mark.parametrize(
    "held", [object(), [accuracy, torch.ones(1)], ValuePatch(1), [max, ValuePatch(1)]]
)
def test_what_a_checkpoint_cannot_hold_is_told_with_its_place(held: Any) -> None:
    with pytest.raises(PatchError, match=r"Holder\.thing holds .*state_dict"):
        Holder(thing=held).state_dict()


def test_a_copy_shares_functions_and_nothing_else() -> None:
    inner = ValuePatch(1).load(1.0)
    patch = Holder(metric=accuracy, sums=[torch.ones(2)], array=np.ones(2), inner=inner)
    copy = patch.copy()
    copy.sums[0] += 1
    copy.sums.append(1)
    copy.array += 1
    copy.inner.accumulate(5.0, 1)
    assert copy.metric is accuracy
    assert patch.sums[0].tolist() == [1, 1]
    assert (len(patch.sums), patch.array.tolist(), inner()) == (1, [1, 1], 1.0)
