"""One folder of test sets in their real formats, one command, one table; and the same during training."""

import json
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from facelab.cli import main as cli
from facelab.data.synthetic.formats import Export, write_format
from facelab.distributed import run_processes
from facelab.errors import ConfigError
from facelab.run.run import run_training
from facelab.run.settings import load_config
from facelab.test_protocol.base import Report
from facelab.test_protocol.report.report_store import read_reports

TINY = Path(__file__).parents[2] / "tiny_run.yaml"


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LFW, an InsightFace pack, TinyFace and IJB-C, of synthetic faces."""
    out = tmp_path_factory.mktemp("sets")
    for form in ("lfw", "bin", "tinyface", "ijb"):
        write_format(form, Export(out, identities=8, per_identity=4, size=32, folds=2, pairs=24))
    return out


def reports(folder: Path) -> list[Report]:
    (found,) = read_reports(folder).values()
    return list(found)


def output_of(run: Path, out: Path, *words: str) -> str:
    result = CliRunner().invoke(cli.app, ["test", str(run), *words, "--out", str(out)], env={"COLUMNS": "250"})
    if result.exception is not None:
        raise result.exception
    return result.output


def test_one_command_gives_one_table(trained_run: Path, data_root: Path, tmp_path: Path) -> None:
    text = output_of(trained_run, tmp_path, f"data_root={data_root}", "LFW.flip=true", "LFW.fars=[0.1]")
    assert f"{data_root}: found LFW, IJB-C, TinyFace, synthetic" in text
    titles = next(line for line in text.splitlines() if "model" in line)
    assert all(f" {name} " in titles for name in ("LFW", "IJB-C", "TinyFace", "synthetic"))
    found = {report.protocol: report for report in reports(tmp_path)}
    assert list(found) == ["LFW", "IJB-C", "TinyFace", "synthetic"]
    assert found["LFW"].options["flip"] is True
    assert found["LFW"].options["fars"] == [0.1]


def test_sets_can_be_left_out_and_added(trained_run: Path, data_root: Path, tmp_path: Path) -> None:
    lfw = data_root / "lfw"
    more = (
        f"PairList={{root: {lfw / 'images'}, pairs: {tmp_path / 'pairs.txt'}, folds: 1}}",
        "TinyFace=null",
        "IJB-C=null",
    )
    image = "Person_000000/Person_000000_000{}.jpg"
    (tmp_path / "pairs.txt").write_text(f"{image.format(1)} {image.format(2)} 1\n")
    output_of(trained_run, tmp_path, f"data_root={data_root}", *more)
    assert [report.protocol for report in reports(tmp_path)] == ["PairList", "LFW", "synthetic"]


def train(folder: str, root: str) -> list[str]:
    """Runs in each of several processes."""
    overrides = [f"evaluation.data_root={root}", "evaluation.protocols={TinyFace: null}", "evaluation.every_updates=4"]
    config = load_config(str(TINY), overrides)
    result = run_training(config, Path(folder), Console(quiet=True))
    return [f"{report.protocol} {report.headline.value}" for report in result.reports]


def test_a_data_root_is_tested_during_training_on_all_processes(data_root: Path, tmp_path: Path) -> None:
    first, second = run_processes(train, 2, str(tmp_path / "run"), str(data_root))
    assert first == second
    assert [line.split()[0] for line in first] == ["LFW", "IJB-C", "synthetic"]
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert sum("LFW/accuracy" in line for line in lines) == 3  # every 4 of 12 updates


def test_a_run_is_tested_on_its_own_data_root(data_root: Path, tmp_path: Path) -> None:
    config = load_config(str(TINY), ["training.epochs=1", f"evaluation.data_root={data_root}"])
    run_training(config, tmp_path / "run", Console(quiet=True))
    text = output_of(tmp_path / "run", tmp_path / "out")
    assert "found LFW, IJB-C, TinyFace, synthetic" in text


def test_nothing_to_test_on(tmp_path: Path, data_root: Path) -> None:
    run_training(load_config(str(TINY), ["training.epochs=1"]), tmp_path / "run", Console(quiet=True))
    with pytest.raises(ConfigError, match=r"name a protocol, for example .* or data_root=FOLDER"):
        output_of(tmp_path / "run", tmp_path / "out")
    with pytest.raises(ConfigError, match="LWF was not found in .*Did you mean 'LFW'"):
        output_of(tmp_path / "run", tmp_path / "out", f"data_root={data_root}", "LWF=null")
