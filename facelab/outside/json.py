"""JSON that may come from anybody: limits on size, values and depth, and one sentence for whatever is wrong."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from facelab.errors import DataError, FacelabError
from facelab.outside.file import read_regular

MAX_BYTES = 64 << 20
BYTES_PER_VALUE = 16  # so many values in a file of the largest size; Python takes some 80 bytes for each
MAX_DEPTH = 64
WHOLE = range(-(1 << 63), 1 << 64)

Pairs = Callable[[list[tuple[str, Any]]], Any]


def read_json(
    path: Path,
    what: str,
    *,
    limit: int = MAX_BYTES,
    not_finite: bool = False,
    pairs: Pairs | None = None,
    error: type[FacelabError] = DataError,
) -> Any:
    """The content of a JSON file.

    Args:
        path: The file.
        what: What it should be, for messages: ``"a report"``.
        limit: Most bytes; a file may hold one value for every 16 of them.
        not_finite: Whether NaN and Infinity, which are no JSON, are taken.
        pairs: Makes an object of its keys and values, instead of a dictionary.
        error: Raised if anything is wrong.

    Raises:
        FacelabError: If the file cannot be read, is too large, or is not JSON; of the class ``error``.
    """
    try:
        content = read_regular(path, limit)
    except OSError as failure:
        raise error(f"{path}: cannot be read ({failure.strerror or failure}); it should be {what} in JSON.") from None
    return parse_json(content, str(path), what, limit=limit, not_finite=not_finite, pairs=pairs, error=error)


def parse_json(
    content: bytes | str,
    where: str,
    what: str,
    *,
    limit: int = MAX_BYTES,
    not_finite: bool = False,
    pairs: Pairs | None = None,
    error: type[FacelabError] = DataError,
) -> Any:
    """The content of JSON text in UTF-8 that was read already; otherwise as `read_json`.

    Raises:
        FacelabError: If it is too large or is not JSON; of the class ``error``.
    """
    try:
        text = content if isinstance(content, str) else content.decode("utf-8-sig", "surrogateescape")
        _check_counts(text, limit)
        constant = float if not_finite else _refuse_constant
        tree = json.loads(text, parse_constant=constant, parse_int=_whole, object_pairs_hook=pairs)
        _check_depth(tree)
    except RecursionError:
        raise error(f"{where}: is not {what}: {_too_deep()}.") from None
    except ValueError as failure:
        raise error(f"{where}: is not {what} in JSON ({failure}).") from None
    return tree


def _check_counts(text: str, limit: int) -> None:
    if len(text) > limit:
        raise ValueError(f"it has more than {limit:,} characters")
    # Before anything is parsed: every value follows one of these signs, so there are no more than that.
    values, most = sum(text.count(sign) for sign in ",[{"), limit // BYTES_PER_VALUE
    if values > most:
        raise ValueError(f"it has more than {most:,} values")


def _check_depth(tree: Any) -> None:
    """Level by level and not by recursion; those who walk the tree afterwards may then use recursion."""
    level, depth = [tree], 0
    while level := [node for node in level if isinstance(node, (dict, list))]:
        depth += 1
        if depth > MAX_DEPTH:
            raise ValueError(_too_deep())
        level = [child for node in level for child in (node.values() if isinstance(node, dict) else node)]


def _too_deep() -> str:
    return f"its lists and objects are nested more than {MAX_DEPTH} deep"


def _whole(digits: str) -> int:
    # The length first: int() takes quadratic time, and refuses more than 4,300 digits in words of its own.
    if len(digits) > 20 or (number := int(digits)) not in WHOLE:
        raise ValueError(f"the number {digits[:20]}… has more than 64 bits")
    return number


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"it holds {name}")
