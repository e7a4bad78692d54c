"""Variables of MATLAB files: cells of texts and columns of numbers.

Of MATLAB's level 5 format (versions 5 to 7.2 of its files) only what lists of images need is read: cells, structs,
texts and full arrays of real numbers, compressed or not, in both byte orders. Sizes and counts are checked against the
bytes that are there before anything is made of them.
"""

import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facelab.errors import DataError
from facelab.outside.file import read_regular
from facelab.test_protocol.metrics.metrics import Integers

MAX_BYTES = 1 << 26  # of the file, and of a variable when it is expanded
MAX_VARIABLES = 1000  # of the file
MAX_ITEMS = 1 << 20  # of all cells and structs of a variable
DEEPEST = 8
EXACT = 1 << 53  # float64 tells whole numbers apart up to here
HEADER = 128
ALIGNED = 8
PEEK = 4096  # bytes of a compressed variable that are expanded to find its name
# The letters MI, written as one number of 16 bits.
ORDERS = {b"IM": "<", b"MI": ">"}
VERSION_5, VERSION_HDF5 = 1, 2
MATRIX, COMPRESSED = 14, 15
NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
TEXTS = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
CELL, STRUCT, CHAR = 1, 2, 4
NUMERIC = range(6, 16)
COMPLEX = 0x800


@dataclass(frozen=True)
class Struct:
    """An array of structs.

    Attributes:
        fields: Their names.
        rows: Values of the fields, for each struct.
    """

    fields: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


Variable = NDArray[Any] | str | Struct
"""A cell (an array of objects), an array of numbers, a text, or a struct."""


class _Damage(ValueError):
    """Something that the format does not allow, or that lists do not need."""


def read_variable(path: Path, name: str) -> Variable:
    """One variable of a ``.mat`` file (version 7.2 and older).

    Raises:
        DataError: If the file is missing, damaged, too large, is not a MATLAB file, has no such variable, or that holds
            anything else than cells, structs, texts and real numbers.
    """
    try:
        content = read_regular(path, MAX_BYTES)
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file.") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from None
    try:
        order = _order(content)
        for header, matrix in _variables(content, order):
            if header == name:
                return _Reader(order).matrix(matrix(), 0)[1]
    except (_Damage, struct.error, zlib.error, UnicodeDecodeError) as error:
        raise DataError(f"{path}: is not a readable MATLAB file ({error}).") from None
    raise DataError(f"{path}: has no variable '{name}'.")


def _order(content: bytes) -> str:
    mark = content[HEADER - 2 : HEADER]
    if mark not in ORDERS:
        raise _Damage("it does not begin with the header of one")
    (version,) = struct.unpack(f"{ORDERS[mark]}H", content[HEADER - 4 : HEADER - 2])
    if version >> 8 == VERSION_HDF5:
        raise _Damage("it was saved with -v7.3; save it with -v7")
    if version >> 8 != VERSION_5:
        raise _Damage(f"its version is {version:#06x}")
    return ORDERS[mark]


def _variables(content: bytes, order: str) -> Iterator[tuple[str, "_Matrix"]]:
    """Name and content of each variable; those that are not asked for are not expanded."""
    at, count = HEADER, 0
    while at < len(content):
        kind, data, at = _element(content, at, order)
        count += 1
        if count > MAX_VARIABLES:
            raise _Damage(f"it holds more than {MAX_VARIABLES:,} variables")
        if kind == COMPRESSED:
            peek = zlib.decompressobj().decompress(data, PEEK)
            kind, start, _ = _tag(peek, 0, order)
            name = _name(peek[start:], order) if kind == MATRIX else ""
            yield name, _Matrix(data, True, order)
        elif kind == MATRIX:
            yield _name(data, order), _Matrix(data, False, order)


@dataclass(frozen=True)
class _Matrix:
    """The bytes of a variable, expanded when they are asked for."""

    data: bytes
    compressed: bool
    order: str

    def __call__(self) -> bytes:
        if not self.compressed:
            return self.data
        expand = zlib.decompressobj()
        content = expand.decompress(self.data, MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise _Damage(f"the variable expands to more than {MAX_BYTES:,} bytes")
        if not expand.eof:
            raise _Damage("a compressed variable breaks off")
        return _element(content, 0, self.order)[1]


def _tag(data: bytes, at: int, order: str) -> tuple[int, int, int]:
    """Kind of the element at a place, where its data begins, and how many bytes it has."""
    kind, size = struct.unpack_from(f"{order}II", data, at)
    if kind >> 16:  # up to four bytes, in the tag itself
        if kind >> 16 > 4:
            raise _Damage(f"a small element of {kind >> 16} bytes")
        return kind & 0xFFFF, at + 4, kind >> 16
    return kind, at + 8, size


def _element(data: bytes, at: int, order: str) -> tuple[int, bytes, int]:
    """Kind and data of the element at a place, and where the next one begins."""
    kind, start, size = _tag(data, at, order)
    stop = start + size
    if stop > len(data):
        raise _Damage(f"an element of {size:,} bytes goes beyond the end")
    # Compressed elements follow each other without padding.
    padding = 0 if kind == COMPRESSED else (at - stop) % ALIGNED
    return kind, data[start:stop], stop + padding


def _name(matrix: bytes, order: str) -> str:
    """The name of a variable, the third element of its data; empty if that cannot be read."""
    try:
        at = 0
        for _ in range(2):
            at = _element(matrix, at, order)[2]
        return _element(matrix, at, order)[1].decode("latin-1")
    except (_Damage, struct.error):
        return ""


class _Reader:
    """Arrays within arrays, with a limit on depth and number."""

    def __init__(self, order: str) -> None:
        self.order = order
        self.items = 0

    def matrix(self, data: bytes, depth: int) -> tuple[str, Variable]:
        """Name and value of an array."""
        if not data:
            return "", np.zeros((0, 0))  # how an empty array in a cell is written
        if depth > DEEPEST:
            raise _Damage(f"cells and structs are nested more than {DEEPEST} deep")
        flags, at = self._integers(data, 0, 2)
        shape, at = self._integers(data, at)
        if not 2 <= len(shape) <= DEEPEST or min(shape) < 0:
            raise _Damage(f"an array of shape {shape}")
        _, name, at = _element(data, at, self.order)
        return name.decode("latin-1"), self._value(flags[0], tuple(shape), data, at, depth)

    def _value(self, flags: int, shape: tuple[int, ...], data: bytes, at: int, depth: int) -> Variable:
        kind = flags & 0xFF
        if kind == CELL:
            items, _ = self._matrices(data, at, math.prod(shape), depth)
            cell = np.empty(len(items), object)
            cell[:] = items
            # MATLAB stores arrays column by column.
            return cell.reshape(shape, order="F")
        if kind == STRUCT:
            return self._struct(shape, data, at, depth)
        if kind == CHAR:
            return self._text(shape, data, at)
        if kind not in NUMERIC or flags & COMPLEX:
            raise _Damage("it holds something else than cells, structs, texts and real numbers")
        code, values, _ = _element(data, at, self.order)
        if code not in NUMBERS or math.prod(shape) * np.dtype(NUMBERS[code]).itemsize != len(values):
            raise _Damage(f"{len(values)} bytes do not make an array of shape {shape}")
        return np.frombuffer(values, f"{self.order}{NUMBERS[code]}").reshape(shape, order="F")

    def _matrices(self, data: bytes, at: int, count: int, depth: int) -> tuple[list[Variable], int]:
        self.items += count
        if self.items > MAX_ITEMS or count * ALIGNED > len(data) - at:
            raise _Damage(f"{count:,} items in {len(data) - at:,} bytes, of {MAX_ITEMS:,} that are allowed")
        items = []
        for _ in range(count):
            kind, inner, at = _element(data, at, self.order)
            if kind != MATRIX:
                raise _Damage("a cell or struct holds something else than arrays")
            items.append(self.matrix(inner, depth + 1)[1])
        return items, at

    def _struct(self, shape: tuple[int, ...], data: bytes, at: int, depth: int) -> Struct:
        (width,), at = self._integers(data, at, 1)
        _, names, at = _element(data, at, self.order)
        if width < 1 or len(names) % width:
            raise _Damage("the names of a struct's fields")
        fields = [names[place : place + width].split(b"\0")[0] for place in range(0, len(names), width)]
        values, _ = self._matrices(data, at, math.prod(shape) * len(fields), depth)
        step = max(1, len(fields))
        rows = tuple(tuple(values[place : place + step]) for place in range(0, len(values), step))
        return Struct(tuple(field.decode("latin-1") for field in fields), rows)

    def _text(self, shape: tuple[int, ...], data: bytes, at: int) -> str:
        kind, content, _ = _element(data, at, self.order)
        if kind not in TEXTS:
            raise _Damage(f"a text of type {kind}")
        wide = TEXTS[kind] in ("utf-16", "utf-32")
        text = content.decode(TEXTS[kind] + (("-le" if self.order == "<" else "-be") if wide else ""))
        units = len(text.encode("utf-16-le", "surrogatepass")) // 2  # what MATLAB counts
        if math.prod(shape) not in (len(text), units) or math.prod(shape[:-1]) > 1:
            raise _Damage(f"{len(text)} characters do not make a text of shape {shape}")
        return text

    def _integers(self, data: bytes, at: int, count: int | None = None) -> tuple[list[int], int]:
        """The whole numbers of 32 bits in an element, and where the next one begins."""
        kind, values, following = _element(data, at, self.order)
        if kind not in (5, 6) or len(values) % 4 or (count is not None and len(values) != 4 * count):
            raise _Damage("the header of an array")
        return np.frombuffer(values, f"{self.order}{NUMBERS[kind]}").tolist(), following


def cell_text(cell: object, where: str) -> str:
    """The text inside nested 1x1 cells and structs.

    Raises:
        DataError: If there is something else.
    """
    # AgeDB-30 wraps each image's name in a struct of its own.
    for _ in range(DEEPEST):
        if isinstance(cell, str) and cell:
            return cell
        if isinstance(cell, Struct) and len(cell.rows) == 1 and cell.fields:
            cell = cell.rows[0][0]
        elif isinstance(cell, np.ndarray) and cell.dtype == object and cell.size == 1:
            cell = cell.ravel()[0]
        else:
            break
    raise DataError(f"{where} holds something else than image names.")


def texts(path: Path, name: str) -> list[str]:
    """The texts of a cell, row by row.

    Raises:
        DataError: If the file cannot be read, or the variable is no cell of texts.
    """
    cells = read_variable(path, name)
    rows = cells.ravel().tolist() if isinstance(cells, np.ndarray) and cells.dtype == object else [cells]
    return [cell_text(cell, f"{path}: {name}") for cell in rows]


def whole_numbers(path: Path, name: str) -> Integers:
    """The whole numbers of a column, (N,).

    Raises:
        DataError: If the file cannot be read, or the variable holds anything else.
    """
    values = read_variable(path, name)
    if not isinstance(values, np.ndarray) or values.dtype == object:
        raise DataError(f"{path}: {name} is not a column of whole numbers.")
    numbers: NDArray[np.float64] = values.ravel().astype(np.float64)
    if not (np.abs(numbers) < EXACT).all() or (numbers != np.floor(numbers)).any():
        raise DataError(f"{path}: {name} is not a column of whole numbers.")
    return numbers.astype(np.int64)
