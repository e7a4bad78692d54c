"""Links from a report to what lies behind its numbers: the model and the log of its run."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from facelab.test_protocol.base import Report
from facelab.test_protocol.report.comparison import FILES
from facelab.test_protocol.report.report_store import Reports

Files = Mapping[str, Mapping[str, Path]]


def with_files(reports: Reports, files: Files, folder: Path) -> dict[str, list[Report]]:
    """The same reports with links to the files of their models, as paths relative to ``folder``."""
    result = {}
    for model, of_model in reports.items():
        links = {label: os.path.relpath(path, folder) for label, path in files.get(model, {}).items()}
        added = {FILES: links} if links else {}
        result[model] = [replace(report, options=_without_files(report) | added) for report in of_model]
    return result


def moved(reports: Reports, folder: Path, to: Path) -> dict[str, list[Report]]:
    """Reports that were read from ``folder`` for a page in another one: links to what is not there are left out."""
    files: dict[str, dict[str, Path]] = {}
    for model, of_model in reports.items():
        told: object = next((report.options[FILES] for report in of_model if FILES in report.options), {})
        paths = (
            {label: Path(os.path.normpath(folder / str(path))) for label, path in told.items()}
            if isinstance(told, Mapping)
            else {}
        )
        files[model] = {label: path for label, path in paths.items() if _is_there(path)}
    return with_files(reports, files, to)


def _is_there(path: Path) -> bool:
    """Whether a path from a report leads anywhere; one that no system would take does not."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _without_files(report: Report) -> dict[str, object]:
    return {name: value for name, value in report.options.items() if name != FILES}
