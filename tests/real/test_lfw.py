"""LFW with a trained network: the published accuracy from the archive, and training people apart from tested ones."""

import json
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from facelab.cli.main import app
from facelab.data.sources.image_list import ImageList
from facelab.model.face_model import load_backbone
from facelab.run.assembly import assemble
from facelab.run.settings import load_config
from facelab.test_protocol.protocols.bin_pack import BinPack
from facelab.test_protocol.protocols.lfw import LFW
from facelab.test_protocol.run import run_protocols

pytestmark = pytest.mark.real

PUBLISHED, TOLERANCE = 0.9945, 0.001
MIN_IMAGES = 5


@pytest.fixture(scope="session")
def faces(shared_root: Path) -> Path:
    """Folder with ``lfw112.tar`` and ``lfw_pairs.txt``."""
    return shared_root / "data" / "faces"


@pytest.fixture(scope="session")
def weights(shared_root: Path) -> Path:
    """EdgeFace-XXS."""
    return shared_root / "data" / "weights" / "edgeface_xxs.safetensors"


@pytest.fixture
def training_list(faces: Path, tmp_path: Path) -> Path:
    """The people with five or more images, as the command writes them."""
    out = tmp_path / "lfw-train.txt"
    words = ["data", "list", faces / "lfw112.tar", "--min-images", MIN_IMAGES, "--out", out]
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return out


def first_folds(pairs: Path, folds: int, target: Path) -> Path:
    """The first folds of LFW's list as a list of their own."""
    lines = pairs.read_text().splitlines()
    _, per_side = map(int, lines[0].split())
    target.write_text("\n".join([f"{folds} {per_side}", *lines[1 : 1 + folds * 2 * per_side]]) + "\n")
    return target


def test_two_folds_from_the_archive(faces: Path, weights: Path, tmp_path: Path) -> None:
    pairs = first_folds(faces / "lfw_pairs.txt", 2, tmp_path / "pairs.txt")
    protocol = LFW(faces / "lfw112.tar", pairs)
    model = load_backbone("EdgeFace-XXS", weights, device="cpu")
    (report,) = run_protocols(model.network, [("LFW", protocol)], precision="bf16")
    assert len(protocol.same) == 1200
    assert protocol.same.sum() == 600
    assert report.headline.value is not None
    assert report.headline.value >= 0.99
    assert report.options["precision"] == "bf16"


@pytest.mark.slow
def test_published_accuracy_with_the_command(faces: Path, weights: Path, tmp_path: Path) -> None:
    words = ["test", "--backbone", "EdgeFace-XXS", "--weights", weights, "--device", "cpu", "--out", tmp_path]
    words += [f"LFW.root={faces / 'lfw112.tar'}", f"LFW.pairs={faces / 'lfw_pairs.txt'}"]
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    assert "fp32 on cpu; 112x112 RGB, -1..1; without mirrored images" in " ".join(result.output.split())
    (report,) = json.loads((tmp_path / "report.json").read_text())["EdgeFace-XXS"]
    values = {metric["name"]: metric["value"] for metric in report["metrics"]}
    assert values["accuracy"] == pytest.approx(PUBLISHED, abs=TOLERANCE)
    assert values["TAR@FAR=1e-3"] == pytest.approx(0.990, abs=0.003)
    assert (values["same pairs"], values["different pairs"]) == (3000, 3000)


def test_training_people_are_not_tested(faces: Path, training_list: Path) -> None:
    protocol = LFW(faces / "lfw112.tar", faces / "lfw_pairs.txt", exclude=training_list)
    trained = expected_people(faces / "lfw112.tar")
    expected = Counter(
        len(fields) == 3
        for fields in map(str.split, (faces / "lfw_pairs.txt").read_text().splitlines()[1:])
        if trained.keys().isdisjoint(fields)
    )
    source = ImageList(faces / "lfw112.tar", training_list)
    assert (source.num_classes, len(source)) == (len(trained), sum(trained.values())) == (423, 5985)
    assert protocol.excluded == trained.keys()
    assert (int(protocol.same.sum()), int((~protocol.same).sum())) == (expected[True], expected[False]) == (1626, 2615)
    assert len(np.unique(protocol.fold)) == 10
    assert protocol.options()["excluded_pairs"] == 6000 - 4241


def expected_people(archive: Path) -> Counter[str]:
    """People with enough images, and how many, counted from the names in the archive."""
    with tarfile.open(archive) as names:
        counts = Counter(Path(name).parent.name for name in names.getnames() if name.endswith(".jpg"))
    return Counter({person: count for person, count in counts.items() if count >= MIN_IMAGES})


def test_the_recipe_for_fine_tuning_starts(faces: Path, weights: Path, training_list: Path) -> None:
    parts = assemble(
        load_config(
            "conventional/finetune",
            [
                f"backbone.EdgeFace-XXS.weights={weights}",
                f"data.source.ImageList.root={faces / 'lfw112.tar'}",
                f"data.source.ImageList.list_file={training_list}",
                "training.batch_size=16",
            ],
        )
    )
    batch = next(iter(parts.feed.batches(0, 0)))
    before = [parameter.detach().clone() for parameter in parts.mode.inference_network().parameters()]
    output = parts.mode.step(batch)
    parts.optim.update(output.loss)
    moved = [
        (new - old).abs().max().item()
        for new, old in zip(parts.mode.inference_network().parameters(), before, strict=True)
    ]
    assert np.isfinite(output.loss.item())
    assert 0 < max(moved) < 1e-4


def test_a_real_verification_pack(faces: Path) -> None:
    pack = BinPack(faces / "small_lfw.bin")
    assert (len(pack.images), pack.same.tolist()) == (20, [True] * 10)
    assert pack.images.read(0).shape == (112, 112, 3)
