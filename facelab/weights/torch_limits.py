"""Limits on files of ``torch.save`` that may come from anybody, looked at before PyTorch reads them.

PyTorch's reader runs nothing that a file asks for, but it makes whatever the file describes: members that expand,
nesting so deep that Python's own code ends the process, lists that stand in each other a billion times.
"""

import pickletools
import struct
import zipfile
from collections.abc import Iterable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from facelab.errors import CheckpointError
from facelab.outside.file import opened

MAX_PICKLE = 1 << 27  # bytes of what is not a tensor
MAX_OPERATIONS = 4_000_000
MAX_DEPTH = 64
MAX_VALUES = 10_000_000  # if nothing were shared
LEGACY_PICKLES = 5  # at the beginning of files before PyTorch 1.6
MAY_BE_SHARED = 4  # times the size of the file that its tensors may have
ROOM = 1 << 26  # bytes that they may have anyhow

END, LOCATOR, END_64 = 22, 20, 76  # bytes of a zip archive's end; of what stands before it in a large one, and with it
DAMAGE = (zipfile.BadZipFile, ValueError, IndexError, KeyError, NotImplementedError, EOFError)

PUTS, GETS = frozenset(("PUT", "BINPUT", "LONG_BINPUT")), frozenset(("GET", "BINGET", "LONG_BINGET"))
CHANGES = frozenset(("APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD"))


class _LimitError(Exception):
    """A limit that is exceeded."""


def check_limits(path: Path) -> None:
    """Refuse a file of ``torch.save`` that would take more than its size suggests, or that cannot be looked through.

    Raises:
        CheckpointError: If members are compressed or overlap, pickles are too large, too deep or shared too often, or
            any of it is damaged.
        OSError: If it cannot be opened or is no regular file.
    """
    with opened(path) as file:
        try:
            if file.read(2) == b"PK":
                _check_archive(file)
            else:
                file.seek(0)
                for _ in range(LEGACY_PICKLES):
                    _check_pickle(file)
        except _LimitError as error:
            raise CheckpointError(f"'{path}' is refused: {error}; nothing of it was run.") from None
        except DAMAGE as error:  # of a part that PyTorch does not read, perhaps: the rest is not looked at then
            raise CheckpointError(f"'{path}' is not a readable checkpoint: {_reason(error)}.") from None


def check_tensor_sizes(path: Path, sizes: Iterable[int]) -> None:
    """Refuse tensors that take far more than the file does: views that repeat a few values.

    Args:
        path: The file.
        sizes: Bytes of each tensor.

    Raises:
        CheckpointError: If they take more than four times the size of the file and 64 MiB.
    """
    stored, taken = path.stat().st_size, sum(sizes)
    if taken > MAY_BE_SHARED * stored + ROOM:
        raise CheckpointError(
            f"'{path}' is refused: its tensors would take {taken:,} bytes, but the file has only {stored:,}."
        )


def _reason(error: Exception) -> str:
    if isinstance(error, (zipfile.BadZipFile, NotImplementedError)):
        return f"its archive is damaged ({str(error)[:200]})"
    return "it is no file of torch.save"


def _check_archive(file: BinaryIO) -> None:
    size = file.seek(0, 2)
    _check_end(file, size)
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise _LimitError("its archive is compressed, which torch.save never does")
        if sum(member.file_size for member in members) > size:
            raise _LimitError("the members of its archive are larger than the file")
        for member in members:
            if member.filename.lower().endswith(".pkl"):  # PyTorch takes either case
                if member.file_size > MAX_PICKLE:
                    raise _LimitError(f"beside tensors it holds more than {MAX_PICKLE:,} bytes")
                _check_pickle(BytesIO(archive.read(member)))


def _check_end(file: BinaryIO, size: int) -> None:
    """Refuse an archive in which Python and PyTorch may find two directories: one that does not lie before its end."""
    file.seek(max(0, size - END_64 - END))
    tail = file.read().rjust(END_64 + END, b"\0")
    if not tail.startswith(b"PK\5\6", END_64):
        raise zipfile.BadZipFile("it does not end with its directory")
    length, start, end = *struct.unpack_from("<II", tail, END_64 + 12), size - END
    if tail.startswith(b"PK\6\7", END_64 - LOCATOR):
        (place,) = struct.unpack_from("<Q", tail, END_64 - LOCATOR + 8)
        length, start, end = *struct.unpack_from("<QQ", tail, 40), size - END_64 - END
        if place != end or not tail.startswith(b"PK\6\6"):
            raise zipfile.BadZipFile("it does not end with its directory")
    if start + length != end:
        raise zipfile.BadZipFile("its directory does not lie at its end")


class _Node:
    """What a value would be: how deep, how many values with all that it holds, and whether another holds it."""

    __slots__ = ("depth", "held", "values")

    def __init__(self, items: Sequence["_Node"] = ()) -> None:
        self.depth, self.values, self.held = 1, 1, False
        self.take(items)

    def take(self, items: Sequence["_Node"]) -> None:
        for item in items:
            item.held = True
            self.depth = max(self.depth, 1 + item.depth)
            self.values += item.values
        if self.depth > MAX_DEPTH:
            raise _LimitError(f"it is nested more than {MAX_DEPTH} deep")
        if self.values > MAX_VALUES:
            raise _LimitError(f"it holds more than {MAX_VALUES:,} values")


def _check_pickle(file: BinaryIO) -> None:
    """Carry out a pickle with nodes in place of values."""
    stack: list[_Node | None] = []  # None is a mark
    memo: dict[Any, _Node | None] = {}
    for count, (operation, argument, _) in enumerate(pickletools.genops(file)):
        if count > MAX_OPERATIONS:
            raise _LimitError(f"it has more than {MAX_OPERATIONS:,} operations")
        if operation.name in PUTS:
            memo[argument] = stack[-1]
        elif operation.name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif operation.name in GETS:
            stack.append(memo[argument])
        elif operation.name == "MARK":
            stack.append(None)
        elif operation.name == "DUP":
            stack.append(stack[-1])
        else:
            _apply(operation, stack)


def _apply(operation: pickletools.OpcodeInfo, stack: list[_Node | None]) -> None:
    before = operation.stack_before
    taken: list[_Node] = []
    if pickletools.markobject in before:
        while (item := stack.pop()) is not None:
            taken.append(item)
        before = before[: before.index(pickletools.markobject)]
    for _ in before:
        item = stack.pop()
        if item is None:
            raise ValueError("a mark where a value is needed")
        taken.append(item)
    if operation.name in CHANGES:
        target = taken.pop()
        if target.held:
            raise _LimitError("it changes what it has put into something else")
        target.take(taken)
        stack.append(target)
    elif operation.stack_after:
        stack.append(_Node(taken))
