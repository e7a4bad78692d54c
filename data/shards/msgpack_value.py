"""The few kinds of MessagePack values that sets of images are made of: lists, bytes and whole numbers."""

import struct
from collections.abc import Callable
from dataclasses import dataclass

LIST, BYTES, NUMBER = "list", "bytes", "number"
LONGEST_HEAD = 9

# First byte -> kind, and the number behind it: of a list its values, of bytes how many.
HEADS = {
    0xDC: (LIST, ">H"),
    0xDD: (LIST, ">I"),
    0xC4: (BYTES, ">B"),
    0xC5: (BYTES, ">H"),
    0xC6: (BYTES, ">I"),
    0xD9: (BYTES, ">B"),  # text, as which old programs write bytes
    0xDA: (BYTES, ">H"),
    0xDB: (BYTES, ">I"),
    0xCC: (NUMBER, ">B"),
    0xCD: (NUMBER, ">H"),
    0xCE: (NUMBER, ">I"),
    0xCF: (NUMBER, ">Q"),
    0xD0: (NUMBER, ">b"),
    0xD1: (NUMBER, ">h"),
    0xD2: (NUMBER, ">i"),
    0xD3: (NUMBER, ">q"),
}


@dataclass(frozen=True)
class Head:
    """What the beginning of a value says.

    Attributes:
        kind: ``list``, ``bytes`` or ``number``.
        value: The number, the values of a list, or the bytes that follow.
        size: Bytes of the head.
    """

    kind: str
    value: int
    size: int


def read_head(data: bytes) -> Head:
    """The beginning of a value, from up to 9 bytes.

    Raises:
        ValueError: If it is of another kind, or cut off.
    """
    first = data[0] if data else -1
    if 0 <= first < 0x80:
        return Head(NUMBER, first, 1)
    if first >= 0xE0:
        return Head(NUMBER, first - 0x100, 1)
    if 0x90 <= first < 0xA0:
        return Head(LIST, first - 0x90, 1)
    if 0xA0 <= first < 0xC0:
        return Head(BYTES, first - 0xA0, 1)
    if first not in HEADS:
        raise ValueError(f"it begins with {data[:1].hex() or 'nothing'}")
    kind, form = HEADS[first]
    if len(data) < 1 + struct.calcsize(form):
        raise ValueError("it is cut off")
    (value,) = struct.unpack_from(form, data, 1)
    return Head(kind, value, 1 + struct.calcsize(form))


def image_and_label(read: Callable[[int, int], bytes], size: int) -> tuple[int, int, int]:
    """Where the image of a value ``(image, …, label)`` lies, and the label; the image itself is not read.

    Args:
        read: Gives so many bytes from a place in the value.
        size: Bytes of the value.

    Returns:
        Where the image begins in the value, its bytes, and the label.

    Raises:
        ValueError: If the value is another one.
    """
    heads, at = list[tuple[Head, int]](), 0

    def take() -> Head:
        nonlocal at
        head = read_head(read(at, min(LONGEST_HEAD, size - at)))
        at += head.size
        heads.append((head, at))
        if head.kind == BYTES:
            at += head.value
        if at > size:
            raise ValueError("it is cut off")
        return head

    first = take()
    if first.kind != LIST or not 2 <= first.value <= 8:
        raise ValueError("it is no list of image and label")
    for _ in range(first.value):
        take()
    (image, place), (label, _) = heads[1], heads[-1]
    if image.kind != BYTES or label.kind != NUMBER or not 0 <= label.value < 1 << 60 or at != size:
        raise ValueError("it is no list of image and label")
    return place, image.value, label.value
