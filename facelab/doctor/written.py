"""The doctor's folder: the list of what stays, all findings as a table, numbers, and the page."""

import csv
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from facelab.csv_cells import as_cell
from facelab.data.base import Source
from facelab.data.formats.writing import written_folder
from facelab.doctor.findings import KINDS, NOBODY, Diagnosis, Finding
from facelab.doctor.page import render_page
from facelab.errors import DataError

KEEP, FINDINGS, NUMBERS, PAGE = "keep.txt", "findings.csv", "doctor.json", "doctor.html"


def check_names(source: Source) -> None:
    """Refuse a set whose images cannot be listed, before it is examined.

    Raises:
        DataError: If a name has a line feed, or blanks at its ends.
    """
    for row in range(len(source)):
        name = source.name(row)
        if "\n" in name or "\r" in name or name != name.strip():
            raise DataError(f"{source.location(row)}: {name!r} cannot stand in a list; rename the file.")


def write_diagnosis(folder: Path, title: str, diagnosis: Diagnosis, kinds: frozenset[str], shown: int) -> None:
    """Write ``keep.txt``, ``findings.csv``, ``doctor.json`` and ``doctor.html`` into a new folder, or nothing.

    Args:
        folder: The new folder.
        title: What the set is called.
        diagnosis: What was found.
        kinds: Which kinds are left out of ``keep.txt``.
        shown: Images (or pairs) of each finding on the page at most.

    Raises:
        DataError: If the folder exists, or cannot be written.
    """
    page = render_page(title, diagnosis, kinds, shown)
    with written_folder(folder) as new:
        _write(new / KEEP, _kept_lines(diagnosis, kinds))
        with (new / FINDINGS).open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(_table(diagnosis, kinds))
        (new / NUMBERS).write_text(json.dumps(_numbers(diagnosis, kinds), indent=2) + "\n", encoding="utf-8")
        (new / PAGE).write_text(page, encoding="utf-8", errors="backslashreplace")


def _write(path: Path, lines: Iterable[str]) -> None:
    with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        file.writelines(lines)


def _kept_lines(diagnosis: Diagnosis, kinds: frozenset[str]) -> Iterator[str]:
    """A training list with the labels of the set, which has gaps where a label has lost all images."""
    source = diagnosis.source
    for row in np.flatnonzero(diagnosis.kept(kinds)).tolist():
        yield f"{source.name(row)} {source.labels[row]}\n"


def _table(diagnosis: Diagnosis, kinds: frozenset[str]) -> Iterator[list[object]]:
    yield ["finding", "image", "label", "compared_with", "of_label", "score", "left_out", "reason"]
    for finding in diagnosis.findings:
        leaving = np.isin(finding.rows, finding.suspects) & (finding.kind in kinds)
        for place, (row, beside) in enumerate(zip(finding.rows.tolist(), finding.beside.tolist(), strict=True)):
            score = finding.score[place]
            yield [
                finding.kind,
                as_cell(diagnosis.source.name(row)),
                int(diagnosis.source.labels[row]),
                *_compared(finding, beside, diagnosis.source),
                f"{score:.6g}" if np.isfinite(score) else "",
                "yes" if leaving[place] else "no",
                as_cell(finding.reasons[place]) if finding.reasons else "",
            ]


def _compared(finding: Finding, beside: int, source: Source) -> tuple[str, int | str]:
    if beside == NOBODY:
        return "", ""
    if finding.beside_in is not None:
        return as_cell(finding.beside_in[1].name(beside)), finding.beside_in[0]
    return as_cell(source.name(beside)), int(source.labels[beside])


def _numbers(diagnosis: Diagnosis, kinds: frozenset[str]) -> dict[str, object]:
    return {
        "facts": dict(diagnosis.facts),
        "notes": list(diagnosis.notes),
        "kept": int(diagnosis.kept(kinds).sum()),
        "left_out": sorted(kinds, key=list(KINDS).index),
        "findings": [
            {
                "kind": finding.kind,
                "found": len(finding.rows),
                "suspects": len(finding.suspects),
                **({"note": finding.note} if finding.note else {}),
                **({"against": finding.beside_in[0]} if finding.beside_in else {}),
            }
            for finding in diagnosis.findings
        ],
    }
