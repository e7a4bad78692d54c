"""Images and labels of a Parquet file, a row group at a time, through pyarrow."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facelab.data.base import Labels
from facelab.data.shards.parquet_layout import Chunk, read_layout, unpacked_size
from facelab.data.shards.ranged_file import RangedFile
from facelab.errors import ConfigError, DataError, did_you_mean, first_line

MOST_ROWS = 1 << 20
"""Rows of a row group; they are read together."""
MOST_BYTES = 1 << 27
"""Bytes of the images of a row group, packed and unpacked."""
BATCH = 64
"""Rows that are unpacked at once, fewer of large images: a few bytes that stand for many rows shall fill no memory."""


def pyarrow_parquet() -> tuple[ModuleType, ModuleType]:
    """The modules ``pyarrow`` and ``pyarrow.parquet``.

    Raises:
        ConfigError: If they are not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ConfigError("Parquet needs pyarrow: pip install 'facelab[parquet]'.") from None
    return pyarrow, pyarrow.parquet


@dataclass(frozen=True)
class Columns:
    """Where images and labels stand.

    Attributes:
        image: Column of encoded images, or of ``{bytes, path}`` as Hugging Face writes them; None for the only one.
        label: Column of whole numbers.
    """

    image: str | None = None
    label: str = "label"


class ParquetFile:
    """A Parquet file; reads may come from several threads.

    Args:
        file: The file.
        columns: Where images and labels stand.

    Raises:
        ConfigError: If pyarrow is not installed.
        DataError: If it is no Parquet file or is damaged, a column is missing or of another type, or a row group is too
            large.

    Attributes:
        rows: Rows of each row group, int64, (G,).
        sizes: Bytes of the images of each row group, as the file says, int64, (G,).
    """

    def __init__(self, file: RangedFile, columns: Columns) -> None:
        self.file, self._columns = file, columns
        self._of_pyarrow(self._read_layout)
        if (self.rows < 0).any() or (self.rows > MOST_ROWS).any() or (self._taken() > MOST_BYTES).any():
            raise DataError(
                f"{file.name}: has a row group of {self.rows.max()} rows and {self._taken().max()} bytes of images; up "
                f"to {MOST_ROWS} rows and {MOST_BYTES} bytes are read. Write it anew with smaller row groups."
            )

    def _read_layout(self) -> None:
        """What the end of the file says of its columns and row groups."""
        layout = read_layout(self.file)
        pyarrow, parquet = pyarrow_parquet()
        opened = parquet.ParquetFile(pyarrow.BufferReader(layout.description))
        self._metadata = opened.metadata
        self._image = self._image_column(opened.schema_arrow)
        self._check_label(opened.schema_arrow)
        self.rows: NDArray[np.int64] = np.array(layout.rows, np.int64)
        images, labels = layout.column(self._image), layout.column(self._columns.label)
        self._chunks = {
            self._image: [group[images] for group in layout.chunks],
            self._columns.label: [group[labels] for group in layout.chunks],
        }
        self.sizes: NDArray[np.int64] = np.array([chunk.unpacked for chunk in self._chunks[self._image]], np.int64)

    def _taken(self) -> NDArray[np.int64]:
        """Bytes that each row group takes by what the file says, int64, (G,)."""
        return np.array([0, *(max(c.size, c.unpacked) for of in self._chunks.values() for c in of)], np.int64)

    def labels(self) -> Labels:
        """Label of each row, int64, (N,).

        Raises:
            DataError: If one is missing or below 0, or the file is damaged.
        """
        parts = [self._group_labels(group) for group in range(len(self.rows))]
        return np.concatenate([np.zeros(0, np.int64), *parts])

    def _group_labels(self, group: int) -> Labels:
        found = np.empty(int(self.rows[group]), np.int64)
        done = 0
        for column in self._batches(group, self._columns.label):
            if column.null_count:
                raise DataError(f"{self.file.name}: row group {group} has a row without '{self._columns.label}'.")
            values = np.asarray(column.to_numpy(zero_copy_only=False))
            if len(values) and (values.min() < 0 or values.max() > (1 << 62)):
                raise DataError(
                    f"{self.file.name}: row group {group} has the '{self._columns.label}' {values.min()}; labels are "
                    "whole numbers from 0."
                )
            found[done : done + len(values)] = values
            done += len(values)
        return found

    def images(self, group: int) -> list[bytes]:
        """The encoded images of a row group, in order; of one that is missing, nothing.

        Raises:
            DataError: If the file is damaged, has changed, or unpacks to more than it says.
        """
        found, size = list[bytes](), 0
        for column in self._batches(group, self._image):
            values = column.field("bytes") if hasattr(column, "field") else column
            for value in values:
                content = value.as_py() or b""
                size += len(content)
                if size > MOST_BYTES:
                    raise DataError(f"{self.file.name}: row group {group} unpacks to more than {MOST_BYTES} bytes.")
                found.append(content)
        return found

    def _batches(self, group: int, column: str) -> Iterator[Any]:
        """A column of a row group in pieces; as many rows as the file says."""
        if not self.rows[group]:
            return  # its pages may lie nowhere
        chunk = self._chunks[column][group]
        content = self.file.read(chunk.start, chunk.size)
        unpacked = self._of_pyarrow(lambda: unpacked_size(content))
        if unpacked > MOST_BYTES:
            raise DataError(f"{self.file.name}: row group {group} unpacks to more than {MOST_BYTES} bytes.")
        opened = self._of_pyarrow(lambda: self._open(chunk, content))
        # Any of the rows may be as large as all that was stored, and several may share it.
        size = min(BATCH, max(1, MOST_BYTES // max(unpacked, 1)))
        batches = opened.iter_batches(size, row_groups=[group], columns=[column], use_threads=False)
        rows = 0
        while (batch := self._of_pyarrow(lambda: next(batches, None))) is not None:
            rows += batch.num_rows
            if rows > self.rows[group]:
                break
            yield batch.column(0)
        if rows != self.rows[group]:
            raise DataError(f"{self.file.name}: row group {group} says {self.rows[group]} rows, but has {rows}.")

    def _open(self, chunk: Chunk, content: bytes) -> Any:
        """The file for one column of a row group, of which all bytes were read; one reader serves one thread."""
        pyarrow, parquet = pyarrow_parquet()
        part = _Part(self.file.size, chunk.start, content)
        return parquet.ParquetFile(pyarrow.PythonFile(part, mode="r"), metadata=self._metadata)

    def _of_pyarrow(self, ask: Any) -> Any:
        """What pyarrow gives; what it raises becomes ours."""
        pyarrow, _ = pyarrow_parquet()
        try:
            return ask()
        except (pyarrow.ArrowException, OSError, ValueError, KeyError, OverflowError) as error:
            reason = first_line(error)[:200].rstrip(".")
            raise DataError(f"{self.file.name}: is no Parquet file, or is damaged ({reason}).") from None

    def _image_column(self, schema: Any) -> str:
        """The column of the encoded images; of a struct its part."""
        found = {field.name: _image_leaf(field) for field in schema}
        usable = [name for name, leaf in found.items() if leaf]
        name = self._columns.image
        if name is None:
            if len(usable) != 1:
                raise DataError(
                    f"{self.file.name}: has {len(usable)} columns of images ({', '.join(usable) or 'no bytes'}) among "
                    f"{', '.join(found)}; say which one with image: NAME."
                )
            name = usable[0]
        leaf = found.get(name)
        if not leaf:
            what = "no bytes, nor a struct with 'bytes'" if name in found else f"not there.{did_you_mean(name, found)}"
            raise DataError(f"{self.file.name}: the column '{name}' of images is {what} Columns: {', '.join(found)}.")
        return leaf

    def _check_label(self, schema: Any) -> None:
        pyarrow, _ = pyarrow_parquet()
        name, known = self._columns.label, list(schema.names)
        if name not in known:
            raise DataError(
                f"{self.file.name}: has no column '{name}' of labels; say which one with label: NAME. Columns: "
                f"{', '.join(known)}."
            )
        kind = schema.field(name).type
        if not pyarrow.types.is_integer(kind):
            raise DataError(f"{self.file.name}: the column '{name}' holds {kind}, but labels are whole numbers.")


def _image_leaf(field: Any) -> str:
    """Name of a column's encoded images; empty if it has none."""
    pyarrow, _ = pyarrow_parquet()
    types = pyarrow.types
    if types.is_struct(field.type):
        inner = [part for part in field.type if part.name == "bytes"]
        return f"{field.name}.bytes" if inner and _is_bytes(inner[0].type) else ""
    return field.name if _is_bytes(field.type) else ""


def _is_bytes(kind: Any) -> bool:
    pyarrow, _ = pyarrow_parquet()
    return bool(pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind))


class _Part(io.RawIOBase):
    """A file of which one part is there, as pyarrow wants it.

    Args:
        size: Of the whole file, in bytes.
        start: Where the part begins.
        content: The part.
    """

    def __init__(self, size: int, start: int, content: bytes) -> None:
        self._size, self._start, self._content = size, start, content
        self._at = 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """Where the next read begins."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place."""
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        """Bytes from here on, fewer at the end of the part.

        Raises:
            OSError: If they do not begin in the part.
        """
        begin = self._at - self._start
        if not 0 <= begin <= len(self._content):
            raise OSError("a page lies outside of its column")
        end = len(self._content) if size is None or size < 0 else begin + size
        data = self._content[begin:end]
        self._at += len(data)
        return data
