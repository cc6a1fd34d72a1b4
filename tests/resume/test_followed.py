"""What loaders and the objects in them carry is followed wherever it is, or told when it cannot be."""

from __future__ import annotations

import dataclasses
import enum
import itertools
import random
import re
import sys
import warnings
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import (
    ChainDataset,
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Subset,
    default_collate,
)

from deepepochs import CheckCallback, Trainer
from deepepochs.data import followed
from deepepochs.data.cursor import Cursor, Loaders
from deepepochs.data.followed import follow

sys.path.insert(0, str(Path(__file__).parent))
from cursor_kinds import NUM, LazySampler, StatefulSampler, as_bits, resume, through_a_file, walk

NUM_PASSES = 2


class Numbers(Dataset):
    """Rows of numbers, through transforms."""

    def __init__(self, *transforms: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self.transforms = list(transforms)

    def __len__(self) -> int:
        return NUM

    def __getitem__(self, index: int) -> torch.Tensor:
        row = torch.full((2,), float(index), dtype=torch.float64)
        for transform in self.transforms:
            row = transform(row)
        return row


class Noise:
    """Draws from a generator that is kept in a dict in another object."""

    def __init__(self, generator: Any) -> None:
        self.settings = {"inner": [Holder(generator)]}

    def __call__(self, row: torch.Tensor) -> torch.Tensor:
        generator = self.settings["inner"][0].generator_of_mine
        if isinstance(generator, torch.Generator):
            return row + torch.rand(2, generator=generator)
        draw = generator.random if hasattr(generator, "random") else generator.rand
        return row + draw()


class Holder:
    def __init__(self, generator: Any) -> None:
        self.generator_of_mine = generator
        self.myself = self  # a circle


class Warmer(Noise):
    """Counts, and so is another one for each sample."""

    def __init__(self) -> None:
        self.level = 0.0
        self.counts = {"calls": 0, 7: 0}

    def __call__(self, row: torch.Tensor) -> torch.Tensor:
        self.level += 0.25
        self.counts["calls"] += 1
        self.counts[7] += 2
        return row + self.level * self.counts["calls"] - self.counts[7]


@dataclasses.dataclass(slots=True)
class Slotted:
    """Has no ``__dict__``."""

    generator: Any = dataclasses.field(default_factory=lambda: random.Random(5))
    calls: int = 0
    late: Any = None

    def __call__(self, row: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if self.late is None:
            self.late = np.random.default_rng(8)
        return row + self.calls * self.generator.random() + self.late.random()


class Pair(NamedTuple):
    first: Any
    second: Any

    def __call__(self, row: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(row))


class Pipeline(list[Any]):
    def __call__(self, row: torch.Tensor) -> torch.Tensor:
        for transform in self:
            row = transform(row)
        return row


class Kind(enum.Enum):
    STRONG = 1


class ByKind:
    """Keeps its generators under keys that are no text."""

    def __init__(self) -> None:
        self.generators = {Kind.STRONG: random.Random(1), (1, "b"): random.Random(2)}

    def __call__(self, row: torch.Tensor) -> torch.Tensor:
        return row + sum(generator.random() for generator in self.generators.values())


class ToAndFro:
    """Walks in the one direction and then in the other."""

    def __init__(self) -> None:
        self.is_back = False
        self.phase = "first"

    def __len__(self) -> int:
        return NUM

    def __iter__(self) -> Iterator[int]:
        self.is_back, self.phase = not self.is_back, "later"
        return iter(range(NUM)[:: -1 if self.is_back else 1])


class OfItsClass:
    shared = np.random.default_rng(4)

    def __call__(self, row: torch.Tensor) -> torch.Tensor:
        return row + self.shared.random()


class Late:
    """Makes its generator at first use, and opens something, which a flag remembers."""

    def __init__(self) -> None:
        self.rng: Any = None
        self.is_open = False
        self.handle: Any = None

    def __call__(self, row: torch.Tensor) -> torch.Tensor:
        if not self.is_open:
            self.handle, self.is_open = float, True
        if self.rng is None:
            self.rng = np.random.default_rng(6)
        return row + self.handle(self.rng.random())


class KeepsState:
    """A transform that says by itself what its state is."""

    def __init__(self) -> None:
        self.hidden: list[Any] = [object(), 0]

    def __call__(self, row: torch.Tensor) -> torch.Tensor:
        self.hidden[1] += 1
        return row + self.hidden[1]

    def state_dict(self) -> dict[str, Any]:
        return {"number": self.hidden[1]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.hidden[1] = state["number"]


def counting_collate() -> Callable[[list[torch.Tensor]], torch.Tensor]:
    number, rng = 0, random.Random(8)

    def collate(samples: list[torch.Tensor]) -> torch.Tensor:
        nonlocal number
        number += 1
        return default_collate(samples) + number * rng.random()

    return collate


class Turns(LazySampler):
    """Counts its passes under a name of its own."""

    def __init__(self) -> None:
        self.turn = 0

    def __iter__(self) -> Iterator[int]:
        self.turn += 1
        seeded = torch.Generator().manual_seed(self.turn)
        return iter(torch.randperm(NUM, generator=seeded).tolist())


class Around(LazySampler):
    def __init__(self, inner: Any) -> None:
        self.deep = (inner,)

    def __iter__(self) -> Iterator[int]:
        yield from self.deep[0]


class Shuffles(LazySampler):
    """Keeps its order, and shuffles it in place each time."""

    def __init__(self, order: Any) -> None:
        self.order = order

    def __iter__(self) -> Iterator[int]:
        np.random.shuffle(self.order)
        return iter([int(index) for index in self.order])


class Weights(LazySampler):
    def __init__(self) -> None:
        self.weights = torch.ones(NUM)

    def __iter__(self) -> Iterator[int]:
        drawn = torch.multinomial(self.weights, NUM, replacement=True)
        self.weights[drawn] *= 0.5
        return iter(drawn.tolist())


class Buckets:
    def __init__(self) -> None:
        self.batches = [[0, 1, 2], [3, 4, 5], [6, 7], [8, 9, 10]]

    def __len__(self) -> int:
        return 4

    def __iter__(self) -> Iterator[list[int]]:
        random.shuffle(self.batches)
        return iter(list(self.batches))


class Endless(LazySampler):
    """Goes on over its passes, and draws its seed at first use."""

    def __init__(self) -> None:
        self.seed: int | None = None
        self.at, self.order = NUM, [0]

    def __len__(self) -> int:
        return 7

    def __iter__(self) -> Iterator[int]:
        for _ in range(7):
            if self.at >= NUM:
                self.seed = int(torch.randint(99, ())) if self.seed is None else self.seed + 1
                seeded = torch.Generator().manual_seed(self.seed)
                self.at, self.order = 0, torch.randperm(NUM, generator=seeded).tolist()
            self.at += 1
            yield self.order[self.at - 1]


class Counted(IterableDataset):
    """A stream that counts what it has given."""

    def __init__(self) -> None:
        self.given = 0

    def __iter__(self) -> Iterator[torch.Tensor]:
        for index in range(5):
            self.given += 1
            yield torch.tensor([float(index), float(self.given), float(torch.rand(()))])


class Files(IterableDataset):
    def __init__(self) -> None:
        self.files = [f"part-{index}" for index in range(NUM)]

    def __iter__(self) -> Iterator[torch.Tensor]:
        random.shuffle(self.files)
        for name in self.files:
            yield torch.tensor([float(name.removeprefix("part-"))])


def sampled(sampler: Any, **options: Any) -> DataLoader[Any]:
    return DataLoader(Numbers(), batch_size=2, sampler=sampler, **options)


def transformed(*transforms: Any) -> DataLoader[Any]:
    return DataLoader(Numbers(*transforms), batch_size=3, shuffle=True)


FOLLOWED: dict[str, Callable[[], Any]] = {
    "torch generator": lambda: transformed(Noise(torch.Generator().manual_seed(1))),
    "NumPy generator": lambda: transformed(Noise(np.random.default_rng(1))),
    "RandomState": lambda: transformed(Noise(np.random.RandomState(1))),
    "Python generator": lambda: transformed(Noise(random.Random(1))),
    "generator of a class": lambda: transformed(OfItsClass()),
    "two transforms with one generator": lambda: transformed(
        *map(Noise, [np.random.default_rng(1)] * 2)
    ),
    "generator at first use": lambda: transformed(Late()),
    "counters": lambda: transformed(Warmer()),
    "slots": lambda: transformed(Slotted()),
    "named tuple of transforms": lambda: transformed(Pair(Warmer(), Noise(random.Random(1)))),
    "transforms in a class of lists": lambda: transformed(Pipeline([Slotted(), Warmer()])),
    "keys that are no text": lambda: transformed(ByKind()),
    "sampler with a flag": lambda: sampled(ToAndFro()),
    "state of a transform": lambda: transformed(KeepsState()),
    "collate function": lambda: DataLoader(Numbers(), 3, collate_fn=counting_collate()),
    "subset and concatenation": lambda: DataLoader(
        ConcatDataset([Subset(Numbers(Warmer()), range(5)), Numbers(Noise(random.Random(2)))]), 4
    ),
    "sampler that counts": lambda: sampled(Turns()),
    "sampler in a sampler": lambda: sampled(
        Around(RandomSampler(range(NUM), generator=torch.Generator().manual_seed(3)))
    ),
    "sampler with state in a sampler": lambda: sampled(Around(StatefulSampler())),
    "kept list": lambda: sampled(Shuffles(list(range(NUM)))),
    "kept array": lambda: sampled(Shuffles(np.arange(NUM))),
    "kept weights": lambda: sampled(Weights()),
    "kept batches": lambda: DataLoader(Numbers(), batch_sampler=Buckets()),
    "endless": lambda: sampled(Endless()),
    "streams": lambda: DataLoader(ChainDataset([Counted(), Counted()]), batch_size=3),
    "list of files": lambda: DataLoader(Files(), batch_size=3),
}


def fresh(kind: str) -> Callable[[], Any]:
    def make() -> Any:
        OfItsClass.shared = np.random.default_rng(4)
        return FOLLOWED[kind]()

    return make


@pytest.mark.parametrize("kind", FOLLOWED)
def test_it_goes_on_as_if_unbroken(kind: str) -> None:
    whole, saved = walk(fresh(kind), NUM_PASSES)
    for done, (state, number) in enumerate(saved, start=1):
        assert resume(fresh(kind), state, number, NUM_PASSES) == whole[done:], f"after {done}"


@pytest.mark.parametrize("kind", sorted(FOLLOWED.keys() - {"sampler with state in a sampler"}))
def test_without_it_the_rest_differs(kind: str) -> None:
    whole, saved = walk(fresh(kind), NUM_PASSES)
    at = next(index for index, (_, number) in enumerate(saved) if number == 1)
    state, number = through_a_file(saved[at])
    state["cursor"]["parts"] = Cursor(fresh(kind)()).state_dict()["parts"]
    assert resume(fresh(kind), state, number, NUM_PASSES) != whole[at + 1 :]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("kind", ["kept list", "kept batches", "endless", "sampler that counts"])
def test_samplers_are_followed_with_workers_that_load_ahead(kind: str, persistent: bool) -> None:
    def make() -> Any:
        sampler = vars(FOLLOWED[kind]())
        keys = ("batch_sampler",) if kind == "kept batches" else ("sampler", "batch_size")
        return DataLoader(
            Numbers(),
            **{key: sampler[key] for key in keys},
            num_workers=2,
            persistent_workers=persistent,
        )

    whole, saved = walk(make, NUM_PASSES)
    for done in (2, len(saved) // 2 + 1):
        state, number = saved[done - 1]
        assert resume(make, state, number, NUM_PASSES) == whole[done:]


# -- settings ----------------------------------------------------------------------------------


def test_a_setting_that_a_script_changes_between_processes_is_the_scripts() -> None:
    loader = transformed(Warmer())
    before = dict(vars(loader.dataset))
    state = Cursor(loader).state_dict()
    other = transformed(Warmer())
    other.dataset.size = 64
    other.dataset.transforms[0].level = 5.0
    Cursor(other).load_state_dict(through_a_file(state))
    assert other.dataset.transforms[0].level == 5.0
    assert vars(loader.dataset) == before


def test_a_number_that_has_counted_is_the_checkpoints() -> None:
    loader = transformed(Warmer())
    list(Cursor(loader))
    other = transformed(Warmer())
    Cursor(other).load_state_dict(through_a_file(Cursor(loader).state_dict()))
    assert vars(other.dataset.transforms[0]) == vars(loader.dataset.transforms[0])


def test_looking_at_a_loader_in_one_process_puts_numbers_back_to_where_they_began() -> None:
    loader = transformed(Warmer())
    state = Cursor(loader).state_dict()
    list(Cursor(loader))
    Cursor(loader).load_state_dict(state)
    assert loader.dataset.transforms[0].counts == {"calls": 0, 7: 0}


# -- costs -------------------------------------------------------------------------------------


class Large(Numbers):
    def __init__(self, number: int) -> None:
        super().__init__()
        self.paths = [f"{index}.png" for index in range(number)]
        self.labels = np.zeros(number, np.int64)
        self.samples = [{"row": index} for index in range(number)]
        self.cache: dict[int, torch.Tensor] = {}


def test_a_walk_does_not_grow_with_the_data() -> None:
    few, many = (len(list(followed.walk(DataLoader(Large(n))))) for n in (1000, 100_000))
    assert few == many < 40


def test_a_checkpoint_holds_none_of_the_data() -> None:
    loader = DataLoader(Large(100_000), batch_size=3)
    list(Cursor(loader))
    assert follow(loader).read(loader).keys() == {"loader.generator"}


def test_a_walk_through_very_many_objects_ends() -> None:
    loader = DataLoader(Numbers())
    loader.dataset.tree = [[[Holder(None) for _ in range(50)] for _ in range(50)] for _ in range(9)]
    objects = [name for name, piece in followed.walk(loader) if piece.kind == "object"]
    assert len(objects) == followed.MAX_OBJECTS


# -- what cannot be followed -------------------------------------------------------------------


class Carries(LazySampler):
    def __init__(self) -> None:
        self.rest = itertools.cycle(range(NUM))

    def __iter__(self) -> Iterator[int]:
        return itertools.islice(self.rest, 4)

    def __len__(self) -> int:
        return 4


class MakesAgain(LazySampler):
    """Keeps an iterator that it makes anew for each pass."""

    def __iter__(self) -> Iterator[int]:
        self.rest = iter(range(NUM))
        return self.rest


class ManyIndices(LazySampler):
    def __init__(self) -> None:
        self.order = list(range(followed.MAX_ENTRIES + 1))

    def __iter__(self) -> Iterator[int]:
        random.shuffle(self.order)
        return iter([index % NUM for index in self.order[:NUM]])


class Spawns:
    """Orders each pass by a generator of its own, as NumPy advises."""

    def __init__(self, seeds: Any) -> None:
        self.seeds = seeds

    def __len__(self) -> int:
        return NUM

    def __iter__(self) -> Iterator[int]:
        (child,) = self.seeds.spawn(1)
        return iter(np.random.default_rng(child).permutation(NUM).tolist())


class BeginsLate:
    """A loader with a state, whose inner loader begins when its first batch is wanted."""

    def __init__(self) -> None:
        self.inner = DataLoader(Numbers(), 3)

    def __iter__(self) -> Iterator[Any]:
        yield from self.inner

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


UNREAD: dict[str, tuple[Callable[[], Any], str]] = {
    "an iterator that goes on": (
        lambda: sampled(Carries()),
        "sampler.rest .* is an iterator.* state_dict and",
    ),
    "the system's numbers": (
        lambda: transformed(Noise(random.SystemRandom())),
        r"dataset.transforms.0.settings.inner.0.generator_of_mine .* draws from the system",
    ),
    "a long order": (lambda: sampled(ManyIndices()), "sampler.order .* too large for a checkpoint"),
    "a generator in workers": (
        lambda: DataLoader(Numbers(Noise(random.Random(0))), 3, num_workers=1),
        "generator_of_mine .* is copied into the worker processes.* functions of torch",
    ),
    "spawned seeds": (
        lambda: sampled(Spawns(np.random.SeedSequence(1))),
        "seeds .* spawns generators",
    ),
    "spawned generators": (
        lambda: sampled(Spawns(np.random.default_rng(1))),
        "seeds .* spawns generators",
    ),
    "an inner loader": (BeginsLate, "inner .* draws a number when"),
}


def test_theirs_that_are_not_exact_are_told() -> None:
    stateful = pytest.importorskip("torchdata.stateful_dataloader")
    accelerate = pytest.importorskip("accelerate")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kept = stateful.StatefulDataLoader(Sticky(), 3, num_workers=1, persistent_workers=True)
    sent = accelerate.Accelerator(cpu=True).prepare(DataLoader(Sticky(), batch_size=3))
    for loader, name in ((kept, "loader.persistent_workers"), (sent, "loader")):
        assert [told for told, *_ in follow(loader).unread(loader)] == [name]


def spawned() -> np.random.Generator:
    (generator,) = np.random.default_rng(1).spawn(1)
    generator.spawn(2)
    return generator


READ: dict[str, Callable[[], Any]] = {
    "plain": transformed,
    "counters": lambda: transformed(Warmer()),
    "an iterator for each pass": lambda: sampled(MakesAgain()),
    "a list": lambda: [torch.ones(2, 2, dtype=torch.float64)] * 3,
    "workers": lambda: DataLoader(Numbers(), 3, shuffle=True, num_workers=1),
    "seeds that were spawned before": lambda: transformed(Noise(spawned())),
    "large and unchanged": lambda: DataLoader(Large(100_000), 3),
}


class Sums(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return (rows * self.weight).mean()


def warned_of(make: Callable[[], Any], folder: Path) -> list[str]:
    """Train for two epochs, saving after each mini-batch; give what was warned of."""
    check = CheckCallback("loss", on_stage="train", ckpt_dir=folder, every_n_batches=1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Trainer(Sums(), epochs=2, callbacks=check, show_info=False).fit(make())
    return [str(one.message) for one in caught if "resume from this checkpoint" in str(one.message)]


@pytest.mark.parametrize("kind", UNREAD)
def test_what_draws_or_counts_and_cannot_be_read_is_told_once(kind: str, tmp_path: Path) -> None:
    make, message = UNREAD[kind]
    (warned,) = warned_of(make, tmp_path)
    assert re.search(message, warned)
    assert "of the loader of train/0" in warned
    assert "not exact to the bit" in warned


@pytest.mark.parametrize("kind", READ)
def test_of_other_loaders_nothing_is_told(kind: str, tmp_path: Path) -> None:
    assert not warned_of(READ[kind], tmp_path)


# -- data sets that keep a loaded state --------------------------------------------------------


class Sticky(IterableDataset):
    """Begins each pass at the state that was loaded, for ever."""

    def __init__(self) -> None:
        self.start: dict[str, int] | None = None
        self.at = 0
        self.num_loaded = 0

    def __iter__(self) -> Iterator[torch.Tensor]:
        for index in range(self.start["at"] if self.start else 0, NUM):
            self.at = index + 1
            self.num_loaded += 1
            yield torch.tensor([float(index), float(torch.rand(()))])

    def state_dict(self) -> dict[str, Any]:
        return {"at": self.at}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.start = state


class StickyNumber(Sticky):
    def __init__(self) -> None:
        super().__init__()
        self.first = 0

    def __iter__(self) -> Iterator[torch.Tensor]:
        self.start = {"at": self.first}
        return super().__iter__()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.first = state["at"]


class CountsPasses(Sticky):
    """What is loaded stays here by right: the number of its passes."""

    def __init__(self) -> None:
        super().__init__()
        self.num_passes = 0

    def __iter__(self) -> Iterator[torch.Tensor]:
        begin, self.at = self.at % NUM, self.at % NUM
        for index in range(begin, NUM):
            self.at = index + 1
            yield torch.tensor([float(index), float(self.num_passes)])
        self.num_passes += 1

    def state_dict(self) -> dict[str, Any]:
        return {"at": self.at, "num_passes": self.num_passes}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.at, self.num_passes = state["at"], state["num_passes"]


@pytest.mark.parametrize("cls", [Sticky, StickyNumber, CountsPasses])
def test_passes_after_a_resumed_one_begin_at_the_beginning(cls: type[Sticky]) -> None:
    def make() -> DataLoader[Any]:
        return DataLoader(cls(), batch_size=3)

    whole, saved = walk(make, 3)
    for done, (state, number) in enumerate(saved, start=1):
        assert resume(make, state, number, 3) == whole[done:], f"after {done}"


def test_such_a_data_set_does_not_load_what_was_consumed() -> None:
    made: list[Sticky] = []

    def make() -> DataLoader[Any]:
        made.append(Sticky())
        return DataLoader(made[-1], batch_size=3)

    _, saved = walk(make, 1)
    resume(make, *saved[1], 1)
    assert made[-1].num_loaded == NUM - 6


# -- loaders of earlier fits -------------------------------------------------------------------


def begin(loaders: Loaders, loader: Any, fit_idx: int, saved: Any = None) -> None:
    loaders.begin({"train/0": loader}, "position", saved, fit_idx)


def test_a_loader_of_an_earlier_fit_is_saved_and_restored() -> None:
    def order(loaders: Loaders, loader: Any) -> list[Any]:
        return [as_bits(batch) for _, batch in loaders.cursor(loader, "position")]

    first, second, loaders = sampled(Turns()), sampled(Turns()), Loaders()
    begin(loaders, first, 0)
    order(loaders, first)
    begin(loaders, second, 1)
    saved = through_a_file(loaders.state_dict())
    assert saved.keys() == {"0:train/0", "train/0"}
    begin(loaders, first, 2)
    expected = order(loaders, first)

    first, second, loaders = sampled(Turns()), sampled(Turns()), Loaders()
    loaders.keep({"train/0": first}, 0)
    begin(loaders, second, 1, saved)
    begin(loaders, first, 2)
    assert order(loaders, first) == expected
    assert expected != [as_bits(batch) for _, batch in Cursor(sampled(Turns()))]


def test_a_loader_that_is_gone_is_not_kept() -> None:
    loaders = Loaders()
    begin(loaders, sampled(Turns()), 0)
    begin(loaders, sampled(Turns()), 1)
    assert loaders.state_dict().keys() == {"train/0"}


def test_many_fits_keep_no_data_of_the_fits_before(tmp_path: Path) -> None:
    check = CheckCallback("loss", on_stage="train", ckpt_dir=tmp_path)
    trainer = Trainer(Sums(), epochs=1, callbacks=check, show_info=False)
    alive, sizes = [], []
    for _ in range(12):
        loader = transformed(Warmer())
        alive.append(weakref.ref(loader.dataset))
        trainer.fit(loader, epochs=1)
        sizes.append((trainer.run_dir / "checkpoint.ckpt").stat().st_size)
    assert sum(dataset() is not None for dataset in alive) == 1
    assert sizes[-1] < 1.2 * sizes[1]  # the history grows by 11 epochs


def test_saves_between_passes_use_one_cursor(monkeypatch: pytest.MonkeyPatch) -> None:
    loaders = Loaders()
    loader = sampled(Turns())
    begin(loaders, loader, 0)
    loaders.state_dict()
    monkeypatch.setattr(Cursor, "__init__", None)  # another one would be an error
    assert loaders.state_dict().keys() == {"train/0"}


def test_a_wrapper_of_the_users_whose_attribute_is_named_as_ours_is_followed() -> None:
    class Counts:
        def __init__(self, inner: Any) -> None:
            self.inner_sampler = inner
            self.num_walks = 0

        def __iter__(self) -> Iterator[int]:
            self.num_walks += 1
            return iter(self.inner_sampler)

        def __len__(self) -> int:
            return len(self.inner_sampler)

    loader = DataLoader([1, 2, 3, 4], sampler=Counts(range(4)))  # type: ignore[arg-type]
    state = follow(loader)
    list(loader)
    assert state.read(loader)["loader.sampler.num_walks"] == 1
