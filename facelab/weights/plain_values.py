"""What a checkpoint may hold: it is read without running code, so no objects of other classes."""

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from facelab.errors import ConfigError

PLAIN = (int, float, str, bool, bytes, type(None))


def require_plain(tree: Any, where: str) -> None:
    """Refuse what could be written into a checkpoint, but not be read again.

    Args:
        tree: Values in lists and mappings.
        where: What the sentence calls it.

    Raises:
        ConfigError: If it holds an object of another class.
    """
    for path, value in _leaves(tree, ()):
        if type(value) not in PLAIN and not isinstance(value, Tensor):
            place = f", '{'.'.join(path)}'," if path else ""
            raise ConfigError(
                f"{where}{place} is of the type {type(value).__name__}, which no checkpoint keeps; tensors, numbers, "
                "texts, lists and mappings are kept."
            )


def _leaves(tree: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Keys and values with their places."""
    if type(tree) in (dict, OrderedDict):
        for key, inside in tree.items():
            yield (*path, f"the key {key}"), key
            yield from _leaves(inside, (*path, str(key)))
    elif type(tree) in (list, tuple):
        for number, inside in enumerate(tree):
            yield from _leaves(inside, (*path, str(number)))
    else:
        yield path, tree
