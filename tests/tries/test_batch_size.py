"""`trainer.find_batch_size()`: what is tried, what is found, and that it leaves no trace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from deepepochs import Callback, ConfigError, DataError, Optimizer, Trainer
from deepepochs.faults.backward import is_out_of_memory
from deepepochs.nest.compare import digest
from deepepochs.tries import batch_size as tries
from deepepochs.tries.batch_size import FoundBatchSize, Trial, goes_on

DATA = TensorDataset(torch.randn(100, 6), torch.arange(100) % 3)


@pytest.fixture(autouse=True)
def in_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


class Small(nn.Module):
    """Has room for some samples only, and says so as an accelerator does."""

    def __init__(self, room: int = 10**9, error: type[Exception] = torch.OutOfMemoryError) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 3)
        )
        self.room, self.error = room, error
        self.sizes: list[int] = []

    def forward(self, x: Any) -> Any:
        if len(x) > self.room:
            raise self.error("DefaultCPUAllocator: can't allocate memory")
        if not self.sizes or self.sizes[-1] != len(x):
            self.sizes.append(len(x))
        return self.layers(x)


def loader(data: Any = DATA, size: int | None = 8, **options: Any) -> DataLoader[Any]:
    return DataLoader(data, size, **options)


def trainer(model: nn.Module | None = None, **options: Any) -> Trainer:
    torch.manual_seed(1)
    model = Small() if model is None else model
    opt = torch.optim.Adam(model.parameters())
    options = {"opt": opt, "epochs": 2, "console": "off", "device": "cpu", **options}
    return Trainer(model, F.cross_entropy, **options)


def plain(room: int = 10**9, error: type[Exception] = torch.OutOfMemoryError) -> Small:
    model = Small(room, error)
    model.layers = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.3), nn.Linear(8, 3))
    return model


@pytest.mark.parametrize(
    ("room", "sizes"),
    [
        (37, [2, 4, 8, 16, 32, 36]),  # 64, 48 and 40 do not fit, nor does 38
        (64, [2, 4, 8, 16, 32, 64]),
        (5, [2, 4, 5]),
        (1, [1]),
        (100, [2, 4, 8, 16, 32, 64, 100]),
    ],
)
def test_sizes_are_doubled_until_memory_is_out_and_then_tried_in_between(
    room: int, sizes: list[int]
) -> None:
    model = plain(room)
    found = trainer(model).find_batch_size(loader())
    assert sorted(set(model.sizes)) == sizes == [t.batch_size for t in found.trials if t.fits]
    assert found.largest == sizes[-1]
    if room < 100:
        assert found.batch_size == found.largest
        assert all(trial.batch_size > room for trial in found.trials if not trial.fits)
        assert "does not fit" in str(found)
        assert str(found).endswith(f"batch_size={sizes[-1]}: the largest that fits")


@pytest.mark.parametrize("max_size", [1, 3, 16, 1000])
def test_no_size_is_above_the_given_one_or_the_data(max_size: int) -> None:
    found = trainer(plain()).find_batch_size(loader(), max_size=max_size)
    assert found.largest == min(max_size, 100)
    assert found.batch_size <= found.largest


def test_memory_of_the_cpu_that_runs_out_is_known_by_its_words() -> None:
    assert trainer(plain(4, RuntimeError)).find_batch_size(loader()).largest == 4
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_memory_that_runs_out_in_the_optimizer_counts_as_well() -> None:
    class Hungry(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            if model.sizes[-1] > 10:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().step(closure)

    model = plain()
    one = trainer(model, opt=Hungry(model.parameters(), 0.1))
    assert one.find_batch_size(loader()).largest == 10


def test_not_even_one_sample_raises_what_memory_says() -> None:
    with pytest.raises(torch.OutOfMemoryError, match="not enough memory for a mini-batch of 1"):
        trainer(plain(0)).find_batch_size(loader())


def test_another_error_is_that_of_a_step() -> None:
    with pytest.raises(RuntimeError, match="wants 9 features"):
        trainer(nn.Linear(9, 3)).find_batch_size(loader())


def test_each_size_makes_whole_training_steps_with_samples_of_the_data() -> None:
    seen: list[Any] = []

    class Watching(Callback):
        acts_in_tries = True

        def on_before_train_batch(self, batch_x: Any, **others: Any) -> None:
            seen.append(batch_x[0])

        def on_after_optimize(self, **others: Any) -> None:
            seen.append("step")

    trainer(plain(), callbacks=Watching()).find_batch_size(loader(), max_size=4)
    sizes = [len(x) for x in seen[::2]]
    assert seen[1::2] == ["step"] * len(sizes)
    assert 3 <= sizes.count(2) <= 12 and 3 <= sizes.count(4) <= 12
    assert torch.equal(seen[-2], DATA.tensors[0][:4])


def test_the_collate_function_and_the_sampler_of_the_loader_are_used() -> None:
    def collate(samples: Any) -> Any:
        inputs, targets = zip(*samples, strict=True)
        return torch.stack(inputs) * 2, torch.stack(targets)

    seen: list[Any] = []

    class Watching(Callback):
        acts_in_tries = True

        def on_before_train_batch(self, batch_x: Any, **others: Any) -> None:
            seen.append(batch_x[0])

    one = trainer(plain(), callbacks=Watching())
    found = one.find_batch_size(loader(sampler=[7, 8, 9], collate_fn=collate))
    assert found.largest == 3
    assert torch.equal(seen[-1], DATA.tensors[0][7:10] * 2)


def test_a_stream_is_tried_up_to_the_given_size() -> None:
    class Stream(IterableDataset[Any]):
        def __iter__(self) -> Any:
            return iter(DATA)

    assert trainer(plain()).find_batch_size(loader(Stream()), max_size=8).largest == 8


def test_each_size_makes_an_optimizer_step_also_where_gradients_are_accumulated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tries, "ENOUGH_S", 0.0)  # as if each step took long

    class Hungry(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            if model.sizes[-1] > 6:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().step(closure)

    model = plain()
    one = trainer(model, opt=Hungry(model.parameters(), 0.1), grad_accumulate=20)
    assert one.find_batch_size(loader()).largest == 6


@pytest.mark.parametrize("own_generator", [False, True])
@pytest.mark.parametrize("room", [10**9, 5])
def test_a_fit_after_it_is_the_fit_without_it(room: int, own_generator: bool) -> None:
    class Augmented(Dataset[Any]):
        def __len__(self) -> int:
            return 40

        def __getitem__(self, index: int) -> Any:
            return DATA[index][0] + 0.1 * torch.randn(6), DATA[index][1]

    def fit(*, tries: bool) -> Any:
        torch.manual_seed(1)
        model = plain(room)
        opt = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
        schedule = torch.optim.lr_scheduler.OneCycleLR(opt, 0.2, total_steps=40)
        one = trainer(model, opt=Optimizer(opt, schedule, sched_on="step"))
        torch.manual_seed(9)
        generator = torch.Generator().manual_seed(2) if own_generator else None
        data = loader(Augmented(), 4, shuffle=True, generator=generator)
        history = one.fit(data, epochs=1)
        if tries:
            one.find_batch_size(data)
        one.fit(data, epochs=1)
        rest = [torch.get_rng_state().tolist(), one.progress, one.opt.get_current_lr()]
        return history["train"]["loss"], digest(model.state_dict()), digest(opt.state_dict()), rest

    assert fit(tries=True) == fit(tries=False)


def test_waiting_gradients_and_modes_come_back() -> None:
    model = plain(3)
    model.layers[0].weight.grad = torch.ones(8, 6)
    model.layers[1].eval()
    trainer(model).find_batch_size(loader())
    assert torch.equal(model.layers[0].weight.grad, torch.ones(8, 6))
    assert not model.layers[1].training and model.training


def speeds(*given: float) -> list[Trial]:
    return [Trial(2**power, True, speed) for power, speed in enumerate(given)]


def test_without_a_limit_the_smallest_of_nearly_the_fastest_is_taken() -> None:
    found = FoundBatchSize(speeds(100, 200, 390, 400, 410, 300), by_speed=True)
    assert (found.batch_size, found.largest) == (4, 32)
    assert str(found).endswith("batch_size=4: larger ones are hardly faster")
    rising = FoundBatchSize(speeds(100, 200, 400), by_speed=True)
    assert str(rising).endswith("batch_size=4: the largest that was tried")
    assert FoundBatchSize(speeds(100, 200, 190), by_speed=False).batch_size == 4


def test_the_memory_of_a_gpu_has_a_column() -> None:
    trials = [Trial(1, True, 10.0, 3_000_000), Trial(2, False)]
    found = FoundBatchSize(trials, memory_limit=80_000_000_000)
    assert str(found).split("\n") == [
        "batch size     samples/s  memory",
        "         1            10    3 MB",
        "         2  does not fit",
        "",
        "batch_size=1: the largest that fits, of 80 GB of memory",
    ]
    assert "<table" in found._repr_html_() and "3 MB" in found._repr_html_()


def test_on_a_cpu_long_steps_that_are_no_faster_end_the_search() -> None:
    one = trainer(plain())
    assert goes_on(one, speeds(1, 1)[:1])
    assert goes_on(one, speeds(0.1, 0.2)), "long, but faster"
    assert goes_on(one, speeds(1000, 1000)), "no faster, but short"
    assert not goes_on(one, speeds(1.0, 1.0))


def test_a_batch_norm_is_not_tried_on_one_sample() -> None:
    assert trainer(Small(20)).find_batch_size(loader()).largest == 20


def empty() -> Any:
    return loader(TensorDataset(torch.empty(0, 6)))


MISTAKES = {
    "list": (lambda: [(torch.ones(8, 6), torch.ones(8))], "got list: give a DataLoader"),
    "batch sampler": (lambda: loader(size=1, batch_sampler=[[0, 1]]), "without a batch_size"),
    "no batching": (lambda: loader(size=None), "without a batch_size"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_loader_of_which_no_other_size_can_be_made_is_told(name: str) -> None:
    make, words = MISTAKES[name]
    with pytest.raises(ConfigError, match=words):
        trainer(plain()).find_batch_size(make())


def test_other_mistakes_are_told() -> None:
    with pytest.raises(DataError, match="whose data set is empty"):
        trainer(plain()).find_batch_size(empty())
    with pytest.raises(ConfigError, match="max_size=0: give an int of at least 1"):
        trainer(plain()).find_batch_size(loader(), max_size=0)
    with pytest.raises(ConfigError, match="lazy layers"):
        trainer(nn.LazyLinear(3), opt=None).find_batch_size(loader())
