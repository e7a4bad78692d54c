"""A compressed tar archive, unpacked once: gzip cannot be read from the middle."""

import gzip
import hashlib
import os
import zlib
from pathlib import Path

from facelab.data.formats.tar import BLOCK, TarFiles, is_header
from facelab.data.formats.writing import require_space, written_files
from facelab.data.synthetic.cache import cache_folder
from facelab.errors import DataError
from facelab.outside.file import opened

LARGER = 8  # times; images hardly shrink
ROOM = 1 << 26  # bytes
CHUNK = 1 << 20
SIZE = 4  # bytes at the end that say the unpacked size, modulo 2^32


def open_unpacked(path: Path) -> TarFiles:
    """The images of a ``.tar.gz``; its tar goes into the folder of caches and stays there.

    Args:
        path: The archive. Another size or time makes it another archive.

    Raises:
        DataError: If it is damaged, the disk is full, or it unpacks to more than eight times its size and 64 MiB; it
            mostly says so itself, and then nothing is written.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from None
    key = f"{path.resolve()} {status.st_size} {status.st_mtime_ns}"
    target = cache_folder() / f"unpacked-{hashlib.sha256(key.encode('utf-8', 'surrogateescape')).hexdigest()[:16]}.tar"
    if not target.is_file():
        limit, said = LARGER * status.st_size + ROOM, _said_size(path)
        if said > limit:
            _unpack(path, Path(os.devnull), limit)  # too large, or cut off, where other bytes stand for the size
        require_space(target, max(min(said, limit), status.st_size))
        with written_files(target) as (part,):
            _unpack(path, part, limit)
            TarFiles(part, path)  # a damaged one does not stay
    return TarFiles(target, path)


def _unpack(path: Path, target: Path, limit: int) -> None:
    size = 0
    with target.open("wb") as file:
        try:
            packed = opened(path)
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror}).") from None
        with packed, gzip.GzipFile(fileobj=packed) as content:
            while part := _read(content, path):
                if not size and not is_header(part[:BLOCK]):
                    raise DataError(
                        f"{path}: is not an uncompressed tar archive inside: it begins with no sound header."
                    )
                size += len(part)
                if size > limit:
                    raise DataError(
                        f"{path}: unpacks to more than {limit:,} bytes; unpack it yourself if that is right."
                    )
                file.write(part)


def _said_size(path: Path) -> int:
    """What the archive says of its unpacked size; it is no smaller, and larger if it is in parts or beyond 4 GiB."""
    try:
        with opened(path) as packed:
            packed.seek(-SIZE, os.SEEK_END)
            return int.from_bytes(packed.read(SIZE), "little")
    except OSError:
        return 0  # too short for a gzip file; reading it says so


def _read(content: gzip.GzipFile, path: Path) -> bytes:
    try:
        return content.read(CHUNK)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: is not a gzip file, or is damaged ({error}).") from None
