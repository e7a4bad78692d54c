"""Commands that write at their end refuse a place that takes nothing before they read or compute anything."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from facelab.cli.evaluate import _report_folder
from facelab.cli.main import app

COMMANDS = {
    "embed": "embed missing a.jpg --out {out}",
    "test": "test missing LFW.root=missing --out {out}",
    "doctor": "data doctor missing --out {out}",
    "inspect": "data inspect missing --report {out}.csv",
    "list": "data list missing --out {out}",
    "subset": "data subset missing --ids missing --out {out}",
    "shallow": "data shallow missing --out {out}",
    "exclude-overlap": "data exclude-overlap missing missing --out {out}",
    "pack": "data pack missing {out}",
    "to-rec": "data to-rec missing {out}.rec",
    "from-rec": "data from-rec missing {out}",
    "convert": "data convert missing --to webdataset --out {out}",
    "mask": "data mask missing {out}",
    "occlude": "data occlude missing {out}",
    "align": "data align missing --out {out}",
    "ijbs-crops": "data ijbs-crops missing {out}",
    "synthetic": "data synthetic {out}",
    "plot": "iqa plot missing --out {out}.png",
    "score": "iqa score {set} -s Sharpness --out {out}.csv",
    "calibrate": "calibrate missing --plot {out}.png",
    "compare": "compare missing --out {out}",
    "draw": "draw missing --gallery missing --probe missing --out {out}.png",
    "export": "export missing --out {out}",
    "import": "import missing --as insightface:r50 --out {out}",
    "merge": "merge missing --out {out}",
    "export-adapter": "export-adapter missing --out {out}.safetensors",
    "cost": "cost missing --csv {out}.csv",
    "cost-json": "cost missing --json {out}.json",
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_place_is_refused_before_the_work(command: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "set" / "ann").mkdir(parents=True)
    (tmp_path / "set" / "ann" / "1.png").write_bytes(b"no image, which nobody finds out")
    words = command.format(out=tmp_path / "file" / "new", set=tmp_path / "set").split()
    found = CliRunner().invoke(app, words)
    assert found.exit_code == 1
    assert "cannot be written (Not a directory)" in str(found.exception)


@pytest.mark.parametrize("command", ["embed missing a.jpg --out {out}", "draw missing --gallery a --probe b -o {out}"])
def test_a_folder_is_no_place_for_a_file(command: str, tmp_path: Path) -> None:
    found = CliRunner().invoke(app, command.format(out=tmp_path).split())
    assert "is a folder; name a file in it" in str(found.exception)


@pytest.mark.parametrize("command", ["data list missing -o {out}", "data convert missing --to packed -o {out}"])
def test_what_is_there_is_refused_before_the_work(command: str, tmp_path: Path) -> None:
    found = CliRunner().invoke(app, command.format(out=tmp_path).split())
    assert "exists already; remove it or choose another name" in str(found.exception)


def test_a_report_lies_below_the_first_model_or_beside_its_file(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "model.onnx").write_bytes(b"")
    assert _report_folder([str(tmp_path / "run"), "other"], []) == tmp_path / "run" / "test"
    assert _report_folder([str(tmp_path / "model.onnx")], []) == tmp_path / "model-test"
