"""The comparisons of pools and of shallow faces: what their rows change, and which two images of whom train."""

import importlib
import io
import tarfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from facelab.data.sources.packed import Packed
from facelab.run.study import make_study

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a benchmark by name."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module


def variants(runs: Any, rows: Any, common: Any, faces: Any, folder: Path) -> Any:
    tree = {**runs.settings(faces, 1, "fp32"), **common, "name": "rows", "variants": rows}
    return make_study(tree, folder, "rows").variants


def test_rows_of_pools_are_a_study(load: Any, tmp_path: Path) -> None:
    bench, runs = load("class_pool"), load("zoo_runs")
    common = {"backbone": bench.BACKBONE, "head": bench.HEAD}
    made = variants(runs, bench.pool_rows([1.0, 0.25]), common, bench.drawn_faces(8, 4), tmp_path)
    assert [config.classifier for config in made.values()][1:] == [
        {"ClassPool": {"fraction": 1.0}},
        {"ClassPool": {"fraction": 0.25}},
    ]
    assert [config.data.sampler for config in made.values()] == ["Shuffle", *["PairsAndInstances"] * 2]


def test_shallow_faces_are_two_images_of_each_and_their_people_are_named(load: Any, tmp_path: Path) -> None:
    bench, runs = load("shallow_faces"), load("zoo_runs")
    folder = tmp_path / "data" / "faces"
    folder.mkdir(parents=True)
    _, jpeg = cv2.imencode(".jpg", np.zeros((112, 112, 3), np.uint8))
    with tarfile.open(folder / "lfw112.tar", "w") as archive:
        for person in range(40):
            for image in range(1 + person % 4):
                member = tarfile.TarInfo(f"P{person}/P{person}_{image}.jpg")
                member.size = len(jpeg)
                archive.addfile(member, io.BytesIO(jpeg.tobytes()))
    (tmp_path / "out").mkdir()
    faces = bench.shallow_faces(tmp_path, tmp_path / "out", 0.5)
    (listed,) = (tmp_path / "out").glob("two-of-*.txt")
    lines = listed.read_text().splitlines()
    labels = [int(line.split()[1]) for line in lines]
    packed = Packed(Path(faces.data["source"]["Packed"]["path"]))
    assert (packed.labels.tolist(), packed.read(0).shape) == (labels, (64, 64, 3))
    people = Path(faces.protocols["LFW"]["LFW"]["exclude"]).read_text().split()
    assert faces.images == len(lines) == 2 * len(people)
    assert labels == [label for label in range(len(people)) for _ in range(2)]
    assert {line.split("/")[0] for line in lines} == set(people)
    assert 5 < len(people) < 25
    made = variants(runs, bench.ROWS, {"backbone": bench.BACKBONE, "head": bench.COSFACE}, faces, tmp_path)
    assert [config.data.sampler for config in made.values()][1:] == [{"ClassBalanced": {"images_per_class": 2}}]
