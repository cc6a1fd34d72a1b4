"""Sockets between process 0 and each of the others, over which each process gives bytes to all.

In a collective of gloo a message passes through several threads, in both processes. On a busy
machine each of them waits for its turn, some 4 ms. Here the main threads send and receive.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import os
import secrets
import selectors
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

_KEY = "deepepochs/star"
_TOKEN_BYTES = 32
_GREETING_S = 10.0  # for another program that stops within a greeting
_ANSWER_S = 60.0  # for process 0, which may be slow
_LOOK_S = 1.0
_STEP_S = 0.01

Waiting = Callable[[], None]
"""Called after each second of a wait; raises to give the wait up."""


class Star:
    """The connections of one process: of process 0 with all others, of another with process 0.

    All processes make it together. It is made anew for a new process group.

    Args:
        rank: of this process.
        num_processes: of the run.
        store: that of the process group.
        waiting: called for each second in which another process has not come.

    Raises:
        OSError: process 0 cannot be reached.
    """

    def __init__(self, rank: int, num_processes: int, store: Any, waiting: Waiting) -> None:
        self.rank = rank
        self.num_processes = num_processes
        self._store = store
        # torchrun keeps the store where it starts the processes again after a failure.
        self._key = f"{_KEY}/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
        self._peers = self._accept(waiting) if rank == 0 else [self._join(waiting)]
        for peer in self._peers:
            peer.settimeout(_LOOK_S)
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def gather(self, own: bytes | bytearray, waiting: Waiting) -> list[memoryview]:
        """Give the bytes of all processes, by rank; each gives as many.

        Raises:
            OSError: another process has ended.
        """
        size = len(own)
        if self.rank:
            _send(self._peers[0], own, waiting)
            everyone = _receive(self._peers[0], size * self.num_processes, waiting)
        else:
            everyone = bytearray(own)
            for peer in self._peers:
                everyone += _receive(peer, size, waiting)
            for peer in self._peers:
                _send(peer, everyone, waiting)
        view = memoryview(everyone)
        return [view[start : start + size] for start in range(0, len(view), size)]

    def close(self) -> None:
        """Close the connections; what was sent still arrives."""
        for peer in self._peers:
            peer.close()

    def _accept(self, waiting: Waiting) -> list[socket.socket]:
        """Put the port and a token into the store, and wait until the others have connected."""
        token = secrets.token_bytes(_TOKEN_BYTES)
        joined: dict[int, socket.socket] = {}
        with _listener() as listener, selectors.DefaultSelector() as speaking:
            listener.settimeout(_LOOK_S)
            speaking.register(listener, selectors.EVENT_READ)
            port = listener.getsockname()[1]
            self._store.set(self._key, json.dumps([socket.gethostname(), port, token.hex()]))
            while len(joined) < self.num_processes - 1:
                ready: list[Any] = [key.fileobj for key, _ in speaking.select(_LOOK_S)]
                if not ready:
                    waiting()
                for peer in ready:
                    if peer is listener:  # another program may connect and send nothing
                        with contextlib.suppress(OSError):
                            speaking.register(listener.accept()[0], selectors.EVENT_READ)
                        continue
                    speaking.unregister(peer)
                    if (rank := _greeted(peer, token)) is not None:
                        joined[rank] = peer
            others: list[Any] = [key.fileobj for key in speaking.get_map().values()]
            for other in others:
                other.close()
        self._store.delete_key(self._key)
        return [joined[rank] for rank in range(1, self.num_processes)]

    def _join(self, waiting: Waiting) -> socket.socket:
        """Connect with process 0, when it has said where it is."""
        begin_s = time.monotonic()
        while not self._store.check([self._key]):
            time.sleep(_STEP_S)
            if time.monotonic() - begin_s > _LOOK_S:
                begin_s += _LOOK_S
                waiting()
        name, port, token = json.loads(self._store.get(self._key))
        failed = []
        # Process 0 is where the store is, which this process has reached; or by its own name.
        for host in (getattr(self._store, "host", "localhost"), name):
            try:
                peer = socket.create_connection((host, port), _GREETING_S)
                _greet(peer, self.rank, bytes.fromhex(token))
            except OSError as error:
                failed.append(f"{host}: {error}")
            else:
                return peer
        raise ConnectionError(f"port {port} of process 0 ({'; '.join(failed)})")


def _listener() -> socket.socket:
    """Listen on a free port, over IPv6 and IPv4 where the machine has both."""
    if socket.has_dualstack_ipv6():
        with contextlib.suppress(OSError):
            return socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", 0))


def _greet(peer: socket.socket, rank: int, token: bytes) -> None:
    """Say who this process is, and wait for the answer of process 0."""
    with _closed_on_error(peer):
        peer.settimeout(_ANSWER_S)
        peer.sendall(token + rank.to_bytes(4, "big"))
        if _receive(peer, _TOKEN_BYTES, _refuse) != token:
            raise ConnectionError("another program answers")


def _greeted(peer: socket.socket, token: bytes) -> int | None:
    """Give the rank of the process that has connected; ``None`` for another program."""
    peer.settimeout(_GREETING_S)
    with contextlib.suppress(OSError), _closed_on_error(peer):
        said = bytes(_receive(peer, _TOKEN_BYTES + 4, _refuse))
        if not hmac.compare_digest(said[:_TOKEN_BYTES], token):
            raise ConnectionError("it does not know the token")
        peer.sendall(token)
        return int.from_bytes(said[_TOKEN_BYTES:], "big")
    return None


@contextlib.contextmanager
def _closed_on_error(peer: socket.socket) -> Iterator[None]:
    try:
        yield
    except OSError:
        peer.close()
        raise


def _refuse() -> None:
    raise TimeoutError("no answer")


def _send(peer: socket.socket, data: bytes | bytearray, waiting: Waiting) -> None:
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[peer.send(rest) :]
        except TimeoutError:
            waiting()


def _receive(peer: socket.socket, size: int, waiting: Waiting) -> bytearray:
    data = bytearray(size)
    rest = memoryview(data)
    while rest:
        try:
            count = peer.recv_into(rest)
        except TimeoutError:
            waiting()
            continue
        if not count:
            raise ConnectionError("the other process has ended")
        rest = rest[count:]
    return data
