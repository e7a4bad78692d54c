"""``facelab export --to``: files for programs without facelab."""

import json
from pathlib import Path

import cv2
import pytest
import torch
from typer.testing import CliRunner

from facelab.cli import main as cli
from facelab.data.synthetic.source import SyntheticFaces
from facelab.errors import ConfigError, DataError, FacelabError

PAIRS = ["SyntheticPairs.identities=8", "SyntheticPairs.per_identity=4", "SyntheticPairs.pairs=20"]


def run(*words: object) -> str:
    result = CliRunner().invoke(cli.app, list(map(str, words)))
    if isinstance(result.exception, FacelabError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_a_run_as_torchscript_is_compared_and_tested(trained_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "tiny.pt"
    words = [word for pair in [*PAIRS, "SyntheticPairs.folds=2"] for word in ("--check", pair)]
    said = run("export", trained_run, "--to", "torchscript", "--preprocessing", "inside", "--out", out, *words)
    assert "image  uint8 (batch, 32, 32, 3)" in said
    assert "(32 of drawn faces; 0.99999 is needed)" in said
    assert "AUC" in said
    assert "difference +0.00000 [+0.00000, +0.00000]" in said
    assert f"'{out}' is a model for torchscript in fp32; '{out}.json' says all of this too." in said
    assert json.loads(Path(f"{out}.json").read_text())["source"]["update"] == 8
    embedding, norm = torch.jit.load(str(out))(torch.zeros(3, 32, 32, 3, dtype=torch.uint8))
    assert (embedding.shape, norm.shape) == ((3, 16), (3,))


def test_faces_that_lie_in_no_person_s_folder_calibrate_too(trained_run: Path, tmp_path: Path) -> None:
    faces = SyntheticFaces(identities=3, per_identity=1, size=32, split="test")
    (tmp_path / "crops").mkdir()
    (tmp_path / "crops" / "alignment.txt").write_text("no image")
    for row in range(3):
        cv2.imwrite(str(tmp_path / "crops" / f"{row}.png"), faces.read(row)[:, :, ::-1])
    words = ("--to", "torchscript", "--calibrate", tmp_path / "crops", "--out", tmp_path / "tiny.pt")
    assert f"(3 of {tmp_path / 'crops'}; 0.99999 is needed)" in run("export", trained_run, *words)


def test_what_is_refused(trained_run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="say which by --to onnx"):
        run("export", trained_run, "--precision", "int8", "--out", tmp_path / "folder")
    with pytest.raises(DataError, match="no such file or folder"):
        run("export", trained_run, "--to", "onnx", "--calibrate", tmp_path / "none", "--out", tmp_path / "x.onnx")
    with pytest.raises(ConfigError, match="is exported; calibrate its run"):
        run("calibrate", tmp_path / "x.onnx")
    assert list(tmp_path.iterdir()) == []
