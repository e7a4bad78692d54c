"""Reports on disk: ``report.json``, and what statistics need of every trial as ``trials/*.npz``.

The JSON file names each trials file and its hash, and the hash is part of the name: the trials are written first, so a
report that is there is complete, and one that is interrupted leaves the older report as it was.
"""

import base64
import hashlib
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np

from facelab.config import validate
from facelab.errors import ConfigError, DataError
from facelab.outside.json import read_json
from facelab.test_protocol.base import Mistake, Report
from facelab.test_protocol.report.stored_report import (
    StoredReport,
    StoredReports,
    check_curves,
    check_mistakes,
    check_text,
)
from facelab.test_protocol.report.trials_file import read_trials
from facelab.version import __version__
from facelab.weights.whole_file import write_whole

Reports = Mapping[str, Sequence[Report]]

FORMAT: Literal["facelab reports 1"] = "facelab reports 1"
JSON, TRIALS = "report.json", "trials"
MAX_JSON_BYTES = 1 << 27


def write_reports(folder: Path, reports: Reports) -> Path:
    """Write ``report.json`` and the trials beside it, replacing older ones; gives the path of the JSON file.

    Raises:
        DataError: If a file cannot be written; an older report is left as it was.
    """
    files: dict[str, bytes] = {}
    tree = {model: [_report_tree(report, model, files) for report in of_model] for model, of_model in reports.items()}
    content = json.dumps({"format": FORMAT, "facelab": __version__, "models": tree}, indent=1, allow_nan=False)
    for name, trials in files.items():
        write_whole(folder / name, trials)
    path = write_whole(folder / JSON, content + "\n")
    for old in (folder / TRIALS).glob("*.npz"):
        if f"{TRIALS}/{old.name}" not in files:
            with suppress(OSError):  # an older report's; nothing refers to it any more
                old.unlink()
    return path


def file_name(text: str) -> str:
    """A name of a protocol or model as part of a file's name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip(".-") or "unnamed"


def _report_tree(report: Report, model: str, files: dict[str, bytes]) -> dict[str, Any]:
    return {
        "protocol": report.protocol,
        "metrics": [_finite(vars(metric)) for metric in report.metrics],
        "options": _finite(dict(report.options)),
        "curves": {name: _curve(values.tolist()) for name, values in report.curves.items()},
        "trials": _trials_tree(report, model, files) if report.trials else None,
        "mistakes": [_mistake_tree(mistake) for mistake in report.mistakes],
    }


def _trials_tree(report: Report, model: str, files: dict[str, bytes]) -> dict[str, str]:
    packed = io.BytesIO()
    arrays: dict[str, Any] = dict(report.trials)
    np.savez_compressed(packed, **arrays)  # `allow_pickle` would be an array in NumPy 1
    digest = hashlib.sha256(packed.getvalue()).hexdigest()
    name = f"{TRIALS}/{file_name(f'{report.protocol}-{model}')}-{digest[:12]}.npz"
    files[name] = packed.getvalue()
    return {"file": name, "sha256": digest}


def _mistake_tree(mistake: Mistake) -> dict[str, Any]:
    pictures = mistake.pictures and [
        {**vars(picture), "jpeg": base64.b64encode(picture.jpeg).decode()} for picture in mistake.pictures
    ]
    return {**vars(mistake), "pictures": pictures}


def _finite(value: Any) -> Any:
    """What is not finite becomes null, which JSON can say."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _curve(values: list[float]) -> list[float | str]:
    return [value if math.isfinite(value) else str(value) for value in values]


def read_reports(path: Path) -> dict[str, list[Report]]:
    """Reports of each model, as `write_reports` wrote them.

    Everything is checked: a report may come from anybody. What was not finite in a metric or an option comes back as
    None.

    Args:
        path: ``report.json``, or its folder.

    Raises:
        DataError: If a file is missing, damaged or not such a report; one sentence says where.
    """
    file = path / JSON if path.is_dir() else path
    stored = _validated(_read_json(file), file)
    return {
        model: [_restore(report, file, f"{model} on {report.protocol}") for report in of_model]
        for model, of_model in stored.models.items()
    }


def _read_json(file: Path) -> Any:
    tree = read_json(file, "a report of facelab", limit=MAX_JSON_BYTES)
    try:
        check_text(tree)
    except ValueError as error:
        raise DataError(f"{file}: is not a report of facelab ({error}).") from None
    return tree


def _validated(tree: Any, file: Path) -> StoredReports:
    if not isinstance(tree, dict) or tree.get("format") != FORMAT:
        given = tree.get("format") if isinstance(tree, dict) else None
        raise DataError(f"{file}: has the format {str(given)[:40]!r}, but this facelab reads {FORMAT!r}.")
    try:
        return validate(StoredReports, tree, str(file), settings=False)
    except ConfigError as error:
        message = str(error)
        raise DataError(message if len(message) < 400 else f"{message[:400]} …") from None


def _restore(stored: StoredReport, file: Path, what: str) -> Report:
    curves = {name: np.array(values, np.float64) for name, values in stored.curves.items()}
    check_curves(curves, f"{file}: {what}")
    mistakes = tuple(mistake.restore() for mistake in stored.mistakes)
    check_mistakes(mistakes, f"{file}: {what}")
    trials = {} if stored.trials is None else read_trials(file.parent / stored.trials.file, stored.trials.sha256)
    return Report(stored.protocol, stored.metrics, stored.options, curves, trials, mistakes)
