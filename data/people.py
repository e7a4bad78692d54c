"""Which people to take: files with one name a line."""

import posixpath
from pathlib import Path

from facelab.errors import DataError


class PersonFilter:
    """Says of each person whether it is wanted, and remembers who was met.

    A person inside an archive may lie deeper (``faces/Ann``); both the whole path and its last part are compared.

    Args:
        only: Names to take, with the place that asks for each; None takes everybody.
        without: Names to leave out.
    """

    def __init__(self, only: dict[str, str] | None, without: frozenset[str]) -> None:
        self._only = only
        self._without = without
        self._met: set[str] = set()

    def __call__(self, person: str) -> bool:
        """Whether to take this person."""
        names = {person, posixpath.basename(person)}
        if self._only is not None:
            asked = names & self._only.keys()
            self._met |= asked
            if not asked:
                return False
        return not names & self._without

    def refuse_unmet(self, where: Path | str) -> None:
        """Check that everybody who was asked for has been met.

        Raises:
            DataError: If somebody was not; the message names the file and line of the first.
        """
        unmet = [name for name in self._only or () if name not in self._met]
        if unmet:
            place = (self._only or {})[unmet[0]]
            raise DataError(f"{place}: there is no person '{unmet[0]}' in {where} ({len(unmet)} names are unknown).")


def person_filter(ids: Path | None, exclude_ids: Path | None) -> PersonFilter:
    """The filter of two optional files.

    Raises:
        DataError: If a file is missing, empty or not text.
    """
    only = None if ids is None else read_ids(ids)
    return PersonFilter(only, frozenset() if exclude_ids is None else frozenset(read_ids(exclude_ids)))


def read_ids(path: Path) -> dict[str, str]:
    """Names of a file with one a line, blank lines skipped; each with its place for messages.

    Raises:
        DataError: If the file is missing, has no name or is not text.
    """
    try:
        lines = Path(path).read_text("utf-8-sig").splitlines()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: is not a text file in UTF-8.") from None
    names: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if line.strip():
            names.setdefault(line.strip().rstrip("/"), f"{path} line {number}")
    if not names:
        raise DataError(f"{path}: names nobody.")
    return names
