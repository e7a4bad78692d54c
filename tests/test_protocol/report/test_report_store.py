"""Reports come back from disk as they were, and a hostile or damaged one is refused with a sentence."""

import base64
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from facelab.errors import DataError
from facelab.test_protocol.base import Metric, Mistake, Picture, Report
from facelab.test_protocol.report import report_store
from facelab.test_protocol.report.report_store import read_reports, write_reports

JPEG = cv2.imencode(".jpg", np.zeros((2, 2, 3), np.uint8))[1].tobytes()
HUGE_JPEG = JPEG.replace(b"\x08\x00\x02\x00\x02\x03", b"\x08\xff\xff\xff\xff\x03")


def make_report(protocol: str = "LFW") -> Report:
    metrics = (
        Metric("accuracy", 0.75, 0.01, note="± standard error", interval=(0.7, 0.8), better="high"),
        Metric("TAR@FAR=1e-6", None, note="cannot be measured"),
    )
    curves = {"far": [0.0, 0.5, 1.0], "tar": [0.0, 1.0, 1.0], "threshold": [np.inf, 0.5, -1.0]}
    trials = {
        "score": np.array([0.25, -0.5], np.float32),
        "same": np.array([True, False]),
        "left": np.array([0, -1], np.int32),
        "right": np.array([0, 1], np.int32),
    }
    pictures = (Picture("a/1.jpg", JPEG, 0.5), Picture("<b>/1.jpg", b""))
    mistakes = (Mistake("false match", 3, 4, 0.75, pictures), Mistake("false non-match", 1, 2, -0.25))
    options = {"flip": False, "x": None, "sizes": [1, 2]}
    return Report(protocol, metrics, options, {k: np.array(v) for k, v in curves.items()}, trials, mistakes)


def test_reports_come_back_as_they_were(tmp_path: Path) -> None:
    reports = {"weak & <i>": [make_report(), make_report("../LFW")], "strong": [make_report()]}
    path = write_reports(tmp_path, reports)
    for source in (path, tmp_path):
        read = read_reports(source)
        assert list(read) == list(reports)
        for model, of_model in reports.items():
            for before, after in zip(of_model, read[model], strict=True):
                assert (after.protocol, after.metrics, after.options) == (
                    before.protocol,
                    before.metrics,
                    before.options,
                )
                assert after.mistakes == before.mistakes
                for kept, found in ((before.curves, after.curves), (before.trials, after.trials)):
                    assert list(found) == list(kept)
                    for name, values in kept.items():
                        np.testing.assert_array_equal(found[name], values)
                        assert found[name].dtype == values.dtype


def test_reports_from_before_metrics_had_a_direction_get_the_one_they_were_made_with(tmp_path: Path) -> None:
    rates = ("accuracy", "EER", "error-versus-reject area@FMR=0.01 (refitted)", "accuracy deviation", "accuracy range")
    metrics = (*(Metric(name, 0.5) for name in rates), Metric("same pairs", 5.0, unit="count"))
    path = write_reports(tmp_path, {"m": [Report("RFW", metrics)]})
    tree = json.loads(path.read_text())
    for metric in tree["models"]["m"][0]["metrics"]:
        del metric["better"]
    path.write_text(json.dumps(tree))
    found = [metric.better for metric in read_reports(path)["m"][0].metrics]
    assert found == ["high", "low", "low", "low", "low", None]


def test_files_lie_where_they_should(tmp_path: Path) -> None:
    write_reports(tmp_path / "in", {"m": [make_report("../../LFW")]})
    (trials,) = (tmp_path / "in" / "trials").iterdir()
    assert trials.name.startswith("LFW-m-")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


def test_old_trials_are_cleared_away(tmp_path: Path) -> None:
    write_reports(tmp_path, {"m": [make_report(), make_report("CFP-FP")]})
    write_reports(tmp_path, {"m": [make_report("CALFW")]})
    assert [path.name.split("-")[0] for path in (tmp_path / "trials").iterdir()] == ["CALFW"]


def test_an_interrupted_report_leaves_the_older_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_reports(tmp_path, {"old": [make_report()]})

    def full(path: Path, content: bytes | str) -> Path:
        raise DataError(f"{path}: cannot be written (No space left on device).")

    monkeypatch.setattr(report_store, "write_whole", full)
    with pytest.raises(DataError, match="No space left"):
        write_reports(tmp_path, {"new": [make_report()]})
    assert list(read_reports(tmp_path)) == ["old"]


def test_json_is_strict(tmp_path: Path) -> None:
    report = Report("LFW", (Metric("a", float("nan")),), {"x": float("inf")}, {"far": np.array([0.5])})
    text = write_reports(tmp_path, {"m": [report]}).read_text()
    tree = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    assert tree["format"] == "facelab reports 1"
    assert tree["models"]["m"][0]["options"] == {"x": None}
    assert tree["models"]["m"][0]["metrics"][0]["value"] is None


Edit = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (lambda r: r.pop("protocol"), "'models.m.0.protocol' is missing"),
        (lambda r: r.update(shell="rm"), "unknown key 'models.m.0.shell'"),
        (lambda r: r.update(metrics=[]), "models.m.0.metrics"),
        (lambda r: r["metrics"][0].update(value="high"), "models.m.0.metrics.0.value"),
        (lambda r: r["metrics"][0].update(unit="kg"), "'fraction', 'score' or 'count'"),
        (lambda r: r["metrics"][0].update(note="\x1b[2J"), "control characters"),
        (lambda r: r["options"].update({"\x1b": 1}), "control characters"),
        (lambda r: r["curves"]["far"].append(1.0), "'far' and 'tar' differ in length"),
        (lambda r: r["curves"].update(rank=[1.0], rank_rate=[1.5]), "'rank_rate' holds other values than rates"),
        (lambda r: r["curves"].update(threshold=["nan", 0, 0]), "'threshold' holds other values than numbers"),
        (lambda r: r["curves"].update(score_edges=[0.0], same_count=[1], different_count=[1]), "one value more"),
        (lambda r: r["curves"].update(far="all"), "models.m.0.curves.far"),
        (lambda r: r["trials"].update(file="trials/../../x.npz"), "models.m.0.trials.file"),
        (lambda r: r["trials"].update(file="/etc/passwd"), "models.m.0.trials.file"),
        (lambda r: r["trials"].update(sha256="0" * 64), "its hash is not the one that the report states"),
        (lambda r: r["trials"].update(file="trials/none.npz"), "cannot be read"),
        (lambda r: r["mistakes"][0]["pictures"][0].update(jpeg="PHN2Zz4="), "is not a JPEG"),
        (lambda r: r["mistakes"][0]["pictures"][0].update(jpeg="PHN2Z"), "pictures.0.jpeg"),
        (lambda r: r["mistakes"][0].update(kind="joke"), "'false match' or 'false non-match'"),
        (lambda r: r.update(protocol="x" * 301), "models.m.0.protocol"),
        (lambda r: r.update(protocol="\ud800"), "control characters"),
        (lambda r: r.update(protocol="a\u202egpj"), "control characters"),
        (lambda r: r["metrics"][0].update(value=1e13), "its numbers must lie between"),
        (lambda r: r["metrics"][0].update(interval=[0, -1e300]), "its numbers must lie between"),
        (lambda r: r["metrics"].extend(r["metrics"] * 1500), "models.m.0.metrics"),
        (lambda r: r["curves"].update({f"c{n}": [] for n in range(99)}), "models.m.0.curves"),
        (lambda r: r["curves"].update(far=[0.5] * 100_001), "models.m.0.curves.far"),
        (lambda r: r["curves"].pop("tar"), "'far' is there without 'tar'"),
        (lambda r: r["curves"].update(far=[0.5, 0.1, 1.0]), "'far' does not ascend"),
        (lambda r: r["curves"].update(rank=[0.0], rank_rate=[0.5]), "ranks below 1"),
        (lambda r: r["curves"].update(rank=["inf"], rank_rate=[0.5]), "'rank' holds values that are not finite"),
        (lambda r: r["curves"].update(score_edges=[0, 1], same_count=[1]), "without 'different_count'"),
        (lambda r: r["curves"].update(score_edges=[0, 1], same_count=[-1], different_count=[1]), "counts below zero"),
        (lambda r: r["options"].update(images="many"), "images"),
        (lambda r: r["options"].update(precision=["fp32"]), "precision"),
        (lambda r: r["options"].update(parameters=-1), "parameters"),
        (lambda r: r["options"].update(files={"log": 3}), "files.log"),
        (lambda r: r["options"].update(bootstrap={"draws": 3}), "bootstrap"),
        (lambda r: r["options"].update(failed_images={"count": 3, "first": []}), "of how many images some failed"),
        (lambda r: r["options"].update({f"o{n}": n for n in range(600)}), "models.m.0.options"),
        (lambda r: r["mistakes"][0].update(left=-1), "models.m.0.mistakes.0.left"),
        (lambda r: r["mistakes"].extend(r["mistakes"] * 600), "models.m.0.mistakes"),
        (lambda r: r["mistakes"][0]["pictures"][0].update(jpeg=base64.b64encode(HUGE_JPEG).decode()), "65535x65535"),
    ],
)
def test_what_is_no_report_is_refused(edit: Edit, sentence: str, tmp_path: Path) -> None:
    path = write_reports(tmp_path, {"m": [make_report()]})
    tree = json.loads(path.read_text())
    edit(tree["models"]["m"][0])
    path.write_text(json.dumps(tree))
    with pytest.raises(DataError) as caught:
        read_reports(path)
    assert sentence in str(caught.value)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[" * 100_000, "is not a report of facelab"),
        ("{", "is not a report of facelab"),
        ('{"format": NaN}', "it holds NaN"),
        ("\ud800", "is not a report of facelab"),
        ('{"format": ' + "9" * 5000 + "}", "more than 64 bits"),
        (
            json.dumps({"format": "facelab reports 1", "facelab": "1", "models": {f"m{n}": [] for n in range(257)}}),
            "models",
        ),
        ("[]", "this facelab reads 'facelab reports 1'"),
        ('{"format": "facelab reports 9"}', "has the format 'facelab reports 9'"),
    ],
)
def test_other_files_are_refused(text: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(text, errors="surrogatepass")
    with pytest.raises(DataError, match=sentence):
        read_reports(tmp_path)


def test_a_missing_report(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"report\.json: cannot be read \(No such file"):
        read_reports(tmp_path)


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("the file was unpickled",))


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"score": np.array([Hostile()], object)}, "is not a file of trials"),
        ({"score": np.zeros((2, 2))}, r"'score' is float64 \(2, 2\)"),
        ({"score": np.array(["a"])}, "but trials are lists of numbers"),
        ({"score": np.array([np.nan])}, "not finite"),
        ({"score": np.zeros(2), "same": np.zeros(3, bool)}, "differ in length"),
        ({"score": np.zeros(2), "same": np.zeros(2, bool)}, "'same' is there without 'left'"),
        ({"rank": np.ones(2, np.int32)}, "'rank' is there without 'person'"),
        ({"same": np.ones(2)}, "'same' must not be float64"),
        ({f"a{n}": np.ones(2) for n in range(40)}, "it holds 40 arrays"),
    ],
)
def test_hostile_trials_are_refused(arrays: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    path = write_reports(tmp_path, {"m": [make_report()]})
    (trials,) = (tmp_path / "trials").iterdir()
    np.savez(trials, **arrays)
    tree = json.loads(path.read_text())
    tree["models"]["m"][0]["trials"]["sha256"] = hashlib.sha256(trials.read_bytes()).hexdigest()
    path.write_text(json.dumps(tree))
    with pytest.raises(DataError, match=sentence):
        read_reports(path)
