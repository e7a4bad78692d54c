"""Text files of whole numbers, a few on each line, read by NumPy on the bytes: 16 million lines in seconds."""

from codecs import BOM_UTF8
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facelab.data.loading.ordered_map import ordered_map
from facelab.errors import DataError
from facelab.outside.file import opened

CHUNK = 1 << 22
WORKERS = 2
MAX_DIGITS = 9  # what an int32 holds in any case
SPACE, TAB, NEWLINE, ZERO = 32, 9, 10, 48

Rows = NDArray[np.int32]


def read_integer_lines(path: Path, columns: int, form: str) -> Rows:
    """All lines of a file as numbers; blank lines are passed over.

    Args:
        path: Lines of ``columns`` numbers from 0 to 999,999,999, separated by blanks or tabs.
        columns: Numbers on each line.
        form: How a line should look, for messages.

    Returns:
        int32, (N, columns).

    Raises:
        DataError: If the file is missing or empty, or a line is something else; the message names file and line.
    """
    try:
        size = path.stat().st_size
        with opened(path) as file:
            if file.read(len(BOM_UTF8)) != BOM_UTF8:
                file.seek(0)
            read = partial(_parse, path=path, columns=columns, form=form)
            parts = list(
                ordered_map(read, _whole_lines(iter(lambda: file.read(CHUNK), b"")), workers=WORKERS, ahead=WORKERS)
            )
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file.") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from None
    if not parts or not sum(map(len, parts)):
        raise DataError(f"{path}: holds no line ({size} bytes); expected '{form}'.")
    return np.concatenate(parts)


def line_of_row(path: Path, row: int) -> int:
    """The number, from 1, of the line that became row ``row`` (from 0) of `read_integer_lines`."""
    with path.open("rb") as file:
        numbers = (number for number, line in enumerate(file, 1) if line.strip())
        return next(number for place, number in enumerate(numbers) if place == row)


def _whole_lines(chunks: Iterator[bytes]) -> Iterator[tuple[int, bytes]]:
    """The same bytes cut after line ends, each part with the number of lines before it."""
    lines, rest = 0, b""
    for chunk in chunks:
        head, end, tail = chunk.rpartition(b"\n")
        if not end:
            rest += chunk
            continue
        part = rest + head + end
        yield lines, part
        lines, rest = lines + part.count(b"\n"), tail
    if rest:
        yield lines, rest + b"\n"


def _parse(part: tuple[int, bytes], path: Path, columns: int, form: str) -> Rows:
    lines, data = part
    rows = _plain_lines(data.replace(b"\r\n", b"\n") if b"\r" in data else data, columns)
    # Line by line only where something is unusual, or wrong and to be named.
    return _any_lines(path, lines, data, columns, form) if rows is None else rows


def _plain_lines(data: bytes, columns: int) -> Rows | None:
    """The numbers if every line is of the plainest form, with one separator between numbers; else None."""
    text = np.frombuffer(data, np.uint8)
    digit = (text - ZERO) < 10  # bytes below "0" wrap around
    # Digits and separators take turns, so every other change is the end of a number.
    change = np.flatnonzero(digit[1:] != digit[:-1])
    if not digit[0] or digit[-1] or len(change) % (2 * columns) != 2 * columns - 1:
        return None
    ends = change[::2]  # last digit of each number
    starts = np.concatenate(([0], change[1::2] + 1))
    lengths = ends - starts + 1
    separator = text[ends + 1].reshape(-1, columns)
    inner = separator[:, :-1]
    plain = (
        (starts[1:] - ends[:-1] == 2).all()
        and ends[-1] == len(text) - 2
        and ((inner == SPACE) | (inner == TAB)).all()
        and (separator[:, -1] == NEWLINE).all()
        and lengths.max() <= MAX_DIGITS
    )
    return _numbers(text, ends, lengths).reshape(-1, columns) if plain else None


def _numbers(text: NDArray[np.uint8], ends: NDArray[np.int64], lengths: NDArray[np.int64]) -> Rows:
    values = (text[ends] - ZERO).astype(np.int32)
    for place in range(1, int(lengths.max())):
        digit = (text[np.maximum(ends - place, 0)] - ZERO).astype(np.int32)
        values += np.where(lengths > place, digit, 0) * np.int32(10**place)
    return values


def _any_lines(path: Path, before: int, data: bytes, columns: int, form: str) -> Rows:
    rows = []
    for number, line in enumerate(data.split(b"\n")[:-1], before + 1):
        fields = line.split()
        if not fields:
            continue
        if len(fields) != columns or not all(field.isdigit() and len(field) <= MAX_DIGITS for field in fields):
            raise DataError(f"{path}:{number}: expected '{form}', got '{line.decode('utf-8', 'replace').strip()}'.")
        rows.append([int(field) for field in fields])
    return np.array(rows, np.int32).reshape(-1, columns)
