"""Sources that others are made of, written as in a run."""

from typing import Any

from facelab.catalogue import build
from facelab.data.base import SOURCES, Source
from facelab.progress import OnProgress

SourceSpec = str | dict[str, Any] | Source


def open_inner(given: SourceSpec, size: int | None, progress: OnProgress | None) -> Source:
    """A source, built if it is not yet; those that draw their images get what the run would give them.

    Raises:
        ConfigError: If it is unknown, or an option is wrong.
        DataError: If its data are missing or damaged.
    """
    if isinstance(given, Source):
        return given
    supplied: dict[str, Any] = {"progress": progress} | ({} if size is None else {"size": size})
    return build(SOURCES, given, **supplied)
