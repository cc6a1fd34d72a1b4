"""Break checkpoint files in every way a machine can, and count what is lost.

Kills during a write, full disks, flipped bits and files cut short, each beside a control
(plain ``torch.save`` and ``torch.load``) that must show damage, else the test proves
nothing. POSIX only.

    python benchmarks/faults/write_faults.py                       # the whole table
    python benchmarks/faults/write_faults.py --kills 6 --mb 16 --json
    python benchmarks/faults/write_faults.py --background          # a thread writes
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from deepepochs.checkpoint import CheckpointStore, load, save
from deepepochs.checkpoint.writer import Writer, settle
from deepepochs.errors import CheckpointError
from deepepochs.files.atomic import leftovers

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
OTHER_DISK = Path("/dev/shm")


def make_state(generation: int, megabytes: float) -> dict[str, Any]:
    """A state in which every number says which generation it is of."""
    size = max(int(megabytes * 1e6 / 4 / 40), 1)
    weights = {f"w{i}": torch.full((size,), float(generation)) for i in range(40)}
    return {"generation": generation, "model": weights}


def generation_of(state: dict[str, Any]) -> int:
    """The generation of a state, all of it; raises if it is a mixture."""
    generation = int(state["generation"])
    if not all(bool((w == generation).all()) for w in state["model"].values()):
        raise ValueError("a mixture of generations")
    return generation


def is_whole(path: Path, read: Callable[[Path], Any] = load) -> bool:
    """Whether the file can be read, and is of one generation."""
    try:
        generation_of(read(path))
    except Exception:  # plain torch.load raises anything on a torn file
        return False
    return True


def plain_load(path: Path) -> Any:
    """What a loop by hand does."""
    return torch.load(path, map_location="cpu", weights_only=True)


def too_many_left(folder: Path) -> bool:
    """Whether more than one leftover takes up space; a second name of a kept file does not."""
    kept = {path.stat().st_ino for path in folder.glob("*.ckpt")}
    left = [path.stat().st_ino for path in leftovers(folder)]
    return len(left) > 2 or len(set(left) - kept) > 1


def stops(folder: Path, ways: int, writer: Writer) -> dict[str, int]:
    """End the process right before each file system call of a save, one after the other."""
    result: Counter[str] = Counter(
        {"a file that is not whole": 0, "lost": 0, "two names left": 0, "more than one left": 0}
    )
    for best_place in (None, 1, 2)[-ways:]:
        ended = False
        call = 0
        while not ended:
            call += 1
            store = CheckpointStore(folder / f"stop{best_place}-{call}", keep_best=3)
            for generation in (2, 3):
                store.save(make_state(generation, 0.001), best_place=1)
            pid = os.fork()
            if not pid:
                exit_before_call(call)
                place = best_place
                writer.write(lambda state: store.save(state, place), make_state(4, 0.001))  # noqa: B023
                writer.wait()
                os._exit(0)
            ended = os.waitpid(pid, 0)[1] == 0
            result["calls"] += not ended
            broken = [path for path in store.folder.glob("*.ckpt") if not is_whole(path)]
            result["a file that is not whole"] += len(broken)
            newest = generation_of(store.newest_good()[1])
            result["lost"] += newest != 4 if ended else newest < 3
            result["lost"] += not store.previous.exists()
            result["two names left"] += len(leftovers(store.folder)) == 2
            result["more than one left"] += too_many_left(store.folder)
            shutil.rmtree(store.folder)
    return dict(result)


def exit_before_call(number: int) -> None:
    """End this process, without any clean-up, at that call to the file system."""
    calls = iter(range(1, 1000))

    def hook(event: str, _: Any) -> None:
        if event in ("open", "os.link", "os.rename", "os.remove") and next(calls) == number:
            os._exit(9)

    sys.addaudithook(hook)


def killed_while_writing(write: Callable[[int], Any], number: int, rng: random.Random) -> None:
    """Fork a process that writes without end, and send it the signal at a random moment."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        code = 1
        try:
            write(1)
            start = time.perf_counter()
            write(2)
            os.write(writer, json.dumps(time.perf_counter() - start).encode())
            for generation in range(3, 10_000):
                write(generation)
        except KeyboardInterrupt:
            code = 130
            settle()  # as the interpreter does at its end
        finally:
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        duration = json.loads(os.read(pipe.fileno(), 100))
    time.sleep(rng.uniform(0, 2 * duration))
    os.kill(pid, number)
    os.waitpid(pid, 0)


def kills(
    folder: Path, count: int, megabytes: float, rng: random.Random, writer: Writer
) -> dict[str, int]:
    """Signals during a write, `TMPDIR` on the same and on another file system."""
    result: Counter[str] = Counter({"kills": count, "torn": 0})
    store = CheckpointStore(folder / "run")
    there = folder.stat().st_dev
    for index in range(count):
        other = OTHER_DISK if OTHER_DISK.is_dir() and index % 2 else folder
        tempfile.tempdir = None
        os.environ["TMPDIR"] = str(other)
        result["TMPDIR elsewhere"] += other.stat().st_dev != there

        def write(generation: int) -> None:
            place = 1 + generation % 2
            writer.write(lambda state: store.save(state, place), make_state(generation, megabytes))

        killed_while_writing(write, SIGNALS[index % 3], rng)
        result["torn"] += sum(not is_whole(p) for p in (store.last, store.previous))
        left = bool(leftovers(store.folder))
        result["in the middle of a write"] += left
        result["more than one left"] += too_many_left(store.folder)
        result["leftover after Ctrl-C"] += left and SIGNALS[index % 3] is signal.SIGINT
        store.save(make_state(1, megabytes))
        result["leftover after the next save"] += len(leftovers(store.folder))
        result["not resumable"] += not is_whole(store.newest_good()[0])
    target = folder / "plain.pt"
    # The fewer the kills, the sooner chance spares them all: the control goes on until one hits.
    for index in range(max(count // 3, 100)):
        if index >= max(count // 3, 4) and result["control: torn by plain torch.save"]:
            break
        killed_while_writing(lambda g: torch.save(make_state(g, megabytes), target), 9, rng)
        result["control: torn by plain torch.save"] += not is_whole(target, plain_load)
        result["control: kills"] += 1
    return dict(result)


@contextmanager
def size_limit(megabytes: float) -> Iterator[None]:
    """No file of this process may grow beyond that."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(megabytes * 1e6), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def filled(folder: Path, free_mb: float) -> Iterator[None]:
    """The disk of `folder` has no more than that left."""
    filler = folder / "filler"
    size = shutil.disk_usage(folder).free - int(free_mb * 1e6)
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(size, 1))
    try:
        yield
    finally:
        filler.unlink()


@contextmanager
def small_disk(folder: Path, megabytes: float) -> Iterator[Path | None]:
    """A tmpfs of its own, if this process may mount one."""
    place = folder / "disk"
    place.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={int(megabytes * 1e6)}"]
    try:
        mount = ["mount", *options, "tmpfs", str(place)]
        may = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except OSError:
        may = False
    try:
        yield place if may else None
    finally:
        if may:
            subprocess.run(["umount", str(place)], check=True)


def full_disk(folder: Path, count: int, rng: random.Random, writer: Writer) -> dict[str, int]:
    """Files that may not grow, and a disk without space, at random points of the write."""
    result: Counter[str] = Counter({"no error": 0})
    megabytes = 8.0
    with small_disk(folder, 6 * megabytes) as disk:
        for index in range(count):
            real = disk is not None and index % 2 == 1
            root = disk if real and disk is not None else folder
            store = CheckpointStore(root / f"run{index}")
            for generation in (1, 2):
                store.save(make_state(generation, megabytes))
            limit = rng.uniform(0.01, 0.99) * megabytes
            plain = root / "plain.pt"
            with filled(root, limit) if real else size_limit(limit):
                cause = os.strerror(errno.ENOSPC if real else errno.EFBIG)
                try:
                    writer.write(store.save, make_state(3, megabytes))
                    writer.wait()
                    result["no error"] += 1
                except CheckpointError as error:
                    named = str(store.last) in str(error) and cause in str(error)
                    result["error without path and cause"] += not named
                try:
                    torch.save(make_state(3, megabytes), plain)
                except (OSError, RuntimeError):
                    result["control: plain torch.save leaves a torn file"] += plain.exists()
                plain.unlink(missing_ok=True)
            result["real ENOSPC" if real else "file size limit"] += 1
            good = [generation_of(load(p)) for p in (store.last, store.previous)] == [2, 1]
            result["lost"] += not good
            result["leftovers"] += len(leftovers(store.folder))
            store.save(make_state(4, megabytes))
            result["later save or resume failed"] += generation_of(store.newest_good()[1]) != 4
            shutil.rmtree(store.folder)
    return dict(result)


def damage(folder: Path, flips: int, cuts: int, rng: random.Random) -> dict[str, int]:
    """One bit flipped anywhere, or the file cut short; the one before it is there."""
    result: Counter[str] = Counter({"flips": flips, "cuts": cuts, "silent": 0})
    store = CheckpointStore(folder / "damage")
    for generation in (1, 2):
        store.save(make_state(generation, 0.012))
    whole = store.last.read_bytes()
    for index in range(flips + cuts):
        content = bytearray(whole)
        if index < flips:
            content[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        else:
            del content[rng.randrange(len(whole)) :]
        store.last.write_bytes(content)
        try:
            load(store.last)
            result["silent"] += 1
        except CheckpointError:
            pass
        path, state, warnings = store.newest_good()
        named = len(warnings) == 1 and str(store.last) in warnings[0] and str(path) in warnings[0]
        result["not from the previous"] += generation_of(state) != 1 or path != store.previous
        result["warning that does not name both"] += not named
        try:
            plain_load(store.last)
            result["control: read by plain torch.load"] += 1
        except Exception:  # it raises anything on a damaged file
            pass
    return dict(result)


def price(folder: Path, megabytes: float, rounds: int = 40) -> dict[str, float]:
    """Seconds of a save (median), in turns with plain ``torch.save``, and with fsync."""
    state = make_state(1, megabytes)

    def synced() -> None:
        with (folder / "synced.pt").open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())

    ways: dict[str, Callable[[], Any]] = {
        "torch.save": lambda: torch.save(state, folder / "plain.pt"),
        "torch.save and fsync": synced,
        "ours": lambda: save(folder / "ours.ckpt", state),
        "load, ours": lambda: load(folder / "ours.ckpt"),
        "load, torch.load": lambda: plain_load(folder / "plain.pt"),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            times[name].append(time.perf_counter() - start)
    medians = {name: sorted(all_s)[rounds // 2] for name, all_s in times.items()}
    least = {f"{name}, least": min(all_s) for name, all_s in times.items()}
    return {name: round(value, 4) for name, value in (medians | least).items()}


def main() -> None:
    """Run the rows that were asked for and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--mb", type=float, default=48.0, help="size of the state that is killed")
    parser.add_argument("--stops", type=int, default=3, help="kinds of save stopped at each call")
    parser.add_argument("--full", type=int, default=20, help="full disks")
    parser.add_argument("--flips", type=int, default=1000)
    parser.add_argument("--cuts", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=40, help="saves timed; 0 for none")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="one line to be read by a program")
    parser.add_argument("--background", action="store_true", help="a thread writes")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rng, writer = random.Random(args.seed), Writer(args.background)
    rows: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if args.rounds:
            rows[f"seconds at {args.mb:g} MB"] = price(folder, args.mb, args.rounds)
        if args.kills:
            rows["kill during a write"] = kills(folder, args.kills, args.mb, rng, writer)
        if args.stops:
            rows["end before each call of a save"] = stops(folder, args.stops, writer)
        if args.full:
            rows["disk full"] = full_disk(folder, args.full, rng, writer)
        if args.flips or args.cuts:
            rows["damage"] = damage(folder, args.flips, args.cuts, rng)
    if args.json:
        sys.stdout.write(json.dumps(rows) + "\n")
        return
    for title, figures in rows.items():
        listed = ", ".join(f"{value} {name}" for name, value in figures.items())
        sys.stdout.write(f"| {title} | {listed} |\n")


if __name__ == "__main__":
    main()
