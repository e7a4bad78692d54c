"""Everything that a run leaves for its user."""

import io
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.console import Console

from facelab.test_protocol.base import Metric, Mistake, Picture, Report
from facelab.test_protocol.report import run_report
from facelab.test_protocol.report.comparison import compare
from facelab.test_protocol.report.model_links import moved, with_files
from facelab.test_protocol.report.report_store import read_reports
from facelab.test_protocol.report.run_report import write_comparison, write_plots, write_run_report


def test_a_run_gets_tables_plots_and_a_page(reports: dict[str, list[Report]], tmp_path: Path) -> None:
    folder = tmp_path / "run <script>"
    folder.mkdir()
    (folder / "metrics.jsonl").write_text('{"update": 1, "loss": 2.0}\n')
    (folder / "config.yaml").write_text("name: <script>alert(1)</script>\n")
    console = Console(width=160, file=io.StringIO())
    files = write_run_report(folder, reports, console, {"strong": {"model": tmp_path / "checkpoints" / "step-1"}})
    assert set(files) == {"report", "table", "curves"}
    assert all(path.is_file() for path in files.values())
    text = files["report"].read_text()
    assert "<title>run &lt;script&gt; – facelab</title>" in text
    assert "name: &lt;script&gt;alert(1)" in text
    assert 'href="../checkpoints/step-1"' in text
    assert "LFW accuracy [%]" in console.file.getvalue()  # type: ignore[attr-defined]
    plots = sorted(path.name for path in (folder / "plots").iterdir())
    names = [
        "LFW-det.png",
        "LFW-roc.png",
        "LFW-scores-1.png",
        "LFW-scores-2.png",
        "all-same-scores.png",
        "side-by-side.png",
    ]
    assert plots == names
    assert list(read_reports(folder)) == list(reports)


def test_names_of_images_can_be_anything(tmp_path: Path) -> None:
    """Bytes that are no text come from file names of other systems; a terminal would obey others."""
    name = b"a\xe9b\x1b[2J\n".decode(errors="surrogateescape") + "\u202ecod"
    jpeg = cv2.imencode(".jpg", np.zeros((2, 2, 3), np.uint8))[1].tobytes()
    mistakes = (Mistake("false match", 0, 1, 0.5, (Picture(name, jpeg), Picture(name, jpeg))),)
    failed = {"images": 2, "failed_images": {"count": 1, "first": [name]}}
    report = Report(name, (Metric(name, 0.5, note=name),), failed, mistakes=mistakes)
    console = Console(width=160, file=io.StringIO())
    (tmp_path / "config.yaml").write_bytes(b"\xff\x1b[2J")
    files = write_run_report(tmp_path, {name: [report]}, console)
    shown = r"a\udce9b\x1b[2J" + "\n" + r"\u202ecod"
    assert list(read_reports(tmp_path)) == [shown]
    assert r"\x1b[2J" in files["report"].read_text()
    assert "\x1b" not in console.file.getvalue()  # type: ignore[attr-defined]


def test_files_too_large_to_quote_are_said_so(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("x" * (1 << 21))
    page = write_run_report(tmp_path, {"m": [with_pairs(0.5)]})["report"].read_text()
    assert "cannot be shown (it has 2,097,152 bytes" in page
    assert len(page) < 1 << 18


def with_pairs(accuracy: float) -> Report:
    """A report with the pairs that its accuracy comes from."""
    same = np.arange(400) % 2 == 0
    right = np.arange(400) < accuracy * 400
    people = np.arange(400, dtype=np.int32)
    trials = {"score": np.where(right == same, 0.9, 0.1).astype(np.float32), "same": same}
    metrics = (Metric("accuracy", accuracy, better="high"), Metric("threshold", 0.5, unit="score"))
    return Report("LFW", metrics, trials={**trials, "left": people, "right": people + 400})


def test_what_is_within_noise_is_marked_where_it_is_asked_for(tmp_path: Path) -> None:
    reports = {"best": [with_pairs(0.9)], "near": [with_pairs(0.89)], "far": [with_pairs(0.5)]}
    table = write_run_report(tmp_path / "tested", reports, draws=20)["table"].read_text()
    assert "89.00†" in table
    assert "50.00†" not in table
    assert "†" not in write_run_report(tmp_path / "plain", reports)["table"].read_text()


def test_a_report_without_training_or_protocols(tmp_path: Path) -> None:
    files = write_run_report(tmp_path / "empty", {"model": []})
    assert set(files) == {"report", "table"}
    assert "No protocol was run" in files["report"].read_text()


def test_a_comparison_gets_its_files(reports: dict[str, list[Report]], tmp_path: Path) -> None:
    files = write_comparison(tmp_path, reports, compare(reports))
    assert sorted(files) == ["csv", "html", "json", "md", "tex"]
    assert "Comparison of 2 models" in files["html"].read_text()
    assert json.loads(files["json"].read_text())["columns"][1] == "LFW accuracy [%]"


def test_plots_end_where_nobody_would_look_at_them(
    reports: dict[str, list[Report]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_report, "MOST_PLOTS", 2)
    assert len(write_plots(tmp_path, reports, compare(reports))) == 3  # two, and all models side by side


def test_links_follow_a_report_to_another_folder(reports: dict[str, list[Report]], tmp_path: Path) -> None:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    files = {"strong": {"model": tmp_path / "run" / "checkpoints", "log": tmp_path / "run" / "none.jsonl"}}
    stored = with_files(reports, files, tmp_path / "run" / "test")
    assert stored["strong"][0].options["files"]["model"] == "../checkpoints"
    there = moved(stored, tmp_path / "run" / "test", tmp_path / "comparison")
    assert there["strong"][0].options["files"] == {"model": "../run/checkpoints"}
    odd = {"log": "x" * 5000, "model": "a\0b"}
    named = {"strong": [replace(stored["strong"][0], options={"files": odd})]}
    assert "files" not in moved(named, tmp_path, tmp_path)["strong"][0].options
    gone = moved(stored, tmp_path / "elsewhere" / "test", tmp_path)
    assert "files" not in gone["strong"][0].options
