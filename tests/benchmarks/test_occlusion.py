"""The comparison of ways to train against occlusion: who trains, what the arms change, how they are compared."""

import importlib
import io
import tarfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from facelab.data.alignment.regions import REGIONS
from facelab.errors import ConfigError
from facelab.run.study import make_study
from facelab.test_protocol.base import Embeddings
from facelab.test_protocol.protocols.reduced import open_protocol
from facelab.training_mode.base import MODES

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("occlusion")


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """One to eight images of each of 40 people."""
    folder = tmp_path / "data" / "faces"
    folder.mkdir(parents=True)
    _, jpeg = cv2.imencode(".jpg", np.zeros((112, 112, 3), np.uint8))
    with tarfile.open(folder / "lfw112.tar", "w") as archive:
        for person in range(40):
            for image in range(1 + person % 8):
                member = tarfile.TarInfo(f"P{person:02}/P{person:02}_{image + 1:04}.jpg")
                member.size = len(jpeg)
                archive.addfile(member, io.BytesIO(jpeg.tobytes()))
    return tmp_path


def test_people_of_five_images_train_and_all_of_them_are_left_out_of_the_test(bench: Any, shared: Path) -> None:
    faces = bench.real_faces(shared, shared, 300, [], shared)
    assert faces.images == 5 * (5 + 6 + 7 + 8)
    assert len(Path(faces.protocols["LFW"]["CoveredLFW"]["exclude"]).read_text().split()) == 20
    few = bench.real_faces(shared, shared, 1, ["mouth"], shared)
    assert few.images == 70, "a batch of 64 images, of whole people"
    assert len(Path(few.protocols["LFW"]["CoveredLFW"]["exclude"]).read_text().split()) == 20
    assert few.columns == ("accuracy", "accuracy@mouth")


def test_runs_that_are_tested_otherwise_have_another_name(bench: Any, shared: Path) -> None:
    names = [
        bench.real_faces(shared, shared, 1, regions, shared).name
        for regions in ([], ["nose", "mouth"], ["mouth", "nose"], ["mouth"], list(REGIONS))
    ]
    assert names == ["lfw", "lfw-nose-mouth", "lfw-nose-mouth", "lfw-mouth", "lfw"]
    with pytest.raises(ConfigError, match="region is 'chin'"):
        bench.real_faces(shared, shared, 1, ["chin"], shared)


def test_kept_pixels_are_those_of_the_protocol(bench: Any, shared: Path) -> None:
    pairs = [f"P0{person}\t1\t2\nP0{person}\t1\tP1{person}\t1\n" for person in (2, 3)]
    (shared / "pairs.txt").write_text("2\t1\n" + "".join(pairs))
    (shared / "nobody.txt").write_text("P39\n")
    files = {"root": shared / "data" / "faces" / "lfw112.tar", "pairs": shared / "pairs.txt"}
    options = {**files, "exclude": shared / "nobody.txt", "occlude": ["nose", "mouth"]}
    plain, kept = (
        open_protocol(spec) for spec in ({"LFW": options}, {"CoveredLFW": {**options, "kept": shared / "pixels"}})
    )
    kept.keep()
    assert len(list((shared / "pixels").glob("*.npy"))) == 3
    rows = np.arange(len(plain.images))
    np.testing.assert_array_equal(kept.images.read_many(rows), plain.images.read_many(rows))
    assert kept.images.fingerprint() == plain.images.fingerprint()
    embeddings = Embeddings(np.random.default_rng(0).standard_normal((len(rows), 4), np.float32))
    reports = [one.evaluate(embeddings) for one in (plain, kept)]
    assert reports[0].metrics == reports[1].metrics
    assert reports[0].options == reports[1].options


def test_arms_are_runs_of_equal_length_but_the_one_that_pays_for_two_passes(bench: Any, shared: Path) -> None:
    tree = bench.settings(bench.real_faces(shared, shared, 4, [], shared), shared, 4, 1e-4)
    variants = {arm: bench.changes(arm, 0, tree) for arm in bench.ARMS}
    study = make_study({**tree, "name": "arms", "variants": variants}, shared, "arms")
    for arm, config in study.variants.items():
        assert config.training.epochs == (4 if arm == "occluders-2x" else 2), "of two updates"
        assert ("occlude" in config.data.augment) == (arm != "conventional")
        assert config.optimizer.lr == 1e-4
        name, options = next(iter(config.mode.items())) if isinstance(config.mode, dict) else (config.mode, {})
        MODES.check(name, options)
