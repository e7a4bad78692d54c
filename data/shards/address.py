"""Addresses of files here or elsewhere: patterns that name many, and what may be shown of them."""

import re
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from facelab.errors import ConfigError, DataError

MOST = 100_000
"""Files that one pattern may name."""
BRACES = re.compile(r"\{([^{}]*)\}")
RANGE = re.compile(r"([0-9]{1,9})\.\.([0-9]{1,9})")


def is_remote(address: str) -> bool:
    """Whether an address names a file elsewhere: ``http://``, ``https://``, ``s3://``, ``hf://`` and others."""
    return "://" in address


def is_pattern(text: str) -> bool:
    """Whether a text is an address, or a path that names several files by braces or stars."""
    return is_remote(text) or any(sign in text for sign in "*{")


def expand(patterns: str | Sequence[str], ending: str) -> list[str]:
    """The files that patterns name, in their order.

    ``{0000..0127}`` counts with as many digits, ``{a,b}`` chooses; on this machine ``*`` and ``?`` match names, which
    are sorted, and a folder means its files of that ending.

    Args:
        patterns: One pattern or several.
        ending: Of the files of a folder, such as ``.tar``.

    Raises:
        ConfigError: If a pattern counts backwards or names more than 100,000 files.
        DataError: If a pattern that looks for files of this machine finds none, or a file is named twice.
    """
    given = [patterns] if isinstance(patterns, str) else list(patterns)
    found = [file for pattern in given for address in _counted(pattern) for file in _matched(address, ending)]
    if not found:
        raise ConfigError(f"there is no file among {given!r}; name at least one.")
    twice = next((file for file, after in zip(sorted(found), sorted(found)[1:], strict=False) if file == after), None)
    if twice is not None:
        raise DataError(f"{shown(twice)}: is named twice.")
    return found


def shown(address: str) -> str:
    """An address for messages and reports: without password, and without its query, which may be a signature."""
    if not is_remote(address):
        return address
    try:
        parts = urlsplit(address)
    except ValueError:  # of a bracket that is not closed
        return address.partition("?")[0].rpartition("@")[2]
    query = "…" if parts.query else ""
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, query, ""))


def _counted(pattern: str) -> Iterator[str]:
    """A pattern with its braces filled in, the last ones counting fastest."""
    # Odd pieces are what stands in braces, since the expression has one group.
    pieces = BRACES.split(pattern)
    choices = [_choices(piece, pattern) if number % 2 else [piece] for number, piece in enumerate(pieces)]
    count = 1
    for choice in choices:
        count *= len(choice)
    if count > MOST:
        raise ConfigError(f"'{shown(pattern)}' names {count:,} files, more than the {MOST:,} that are allowed.")
    yield from map("".join, product(*choices))


def _choices(inside: str, pattern: str) -> Sequence[str]:
    found = RANGE.fullmatch(inside)
    if found is None:
        # A name may have braces of its own; only a comma makes them a choice.
        return inside.split(",") if "," in inside else [f"{{{inside}}}"]
    first, last = found.groups()
    if int(first) > int(last):
        raise ConfigError(f"'{shown(pattern)}': {{{inside}}} counts backwards.")
    if int(last) - int(first) >= MOST:
        raise ConfigError(f"'{shown(pattern)}' names more than the {MOST:,} files that are allowed.")
    return [f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1)]


def _matched(address: str, ending: str) -> list[str]:
    """The address itself, or the files of this machine that it finds."""
    if is_remote(address):
        return [address]
    path = Path(address)
    if path.is_dir():
        matching = [entry for entry in path.iterdir() if entry.name.endswith(ending) and not entry.name.startswith(".")]
    elif path.exists() or not any(sign in address for sign in "*?"):
        return [address]
    else:
        anchor = Path(path.anchor) if path.is_absolute() else Path()
        matching = list(anchor.glob(str(path.relative_to(path.anchor))))
    if not matching:
        raise DataError(f"{address}: there is no {ending} file.")
    return sorted(map(str, matching))
