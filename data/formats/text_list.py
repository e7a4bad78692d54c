"""Lists that people write: lines of a text file in UTF-8, fields between separators, names in one Unicode form."""

import csv
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from facelab.errors import DataError
from facelab.outside.file import read_regular_text

SEPARATORS = ("\t", ",", ";", None)  # None: any blanks
MOST_DIGITS = 18  # of a number, so that it fits into int64


def text_lines(path: Path, *, errors: str = "strict") -> Iterator[tuple[int, str]]:
    """Lines that are not blank, with their numbers from 1. A byte-order mark and Windows' line ends are passed over.

    Args:
        path: The file.
        errors: ``strict``, or ``surrogateescape`` for lists that only name files, whose names may be any bytes.

    Raises:
        DataError: If the file is missing or is not text in UTF-8; the message names the line.
    """
    try:
        text = read_regular_text(Path(path), errors=errors)
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file.") from None
    except UnicodeDecodeError as error:
        line, byte = 1 + error.object.count(b"\n", 0, error.start), error.object[error.start]
        raise DataError(f"{path}:{line}: is not text in UTF-8 (byte 0x{byte:02x}); save the list as UTF-8.") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from None
    if "\0" in text:
        raise DataError(f"{path}: is not a text file, or not in UTF-8 (it has zero bytes); save the list as UTF-8.")
    lines = text.split("\n")  # splitlines() would also cut at characters that a name may hold
    return ((number, line) for number, line in enumerate(lines, 1) if line.strip())


def separator_of(line: str) -> str | None:
    """What separates the fields of a list whose first line is given: a tab, else a comma, a semicolon, or blanks."""
    return next(mark for mark in SEPARATORS if mark is None or mark in line)


def split_fields(line: str, separator: str | None, where: str) -> list[str]:
    """The fields of a line without white space and quotes around them; one in double quotes may hold the separator.

    Raises:
        DataError: If a field has more than 128 KiB.
    """
    if '"' not in line:
        return [_unquoted(field.strip()) for field in line.strip().split(separator)]
    try:
        (fields,) = csv.reader([line.strip()], delimiter=separator or " ", skipinitialspace=True)
    except csv.Error as error:
        raise DataError(f"{where}: {line.strip()[:80]!r} cannot be split into fields ({error}).") from None
    return [field.strip() for field in fields]


def _unquoted(field: str) -> str:
    return field[1:-1] if len(field) > 1 and field[0] == field[-1] == "'" else field


def is_whole(text: str) -> bool:
    """Whether a text is a whole number from 0 that fits into int64."""
    return text.isdecimal() and len(text) <= MOST_DIGITS


def with_slashes(name: str) -> str:
    """A path as lists from Windows write it, ``person\\image.jpg``, with ``/``; others as they are."""
    return name if "/" in name else name.replace("\\", "/")


def name_below(name: str, where: str) -> str:
    """A path of a list, relative to the folder or archive of its images, with ``/``.

    Args:
        name: As the list has it.
        where: Names the entry in messages.

    Raises:
        DataError: If it is absolute or leads out of the folder.
    """
    name = with_slashes(name)
    parts = PurePosixPath(name).parts
    if not parts or PurePosixPath(name).is_absolute() or ".." in parts or "\0" in name:
        raise DataError(f"{where}: '{name}' is not a path below the folder of the images.")
    return str(PurePosixPath(*parts))


def one_form(name: str) -> str:
    """A name in Unicode's form NFC: macOS takes names apart (``e`` and an accent), so that equal names differ."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def is_header(fields: Sequence[str], columns: Sequence[frozenset[str]]) -> bool:
    """Whether the fields of a first line are titles: each is one of the words that its column may be called."""
    return len(fields) <= len(columns) and all(
        field.lower().replace(" ", "_") in known for field, known in zip(fields, columns, strict=False)
    )
