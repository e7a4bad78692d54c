"""The record of thresholds and probabilities in a card: it belongs to weights and input, and comes from anybody."""

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import facelab
from facelab.backbone.base import BACKBONES, Backbone
from facelab.errors import CheckpointError, ConfigError, DataError
from facelab.model.face_model import load_model
from facelab.weights import manifest
from facelab.weights.calibration import Calibration
from facelab.weights.card import model_card
from facelab.weights.model_folder import rewrite_card, write_model
from facelab.weights.snapshot import read_card
from facelab.weights.state_hash import state_hash

SMALL: dict[str, Any] = {"patch": 8, "dim": 8, "depth": 1, "heads": 2, "feat_dim": 4}
RATES = {"real_fmr": 9e-4, "fmr_low": 5e-4, "fmr_high": 1.5e-3, "fnmr": 0.1, "fnmr_low": 0.05, "fnmr_high": 0.2}


def small(seed: int = 0) -> Backbone:
    torch.manual_seed(seed)
    return BACKBONES.build("ViT", {**SMALL, "input_spec": {"height": 16, "width": 16}}).eval()


def record(network: Backbone) -> dict[str, Any]:
    return {
        "version": 1,
        "weights": state_hash(network.state_dict()),
        "input": "16x16 RGB, -1..1",
        **{"flip": False, "resize": False, "any_photo": False, "alignment": "unknown"},
        **{"protocol": "LFW", "image_set": "abc", "same": 3000, "different": 29_000, "impostors": "all", "people": 5},
        "thresholds": [{"fmr": 1e-3, "threshold": 0.3, **RATES}, {"fmr": 5e-4, "threshold": 0.4, **RATES}],
        **{"slope": 20.0, "offset": -5.0, "cllr": 0.1, "min_cllr": 0.09, "folds": 10},
    }


def card(network: Backbone) -> dict[str, Any]:
    return model_card("ViT", SMALL, network) | {"calibration": record(network)}


@pytest.fixture(params=["model", "model.safetensors"])
def stored(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return write_model(tmp_path / request.param, small().state_dict(), card(small()))


def test_it_goes_with_the_model_and_its_copies(stored: Path, tmp_path: Path) -> None:
    model = facelab.load(facelab.load(stored).save(tmp_path / "copy"))
    assert model.calibration == Calibration.model_validate(record(small()))
    again = shutil.copytree(tmp_path / "copy", tmp_path / "again")
    assert facelab.load(again).calibrated().at(1e-3).threshold == 0.3
    assert json.loads(json.dumps(model.calibrated().model_dump(mode="json"))) == record(small())


def test_probabilities_are_those_of_the_line_at_any_prior() -> None:
    calibration = Calibration.model_validate(record(small()))
    np.testing.assert_allclose(calibration.probability([[0.25, 0.35]]), [[0.5, 1 / (1 + np.exp(-2))]])
    assert calibration.probability(0.25, prior=0.1) == pytest.approx(0.1)
    assert calibration.probability(1e6) == 1.0
    assert calibration.probability(-1e6) == 0.0
    for prior in (0.0, 1.0, np.nan):
        with pytest.raises(ConfigError, match=r"prior is .*, but must lie in \(0, 1\)"):
            calibration.probability(0.2, prior)


def test_a_rate_without_threshold_is_answered_with_those_that_have_one() -> None:
    calibration = Calibration.model_validate(record(small()))
    with pytest.raises(ConfigError, match=r"the FMR 1e-6, calibrated on LFW \(1e-3, 5e-4\); it needs 10,000,000 diff"):
        calibration.at(1e-6)
    with pytest.raises(ConfigError, match=r"no threshold for the FMR 2e-3, calibrated on LFW \(1e-3, 5e-4\)\.$"):
        calibration.at(2e-3)
    with pytest.raises(ConfigError, match="fmr is 0.0, but must lie"):
        calibration.at(0.0)


@pytest.mark.parametrize(
    ("option", "shown"), [("flip", "--flip"), ("resize", "--resize"), ("any_photo", "--any-photo")]
)
def test_other_preprocessing_is_refused(option: str, shown: str) -> None:
    how = {"flip": False, "resize": False, "any_photo": False}
    without = Calibration.model_validate(record(small()))
    without.check_use(**how)
    with pytest.raises(ConfigError, match=f"calibrated without {shown}, .* leave it out, or calibrate anew with it"):
        without.check_use(**(how | {option: True}))
    with pytest.raises(ConfigError, match=f"calibrated with {shown}, .* add it, or calibrate anew without it"):
        Calibration.model_validate(record(small()) | {option: True}).check_use(**how)


def test_that_of_other_weights_or_another_input_is_refused_but_can_be_passed_over(stored: Path, tmp_path: Path) -> None:
    foreign = write_model(tmp_path / "foreign", small(seed=1).state_dict(), card(small()))
    with pytest.raises(CheckpointError, match="foreign' is that of other weights .by hash.; calibrate it anew"):
        facelab.load(foreign)
    assert load_model(foreign, calibrated=False).calibration is None
    rewrite_card(stored, card(small()) | {"input": {"height": 16, "width": 16, "mean": 0.0}})
    with pytest.raises(CheckpointError, match=r"another input \(16x16 RGB, -1..1, and not 16x16 RGB, 0..2\)"):
        facelab.load(stored)


def set_in(tree: Any, *path: Any, value: Any) -> None:
    for key in path[:-1]:
        tree = tree[key]
    tree[path[-1]] = value


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("version",), 2),
        (("version",), True),
        (("weights",), "../../etc"),
        (("thresholds",), [{}] * 1000),
        (("thresholds",), None),
        (("thresholds", 0, "threshold"), 2.0),
        (("thresholds", 0, "threshold"), "0.3"),
        (("thresholds", 0, "threshold"), 0.45),  # above that of the lower rate
        (("thresholds", 0, "fmr"), 0.0),
        (("thresholds", 1, "fmr"), 1e-3),
        (("thresholds", 0, "fnmr"), float("nan")),
        (("slope",), -1.0),
        (("slope",), float("inf")),
        (("slope",), True),
        (("offset",), 1e300),
        (("different",), -1),
        (("flip",), 1),
        (("protocol",), "x" * 100_000),
        ((), 3),
        ((), []),
    ],
)
def test_a_tampered_record_is_one_sentence(tmp_path: Path, path: tuple[Any, ...], value: Any) -> None:
    changed = copy.deepcopy(card(small()))
    set_in(changed, "calibration", *path, value=value)
    folder = write_model(tmp_path / "model", small().state_dict(), changed)
    with pytest.raises(CheckpointError, match="'calibration") as caught:
        facelab.load(folder)
    assert len(str(caught.value)) < 600
    assert load_model(folder, calibrated=False).calibration is None


def test_a_model_without_says_how_to_get_one(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "plain", small().state_dict(), model_card("ViT", SMALL, small()))
    model = facelab.load(folder)
    assert model.calibration is None
    with pytest.raises(ConfigError, match=r"'plain' has no thresholds .*: facelab calibrate .*/plain LFW.root=lfw112"):
        model.probability(0.3)


@pytest.mark.parametrize("stop_at", [1, 2, 3])
def test_a_card_that_is_changed_is_the_old_or_the_new_one_wherever_it_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_at: int
) -> None:
    folder = write_model(tmp_path / "model", small().state_dict(), model_card("ViT", SMALL, small()))
    write, calls = manifest.write_bytes, []

    def stopped(path: Path, content: bytes) -> None:
        calls.append(path)
        if len(calls) == stop_at:
            path.write_bytes(content[: len(content) // 2])
            raise OSError(28, "No space left on device")
        write(path, content)

    monkeypatch.setattr(manifest, "write_bytes", stopped)
    with pytest.raises(DataError, match=r"model' cannot be written .No space left on device"):
        rewrite_card(folder, card(small()))
    monkeypatch.undo()
    assert (facelab.load(folder).calibration is not None) == (stop_at == 3)
    rewrite_card(folder, card(small()))
    assert facelab.load(folder).calibration is not None
    assert "replacing" not in json.loads((folder / "manifest.json").read_text())


def test_a_hand_in_the_card_is_noticed(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model", small().state_dict(), card(small()))
    content = read_card(folder)
    content["calibration"]["thresholds"][0]["threshold"] = -1.0
    (folder / "model.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="model.json' is damaged: its hash is not the one"):
        facelab.load(folder)
