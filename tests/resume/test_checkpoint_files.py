"""One checkpoint file and the few of a run: written whole, read exactly, never lost."""

from __future__ import annotations

import errno
import io
import json
import os
import random
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter, OrderedDict, defaultdict, namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from deepepochs.checkpoint import CheckpointStore, latest_run, list_checkpoints, load, save
from deepepochs.checkpoint import seal as sealed
from deepepochs.errors import (
    CheckpointDamaged,
    CheckpointError,
    CheckpointMismatch,
    CheckpointNotFound,
    ConfigError,
)
from deepepochs.files import atomic
from deepepochs.legacy.mappings import ddict
from deepepochs.nest.codec import from_plain, to_plain
from deepepochs.nest.operations import TensorDict, TensorTuple

FAULTS = Path(__file__).parents[2] / "benchmarks" / "faults" / "write_faults.py"
CTRL_C = Path(__file__).parent / "ctrl_c_at_each_line.py"


def same(a: Any, b: Any) -> bool:
    """Equal in type and value, all the way down; NaN equals itself."""
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and bool((a == b).all())
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b or (a != a and b != b))


def names(folder: Path) -> list[str]:
    """What is in the folder, hidden files too."""
    return sorted(path.name for path in folder.iterdir())


def training_state() -> dict[str, Any]:
    """What a real run has: a model, an optimizer with momentum, a schedule, random states."""
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(0.5), nn.Linear(3, 2))
    opt = torch.optim.AdamW(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(opt, max_lr=0.1, total_steps=10)
    for _ in range(3):
        opt.zero_grad()
        model(torch.randn(8, 4)).sum().backward()
        opt.step()
        schedule.step()
    return {
        "model": model.state_dict(),
        "optimizers": [{"opt_state": opt.state_dict(), "sched_state": schedule.state_dict()}],
        "rng": {"torch": torch.get_rng_state(), "python": random.getstate()},
        "progress": {"epoch": 2, "batch": None},
    }


# --- what may be in it


def test_the_state_of_a_real_run_comes_back_exactly(tmp_path: Path) -> None:
    state = training_state()
    save(tmp_path / "x.ckpt", state)
    assert same(load(tmp_path / "x.ckpt"), state)


LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(1 << 4000), 1 << 4000)
    | st.floats()
    | st.complex_numbers()
    | st.text()
    | st.binary()
    | st.binary().map(bytearray)
    | st.sets(st.integers())
)
KEYS = st.text() | st.integers() | st.tuples(st.integers(), st.text())
STATES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(KEYS, inner, max_size=5)
    ),
    max_leaves=12,
)


@settings(max_examples=60)
@given(STATES)
def test_every_plain_value_passes_through_torchs_restricted_reader_unchanged(state: Any) -> None:
    file = io.BytesIO()
    torch.save(to_plain(state), file)
    file.seek(0)
    assert same(from_plain(torch.load(file, weights_only=True)), state)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.uint32).reshape(2, 3),
        np.array([1.5, np.nan]),
        np.array(3, dtype=">i2"),
        np.zeros((0, 2), dtype=bool),
        np.array(["a", "bcd"]),
        np.array([1 + 2j], dtype=np.complex64),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.array(["2020-01-01"], dtype="datetime64[D]"),
    ],
    ids=lambda array: array.dtype.str,
)
def test_a_numpy_array_comes_back_as_the_same_array(tmp_path: Path, array: Any) -> None:
    save(tmp_path / "x.ckpt", {"array": array})
    assert same(load(tmp_path / "x.ckpt")["array"], array)


def test_an_array_that_came_back_can_be_written_to(tmp_path: Path) -> None:
    save(tmp_path / "x.ckpt", {"array": np.zeros(2)})
    load(tmp_path / "x.ckpt")["array"][0] = 1.0


@pytest.mark.parametrize(
    ("scalar", "plain"),
    [(np.float32(0.5), 0.5), (np.int64(3), 3), (np.bool_(True), True), (np.str_("a"), "a")],
)
def test_a_numpy_scalar_comes_back_as_it_is_and_as_a_key_as_the_python_value(
    tmp_path: Path, scalar: Any, plain: Any
) -> None:
    save(tmp_path / "x.ckpt", {"x": [scalar], "y": {scalar: 1}})
    found = load(tmp_path / "x.ckpt")
    assert (type(found["x"][0]), found["x"][0]) == (type(scalar), scalar)
    assert same(found["y"], {plain: 1})


ENTRIES = {
    "array": np.arange(6, dtype=np.uint16).reshape(2, 3),
    "nested": [1, (np.int64(2), {"a": np.bool_(True)}), 2**3000, b""],
    "tuple": TensorTuple([torch.ones(2), TensorDict(a=torch.zeros(1))]),
    "dict": ddict(a={"b": np.zeros((0, 2))}),
}


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES)
def test_a_state_may_be_made_plain_and_turned_back_twice(entry: Any) -> None:
    plain = to_plain({"x": entry})
    again = to_plain(plain)
    assert repr(again) == repr(plain)
    turned = from_plain(again)["x"]
    assert type(turned) is type(entry)
    assert repr(turned) == repr(entry) == repr(from_plain(turned))
    assert repr(to_plain({"x": entry})) == repr(plain)


@pytest.mark.parametrize(
    ("early", "value"),
    [
        ({"__numpy__": torch.ones(2)}, np.ones(2, np.float32)),
        ({"__number__": torch.tensor(0.5)}, np.float32(0.5)),
        ({"__set__": [1, 2]}, {1, 2}),
        ({"__TensorTuple__": [{"__numpy__": torch.ones(1)}]}, TensorTuple([np.ones(1, "f4")])),
        ({"__ddict__": {"a": {"__set__": [1]}}}, ddict(a={1})),
        (
            {"numpy": torch.tensor([1, 0, 2, 0], dtype=torch.uint8), "dtype": "<i2", "shape": [2]},
            np.array([1, 2], np.int16),
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_forms_of_earlier_checkpoints_are_read(early: Any, value: Any) -> None:
    found = from_plain({"x": [early]})["x"][0]
    assert (type(found), repr(found)) == (type(value), repr(value))


def test_the_state_of_a_numpy_generator_comes_back_exactly(tmp_path: Path) -> None:
    generator = np.random.Generator(np.random.Philox(3))
    save(tmp_path / "x.ckpt", {"rng": generator.bit_generator.state})
    expected = generator.random(5)
    generator.bit_generator.state = load(tmp_path / "x.ckpt")["rng"]
    assert (generator.random(5) == expected).all()


Point = namedtuple("Point", "x y")


class Tagged(torch.Tensor):
    """A tensor of a class of its own."""


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (lambda: 0, "a lambda"),
        (training_state, "the function training_state"),
        (nn.Linear(1, 1), "a torch.nn.modules.linear.Linear"),
        (OSError("x"), "an OSError"),
        (defaultdict(list), "a collections.defaultdict"),
        (Point(1, 2), "Point"),
        (dict, "the class dict"),
        (Path("x"), "a pathlib"),
        (np.array([None]), "a ndarray of dtype object"),
        (torch.ones(1).as_subclass(Tagged), "Tagged"),
        (frozenset({1}), "a frozenset"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_be_saved_is_refused_with_the_path_to_it(value: Any, named: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        to_plain({"callbacks": {"x": [0, value]}})
    assert str(caught.value).startswith("state['callbacks']['x'][1]: ")
    assert named in str(caught.value)


@pytest.mark.parametrize("key", [b"bytes", 1.5j, frozenset(), (1, b"a"), "__deepepochs__"])
def test_a_key_that_cannot_be_saved_is_refused(key: Any) -> None:
    with pytest.raises(CheckpointError, match=r"the key .* of state\['x'\]"):
        to_plain({"x": {key: 1}})


def test_a_tensor_without_data_is_refused() -> None:
    with pytest.raises(CheckpointError, match="meta device"):
        to_plain({"x": torch.ones(2, device="meta")})


def test_a_state_that_holds_itself_is_refused() -> None:
    state: dict[str, Any] = {}
    state["x"] = state
    with pytest.raises(CheckpointError, match="holds itself"):
        to_plain(state)


def test_a_refused_state_leaves_no_file_and_the_old_one_untouched(tmp_path: Path) -> None:
    save(tmp_path / "x.ckpt", {"epoch": 1})
    with pytest.raises(CheckpointError):
        save(tmp_path / "x.ckpt", {"epoch": object()})
    assert load(tmp_path / "x.ckpt") == {"epoch": 1}
    assert names(tmp_path) == ["x.ckpt"]


def test_a_small_view_does_not_carry_its_base_into_the_file(tmp_path: Path) -> None:
    base = torch.randn(1_000_000)
    save(tmp_path / "x.ckpt", {"view": base[10:20], "same": base[10:20]})
    assert (tmp_path / "x.ckpt").stat().st_size < 10_000
    assert same(load(tmp_path / "x.ckpt")["view"], base[10:20].clone())


def test_tied_weights_are_written_once(tmp_path: Path) -> None:
    weight = torch.randn(100_000)
    save(tmp_path / "x.ckpt", {"a": weight, "b": weight})
    assert (tmp_path / "x.ckpt").stat().st_size < 1.2 * weight.nbytes


def test_a_parameter_is_saved_without_its_gradient_and_attributes(tmp_path: Path) -> None:
    weight = nn.Parameter(torch.ones(2))
    weight.note = object()  # type: ignore[attr-defined]
    weight.register_hook(lambda gradient: gradient)
    save(tmp_path / "x.ckpt", {"weight": weight})
    assert same(load(tmp_path / "x.ckpt")["weight"], torch.ones(2))


def test_the_versions_of_the_modules_are_kept(tmp_path: Path) -> None:
    model = nn.BatchNorm1d(2)
    save(tmp_path / "x.ckpt", {"model": model.state_dict()})
    state = load(tmp_path / "x.ckpt")["model"]
    assert isinstance(state, OrderedDict)
    assert state._metadata == model.state_dict()._metadata  # type: ignore[attr-defined]


def test_saving_leaves_the_given_state_as_it_was() -> None:
    inner = {"array": np.ones(2), "counts": Counter("ab")}
    state = {"inner": inner}
    to_plain(state)
    assert state["inner"] is inner
    assert isinstance(inner["array"], np.ndarray)


# --- the file


def test_plain_torch_load_reads_the_file(tmp_path: Path) -> None:
    save(tmp_path / "x.ckpt", {"weight": torch.ones(2)})
    content = torch.load(tmp_path / "x.ckpt", weights_only=True)
    assert content["format"] == "deepepochs"
    assert same(content["state"], {"weight": torch.ones(2)})


def test_the_folder_is_made(tmp_path: Path) -> None:
    save(tmp_path / "a" / "b" / "x.ckpt", {"epoch": 1})
    assert load(tmp_path / "a" / "b" / "x.ckpt") == {"epoch": 1}


def test_records_carry_their_crc_also_where_torch_is_told_to_leave_it_out(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        save(tmp_path / "x.ckpt", {"weight": torch.ones(2)})
        assert torch.serialization.get_crc32_options() is False
    finally:
        torch.serialization.set_crc32_options(True)
    assert same(load(tmp_path / "x.ckpt"), {"weight": torch.ones(2)})


def test_a_missing_file_is_reported_with_what_there_is(tmp_path: Path) -> None:
    save(tmp_path / "other.ckpt", {"epoch": 1})
    with pytest.raises(CheckpointNotFound, match=r"x\.ckpt: in .* there is other\.ckpt"):
        load(tmp_path / "x.ckpt")
    with pytest.raises(CheckpointNotFound, match="there is no folder"):
        load(tmp_path / "none" / "x.ckpt")


@pytest.mark.parametrize("content", [b"", b"PK\3\4", b"no archive" * 100, bytes(1000)])
def test_a_file_that_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.ckpt").write_bytes(content)
    with pytest.raises(CheckpointDamaged, match=r"x\.ckpt"):
        load(tmp_path / "x.ckpt")


def test_an_archive_that_is_not_torchs_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.ckpt", "w") as archive:
        archive.writestr("a.txt", "text")
    with pytest.raises(CheckpointDamaged, match=r"x\.ckpt"):
        load(tmp_path / "x.ckpt")


@pytest.mark.parametrize("content", [{"weight": torch.ones(1)}, [1, 2]])
def test_a_torch_file_of_another_kind_is_refused_with_what_it_holds(
    tmp_path: Path, content: Any
) -> None:
    torch.save(content, tmp_path / "x.ckpt")
    with pytest.raises(CheckpointDamaged, match=r"no checkpoint of this library: .*(weight|list)"):
        load(tmp_path / "x.ckpt")


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    torch.save({"format": "deepepochs", "schema": 99, "state": {}}, tmp_path / "x.ckpt")
    with pytest.raises(CheckpointMismatch, match="schema 99"):
        load(tmp_path / "x.ckpt")


def test_a_file_that_lost_its_seal_is_refused(tmp_path: Path) -> None:
    torch.save({"format": "deepepochs", "schema": 1, "state": {}}, tmp_path / "x.ckpt")
    with pytest.raises(CheckpointDamaged, match="seal"):
        load(tmp_path / "x.ckpt")


def test_an_archive_with_a_comment_is_not_sealed() -> None:
    file = io.BytesIO()
    torch.save({}, file)
    with zipfile.ZipFile(file, "a") as archive:
        archive.comment = b"taken"
    with pytest.raises(CheckpointError, match="cannot be sealed"):
        sealed.seal(file)


def test_the_file_of_0_6_loads_with_its_scheduler(tmp_path: Path) -> None:
    state = training_state()
    old = {
        "model_state": state["model"],
        "opt_state": state["optimizers"],
        "best_value": 0.25,
        "epoch": 7,
    }
    torch.save(old, tmp_path / "checkpoint.ckpt")
    new = load(tmp_path / "checkpoint.ckpt")
    assert same(new["model"], state["model"])
    assert same(new["optimizers"], state["optimizers"])
    assert (new["format"], new["progress"], new["best_value"]) == ("0.6", {"epoch": 7}, 0.25)


def test_a_damaged_file_of_0_6_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.ckpt"
    torch.save({"model_state": {"w": torch.ones(99)}, "opt_state": [], "epoch": 7}, path)
    content = bytearray(path.read_bytes())
    content[content.index(torch.ones(9).numpy().tobytes())] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointDamaged):
        load(path)


def test_a_folder_is_neither_written_over_nor_read(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is a folder of that name"):
        save(tmp_path, {"epoch": 1})
    with pytest.raises(CheckpointMismatch, match="is a folder"):
        load(tmp_path)


def test_a_fault_of_the_file_system_is_named_with_the_path(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(CheckpointError, match=rf"file.x\.ckpt.*{os.strerror(errno.ENOTDIR)}"):
        load(tmp_path / "file" / "x.ckpt")
    with pytest.raises(CheckpointError, match=r"cannot save .*x\.ckpt: "):
        save(tmp_path / "file" / "x.ckpt", {"epoch": 1})


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="needs posix_fadvise")
@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), OSError(errno.EIO, "bad")])
def test_what_ends_a_write_in_the_middle_leaves_no_trace_and_is_not_swallowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    save(tmp_path / "x.ckpt", {"epoch": 1})

    def interrupted(*_: Any) -> None:
        raise error

    monkeypatch.setattr(os, "posix_fadvise", interrupted)
    expected = CheckpointError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected):
        save(tmp_path / "x.ckpt", {"weight": torch.zeros(2_000_000)})
    assert names(tmp_path) == ["x.ckpt"]
    assert load(tmp_path / "x.ckpt") == {"epoch": 1}


# --- leftovers of killed processes


def leftover(folder: Path, pid: int, host: str | None = None) -> Path:
    """The temporary file that a process of that id would have left."""
    name = atomic._temporary(folder).name
    own = atomic._NAME.fullmatch(name)
    assert own
    path = folder / name.replace(f"-{own['pid']}-", f"-{pid}-")
    if host:
        path = folder / path.name.replace(f"-{own['host']}-", f"-{host}-")
    path.write_bytes(b"half")
    return path


def dead_pid() -> int:
    """The id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-S", "-c", ""])
    process.wait()
    return process.pid


def test_the_leftover_of_a_dead_process_goes_with_the_next_save(tmp_path: Path) -> None:
    dead, earlier = leftover(tmp_path, dead_pid()), leftover(tmp_path, os.getpid())
    save(tmp_path / "x.ckpt", {"epoch": 1})
    assert not dead.exists()
    assert not earlier.exists(), "an earlier process of our id, as in a restarted container"


def test_the_temporary_file_of_a_living_process_stays(tmp_path: Path) -> None:
    alive, far = leftover(tmp_path, os.getppid()), leftover(tmp_path, 1, "elsewhere")
    save(tmp_path / "x.ckpt", {"epoch": 1})
    assert alive.exists()
    assert far.exists()


def test_an_old_leftover_of_another_machine_goes(tmp_path: Path) -> None:
    far = leftover(tmp_path, 1, "elsewhere")
    os.utime(far, (1e9, 1e9))
    save(tmp_path / "x.ckpt", {"epoch": 1})
    assert not far.exists()


def test_files_of_other_names_stay(tmp_path: Path) -> None:
    for name in (".deepepochs-x.tmp", "a.tmp", ".deepepochs"):
        (tmp_path / name).write_text("mine")
    save(tmp_path / "x.ckpt", {"epoch": 1})
    assert len(names(tmp_path)) == 4


# --- the files of a run


def epochs(store: CheckpointStore) -> dict[str, int]:
    """Which epoch is in which file."""
    return {path.name: load(path)["epoch"] for path in sorted(store.folder.glob("*.ckpt"))}


def test_the_last_two_are_kept(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    for epoch in range(1, 5):
        store.save({"epoch": epoch})
    assert epochs(store) == {"checkpoint.ckpt": 4, "previous.ckpt": 3}


def test_the_best_is_kept_beside_the_last_two(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    for epoch, place in enumerate([1, None, 1, None, None], start=1):
        store.save({"epoch": epoch}, best_place=place)
    assert epochs(store) == {"best.ckpt": 3, "checkpoint.ckpt": 5, "previous.ckpt": 4}


def test_the_k_best_keep_their_order(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep_best=3)
    for epoch, place in enumerate([1, 1, 3, 2, 4], start=1):
        store.save({"epoch": epoch}, best_place=place)
    best = [load(store.best(place))["epoch"] for place in (1, 2, 3)]
    assert best == [2, 4, 1]
    assert len(list(tmp_path.glob("best*"))) == 3


def test_the_best_costs_no_second_write(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    store.save({"epoch": 1}, best_place=1)
    assert store.last.samefile(store.best())


def test_without_hard_links_the_files_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: Any) -> None:
        raise OSError(errno.EPERM, "no hard links")

    monkeypatch.setattr(os, "link", no_links)
    store = CheckpointStore(tmp_path, keep_best=2)
    for epoch, place in enumerate([1, 1, None], start=1):
        store.save({"epoch": epoch}, best_place=place)
    expected = {"best.ckpt": 2, "best-2.ckpt": 1, "checkpoint.ckpt": 3, "previous.ckpt": 2}
    assert epochs(store) == expected
    assert not atomic.leftovers(tmp_path)


@pytest.mark.parametrize(("keep", "place"), [({"keep_best": 0}, {}), ({}, {"best_place": 0})])
def test_places_count_from_one(tmp_path: Path, keep: Any, place: Any) -> None:
    with pytest.raises(ConfigError, match="=0: "):
        CheckpointStore(tmp_path, **keep).save({}, **place)


def test_the_checkpoints_are_listed_newest_first(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep_best=2)
    for epoch, place in enumerate([1, 1, None, None], start=1):
        store.save({"epoch": epoch}, best_place=place)
    (tmp_path / "best-x.ckpt").write_text("not ours")
    listed = [path.name for path in list_checkpoints(tmp_path)]
    assert listed == ["checkpoint.ckpt", "previous.ckpt", "best.ckpt", "best-2.ckpt"]


def test_the_newest_whole_one_is_taken_and_the_warning_names_both(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    for epoch in (1, 2):
        store.save({"epoch": epoch})
    store.last.write_bytes(store.last.read_bytes()[:-100])
    path, state, warnings = store.newest_good()
    assert (path, state) == (store.previous, {"epoch": 1})
    assert len(warnings) == 1
    assert str(store.last) in warnings[0]
    assert str(store.previous) in warnings[0]


def test_the_best_is_the_last_resort(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    for epoch, place in enumerate([1, None, None], start=1):
        store.save({"epoch": epoch}, best_place=place)
    for path in (store.last, store.previous):
        path.write_bytes(b"torn")
    path, state, warnings = store.newest_good()
    assert (path, state, len(warnings)) == (store.best(), {"epoch": 1}, 2)


def test_where_only_the_previous_is_left_it_is_taken_and_said(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    for epoch in (1, 2):
        store.save({"epoch": epoch})
    store.last.unlink()
    _, state, warnings = store.newest_good()
    assert state == {"epoch": 1}
    assert "checkpoint.ckpt is missing" in warnings[0]


def test_where_none_is_whole_all_are_named(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    for epoch in (1, 2):
        store.save({"epoch": epoch})
    for path in (store.last, store.previous):
        path.write_bytes(b"torn")
    with pytest.raises(CheckpointDamaged, match=r"checkpoint\.ckpt.*previous\.ckpt"):
        store.newest_good()


def test_where_there_is_none_the_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFound, match="there is nothing"):
        CheckpointStore(tmp_path).newest_good()


def test_the_latest_run_is_the_one_with_the_newest_checkpoint(tmp_path: Path) -> None:
    for run, when in (("b", 3e9), ("a", 2e9), ("c", 1e9)):
        last = CheckpointStore(tmp_path / run).save({"epoch": 1})
        os.utime(last, (when, when))
    (tmp_path / "z-logs-only").mkdir()
    (tmp_path / "file").write_text("x")
    assert latest_run(tmp_path) == tmp_path / "b"


def test_without_a_checkpoint_there_is_no_latest_run(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    assert latest_run(tmp_path) is None
    assert latest_run(tmp_path / "none") is None


# --- damage


def test_no_flipped_bit_and_no_cut_passes_unseen(tmp_path: Path) -> None:
    save(tmp_path / "x.ckpt", {"weights": [torch.full((20,), float(i)) for i in range(3)]})
    whole = (tmp_path / "x.ckpt").read_bytes()
    rng = random.Random(0)
    silent, control = [], 0
    for index in range(250):
        content, at = bytearray(whole), rng.randrange(len(whole))
        if index < 200:
            content[at] ^= 1 << rng.randrange(8)
        else:
            del content[at:]
        (tmp_path / "y.ckpt").write_bytes(content)
        try:
            load(tmp_path / "y.ckpt")
            silent.append(at)
        except CheckpointDamaged:
            pass
        control += unseen_by_torch(tmp_path / "y.ckpt")
    assert not silent
    assert control > 50, "plain torch.load sees as much: the test shows nothing"


def unseen_by_torch(path: Path) -> bool:
    try:
        torch.load(path, weights_only=True)
    except Exception:  # it raises anything on a damaged file
        return False
    return True


def test_every_bit_between_the_records_is_under_the_seal(tmp_path: Path) -> None:
    """The CRCs do not reach these bytes: names, offsets, padding, the directory, the seal."""
    save(tmp_path / "x.ckpt", {"epoch": 1})
    whole = (tmp_path / "x.ckpt").read_bytes()
    for at in range(0, len(whole), 3):
        content = bytearray(whole)
        content[at] ^= 1 << at % 8
        with pytest.raises(CheckpointDamaged):
            sealed_or_refused(bytes(content))


def sealed_or_refused(content: bytes) -> None:
    if not sealed.verify(io.BytesIO(content), "x"):
        raise CheckpointDamaged("lost its seal")


# --- faults of the machine, in small; benchmarks/faults has them in large


posix = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX")


# In memory, where fsync costs nothing: the machine's disk may be slow.
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None


def printed_json(*command: str) -> Any:
    place = {"TMPDIR": MEMORY} if MEMORY else {}
    done = subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        check=False,
        env={**os.environ, **place},
    )
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def faults() -> dict[str, dict[str, int]]:
    """The rows of the benchmark."""
    sizes = "--kills 6 --mb 8 --stops 1 --full 4 --flips 0 --cuts 0 --rounds 0 --json"
    rows: dict[str, dict[str, int]] = printed_json(str(FAULTS), *sizes.split())
    return rows


def test_ctrl_c_at_any_line_of_a_save_is_passed_on_and_loses_nothing() -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        result = printed_json(str(CTRL_C), folder)
    assert result.pop("KeyboardInterrupt") > 300
    assert result.pop("saved") == 1
    assert not any(result.values()), result


@posix
def test_kills_during_a_write_tear_nothing_and_leave_at_most_one_file(faults: Any) -> None:
    result = faults["kill during a write"]
    assert result["control: torn by plain torch.save"] > 0
    for name in ("torn", "more than one left", "leftover after Ctrl-C", "not resumable"):
        assert result[name] == 0
    assert result["leftover after the next save"] == 0


@posix
def test_a_process_that_ends_before_any_call_of_a_save_has_lost_nothing(faults: Any) -> None:
    result = faults["end before each call of a save"]
    assert result["calls"] > 5
    assert result["a file that is not whole"] == result["lost"] == 0
    # Where a second name is being given there are two for a moment, but never two files.
    assert result["two names left"] > 0 == result["more than one left"]


@posix
def test_a_full_disk_costs_nothing_but_the_save_that_met_it(faults: Any) -> None:
    result = faults["disk full"]
    assert result["control: plain torch.save leaves a torn file"] == 4
    for name in ("no error", "error without path and cause", "lost", "leftovers"):
        assert result[name] == 0
    assert result["later save or resume failed"] == 0
