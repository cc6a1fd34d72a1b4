"""Proof that a ``torch.save`` file is the one that was written, to the last bit.

Such a file is a zip archive: each record carries its CRC-32, but the bytes between the
records (headers, padding, the directory) carry nothing. :func:`seal` writes a SHA-256 of
these bytes, the directory with all the CRCs among them, into the archive's comment. No
record is read again for it, so the price does not grow with the tensors, and plain
``torch.load`` reads the file as before.

>>> import io, torch
>>> from deepepochs.checkpoint.seal import seal, verify
>>> file = io.BytesIO()
>>> torch.save({"weight": torch.ones(3)}, file)
>>> seal(file)
>>> verify(file, "x.ckpt")
True
"""

from __future__ import annotations

import hashlib
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable
from typing import IO

from ..errors import CheckpointDamaged, CheckpointError

__all__ = ["seal", "verify"]

_MARK = b"deepepochs sha256 "
_DIGEST_SIZE = 64
_END_RECORD = struct.Struct("<4s16sH")
_LOCAL_HEADER = struct.Struct("<4s22sHH")
_CHUNK = 1 << 20
# What zipfile and struct raise on bytes that are no archive.
_NOT_A_ZIP = (
    zipfile.BadZipFile,
    struct.error,
    ValueError,
    EOFError,
    OverflowError,
    RuntimeError,
)


def seal(file: IO[bytes]) -> None:
    """Append the seal to an archive that ``torch.save`` has just written.

    Args:
        file: open for reading and writing. Left at its end.

    Raises:
        CheckpointError: the archive has a comment already, or is not whole.
    """
    entries = _entries(file)
    file.seek(-_END_RECORD.size, os.SEEK_END)
    signature, content, comment_size = _END_RECORD.unpack(file.read(_END_RECORD.size))
    if signature != b"PK\5\6" or comment_size:
        raise CheckpointError("torch.save wrote an archive of a form that cannot be sealed")
    file.seek(-_END_RECORD.size, os.SEEK_END)
    file.write(_END_RECORD.pack(signature, content, len(_MARK) + _DIGEST_SIZE) + _MARK)
    digest = _digest(file, entries, end=file.tell(), check=False)
    file.seek(0, os.SEEK_END)
    file.write(digest)


def verify(file: IO[bytes], name: object) -> bool:
    """Read the whole archive and check every byte that can be checked.

    Args:
        file: open for reading.
        name: how messages call the file.

    Returns:
        Whether it is sealed. Of an archive without a seal only the records are checked.

    Raises:
        CheckpointDamaged: it is not an archive, is cut short, or was altered.
    """
    size = file.seek(0, os.SEEK_END)
    if not size:
        raise CheckpointDamaged(f"{name} is empty: it was never written to its end")
    try:
        entries = _entries(file)
        tail = b""
        if size > len(_MARK) + _DIGEST_SIZE:
            file.seek(-len(_MARK) - _DIGEST_SIZE, os.SEEK_END)
            tail = file.read()
        sealed = tail.startswith(_MARK)
        end = size - _DIGEST_SIZE if sealed else size
        digest = _digest(file, entries, end=end, check=True)
    except _NOT_A_ZIP as error:
        raise CheckpointDamaged(
            f"{name} ({size} bytes) is damaged, cut short, or not a checkpoint: {error}"
        ) from error
    if sealed and digest != tail[len(_MARK) :]:
        raise CheckpointDamaged(f"{name} is damaged: its headers do not match its seal")
    return sealed


def _entries(file: IO[bytes]) -> list[zipfile.ZipInfo]:
    with zipfile.ZipFile(file) as archive:
        return archive.infolist()


def _digest(file: IO[bytes], entries: Iterable[zipfile.ZipInfo], *, end: int, check: bool) -> bytes:
    """Hash all bytes before `end` that are no record's; with `check`, test the records' CRCs."""
    hasher = hashlib.sha256()
    position = 0
    for entry in sorted(entries, key=lambda entry: entry.header_offset):
        file.seek(entry.header_offset)
        header = file.read(_LOCAL_HEADER.size)
        signature, _, name_size, extra_size = _LOCAL_HEADER.unpack(header)
        start = entry.header_offset + len(header) + name_size + extra_size
        stored = entry.compress_type == zipfile.ZIP_STORED
        fits = position <= entry.header_offset and start + entry.file_size <= end
        if signature != b"PK\3\4" or not stored or not fits:
            raise zipfile.BadZipFile(f"the directory is wrong about record {entry.filename}")
        _hash_range(file, position, start, hasher.update)
        position = start + entry.file_size
        if check and _crc(file, entry.file_size) != entry.CRC:
            raise zipfile.BadZipFile(f"the bytes of record {entry.filename} are not those written")
    _hash_range(file, position, end, hasher.update)
    return hasher.hexdigest().encode()


def _hash_range(file: IO[bytes], start: int, end: int, update: Callable[[bytes], None]) -> None:
    file.seek(start)
    while start < end:
        chunk = file.read(min(_CHUNK, end - start))
        if not chunk:
            raise EOFError("the file ends before its directory says so")
        update(chunk)
        start += len(chunk)


def _crc(file: IO[bytes], size: int) -> int:
    value = 0
    while size:
        chunk = file.read(min(_CHUNK, size))
        if not chunk:
            raise EOFError("the file ends before its directory says so")
        value = zlib.crc32(chunk, value)
        size -= len(chunk)
    return value
