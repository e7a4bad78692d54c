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
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Base64Bytes, BeforeValidator, ConfigDict, Field

import facelab
from facelab.config import Strict, validate
from facelab.errors import ConfigError, DataError
from facelab.test_protocol.base import Metric, Mistake, Picture, Report
from facelab.test_protocol.trials_file import read_trials
from facelab.whole_file import write_whole

Reports = Mapping[str, Sequence[Report]]

FORMAT: Literal["facelab reports 1"] = "facelab reports 1"
JSON, TRIALS = "report.json", "trials"
MAX_JSON_BYTES = 1 << 28
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # a terminal would obey some of them
SAME_LENGTH = (
    ("far", "tar"),
    ("far", "threshold"),
    ("rank", "rank_rate"),
    ("reject", "fnmr"),
    ("same_count", "different_count"),
)
RATES = ("far", "tar", "rank_rate", "reject", "fnmr")


class _StoredPicture(Strict):
    name: str
    jpeg: Base64Bytes
    quality: float | None = None


class _StoredMistake(Strict):
    kind: Literal["false match", "false non-match"]
    left: int
    right: int
    score: float
    pictures: tuple[_StoredPicture, _StoredPicture] | None = None

    def restore(self) -> Mistake:
        pictures = None if self.pictures is None else tuple(Picture(**dict(picture)) for picture in self.pictures)
        return Mistake(**{**dict(self), "pictures": pictures})


class _StoredTrials(Strict):
    file: str = Field(pattern=r"^trials/[A-Za-z0-9_-][A-Za-z0-9._-]*\.npz$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


def _with_direction(metric: Any) -> Any:
    """A metric of a report that was written before metrics said which values are better.

    Its makers are known: all rates but these were better the higher they were.
    """
    if not isinstance(metric, dict) or "better" in metric:
        return metric
    name, is_rate = str(metric.get("name")), metric.get("unit", "fraction") == "fraction"
    lower = name.startswith(("EER", "error-versus-reject area")) or name.endswith((" deviation", " range"))
    return {**metric, "better": ("low" if lower else "high") if is_rate else None}


class _StoredReport(Strict):
    model_config = ConfigDict(allow_inf_nan=True)  # the first threshold of a curve is above every score

    protocol: str
    metrics: tuple[Annotated[Metric, BeforeValidator(_with_direction)], ...] = Field(min_length=1)
    options: dict[str, Any]
    curves: dict[str, list[float]]
    trials: _StoredTrials | None = None
    mistakes: tuple[_StoredMistake, ...] = ()


class _StoredReports(Strict):
    format: Literal["facelab reports 1"]
    facelab: str
    models: dict[str, list[_StoredReport]]


def write_reports(folder: Path, reports: Reports) -> Path:
    """Write ``report.json`` and the trials beside it, replacing older ones; gives the path of the JSON file.

    Raises:
        DataError: If a file cannot be written; an older report is left as it was.
    """
    files: dict[str, bytes] = {}
    tree = {model: [_report_tree(report, model, files) for report in of_model] for model, of_model in reports.items()}
    content = json.dumps({"format": FORMAT, "facelab": facelab.__version__, "models": tree}, indent=1, allow_nan=False)
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
    np.savez_compressed(packed, allow_pickle=False, **dict(report.trials))
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
    try:
        if file.stat().st_size > MAX_JSON_BYTES:
            raise DataError(f"{file}: is larger than {MAX_JSON_BYTES >> 20} MiB, too large for a report.")
        tree = json.loads(file.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
        _check_text(tree)
        return tree
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror}).") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: is not a report of facelab ({error}).") from None


def _refuse_constant(name: str) -> float:
    raise ValueError(f"it holds {name}")


def _check_text(value: Any) -> None:
    if isinstance(value, str) and CONTROL.search(value):
        raise ValueError(f"control characters in {value[:40]!r}")
    if isinstance(value, dict):
        for key, item in value.items():
            _check_text(key)
            _check_text(item)
    if isinstance(value, list):
        for item in value:
            _check_text(item)


def _validated(tree: Any, file: Path) -> _StoredReports:
    if not isinstance(tree, dict) or tree.get("format") != FORMAT:
        given = tree.get("format") if isinstance(tree, dict) else None
        raise DataError(f"{file}: has the format {str(given)[:40]!r}, but this facelab reads {FORMAT!r}.")
    try:
        return validate(_StoredReports, tree, str(file), settings=False)
    except ConfigError as error:
        message = str(error)
        raise DataError(message if len(message) < 400 else f"{message[:400]} …") from None


def _restore(stored: _StoredReport, file: Path, what: str) -> Report:
    curves = {name: np.array(values, np.float64) for name, values in stored.curves.items()}
    _check_curves(curves, f"{file}: {what}")
    mistakes = tuple(mistake.restore() for mistake in stored.mistakes)
    _check_pictures(mistakes, f"{file}: {what}")
    trials = {} if stored.trials is None else read_trials(file.parent / stored.trials.file, stored.trials.sha256)
    return Report(stored.protocol, stored.metrics, stored.options, curves, trials, mistakes)


def _check_curves(curves: Mapping[str, Any], where: str) -> None:
    for first, second in SAME_LENGTH:
        if first in curves and second in curves and len(curves[first]) != len(curves[second]):
            raise DataError(f"{where}: the curves '{first}' and '{second}' differ in length.")
    if "score_edges" in curves and any(
        len(curves["score_edges"]) != len(curves.get(f"{side}_count", ())) + 1 for side in ("same", "different")
    ):
        raise DataError(f"{where}: 'score_edges' must have one value more than 'same_count' and 'different_count'.")
    for name, values in curves.items():
        if np.isnan(values).any() or (name in RATES and ((values < 0) | (values > 1)).any()):
            allowed = "rates from 0 to 1" if name in RATES else "numbers"
            raise DataError(f"{where}: the curve '{name}' holds other values than {allowed}.")


def _check_pictures(mistakes: Sequence[Mistake], where: str) -> None:
    for mistake in mistakes:
        for picture in mistake.pictures or ():
            if picture.jpeg and not picture.jpeg.startswith(b"\xff\xd8\xff"):
                raise DataError(f"{where}: the picture of '{picture.name}' is not a JPEG.")
