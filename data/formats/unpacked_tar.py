"""A compressed tar archive, unpacked once: gzip cannot be read from the middle."""

import gzip
import hashlib
import zlib
from pathlib import Path

from facelab.data.formats.tar import TarFiles
from facelab.data.formats.writing import require_space, written_files
from facelab.data.synthetic.cache import cache_folder
from facelab.errors import DataError
from facelab.outside.file import opened

LARGER = 8  # times; images hardly shrink
ROOM = 1 << 30  # bytes
CHUNK = 1 << 20


def open_unpacked(path: Path) -> TarFiles:
    """The images of a ``.tar.gz``; its tar goes into the folder of caches and stays there.

    Args:
        path: The archive. Another size or time makes it another archive.

    Raises:
        DataError: If it is damaged, the disk is full, or it unpacks to more than eight times its size and 1 GiB.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from None
    key = f"{path.resolve()} {status.st_size} {status.st_mtime_ns}"
    target = cache_folder() / f"unpacked-{hashlib.sha256(key.encode('utf-8', 'surrogateescape')).hexdigest()[:16]}.tar"
    if not target.is_file():
        require_space(target, status.st_size)
        with written_files(target) as (part,):
            _unpack(path, part, LARGER * status.st_size + ROOM)
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
                size += len(part)
                if size > limit:
                    raise DataError(
                        f"{path}: unpacks to more than {limit:,} bytes; unpack it yourself if that is right."
                    )
                file.write(part)


def _read(content: gzip.GzipFile, path: Path) -> bytes:
    try:
        return content.read(CHUNK)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: is not a gzip file, or is damaged ({error}).") from None
