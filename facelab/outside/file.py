"""Opening files that somebody else names: only regular files, so that nobody waits for a pipe or reads a device."""

import errno
import io
import os
import stat
from pathlib import Path
from typing import IO

READ = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
"""Opening without blocking: a pipe that nobody writes to opens at once and is then refused."""


def open_regular(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Handle and size in bytes of a file that is open for reading.

    Raises:
        OSError: If it cannot be opened, or is a folder, pipe, device or socket; ``strerror`` says which.
    """
    try:
        handle = os.open(path, READ)
    except ValueError as error:  # a zero byte in the name
        raise OSError(errno.EINVAL, str(error)) from None
    # Of the open file, not of its name, which may be that of another one by now.
    status = os.fstat(handle)
    if stat.S_ISREG(status.st_mode):
        return handle, status.st_size
    os.close(handle)
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder")
    raise OSError(errno.EINVAL, "it is a pipe, device or socket, not a regular file")


def is_file(path: Path) -> bool:
    """Whether there is a file; a name that the system does not take, for example of 5,000 letters, is none."""
    try:
        return path.is_file()
    except OSError:
        return False


def opened(path: str | os.PathLike[str]) -> io.BufferedReader:
    """A regular file, open for reading bytes.

    Raises:
        OSError: As `open_regular`.
    """
    return os.fdopen(open_regular(path)[0], "rb")


def opened_text(
    path: str | os.PathLike[str], *, encoding: str = "utf-8-sig", errors: str = "strict", newline: str | None = None
) -> IO[str]:
    """A regular file, open for reading text; a byte-order mark is passed over.

    Raises:
        OSError: As `open_regular`.
    """
    return io.TextIOWrapper(opened(path), encoding=encoding, errors=errors, newline=newline)


def read_regular(path: str | os.PathLike[str], limit: int | None = None) -> bytes:
    """All bytes of a regular file.

    Args:
        path: The file.
        limit: Most bytes that are read.

    Raises:
        OSError: As `open_regular`, if the file is larger than ``limit``, or if it ends early.
    """
    handle, size = open_regular(path)
    try:
        if limit is not None and size > limit:
            raise OSError(errno.EFBIG, f"it has {size:,} bytes, more than the {limit:,} that are read")
        data = os.read(handle, size)
        while len(data) < size and (more := os.read(handle, size - len(data))):  # one read gives at most 2 GiB
            data += more
    finally:
        os.close(handle)
    if len(data) < size:
        raise OSError(errno.EIO, f"only {len(data)} of its {size} bytes came")
    return data


def require_regular(path: str | os.PathLike[str]) -> None:
    """Refuse what is not a regular file before a library opens it by name.

    Raises:
        OSError: As `open_regular`.
    """
    os.close(open_regular(path)[0])


def read_regular_text(path: Path, *, errors: str = "strict", limit: int | None = None) -> str:
    """The text of a regular file in UTF-8; a byte-order mark is passed over.

    Raises:
        OSError: As `read_regular`.
        UnicodeDecodeError: If it is not UTF-8.
    """
    text = read_regular(path, limit).decode("utf-8-sig", errors)
    return text.replace("\r\n", "\n").replace("\r", "\n")
