"""A network that sees the upper part of faces: trained, tested, saved and loaded without anybody cutting images."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import facelab
from facelab.cli.main import app
from facelab.errors import ConfigError, DataError
from facelab.inputs import InputSpec, normalise
from facelab.run.network import open_base
from facelab.run.settings import make_config
from facelab.test_protocol.report.report_store import read_reports

HALF = InputSpec(height=30, width=64, face_height=56)


def tree(**options: Any) -> dict[str, Any]:
    faces = {"SyntheticFaces": {"identities": 4, "per_identity": 4}}
    return {
        "backbone": {"MobileFaceNet": {"width": 0.25, "feat_dim": 16}},
        "data": {"source": faces, "size": 64, "workers": 1},
        "training": {"epochs": 1, "batch_size": 8},
        "schedule": {"warmup_epochs": 0},
        "tensorboard": False,
        **options,
    }


@pytest.mark.parametrize("colour", ["RGB", "BGR"])
def test_the_lower_part_is_cut_off(colour: Any) -> None:
    pixels = torch.randint(0, 256, (3, 56, 64, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    spec = InputSpec(height=30, width=64, face_height=56, colour=colour)
    expected = normalise(pixels[:, :, :30].contiguous(), InputSpec(height=30, width=64, colour=colour))
    assert torch.equal(normalise(pixels, spec), expected)
    with pytest.raises(DataError, match="images are 30x64, but the network takes 56x64"):
        normalise(pixels[:, :, :30], spec)


def test_what_it_says_of_itself() -> None:
    assert (HALF.size, HALF.aligned) == ((30, 64), (56, 64))
    assert HALF.describe() == "30x64 (upper part of 56x64) RGB, -1..1"
    with pytest.raises(ConfigError, match="face_height is 20, but the network sees 30 rows"):
        InputSpec(height=30, width=64, face_height=20)


@pytest.mark.parametrize(("given", "rows"), [("upper_half", 32), (34, 34)])
def test_any_backbone_is_built_for_it(given: Any, rows: int) -> None:
    for backbone in (
        {"MobileFaceNet": {"width": 0.25}},
        "r18",
        {"ViT": {"patch": 8, "dim": 64, "depth": 1, "heads": 2}},
    ):
        config = make_config(tree(input=given, backbone=backbone), "")
        network, card = open_base(config)
        assert network.input_spec.size == (rows, 64)
        assert (card["input"]["height"], card["input"]["face_height"]) == (rows, 64)
        image = normalise(torch.zeros(2, 3, 64, 64, dtype=torch.uint8), network.input_spec)
        assert network.eval()(image).shape == (2, network.feat_dim)


@pytest.mark.parametrize("rows", [0, 65])
def test_rows_that_no_face_has_are_refused(rows: int) -> None:
    with pytest.raises(ConfigError, match=f"input is {rows}, but the faces have 64 rows of pixels"):
        make_config(tree(input=rows), "")


def test_a_run_trains_tests_and_saves_it(run_tiny: Any, tmp_path: Path) -> None:
    pairs = "evaluation.protocols.synthetic={SyntheticPairs: {identities: 12, per_identity: 3, folds: 2, pairs: 40}}"
    done = run_tiny(tmp_path / "run", "input=upper_half", pairs)
    assert done.reports[0].options  # its protocol drew whole faces
    model = facelab.load(tmp_path / "run")
    height = model.card["input"]["face_height"]
    assert model.card["input"]["height"] == height // 2
    faces = np.random.default_rng(0).integers(0, 256, (2, height, height, 3), dtype=np.uint8)
    expected = model.embed(faces)
    chin = faces.copy()
    chin[:, height // 2 :] = 0
    np.testing.assert_array_equal(model.embed(chin), expected)
    exported = facelab.load(model.save(tmp_path / "model"))
    np.testing.assert_array_equal(exported.embed(faces), expected)
    assert exported.input_spec == model.input_spec
    with pytest.raises(DataError, match=f"takes {height // 2}x{height} .upper part of {height}x{height}. "):
        model.embed(faces[:, : height // 2])


def test_a_base_brings_its_own_input(run_tiny: Any, tmp_path: Path) -> None:
    run_tiny(tmp_path / "base", "input=upper_half", "training.epochs=1")
    on = [f"base={tmp_path / 'base'}", "backbone=null", "training.epochs=1"]
    run_tiny(tmp_path / "on", *on)
    assert facelab.load(tmp_path / "on").input_spec == facelab.load(tmp_path / "base").input_spec
    with pytest.raises(ConfigError, match="input is 20, but the base model .* leave input out"):
        run_tiny(tmp_path / "other", *on, "input=20")


def test_the_command_line_joins_a_run_with_another(run_tiny: Any, tmp_path: Path) -> None:
    for name, given in (("whole", "face"), ("upper", "upper_half")):
        run_tiny(tmp_path / name, f"input={given}", "training.epochs=1")
    words = ["test", "--concat", str(tmp_path / "whole"), str(tmp_path / "upper"), "--out", str(tmp_path / "out")]
    pairs = "SyntheticPairs={identities: 12, per_identity: 3, folds: 2, pairs: 40}"
    shown = CliRunner().invoke(app, [*words, pairs, "--draws", "0"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0, shown.output
    assert list(read_reports(tmp_path / "out")) == ["whole", "upper", "whole + upper"]
