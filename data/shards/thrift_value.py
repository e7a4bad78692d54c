"""Values in the compact form of Thrift, in which Parquet describes itself, read within limits."""

import struct
from typing import Any

TRUE, FALSE, BYTE, SHORT, INT, LONG, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = range(1, 13)
DEEPEST = 16
LONGEST_NUMBER = 10  # bytes of 64 bits, seven in each


class ThriftReader:
    """Reads values one after the other.

    Args:
        data: What they stand in.
        at: Where the first one begins.
        most: So many values are read, those in lists and structures included; each takes memory.

    Attributes:
        at: Where the next one begins.
    """

    def __init__(self, data: bytes, at: int, most: int) -> None:
        self._data, self._left = data, most
        self.at = at

    def structure(self, depth: int = 0) -> dict[int, Any]:
        """A structure: the values of its fields by their numbers; bytes are `bytes`, lists and sets are lists.

        Raises:
            ValueError: If it is none, ends early, is too deep, or holds too many values.
        """
        if depth > DEEPEST:
            raise ValueError("its description is nested too deep")
        fields: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            kind, step = head & 15, head >> 4
            number = number + step if step else self._signed()
            fields[number] = kind == TRUE if kind in (TRUE, FALSE) else self._value(kind, depth + 1)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        self._left -= 1
        if self._left < 0:
            raise ValueError("its description has too many values")
        if kind in (SHORT, INT, LONG):
            return self._signed()
        if kind == BINARY:
            return self._take(self._number())
        if kind in (LIST, SET):
            head = self._byte()
            size = head >> 4 if head >> 4 < 15 else self._number()
            return [self._element(head & 15, depth) for _ in range(self._sound(size))]
        if kind == MAP:
            size = self._sound(self._number())
            kinds = self._byte() if size else 0
            return [(self._element(kinds >> 4, depth), self._element(kinds & 15, depth)) for _ in range(size)]
        if kind == STRUCT:
            return self.structure(depth)
        if kind == DOUBLE:
            return struct.unpack("<d", self._take(8))[0]
        if kind == BYTE:
            return self._byte()
        raise ValueError(f"its description has a value of the kind {kind}, which there is none of")

    def _element(self, kind: int, depth: int) -> Any:
        # In lists, truth values have a byte of their own.
        return self._value(BYTE if kind in (TRUE, FALSE) else kind, depth + 1)

    def _sound(self, size: int) -> int:
        if size > len(self._data) - self.at:  # each takes a byte at least
            raise ValueError(f"its description has a list of {size:,} values that are not there")
        return size

    def _signed(self) -> int:
        number = self._number()
        return (number >> 1) ^ -(number & 1)

    def _number(self) -> int:
        number = 0
        for place in range(LONGEST_NUMBER):
            byte = self._byte()
            number |= (byte & 127) << (7 * place)
            if byte < 128:
                return number
        raise ValueError("its description has a number of more than 64 bits")

    def _byte(self) -> int:
        return self._take(1)[0]

    def _take(self, size: int) -> bytes:
        found = self._data[self.at : self.at + size]
        if len(found) != size:
            raise ValueError("its description breaks off")
        self.at += size
        return found
