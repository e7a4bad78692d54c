"""A pickle reader that can build plain data only: it never imports, calls or changes anything, whatever the file says.

Python's own unpickler runs code that a file names; restricting the names it may look up still leaves it able to change
the allowed objects and to reserve memory at will. Here each operation is carried out by hand on lists, tuples,
dictionaries, bytes, text, numbers, and arrays of uint8 or bool; everything else is refused by name. A list or
dictionary has one place, and depth is limited: no small file becomes a large tree, or one too deep to walk.
"""

import codecs
import mmap
import pickletools
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facelab.errors import DataError
from facelab.outside.file import opened

MAX_OPERATIONS = 40_000_000  # a million images stored as arrays take half of that; more is an attack on the memory
MAX_DEPTH = 16
SHARED_TUPLE = 8  # longest tuple of numbers and the like that may stand in several places: the shape of an array
LONGEST_SHOWN = 60  # characters of what is refused
ENCODE, RECONSTRUCT, NDARRAY, DTYPE = "encode", "reconstruct", "ndarray", "dtype"
SCALAR, FROMBUFFER, NO_BYTES = "scalar", "frombuffer", "no bytes"
PLAIN_DTYPES = {"u1": np.dtype(np.uint8), "uint8": np.dtype(np.uint8), "b1": np.dtype(np.bool_)}
_MARK = object()


@dataclass(frozen=True)
class _Global:
    """A name of the file that this reader acts out itself; nothing is imported."""

    role: str


@dataclass
class _Array:
    """An array whose content follows in a later operation."""

    values: NDArray[Any] | None = None


class _RefusedError(Exception):
    """Something that plain data does not need."""


def _globals() -> dict[tuple[str, str], _Global]:
    known = {("_codecs", "encode"): ENCODE, ("numpy", "ndarray"): NDARRAY, ("numpy", "dtype"): DTYPE}
    known |= {("builtins", "bytes"): NO_BYTES, ("__builtin__", "bytes"): NO_BYTES}
    for core in ("numpy.core", "numpy._core"):  # the second since numpy 2
        known[f"{core}.multiarray", "_reconstruct"] = RECONSTRUCT
        known[f"{core}.multiarray", "scalar"] = SCALAR
        known[f"{core}.numeric", "_frombuffer"] = FROMBUFFER
    return {name: _Global(role) for name, role in known.items()}


GLOBALS = _globals()
OPERATIONS = {operation.code: operation for operation in pickletools.opcodes}
CONSTANTS = {
    "NONE": None,
    "NEWTRUE": True,
    "NEWFALSE": False,
    "EMPTY_TUPLE": (),
}
NUMBERS = frozenset(("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"))
TEXTS = frozenset(("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"))
ARGUMENTS = NUMBERS | TEXTS | frozenset(("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"))
PYTHON_2_STRINGS = frozenset(("STRING", "BINSTRING", "SHORT_BINSTRING"))
CONTAINERS = (list, tuple, dict)
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
PUTS, GETS = frozenset(("PUT", "BINPUT", "LONG_BINPUT")), frozenset(("GET", "BINGET", "LONG_BINGET"))
IGNORED = frozenset(("PROTO", "FRAME", "STOP"))


def read_plain_pickle(path: Path) -> Any:
    """The content of a pickle of plain data: lists, tuples, dictionaries, bytes, text, numbers, uint8 and bool arrays.

    8-bit strings of Python 2 become bytes.

    Raises:
        DataError: If the file is missing, is damaged, or holds anything else; nothing of it has run then.
    """
    try:
        with opened(path) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return _plain(_Machine().run(content))
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file.") from None
    except _RefusedError as refusal:
        raise DataError(f"{path}: refused, because {refusal}; nothing of it was run.") from None
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, struct.error, OSError) as error:
        raise DataError(f"{path}: is not a readable pickle ({str(error)[:200]}).") from None


def _operations(content: Any) -> Iterator[tuple[str, Any]]:
    """Name and argument of each operation, as `pickletools.genops`, but with any byte in the strings of protocol 0."""
    while code := content.read(1):
        operation = OPERATIONS.get(code.decode("latin-1"))
        if operation is None:
            raise ValueError(f"there is no operation {code!r}, at {content.tell() - 1}")
        if operation.name == "STRING":
            yield operation.name, _quoted(content.readline())
        else:
            reader = None if operation.arg is None else operation.arg.reader
            yield operation.name, None if reader is None else reader(content)
        if operation.name == "STOP":
            return
    raise ValueError("it breaks off")


def _quoted(line: bytes) -> bytes:
    """The bytes that Python 2 wrote as ``'…'`` with escapes."""
    text = line.rstrip(b"\r\n")
    if not line.endswith(b"\n") or len(text) < 2 or text[:1] not in (b"'", b'"') or text[-1:] != text[:1]:
        raise ValueError("a string without its quotes")
    return codecs.escape_decode(text[1:-1])[0]


class _Machine:
    """The stack and the memo of a pickle, and what each operation does to them."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.depths: dict[int, int] = {}  # of containers on the stack that hold others, by their identity
        self.size = self.encoded = 0
        self.special: dict[str, Callable[[Any], object]] = {
            "GLOBAL": self._global,
            "STACK_GLOBAL": self._stack_global,
            "REDUCE": self._reduce,
            "BUILD": self._build,
            "APPEND": lambda _: self._extend([self.stack.pop()]),
            "APPENDS": lambda _: self._extend(self._to_mark()),
            "LIST": lambda _: self._push(self._to_mark()),
            "TUPLE": lambda _: self._push(tuple(self._to_mark())),
            "EMPTY_LIST": lambda _: self.stack.append([]),
            "EMPTY_DICT": lambda _: self.stack.append({}),
            "DICT": lambda _: self._to_dict(self._to_mark(), new=True),
            "SETITEM": lambda _: self._to_dict([self.stack.pop(-2), self.stack.pop()]),
            "SETITEMS": lambda _: self._to_dict(self._to_mark()),
            "MARK": lambda _: self.stack.append(_MARK),
            "MEMOIZE": lambda _: self.memo.update({len(self.memo): self.stack[-1]}),
            "POP": lambda _: self.stack.pop(),
            "POP_MARK": lambda _: self._to_mark(),
            "DUP": lambda _: self.stack.append(_shared(self.stack[-1])),
            "BYTEARRAY8": lambda value: self.stack.append(bytes(value)),
        }

    def run(self, content: mmap.mmap) -> Any:
        """Carry out all operations; gives the one value that is left."""
        self.size = len(content)
        for count, (name, argument) in enumerate(_operations(content)):
            if count > MAX_OPERATIONS:
                raise _RefusedError(f"it has more than {MAX_OPERATIONS:,} operations")
            self._do(name, argument)
        if len(self.stack) != 1:
            raise ValueError("it does not end with one value")
        return self.stack.pop()

    def _do(self, name: str, argument: Any) -> None:
        if name in ARGUMENTS:
            self.stack.append(argument)
        elif name in PYTHON_2_STRINGS:
            self.stack.append(argument if isinstance(argument, bytes) else argument.encode("latin-1"))
        elif name in PUTS:
            self.memo[argument] = self.stack[-1]
        elif name in GETS:
            self.stack.append(_shared(self.memo[argument]))
        elif name in CONSTANTS:
            self.stack.append(CONSTANTS[name])
        elif name in TUPLES:
            items = [self.stack.pop() for _ in range(TUPLES[name])]
            self._push(tuple(items[::-1]))
        elif name in self.special:
            self.special[name](argument)
        elif name not in IGNORED:
            raise _RefusedError(f"it uses the pickle operation {name}, which plain data does not need")

    def _to_mark(self) -> list[Any]:
        items: list[Any] = []
        while (item := self.stack.pop()) is not _MARK:
            items.append(item)
        return items[::-1]

    def _push(self, container: list[Any] | tuple[Any, ...]) -> None:
        self.stack.append(container)
        self._deepen(container, container)

    def _deepen(self, target: Any, items: Sequence[Any]) -> None:
        """Note how deep a container is that has got some items."""
        depth = max((self.depths.pop(id(item), 1) for item in items if isinstance(item, CONTAINERS)), default=0)
        if depth >= MAX_DEPTH:
            raise _RefusedError(f"it is nested more than {MAX_DEPTH} deep")
        if depth:
            self.depths[id(target)] = max(depth + 1, self.depths.get(id(target), 1))

    def _extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, list):
            raise TypeError("items are appended to something that is not a list")
        self._deepen(target, items)
        target.extend(items)

    def _to_dict(self, items: list[Any], new: bool = False) -> None:
        """Keys and values in turn go into a dictionary: a new one, or the one on the stack."""
        if new:
            self.stack.append({})
        target = self.stack[-1]
        if not isinstance(target, dict):
            raise TypeError("items are set in something that is not a dictionary")
        if not all(isinstance(key, str | bytes) for key in items[::2]):  # others can be made to collide
            raise _RefusedError("it has a dictionary with other keys than texts")
        self._deepen(target, items[1::2])
        target.update(zip(items[::2], items[1::2], strict=True))

    def _global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self._look_up(module, name)

    def _stack_global(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self._look_up(module, name)

    def _look_up(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str) or (module, name) not in GLOBALS:
            raise _RefusedError(
                f"it asks for '{_short(module)}.{_short(name)}', "
                "but may hold only lists, bytes, numbers and arrays of uint8"
            )
        self.stack.append(GLOBALS[module, name])

    def _reduce(self, _: Any) -> None:
        arguments, target = self.stack.pop(), self.stack.pop()
        if not isinstance(target, _Global) or not isinstance(arguments, tuple) or target.role not in ACTS:
            raise _RefusedError("it calls something that is not needed to rebuild an array")
        if target.role == ENCODE:
            self.encoded += sum(len(text) for text in arguments[:1] if isinstance(text, str))
            if self.encoded > self.size:
                raise _RefusedError("it encodes the same text again and again")
        self.stack.append(ACTS[target.role](*arguments))

    def _build(self, _: Any) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, np.dtype):
            return  # byte order and alignment, of which a type of one byte has none
        if not isinstance(target, _Array) or not isinstance(state, tuple):
            raise _RefusedError("it changes the state of something that is not an array")
        _, shape, dtype, fortran, data = state
        target.values = _array(data, dtype, shape, "F" if fortran else "C")


def _shared(value: Any) -> Any:
    """A value that is about to stand in one more place."""
    if isinstance(value, tuple) and len(value) <= SHARED_TUPLE and not any(isinstance(x, CONTAINERS) for x in value):
        return value
    if isinstance(value, CONTAINERS):
        raise _RefusedError("it puts one list into several places")
    return value


def _short(value: Any) -> str:
    return value[:LONGEST_SHOWN] if isinstance(value, str) else type(value).__name__


def _text(value: Any) -> str:
    if not isinstance(value, str | bytes):
        raise _RefusedError(f"it has a {type(value).__name__} where a name is needed")
    return value.decode("ascii") if isinstance(value, bytes) else value


def _encode(text: str, encoding: str = "utf-8") -> bytes:
    if not isinstance(text, str) or _text(encoding).replace("-", "") not in ("latin1", "utf8"):
        raise _RefusedError("it encodes something that is not text")
    return text.encode(_text(encoding))


def _dtype(name: Any, *_: Any) -> np.dtype[Any]:
    plain = _text(name).lstrip("|")
    if plain not in PLAIN_DTYPES:
        raise _RefusedError(
            f"it holds an array of type '{_short(_text(name))}', only uint8 (and bool for answers) is allowed"
        )
    return PLAIN_DTYPES[plain]


def _array(data: Any, dtype: Any, shape: Any, order: Any = "C") -> NDArray[Any]:
    if not isinstance(data, bytes) or not isinstance(dtype, np.dtype):
        raise _RefusedError("it holds an array of objects")
    if not isinstance(shape, tuple) or len(shape) > 3 or not all(type(n) is int and 0 <= n <= len(data) for n in shape):
        raise ValueError(f"an array has the shape {str(shape)[:LONGEST_SHOWN]}")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if _text(order) == "F" else "C")


ACTS: dict[str, Callable[..., Any]] = {
    ENCODE: _encode,
    DTYPE: _dtype,
    RECONSTRUCT: lambda *_: _Array(),
    SCALAR: lambda dtype, data: _array(data, dtype, ())[()],
    FROMBUFFER: _array,
    NO_BYTES: lambda: b"",  # how protocols before 3 write empty bytes
}


def _plain(value: Any) -> Any:
    """The value with its arrays in place; lists and tuples down to the second level, where packs have them."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if not isinstance(value, (list, tuple)):
        return _unwrapped(value)
    return [
        [_unwrapped(item) for item in part] if isinstance(part, (list, tuple)) else _unwrapped(part) for part in value
    ]


def _unwrapped(value: Any) -> Any:
    if isinstance(value, _Array):
        if value.values is None:
            raise ValueError("an array has no content")
        return value.values
    return value
