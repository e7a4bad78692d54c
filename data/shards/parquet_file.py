"""Images and labels of a Parquet file, a row group at a time, through pyarrow."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facelab.data.base import Labels
from facelab.data.shards.ranged_file import RangedFile
from facelab.errors import ConfigError, DataError, did_you_mean, first_line

MOST_ROWS = 1 << 20
"""Rows of a row group; they are read together."""
MOST_BYTES = 1 << 30
"""Bytes of the images of a row group."""
BATCH = 64
"""Rows that are unpacked at once, so that a few bytes that stand for many rows fill no memory."""


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
        if (self.rows < 0).any() or (self.rows > MOST_ROWS).any() or (self.sizes > MOST_BYTES).any():
            raise DataError(
                f"{file.name}: has a row group of {self.rows.max()} rows and {self.sizes.max()} bytes of images; up to "
                f"{MOST_ROWS} rows and {MOST_BYTES} bytes are read. Write it anew with smaller row groups."
            )

    def _read_layout(self) -> None:
        """What the end of the file says of its columns and row groups."""
        opened = self._open()
        self._metadata = opened.metadata
        self._image = self._image_column(opened.schema_arrow)
        self._check_label(opened.schema_arrow)
        groups = [self._metadata.row_group(number) for number in range(self._metadata.num_row_groups)]
        self.rows: NDArray[np.int64] = np.array([group.num_rows for group in groups], np.int64)
        chunks = [[group.column(number) for number in range(group.num_columns)] for group in groups]
        self.sizes: NDArray[np.int64] = np.array(
            [sum(c.total_uncompressed_size for c in some if c.path_in_schema == self._image) for some in chunks],
            np.int64,
        )

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
        opened = self._of_pyarrow(self._open)
        batches = opened.iter_batches(BATCH, row_groups=[group], columns=[column], use_threads=False)
        rows = 0
        while (batch := self._of_pyarrow(lambda: next(batches, None))) is not None:
            rows += batch.num_rows
            if rows > self.rows[group]:
                break
            yield batch.column(0)
        if rows != self.rows[group]:
            raise DataError(f"{self.file.name}: row group {group} says {self.rows[group]} rows, but has {rows}.")

    def _open(self) -> Any:
        pyarrow, parquet = pyarrow_parquet()
        # Opened for each read, since one reader serves one thread; what it has read of the file's end is kept.
        known = getattr(self, "_metadata", None)
        return parquet.ParquetFile(pyarrow.PythonFile(_Seekable(self.file), mode="r"), metadata=known)

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


class _Seekable(io.RawIOBase):
    """A file as pyarrow wants it."""

    def __init__(self, file: RangedFile) -> None:
        self._file, self._at = file, 0

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
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._file.size}[whence]
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        """Bytes from here on, fewer at the end of the file."""
        left = max(self._file.size - self._at, 0)
        count = left if size is None or size < 0 else min(size, left)
        data = self._file.read(self._at, count) if count else b""
        self._at += len(data)
        return data
