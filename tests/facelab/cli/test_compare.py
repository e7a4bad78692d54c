"""``facelab compare``: what it reads, what it calls models, what it writes and refuses."""

import csv
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from facelab.cli.main import app
from facelab.errors import ConfigError, FacelabError
from facelab.test_protocol.base import Metric, Report
from facelab.test_protocol.report.report_store import write_reports


def report(accuracy: float, protocol: str = "LFW", precision: str = "fp32") -> Report:
    same = np.arange(400) % 2 == 0
    right = np.arange(400) < accuracy * 400
    trials = {"score": np.where(right == same, 0.9, 0.1).astype(np.float32), "same": same}
    people = np.arange(400, dtype=np.int32)
    metrics = (Metric("accuracy", accuracy, better="high"), Metric("threshold", 0.5, unit="score"))
    options = {"precision": precision, "files": {"log": "metrics.jsonl"}}
    return Report(protocol, metrics, options, trials={**trials, "left": people, "right": people + 400})


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, accuracy in (("a", 0.9), ("b", 0.89), ("c", 0.5)):
        write_reports(tmp_path / name, {"model": [report(accuracy)]})
    (tmp_path / "a" / "metrics.jsonl").write_text("")
    return tmp_path


def compare(*words: str) -> Result:
    result = CliRunner().invoke(app, ["compare", *words])
    if isinstance(result.exception, FacelabError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


def rows(folder: Path = Path("comparison")) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "comparison.csv").read_text().splitlines()))


def test_models_are_named_and_linked(runs: Path) -> None:
    said = compare("first=a", "b", "c/report.json", "--out", "out").output
    names = [row["model"] for row in rows(Path("out"))]
    assert names == ["first", "model (b)", "model (c)"]
    assert rows(Path("out"))[0]["log file"] == "../a/metrics.jsonl"
    assert rows(Path("out"))[1]["log file"] == ""  # it is not there
    assert "out/comparison.html" in said
    assert {path.name.split(".")[-1] for path in (runs / "out").iterdir()} >= {"html", "json", "csv", "md", "tex"}


def test_equal_names_are_told_apart_by_as_much_of_their_folders_as_it_takes(runs: Path) -> None:
    for seed in ("1", "2"):
        write_reports(runs / seed / "a", {"model": [report(0.9)]})
    compare("1/a", "2/a", "model=c")
    assert [row["model"] for row in rows()] == ["model (1/a)", "model (2/a)", "model"]


def test_what_is_within_noise_is_marked(runs: Path) -> None:
    said = compare("a=a", "b=b", "c=c").output
    assert "89.00†" in said
    assert "50.00†" not in said
    assert "†" not in compare("a=a", "b=b", "--draws", "0").output


def test_a_test_of_a_run_goes_before_what_its_training_said(runs: Path) -> None:
    write_reports(runs / "a" / "test", {"a": [report(0.95)]})
    write_reports(runs / "a", {"model": [report(0.9), report(0.7, "CFP-FP")]})
    compare("a")
    (row,) = rows()
    assert (row["model"], row["LFW accuracy [%]"], row["CFP-FP accuracy [%]"]) == ("a", "0.95", "0.7")


def test_other_conditions_are_warned_of(runs: Path) -> None:
    write_reports(runs / "d", {"model": [report(0.8, precision="bf16")]})
    assert "precision" in compare("a=a", "d=d").output.partition("warning")[2]
    assert "warning" not in compare("a=a", "b=b").output


def test_seeds_become_a_row(runs: Path) -> None:
    compare("a=a", "b=b", "c=c", "--group", "ours=a,b", "--metric", "accuracy")
    assert [row["model"] for row in rows()] == ["ours", "c"]
    assert float(rows()[0]["LFW accuracy [%]"]) == pytest.approx(0.895)


def test_refusals(runs: Path) -> None:
    with pytest.raises(ConfigError, match=r"'none' holds no report\.json; test the model first: facelab test none"):
        compare("none")
    with pytest.raises(ConfigError, match="--group is 'a', but must be NAME=MODEL,MODEL"):
        compare("a", "--group", "a")
    with pytest.raises(ConfigError, match="two models are called 'x'; name them: NAME=b"):
        compare("x=a", "x=b")
    with pytest.raises(ConfigError, match=r"two models are called 'model \(a\)'; name them: NAME=a/report.json"):
        compare("a", "a/report.json")
    with pytest.raises(ConfigError, match="there is no run 'z' to group"):
        compare("a=a", "--group", "g=z")
