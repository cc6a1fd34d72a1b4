"""With worker processes, and through the loaders of others, a resumed pass is the same too."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, get_worker_info

from deepepochs.data.cursor import Cursor

sys.path.insert(0, str(Path(__file__).parent))
from cursor_kinds import (
    NUM,
    Augmented,
    DropsSome,
    EagerSampler,
    LazySampler,
    StatefulSampler,
    StatefulStream,
    Stream,
    TensorBatches,
    as_bits,
    generator,
    resume,
    seed_all,
    walk,
)

pytestmark = [
    # Three workers on two cores are a warning of PyTorch's, fork beside threads one of Python's.
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded"),
]
NUM_PASSES = 2


class SeededBatches:
    """A batch sampler with a generator of its own."""

    def __init__(self, own: torch.Generator) -> None:
        self.own = own

    def __iter__(self) -> Iterator[list[int]]:
        for batch in torch.randperm(NUM, generator=self.own).split(3):
            yield batch.tolist()

    def __len__(self) -> int:
        return 4


WITH_WORKERS: dict[str, Callable[[], Any]] = {
    "shuffled": lambda: DataLoader(Augmented(), batch_size=3, shuffle=True, num_workers=2),
    "lazy sampler": lambda: DataLoader(
        Augmented(), batch_size=1, sampler=LazySampler(), num_workers=2, prefetch_factor=1
    ),
    "stateful sampler": lambda: DataLoader(
        Augmented(), batch_size=2, sampler=StatefulSampler(), num_workers=2
    ),
    "eager, not batched": lambda: DataLoader(
        Augmented(), batch_size=None, sampler=EagerSampler(), num_workers=2
    ),
    "tensor batches": lambda: DataLoader(Augmented(), batch_sampler=TensorBatches(), num_workers=2),
    "persistent, own generator": lambda: DataLoader(
        Augmented(),
        batch_size=3,
        shuffle=True,
        generator=generator(),
        num_workers=2,
        persistent_workers=True,
    ),
    "persistent": lambda: DataLoader(
        Augmented(), batch_size=3, shuffle=True, num_workers=2, persistent_workers=True
    ),
    "own __iter__": lambda: DropsSome(
        Augmented(), batch_sampler=SeededBatches(generator()), num_workers=2
    ),
    "stream": lambda: DataLoader(Stream(), batch_size=3, num_workers=2),
}


def check(make: Callable[[], Any], positions: list[int], num_passes: int = NUM_PASSES) -> None:
    whole, saved = walk(make, num_passes)
    for done in positions:
        state, number = saved[done - 1]
        assert resume(make, state, number, num_passes) == whole[done:], f"after {done}"


@pytest.mark.parametrize("kind", WITH_WORKERS)
def test_with_workers_a_resumed_walk_goes_on_as_if_unbroken(kind: str) -> None:
    make = WITH_WORKERS[kind]
    num_batches = sum(1 for _ in Cursor(make()))
    # In the first pass, after it, and for some after its last batch and in the next pass too.
    more = [num_batches, num_batches + 3] if kind.startswith(("shuffled", "persistent")) else []
    check(make, [2, num_batches + 1, *more])


def test_a_sampler_that_had_come_to_its_end_is_not_asked_again() -> None:
    # A RandomSampler draws once more from its generator when it is asked after its last index.
    def make() -> Any:
        return DataLoader(
            Augmented(), batch_size=1, shuffle=True, generator=generator(), num_workers=2
        )

    check(make, [NUM - 1, NUM])


def test_without_the_indices_drawn_ahead_the_rest_differs() -> None:
    make = WITH_WORKERS["lazy sampler"]
    whole, saved = walk(make, 1)
    state, number = saved[2]
    assert len(state["cursor"]["route"]["walk"]["waiting"]) == 2
    state["cursor"]["route"]["walk"]["waiting"] = None
    rest = resume(make, state, number, 1)
    assert [b[2][0][0] for b in rest[:-1]] != [b[2][0][0] for b in whole[3:-1]]


def test_pytorch_s_own_worker_seeds_do_not_survive_a_resume() -> None:
    make = WITH_WORKERS["shuffled"]
    whole, saved = walk(make, 1, worker_seeding="torch")
    rest = resume(make, *saved[1], 1, worker_seeding="torch")
    assert rest != whole[2:]
    indices = [[row[0] for row in entry[2]] for entry in rest[:-1]]
    assert indices == [[row[0] for row in entry[2]] for entry in whole[2:-1]]


def batches_of(num_workers: int, num_passes: int = 1, **options: Any) -> list[Any]:
    seed_all()
    loader = DataLoader(Augmented(), batch_size=2, shuffle=True, num_workers=num_workers, **options)
    return [as_bits(batch) for _ in range(num_passes) for _, batch in Cursor(loader)]


def test_batches_do_not_depend_on_the_number_of_workers_or_what_they_load_ahead() -> None:
    one = batches_of(1)
    assert batches_of(2) == one
    assert batches_of(3, prefetch_factor=1) == one


def test_each_pass_and_each_batch_has_a_stream_of_its_own() -> None:
    noise = [row[1:] for batch in batches_of(2, num_passes=2) for row in batch]
    assert len({tuple(row) for row in noise}) == len(noise) == 2 * NUM


def test_each_pass_of_persistent_workers_has_streams_of_its_own() -> None:
    # Nothing draws from the global generator between their passes when nothing is shuffled.
    loader = DataLoader(Augmented(), batch_size=6, num_workers=1, persistent_workers=True)
    noise = [row[1] for _ in range(3) for _, batch in Cursor(loader) for row in as_bits(batch)]
    assert len(set(noise)) == 3 * NUM


def test_persistent_workers_stay_the_same_processes() -> None:
    loader = DataLoader(Pids(), batch_size=6, num_workers=1, persistent_workers=True)
    pids = {int(pid) for _ in range(3) for _, batch in Cursor(loader) for pid in batch}
    assert len(pids) == 1


class Pids(Augmented):
    """The process that loads, and whether the worker's data set is the user's."""

    def __getitem__(self, index: int) -> int:
        info = get_worker_info()
        assert info is not None
        assert type(info.dataset) is Pids
        return torch.multiprocessing.current_process().pid or 0


@pytest.mark.parametrize(
    "options",
    [
        {"shuffle": True},
        {"shuffle": True, "generator": 9},
        {"shuffle": True, "persistent_workers": True},
        {"batch_size": None, "sampler": EagerSampler},
        {"sampler": LazySampler},
    ],
    ids=str,
)
def test_order_and_random_states_with_workers_are_those_of_the_loader(
    options: dict[str, Any],
) -> None:
    def trace(use: Callable[[Any], Any]) -> list[Any]:
        seed_all()
        given = {"batch_size": 4, "num_workers": 2, **options}
        if "generator" in given:
            given["generator"] = generator()
        if "sampler" in given:
            given["sampler"] = given["sampler"]()
        loader = DataLoader(Indices(), **given)
        seen: list[Any] = []
        for _ in range(2):
            seen += [(batch.tolist(), torch.rand(()).item()) for batch in use(loader)]
            seen += [random.random(), np.random.rand(), torch.get_rng_state().tolist()]
            if loader.generator is not None:
                seen.append(loader.generator.get_state().tolist())
        return seen

    assert trace(lambda loader: (batch for _, batch in Cursor(loader))) == trace(iter)


class Indices(Augmented):
    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor(index)


def test_an_error_in_a_worker_comes_through() -> None:
    class Broken(Augmented):
        def __getitem__(self, index: int) -> torch.Tensor:
            raise KeyError("no such file")

    with pytest.raises(KeyError, match="no such file"):
        list(Cursor(DataLoader(Broken(), num_workers=1)))


def worker_init(worker_id: int) -> None:
    get_worker_info().dataset.offset = 100


def double(samples: list[torch.Tensor]) -> torch.Tensor:
    return 2 * torch.stack(samples)


class Shifted(Augmented):
    offset = 0

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor(index + self.offset)


def test_init_function_collate_and_timeout_are_kept() -> None:
    loader = DataLoader(
        Shifted(),
        batch_size=4,
        num_workers=1,
        worker_init_fn=worker_init,
        collate_fn=double,
        timeout=600,
        multiprocessing_context="fork",
        prefetch_factor=3,
    )
    assert next(b.tolist() for _, b in Cursor(loader)) == [200, 202, 204, 206]


def test_the_loader_is_left_as_it_was() -> None:
    loader = WITH_WORKERS["own __iter__"]()
    before = dict(vars(loader))
    cursor = Cursor(loader)
    parts = cursor.state_dict()["parts"]
    for _ in cursor:
        assert cursor.state_dict()["parts"].keys() == parts.keys() >= {"loader.batch_sampler.own"}
        break
    assert vars(loader) == before


# -- loaders of others -------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*set_vital.*")
@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("sampler", ["shuffled", "lazy", "their own"])
def test_torchdata_s_loader_goes_on_as_if_unbroken(sampler: str, num_workers: int) -> None:
    stateful = pytest.importorskip("torchdata.stateful_dataloader")
    samplers = pytest.importorskip("torchdata.stateful_dataloader.sampler")

    def make() -> Any:
        options: dict[str, Any] = {
            "shuffled": {"shuffle": True},
            "lazy": {"sampler": LazySampler()},
            "their own": {
                "sampler": samplers.StatefulDistributedSampler(Augmented(), num_replicas=1, rank=0)
            },
        }[sampler]
        return stateful.StatefulDataLoader(
            Augmented(), batch_size=3, num_workers=num_workers, **options
        )

    check(make, list(range(1, 11)) if num_workers == 0 else [2, 5])


@pytest.mark.filterwarnings("ignore:.*set_vital.*")
def test_torchdata_s_loader_of_a_stateful_stream_goes_on_as_if_unbroken() -> None:
    stateful = pytest.importorskip("torchdata.stateful_dataloader")
    check(lambda: stateful.StatefulDataLoader(StatefulStream(), batch_size=3), list(range(1, 11)))


class NoisyStream(StatefulStream):
    """Each worker has its part, and draws for each sample when it is asked for it."""

    def __iter__(self) -> Iterator[torch.Tensor]:
        data, info = Augmented(), get_worker_info()
        first, step = (0, 1) if info is None else (info.id, info.num_workers)
        while self.position < NUM:
            self.position += 1
            if (self.position - 1) % step == first:
                yield data[self.position - 1]
        self.position = 0


class AugmentedWithState(Augmented):
    """A map-style data set with a state, which torchdata keeps for each worker."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


THEIRS: dict[str, dict[str, Any]] = {
    "stream": {"dataset": NoisyStream},
    "stream, rare snapshots": {"dataset": NoisyStream, "snapshot_every_n_steps": 3},
    "samples": {"dataset": AugmentedWithState, "shuffle": True},
    "samples, own sampler": {"dataset": AugmentedWithState, "sampler": EagerSampler},
}


@pytest.mark.filterwarnings("ignore:.*set_vital.*")
@pytest.mark.parametrize("kind", THEIRS)
def test_torchdata_s_workers_draw_what_they_draw_unbroken(kind: str) -> None:
    stateful = pytest.importorskip("torchdata.stateful_dataloader")

    def make() -> Any:
        options = {key: v() if isinstance(v, type) else v for key, v in THEIRS[kind].items()}
        return stateful.StatefulDataLoader(**options, batch_size=2, num_workers=2)

    number = sum(1 for _ in Cursor(make()))
    check(make, [1, 3, number + 1, number + 3])


@pytest.mark.filterwarnings("ignore:.*set_vital.*")
def test_with_pytorch_s_own_seeds_torchdata_s_workers_draw_something_else() -> None:
    stateful = pytest.importorskip("torchdata.stateful_dataloader")

    def make() -> Any:
        return stateful.StatefulDataLoader(NoisyStream(), batch_size=2, num_workers=2)

    whole, saved = walk(make, 1, worker_seeding="torch")
    assert resume(make, *saved[1], 1, worker_seeding="torch") != whole[2:]


@pytest.mark.parametrize("own", [False, True])
def test_a_loader_of_nodes_goes_on_as_if_unbroken(own: bool) -> None:
    nodes = pytest.importorskip("torchdata.nodes")
    data = Augmented()

    def make() -> Any:
        sampler = torch.utils.data.RandomSampler(data, generator=generator() if own else None)
        samples = nodes.Mapper(nodes.SamplerWrapper(sampler), data.__getitem__)
        return nodes.Loader(nodes.Mapper(nodes.Batcher(samples, 3, drop_last=False), torch.stack))

    # After the last batch of a pass the state of nodes does not say whether the sampler has ended.
    check(make, [1, 2, 3, 5, 6, 7, 8, 10])


def test_a_loader_of_nodes_is_read_without_a_trace_before_its_first_pass() -> None:
    nodes = pytest.importorskip("torchdata.nodes")
    loader = nodes.Loader(nodes.SamplerWrapper(torch.utils.data.RandomSampler(range(4))))
    before = torch.get_rng_state()
    Cursor(loader).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    assert loader._it is None


def test_a_stream_that_accelerate_has_prepared_goes_on_with_the_right_samples() -> None:
    accelerate = pytest.importorskip("accelerate")

    def make() -> Any:
        return accelerate.Accelerator(cpu=True).prepare(DataLoader(Plain(), batch_size=3))

    class Plain(Stream):
        def __iter__(self) -> Iterator[torch.Tensor]:
            yield from torch.arange(NUM)

    check(make, list(range(1, 11)))


@pytest.mark.filterwarnings("ignore:.*set_vital.*")
@pytest.mark.parametrize(
    ("options", "num_workers"),
    [({}, 0), ({}, 2), ({"use_seedable_sampler": True}, 0), ({"use_stateful_dataloader": True}, 0)],
    ids=str,
)
def test_a_loader_prepared_by_accelerate_goes_on_as_if_unbroken(
    options: dict[str, Any], num_workers: int
) -> None:
    accelerate = pytest.importorskip("accelerate")
    config = pytest.importorskip("accelerate.utils").DataLoaderConfiguration(**options)

    def make() -> Any:
        accelerator = accelerate.Accelerator(cpu=True, dataloader_config=config)
        return accelerator.prepare(
            DataLoader(Augmented(), batch_size=3, shuffle=True, num_workers=num_workers)
        )

    check(make, list(range(1, 11)) if num_workers == 0 else [2, 5])


@pytest.mark.parametrize("seedable", [True, False])
def test_a_prepared_loader_gives_what_it_gives_by_itself_and_counts_its_passes(
    seedable: bool,
) -> None:
    accelerate = pytest.importorskip("accelerate")
    plugin = pytest.importorskip("accelerate.utils").DataLoaderConfiguration

    def trace(use: Callable[[Any], Any]) -> list[Any]:
        seed_all()
        config = plugin(use_seedable_sampler=seedable)
        loader = accelerate.Accelerator(cpu=True, dataloader_config=config).prepare(
            DataLoader(Indices(), batch_size=3, shuffle=True)
        )
        passes = [[batch.tolist() for batch in use(loader)] for _ in range(3)]
        return [*passes, loader.iteration, torch.rand(()).item()]

    by_cursor = trace(lambda loader: (batch for _, batch in Cursor(loader)))
    assert by_cursor == trace(iter)
    assert by_cursor[0] != by_cursor[1]
    assert by_cursor[3] == 3


def test_a_prepared_loader_is_not_read_ahead_and_gives_batches_on_its_device() -> None:
    accelerate = pytest.importorskip("accelerate")
    loaded: list[int] = []

    class Watched(Indices):
        def __getitem__(self, index: int) -> torch.Tensor:
            loaded.append(index)
            return super().__getitem__(index)

    loader = accelerate.Accelerator(cpu=True).prepare(DataLoader(Watched(), batch_size=3))
    loader.device = torch.device("meta")
    for index, batch in Cursor(loader):
        assert batch.device.type == "meta"
        assert len(loaded) == min(3 * (index + 1), NUM)


def test_a_loader_of_the_users_own_around_another_keeps_its_own_way() -> None:
    class Doubling:
        def __init__(self, inner: Any) -> None:
            self.base_dataloader = inner

        def __iter__(self) -> Iterator[Any]:
            return (2 * batch for batch in self.base_dataloader)

    def make() -> Any:
        return Doubling(DataLoader(Augmented(), batch_size=3, shuffle=True))

    assert [batch.tolist() for _, batch in Cursor(Doubling(DataLoader(Indices(), 6)))] == [
        [0, 2, 4, 6, 8, 10],
        [12, 14, 16, 18, 20],
    ]
    check(make, list(range(1, 11)))


@pytest.mark.filterwarnings("ignore:.*torch.jit.*")
def test_a_loader_of_graphs_goes_on_as_if_unbroken() -> None:
    graphs = pytest.importorskip("torch_geometric.loader")

    def make() -> Any:
        return graphs.DataLoader(Augmented(), batch_size=3, shuffle=True)

    check(make, list(range(1, 11)))


def test_a_batch_sampler_of_a_distributed_run_goes_on_as_if_unbroken() -> None:
    def make() -> Any:
        sampler = torch.utils.data.DistributedSampler(
            Augmented(), num_replicas=2, rank=1, shuffle=True, seed=4
        )
        sampler.set_epoch(3)
        return DataLoader(Augmented(), batch_sampler=BatchSampler(sampler, 2, False))

    check(make, list(range(1, 9)))
    state = Cursor(make()).state_dict()
    assert state["parts"]["loader.batch_sampler.sampler.epoch"] == 3
