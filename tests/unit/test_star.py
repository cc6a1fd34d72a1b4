"""The sockets over which processes bring each other bytes; here each process is a thread."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from torch.distributed import HashStore

from deepepochs.errors import LoopException
from deepepochs.runtime.star import Star


def patient() -> None:
    """Wait on."""


@contextmanager
def made(num_processes: int, before: Callable[[Any], None] = lambda store: None) -> Iterator[Any]:
    """The stars of some processes, after something was done with the store that process 0 uses."""
    store: Any = HashStore()
    with ThreadPoolExecutor(num_processes) as pool:
        first = pool.submit(Star, 0, num_processes, store, patient)
        before(store)
        others = [
            pool.submit(Star, rank, num_processes, store, patient)
            for rank in range(1, num_processes)
        ]
        stars = [one.result(60) for one in (first, *others)]
    try:
        yield stars
    finally:
        for star in stars:
            star.close()


def gathered(stars: list[Star], values: list[bytes]) -> list[list[bytes]]:
    with ThreadPoolExecutor(len(stars)) as pool:
        found = pool.map(lambda star, own: star.gather(own, patient), stars, values)
        return [[bytes(of) for of in each] for each in found]


@pytest.mark.parametrize("num_processes", [2, 3, 5])
@pytest.mark.parametrize("size", [1, 2176, 5_000_000])
def test_each_process_gets_the_bytes_of_all_by_rank(num_processes: int, size: int) -> None:
    values = [bytes([65 + rank]) * size for rank in range(num_processes)]
    with made(num_processes) as stars:
        assert gathered(stars, values) == [values] * num_processes
        assert gathered(stars, values[::-1]) == [values[::-1]] * num_processes


def test_a_stranger_is_turned_away_and_the_processes_join() -> None:
    strangers = []

    def knock(store: Any) -> None:
        while not store.check(["deepepochs/star/0"]):
            time.sleep(0.001)
        _, port, token = json.loads(store.get("deepepochs/star/0"))
        gone, wrong, *silent = (socket.create_connection(("localhost", port), 10) for _ in range(4))
        gone.close()
        wrong.sendall(bytes(len(token) // 2) + (1).to_bytes(4, "big"))
        strangers.extend([wrong, *silent])

    with made(2, knock) as stars:  # those who are silent keep nobody waiting
        assert gathered(stars, [b"a", b"b"]) == [[b"a", b"b"]] * 2
        for stranger in strangers:
            assert stranger.recv(10) == b""
            stranger.close()


def test_a_process_that_ends_is_noticed() -> None:
    with made(3) as stars:
        stars[1].close()
        with pytest.raises(OSError, match="has ended"):
            stars[0].gather(b"a", patient)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_wait_may_be_given_up(rank: int) -> None:
    def give_up() -> None:
        raise LoopException("it never comes")

    with pytest.raises(LoopException, match="never comes"):
        Star(rank, 2, HashStore(), give_up)
    with made(2) as stars, pytest.raises(LoopException, match="never comes"):
        stars[rank].gather(b"a", give_up)


def test_a_process_that_cannot_be_reached_is_named() -> None:
    with socket.create_server(("localhost", 0)) as closed:
        port = closed.getsockname()[1]
    store: Any = HashStore()
    store.set("deepepochs/star/0", json.dumps(["localhost", port, "00" * 32]))
    with pytest.raises(ConnectionError, match=rf"port {port} of process 0 \(localhost: .*refused"):
        Star(1, 2, store, patient)


def test_processes_that_are_started_again_do_not_meet_those_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("localhost", 0)) as closed:
        port = closed.getsockname()[1]

    def give_up() -> None:
        raise LoopException("process 0 is not there yet")

    store: Any = HashStore()
    store.set("deepepochs/star/0", json.dumps(["localhost", port, "00" * 32]))
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    with pytest.raises(LoopException, match="not there yet"):
        Star(1, 2, store, give_up)


def test_another_program_at_the_port_is_not_process_0() -> None:
    with socket.create_server(("localhost", 0)) as server:

        def answer() -> None:
            for _ in range(2):  # by both names
                peer, _ = server.accept()
                peer.sendall(bytes(32))
                peer.close()

        thread = threading.Thread(target=answer)
        thread.start()
        store: Any = HashStore()
        place = ["localhost", server.getsockname()[1], "01" * 32]
        store.set("deepepochs/star/0", json.dumps(place))
        with pytest.raises(ConnectionError, match="another program answers"):
            Star(1, 2, store, patient)
        thread.join()
