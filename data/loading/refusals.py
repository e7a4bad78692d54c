"""What was left out and why: a bounded list that can be written to a file."""

import csv
import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from facelab.csv_cells import as_cell
from facelab.errors import ConfigError, DataError

LIMIT = 10_000


@dataclass(frozen=True)
class Refusal:
    """One image that was left out.

    Attributes:
        location: Where it lies.
        reason: What is wrong with it, one sentence.
    """

    location: str
    reason: str


class Refusals:
    """Images that were left out.

    Attributes:
        count: How many.
        entries: The first of them, at most ``limit``.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self.count = 0
        self.entries: list[Refusal] = []
        self._limit = limit

    def add(self, location: str, reason: str) -> None:
        """Count one; its text is kept if there is room."""
        self.count += 1
        if len(self.entries) < self._limit:
            self.entries.append(Refusal(location, reason))

    def write(self, path: Path) -> None:
        """Write the list; if it is not complete, the last entry says how many are not in it.

        Args:
            path: Ends in ``.jsonl`` (one JSON object a line) or ``.csv``.

        Raises:
            ConfigError: If the ending is another.
            DataError: If the file cannot be written.
        """
        check_report_name(path)
        missing = self.count - len(self.entries)
        rest = [Refusal("", f"{missing} more are not listed.")] if missing else []
        try:
            path.write_text(WRITERS[path.suffix]([*self.entries, *rest]), encoding="utf-8", errors="surrogateescape")
        except OSError as error:
            raise DataError(f"{path}: cannot be written ({error.strerror}).") from None


def check_report_name(path: Path) -> None:
    """Refuse a file that the list could not be written to.

    Raises:
        ConfigError: If its name has another ending than ``.jsonl`` or ``.csv``.
    """
    if path.suffix not in WRITERS:
        raise ConfigError(f"{path}: a list of refused images is written as .jsonl or .csv.")


def _json_lines(entries: list[Refusal]) -> str:
    return "".join(json.dumps(asdict(entry)) + "\n" for entry in entries)


def _csv(entries: list[Refusal]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["location", "reason"])
    writer.writerows((as_cell(entry.location), as_cell(entry.reason)) for entry in entries)
    return text.getvalue()


WRITERS = {".jsonl": _json_lines, ".csv": _csv}
