"""Which people to take: files with one name a line."""

import logging
import posixpath
from pathlib import Path

from facelab.data.formats.text_list import one_form, text_lines, with_slashes
from facelab.errors import DataError


class PersonFilter:
    """Says of each person whether it is wanted, and remembers who was met.

    A person inside an archive may lie deeper (``faces/Ann``); both the whole path and its last part are compared, in
    one Unicode form.

    Args:
        only: Names to take, with the place that asks for each; None takes everybody.
        without: Names to leave out.
    """

    def __init__(self, only: dict[str, str] | None, without: frozenset[str]) -> None:
        self._only = only
        self._without = without
        self._met: set[str] = set()
        self._met_without: set[str] = set()

    def __call__(self, person: str) -> bool:
        """Whether to take this person."""
        person = one_form(person)
        names = {person, posixpath.basename(person)}
        if self._only is not None:
            asked = names & self._only.keys()
            self._met |= asked
            if not asked:
                return False
        self._met_without |= names & self._without
        return not names & self._without

    def refuse_unmet(self, where: Path | str) -> None:
        """Check that everybody who was asked for has been met, and warn if nobody who was to be left out has.

        Raises:
            DataError: If somebody was not; the message names the file and line of the first.
        """
        unmet = [name for name in self._only or () if name not in self._met]
        if unmet:
            place = (self._only or {})[unmet[0]]
            raise DataError(f"{place}: there is no person '{unmet[0]}' in {where} ({len(unmet)} names are unknown).")
        if self._without and not self._met_without:
            logging.getLogger(__name__).warning(
                "%s: none of the %d people to leave out is in it, the first is '%s'.",
                where,
                len(self._without),
                min(self._without),
            )


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
    names: dict[str, str] = {}
    for number, line in text_lines(path):
        names.setdefault(one_form(with_slashes(line.strip()).rstrip("/")), f"{path} line {number}")
    if not names:
        raise DataError(f"{path}: names nobody.")
    return names
