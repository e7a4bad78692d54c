"""Where the columns of a Parquet file lie and to how much they unpack, before a library looks at it.

The library believes what a file says of its sizes: some kilobytes could fill the memory, and some descriptions end the
process. Names and numbers of fields are those of ``parquet.thrift``.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from facelab.data.shards.ranged_file import RangedFile
from facelab.data.shards.thrift_value import ThriftReader

MAGIC = b"PAR1"
TAIL = 1 << 16  # bytes that are read first; most descriptions are shorter
MOST_DESCRIPTION = 16 << 20  # bytes
MOST_VALUES = 1 << 21  # of a description
MOST_CHUNKS = 1 << 17  # columns of all row groups; the library takes a kilobyte for each
MOST_PAGES = 1 << 16  # of a column of a row group
PAGE_VALUES = 1000  # of the description of a page

# FileMetaData, SchemaElement, RowGroup, ColumnChunk, ColumnMetaData and PageHeader.
SCHEMA, ROW_GROUPS = 2, 4
NAME, CHILDREN = 4, 5
CHUNKS, ROWS = 1, 3
OTHER_FILE, METADATA, ENCRYPTED = 1, 3, 8
UNPACKED, PACKED, FIRST_DATA, FIRST_INDEX, FIRST_DICTIONARY = 6, 7, 9, 10, 11
PAGE_UNPACKED, PAGE_PACKED = 2, 3


@dataclass(frozen=True)
class Chunk:
    """A column of a row group.

    Attributes:
        start: Where it begins.
        size: Its bytes.
        unpacked: To how many bytes it unpacks, as the file says.
    """

    start: int
    size: int
    unpacked: int


@dataclass(frozen=True)
class Layout:
    """What the end of a file says.

    Attributes:
        description: The end of the file as a file of its own, which a library reads instead.
        columns: Names of the columns, in the order of the file; of structures, ``column.part``.
        rows: Rows of each row group.
        chunks: Of each row group, its columns.
    """

    description: bytes
    columns: tuple[str, ...]
    rows: tuple[int, ...]
    chunks: tuple[tuple[Chunk, ...], ...]

    def column(self, name: str) -> int:
        """The place of a column among the others.

        Raises:
            ValueError: If there is none, or several of that name.
        """
        if self.columns.count(name) != 1:
            raise ValueError(f"it has {self.columns.count(name)} columns '{name}'")
        return self.columns.index(name)


def read_layout(file: RangedFile) -> Layout:
    """What the end of a file says of it.

    Raises:
        ValueError: If it is no Parquet file, or says what cannot be.
        DataError: If the file cannot be read.
    """
    size = min(file.size, TAIL)
    tail = file.read(file.size - size, size)
    if len(tail) < 12 or not tail.endswith(MAGIC):
        raise ValueError("it does not end as one")
    length = int.from_bytes(tail[-8:-4], "little")
    if length > min(MOST_DESCRIPTION, file.size - 12):
        raise ValueError(f"its description has {length:,} bytes, of at most {min(MOST_DESCRIPTION, file.size - 12):,}")
    if length + 8 > size:
        tail = file.read(file.size - length - 8, length + 8)
    description = tail[-length - 8 :]
    try:
        return _layout(description, file.size)
    except (TypeError, LookupError, AttributeError) as error:  # of a field that is missing, or is of another type
        raise ValueError(f"its description lacks what each has ({type(error).__name__})") from None


def _layout(description: bytes, file_size: int) -> Layout:
    tree = ThriftReader(description, 0, MOST_VALUES).structure()
    columns = tuple(_columns(tree[SCHEMA]))
    groups = tree.get(ROW_GROUPS, [])
    if len(groups) * len(columns) > MOST_CHUNKS:
        raise ValueError(f"it has {len(groups):,} row groups of {len(columns):,} columns")
    chunks = tuple(tuple(_chunk(chunk, file_size) for chunk in group[CHUNKS]) for group in groups)
    if any(len(of_group) != len(columns) for of_group in chunks):
        raise ValueError("a row group has other columns than the file")
    rows = tuple(_whole(group[ROWS]) for group in groups)
    return Layout(MAGIC + description, columns, rows, chunks)


def _columns(schema: list[dict[int, Any]]) -> Iterator[str]:
    """Names of the columns that hold values: the schema is a tree, written from its root to its leaves."""
    above: list[tuple[str, int]] = []  # names, and how many parts of each are still to come
    for place, element in enumerate(schema):
        name, parts = element[NAME].decode("utf-8", "replace"), _whole(element.get(CHILDREN, 0))
        path = f"{above[-1][0]}.{name}" if len(above) > 1 else name  # the root's own name counts for nothing
        if place and not above:
            raise ValueError("its schema is no tree")
        if above:
            above[-1] = above[-1][0], above[-1][1] - 1
        if parts or not place:
            above.append((path, parts))
        else:
            yield path
        while above and not above[-1][1]:
            above.pop()
    if above:
        raise ValueError("its schema breaks off")


def _chunk(chunk: dict[int, Any], file_size: int) -> Chunk:
    if OTHER_FILE in chunk or ENCRYPTED in chunk or METADATA not in chunk:
        raise ValueError("a column lies in another file, or is encrypted")
    told = chunk[METADATA]
    starts = [_whole(told[FIRST_DATA]), _whole(told.get(FIRST_DICTIONARY, 0))]
    # As the library finds it: some writers say 0 where there is no dictionary.
    start = min(starts) if starts[1] > 0 else starts[0]
    size, unpacked = _whole(told[PACKED]), _whole(told[UNPACKED])
    if start < 0 or size < 0 or unpacked < 0 or start + size > file_size - 8:
        raise ValueError(f"a column has {size:,} bytes from {start:,} on, which lie outside of it")
    return Chunk(start, size, unpacked)


def unpacked_size(content: bytes) -> int:
    """To how many bytes a column of a row group unpacks, as its pages say.

    Args:
        content: All of its bytes.

    Raises:
        ValueError: If there are no such pages.
    """
    size = at = 0
    for _ in range(MOST_PAGES):
        if at == len(content):
            return size
        reader = ThriftReader(content, at, PAGE_VALUES)
        try:
            page = reader.structure()
            packed, unpacked = _whole(page[PAGE_PACKED]), _whole(page[PAGE_UNPACKED])
        except (TypeError, KeyError) as error:
            raise ValueError(f"a page says nothing of its size ({type(error).__name__})") from None
        at = reader.at + packed
        if packed < 0 or unpacked < 0 or at > len(content):
            raise ValueError(f"a page says {packed:,} bytes, which it does not have")
        size += unpacked
    raise ValueError(f"a column of a row group has more than {MOST_PAGES:,} pages")


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError("no number")
    return value
