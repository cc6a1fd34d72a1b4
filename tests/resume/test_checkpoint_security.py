"""A checkpoint never runs code, whoever wrote it, and the library opens no other door."""

from __future__ import annotations

import ast
import io
import os
import pickle
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from deepepochs.checkpoint import CheckpointStore, load
from deepepochs.checkpoint.seal import seal
from deepepochs.errors import CheckpointDamaged

SRC = Path(__file__).parents[2] / "src" / "deepepochs"


class Call:
    """Pickles as a call of `function`."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def touch(path: Path) -> str:
    return f"open({str(path)!r}, 'w').close()"


def nested_file(path: Path) -> bytes:
    """A whole torch file of the old form that runs code, as bytes."""
    file = io.BytesIO()
    torch.save(Call(eval, touch(path)), file, _use_new_zipfile_serialization=False)
    return file.getvalue()


PAYLOADS = {
    "os.system": lambda path: Call(os.system, f"touch '{path}'"),
    "eval": lambda path: Call(eval, touch(path)),
    "exec": lambda path: Call(exec, touch(path)),
    "storage bytes": lambda path: Call(torch.storage._load_from_bytes, nested_file(path)),
    "subprocess": lambda path: Call(subprocess.call, ["touch", str(path)]),
}
WRAPPINGS = {
    "bare": lambda evil: evil,
    "part": lambda evil: {"format": "deepepochs", "schema": 1, "state": {"callbacks": evil}},
    "0.6": lambda evil: {"model_state": {}, "opt_state": [evil], "best_value": 0.0, "epoch": 1},
    "key": lambda evil: {"format": "deepepochs", "schema": 1, "state": {(evil,): 1}},
}


@pytest.fixture(params=[None, "1"], ids=["", "no-weights-only"])
def environment(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """With and without the variable that makes torch.load trust every file."""
    if request.param:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", request.param)
    return request.param


def write_sealed(path: Path, content: Any) -> None:
    """A file with a good seal: the seal proves no origin, and must not be trusted."""
    with path.open("w+b") as file:
        torch.save(content, file)
        seal(file)


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("wrap", WRAPPINGS.values(), ids=WRAPPINGS)
@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS)
def test_no_payload_runs(tmp_path: Path, payload: Any, wrap: Any) -> None:
    write_sealed(tmp_path / "x.ckpt", wrap(payload(tmp_path / "ran")))
    with pytest.raises(CheckpointDamaged, match="refused without running"):
        load(tmp_path / "x.ckpt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS)
def test_the_payloads_do_run_where_they_are_let(tmp_path: Path, payload: Any) -> None:
    write_sealed(tmp_path / "x.ckpt", payload(tmp_path / "ran"))
    torch.load(tmp_path / "x.ckpt", weights_only=False)
    assert (tmp_path / "ran").exists()


@pytest.mark.filterwarnings("ignore:Environment variable TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD")
def test_the_variable_does_open_torch_load_where_the_argument_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    write_sealed(tmp_path / "x.ckpt", Call(eval, touch(tmp_path / "ran")))
    torch.load(tmp_path / "x.ckpt")
    assert (tmp_path / "ran").exists()


def test_the_message_names_what_the_file_asked_for(tmp_path: Path) -> None:
    write_sealed(tmp_path / "x.ckpt", Call(eval, "1"))
    with pytest.raises(CheckpointDamaged, match=r"x\.ckpt .* it asks for .*eval"):
        load(tmp_path / "x.ckpt")


def with_pickle(path: Path, content: bytes) -> None:
    """A torch archive with a hand-made pickle in it."""
    file = io.BytesIO()
    torch.save({}, file)
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(path, "w") as new:
        for entry in old.infolist():
            inside = content if entry.filename.endswith("data.pkl") else old.read(entry)
            new.writestr(entry.filename, inside)


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize(
    "dotted",
    [
        b"ctorch\nserialization.os.system\n",
        b"ctorch.serialization\nos.system\n",
        b"ctorch._utils\n_rebuild_tensor_v2.__globals__\n",
        b"cposix\nsystem\n",
        b"\x8c\x02os\x8c\x06system\x93",
    ],
    ids=["below torch", "in a name", "globals", "posix", "protocol 4"],
)
def test_no_dotted_name_reaches_a_function(tmp_path: Path, dotted: bytes) -> None:
    command = f"touch '{tmp_path / 'ran'}'".encode()
    argument = b"X" + len(command).to_bytes(4, "little") + command
    with_pickle(tmp_path / "x.ckpt", b"\x80\x02" + dotted + argument + b"\x85R.")
    with pytest.raises(CheckpointDamaged):
        load(tmp_path / "x.ckpt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.usefixtures("environment")
def test_a_bare_pickle_is_never_opened(tmp_path: Path) -> None:
    evil = Call(eval, touch(tmp_path / "ran"))
    (tmp_path / "x.ckpt").write_bytes(pickle.dumps(evil))
    (tmp_path / "y.ckpt").write_bytes(nested_file(tmp_path / "ran"))
    for name in ("x.ckpt", "y.ckpt"):
        with pytest.raises(CheckpointDamaged):
            load(tmp_path / name)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "entry",
    [
        ["array", "os.system", [1], torch.zeros(8, dtype=torch.uint8)],
        ["array", "O", [1], torch.zeros(8, dtype=torch.uint8)],
        ["array", "<f8", [9], torch.zeros(8, dtype=torch.uint8)],
        ["int", "__import__('os')"],
        ["eval", "1"],
        "int",
    ],
    ids=["no dtype", "objects", "too short", "no number", "a name", "no list"],
)
def test_a_forged_entry_is_refused(tmp_path: Path, entry: Any) -> None:
    state = {"x": {"__deepepochs__": entry}}
    write_sealed(tmp_path / "x.ckpt", {"format": "deepepochs", "schema": 1, "state": state})
    with pytest.raises(CheckpointDamaged, match=r"x\.ckpt"):
        load(tmp_path / "x.ckpt")


def test_a_foreign_file_is_not_taken_for_the_newest(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    for epoch in (1, 2):
        store.save({"epoch": epoch})
    write_sealed(store.last, Call(eval, touch(tmp_path / "ran")))
    path, state, warnings = store.newest_good()
    assert (path, state, len(warnings)) == (store.previous, {"epoch": 1}, 1)
    assert not (tmp_path / "ran").exists()


# --- the library's own code

FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}
FORBIDDEN_CALLS = {"os.system", "os.popen", "eval", "exec", "torch.jit.load"}


def openings(source: str) -> Iterator[str]:
    """Every place in the source where something foreign could be run."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (
                f"line {node.lineno}: import {alias.name}"
                for alias in node.names
                if alias.name.split(".")[0] in FORBIDDEN_MODULES
            )
        elif isinstance(node, ast.ImportFrom):
            origin = node.module or ""
            names = {alias.name for alias in node.names}
            hidden = origin.startswith("torch") and "load" in names
            hidden |= origin == "os" and bool(names & {"system", "popen"})
            if origin.split(".")[0] in FORBIDDEN_MODULES or hidden:
                yield f"line {node.lineno}: from {origin} import {', '.join(names)}"
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            given = {word.arg: ast.unparse(word.value) for word in node.keywords}
            loads = called in ("torch.load", "torch.serialization.load")
            if (
                called in FORBIDDEN_CALLS
                or (loads and given.get("weights_only") != "True")
                or given.get("shell", "False") != "False"
                or given.get("allow_pickle", "False") != "False"
            ):
                yield f"line {node.lineno}: {ast.unparse(node)}"


@pytest.mark.parametrize("path", sorted(SRC.rglob("*.py")), ids=lambda path: path.stem)
def test_the_source_opens_no_door(path: Path) -> None:
    found = list(openings(path.read_text(encoding="utf-8")))
    if path.relative_to(SRC) in (Path("runtime/exchange.py"), Path("verify/processes.py")):
        # What the processes of one run send each other, as `all_gather_object` of torch does, and
        # what a process gives to those that it starts.
        assert [text.partition(": ")[2] for text in found] == ["import pickle"]
    else:
        assert not found


@pytest.mark.parametrize(
    "source",
    [
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=flag)",
        "from torch import load",
        "subprocess.run(command, shell=True)",
        "os.system('ls')",
        "from os import system",
        "import pickle",
        "from pickle import loads",
        "eval(text)",
        "np.load(path, allow_pickle=True)",
    ],
)
def test_an_open_door_is_found(source: str) -> None:
    assert list(openings(source))


@pytest.mark.parametrize(
    "source", ["torch.load(path, weights_only=True)", "subprocess.run(['ls'])", "model.eval()"]
)
def test_a_closed_door_is_not_reported(source: str) -> None:
    assert not list(openings(source))


def test_there_is_a_torch_load_to_watch() -> None:
    assert any("torch.load(" in path.read_text(encoding="utf-8") for path in SRC.rglob("*.py"))
