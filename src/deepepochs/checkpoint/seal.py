"""A checksum for files of ``torch.save``, which finds each bit that has changed.

Such a file is a zip archive. Each record has a CRC-32, but the bytes between the records
(headers, padding, the directory) have no checksum. :func:`seal` writes a SHA-256 of these bytes
into the archive's comment. The directory holds the CRCs, so no record is read again, and the
cost does not grow with the tensors. ``torch.load`` reads a sealed file as any other.
"""

from __future__ import annotations

import hashlib
import os
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from typing import IO

from ..errors import CheckpointDamaged, CheckpointError

_MARK = b"deepepochs sha256 "
_DIGEST_SIZE = 64
_END_RECORD = struct.Struct("<4s16sH")
_LOCAL_HEADER = struct.Struct("<4s22sHH")
_CHUNK = 1 << 20
# What zipfile and struct raise on bytes that are no archive.
_NOT_A_ZIP = (zipfile.BadZipFile, struct.error, ValueError, EOFError, OverflowError, RuntimeError)


def seal(file: IO[bytes]) -> None:
    """Append the seal to an archive that ``torch.save`` has just written to `file`.

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
    """Check every byte of an archive; without a seal, only the bytes of the records.

    Returns:
        Whether the archive has a seal.

    Raises:
        CheckpointDamaged: it is not an archive, is cut short, or was altered.
    """
    size = file.seek(0, os.SEEK_END)
    if not size:
        raise CheckpointDamaged(f"{name} is empty: it was never written to its end")
    try:
        entries = _entries(file)
        file.seek(max(size - len(_MARK) - _DIGEST_SIZE, 0))
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
    """Hash all bytes before `end` outside the records; with `check`, compare the records' CRCs."""
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
        for chunk in _chunks(file, position, start):
            hasher.update(chunk)
        position = start + entry.file_size
        if check:
            crc = 0
            for chunk in _chunks(file, start, position):
                crc = zlib.crc32(chunk, crc)
            if crc != entry.CRC:
                raise zipfile.BadZipFile(f"the bytes of record {entry.filename} have changed")
    for chunk in _chunks(file, position, end):
        hasher.update(chunk)
    return hasher.hexdigest().encode()


def _chunks(file: IO[bytes], start: int, end: int) -> Iterator[bytes]:
    file.seek(start)
    while start < end:
        chunk = file.read(min(_CHUNK, end - start))
        if not chunk:
            raise EOFError("the file ends before its directory says so")
        yield chunk
        start += len(chunk)
