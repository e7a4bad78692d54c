"""TinyFace: layouts, skipped images, the report, and refusals."""

import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from scipy.io import savemat

from facelab.errors import ConfigError, DataError
from facelab.test_protocol.base import PROTOCOLS, Embeddings, Report
from facelab.test_protocol.protocols.joint import JoinedImages
from facelab.test_protocol.protocols.reduced import open_protocol
from facelab.test_protocol.protocols.tinyface import TinyFace, by_distance
from facelab.test_protocol.run import run_protocols

IMAGES = {
    "Probe": ["1_1.png", "2_1.png", "3_1.png"],
    "Gallery_Match": ["1_2.png", "2_2.png", "2_3.png"],
    "Gallery_Distractor": ["1_9.png", "x.png"],  # names of distractors say nothing, not even person 1
}
ANGLES = {
    "Probe/1_1.png": 0, "Gallery_Match/1_2.png": 10, "Gallery_Distractor/1_9.png": 5,
    "Probe/2_1.png": 90, "Gallery_Match/2_2.png": 88, "Gallery_Match/2_3.png": 120,
    "Probe/3_1.png": 200, "Gallery_Distractor/x.png": 75,
}  # fmt: skip

Make = Callable[..., Path]


@pytest.fixture
def layout(tmp_path: Path) -> Make:
    def make(below: str = "", images: dict[str, list[str]] | None = None) -> Path:
        for folder, names in (IMAGES if images is None else images).items():
            (tmp_path / below / folder).mkdir(parents=True)
            for name in names:
                (tmp_path / below / folder / name).write_bytes(b"image")
        return tmp_path

    return make


def test_its_images_may_have_any_shape_where_others_may_not(layout: Make, tiny_net: Any) -> None:
    root = layout()
    for number, path in enumerate(sorted(root.glob("*/*.png"))):
        cv2.imwrite(str(path), np.full((6 + 3 * number, 20, 3), 20 * number, np.uint8))
    protocol = TinyFace(root)
    (report,) = run_protocols(tiny_net, [("TinyFace", protocol)], resize=True)
    assert report.options["images"] == 8
    covered = open_protocol({"TinyFace": {"root": str(root), "occlude": "mouth"}})
    assert run_protocols(tiny_net, [("TinyFace", covered)], resize=True)
    with pytest.raises(DataError, match="align the images to that size, or allow resizing with resize=true"):
        run_protocols(tiny_net, [("TinyFace", protocol)])

    class Photos(TinyFace):
        crops = False

    with pytest.raises(DataError, match="no aligned face of another size"):
        run_protocols(tiny_net, [("photos", Photos(root))], resize=True)
    assert run_protocols(tiny_net, [("photos", Photos(root))], resize=True, any_photo=True)


def _lists(folder: Path, probes: list[str], people: list[Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for prefix, names, ids in (("probe", probes, people), ("gallery_match", ["1_2.jpg", "2_2.jpg"], [7, 8])):
        cell = np.array([[name] for name in names], object).reshape(-1, 1)
        short = prefix.removesuffix("_match")
        savemat(folder / f"{prefix}_img_ID_pairs.mat", {f"{short}_set": cell, f"{short}_ids": np.array([ids]).T})


def _embeddings(protocol: TinyFace, scale: float = 1.0) -> Embeddings:
    names = [
        protocol.images.location(row).removeprefix(f"{protocol.listed.root}/") for row in range(len(protocol.images))
    ]
    angles = np.radians([ANGLES["/".join(name.split("/")[-2:])] for name in names])
    values = scale * np.stack((np.cos(angles), np.sin(angles)), axis=1).astype(np.float32)
    return Embeddings(values, values if protocol.flip else None)


def _values(report: Report) -> dict[str, float | None]:
    return {metric.name: metric.value for metric in report.metrics}


@pytest.mark.parametrize("below", ["", "tinyface_aligned_112", "Testing_Set", "tinyface/Testing_Set"])
def test_numbers_by_hand_from_any_layout(layout: Make, below: str) -> None:
    protocol = TinyFace(layout(below), ranks=(1, 2))
    report = protocol.evaluate(_embeddings(protocol))
    values = _values(report)
    assert values["rank-1"] == 0.5  # a distractor stands between 1_1 and its mate
    assert values["rank-2"] == 1.0
    assert values["mAP"] == pytest.approx((1 / 2 + (1 / 1 + 2 / 3) / 2) / 2)
    assert (values["probes with a mate"], values["probes without a mate"], values["gallery images"]) == (2, 1, 5)
    assert report.trials["person"].tolist() == [1, 2, 3]
    assert report.trials["rank"].tolist() == [2, 1, 0]
    assert report.curves["rank_rate"][:3].tolist() == [0.5, 1.0, 1.0]
    assert report.options["people_from"] == "file names"


def test_mistakes_name_the_images(layout: Make) -> None:
    protocol = TinyFace(layout())
    report = protocol.evaluate(_embeddings(protocol))
    found = {
        (mistake.kind, protocol.images.name(mistake.left), protocol.images.name(mistake.right)): mistake.score
        for mistake in report.mistakes
    }
    missed = ("false non-match", "Probe/1_1.png", "Gallery_Match/1_2.png")
    confused = ("false match", "Probe/1_1.png", "Gallery_Distractor/1_9.png")
    assert found[missed] == pytest.approx(np.cos(np.radians(10)))
    assert found[confused] == pytest.approx(np.cos(np.radians(5)))
    assert [key[1] for key in found if key[0] == "false match"] == ["Probe/1_1.png", "Probe/3_1.png"]


def test_an_archive_is_read_as_it_is(layout: Make, tmp_path: Path) -> None:
    layout("tinyface_aligned_112")
    with tarfile.open(tmp_path / "faces.tar", "w") as archive:
        archive.add(tmp_path / "tinyface_aligned_112", "tinyface_aligned_112")
    protocol = TinyFace(tmp_path / "faces.tar", ranks=(1, 2))
    assert _values(protocol.evaluate(_embeddings(protocol)))["rank-2"] == 1.0


def test_lists_say_who_it_is_and_aligned_images_may_end_otherwise(layout: Make, tmp_path: Path) -> None:
    root = layout("tinyface_aligned_112")
    _lists(tmp_path / "tinyface" / "Testing_Set", ["2_1.jpg", "1_1.jpg"], [8, 7])
    protocol = TinyFace(root)
    report = protocol.evaluate(_embeddings(protocol))
    assert report.trials["person"].tolist() == [8, 7]
    assert report.trials["rank"].tolist() == [1, 2]
    assert report.options["people_from"] == "lists"
    assert len(protocol.images) == 6  # what the lists do not name takes no part


def test_skipped_images_are_left_out(layout: Make) -> None:
    protocol = TinyFace(layout())
    names = [protocol.images.name(row) for row in range(len(protocol.images))]
    skipped = np.isin(names, ["Probe/2_1.png", "Gallery_Distractor/1_9.png"])
    report = protocol.evaluate(replace(_embeddings(protocol), skipped=skipped))
    values = _values(report)
    assert (values["rank-1"], values["gallery images"]) == (1.0, 4)
    assert report.trials["person"].tolist() == [1, 3]
    assert report.options["skipped_images"] == 2
    nothing = protocol.evaluate(
        replace(_embeddings(protocol), skipped=np.isin(names, ["Probe/1_1.png", "Probe/2_1.png"]))
    )
    assert nothing.headline.value is None
    assert "no probe has a mate" in nothing.headline.note


def test_the_original_script_stands_first_where_it_is_asked_for(layout: Make) -> None:
    protocol = TinyFace(layout(), rules="tinyface", flip=False, ranks=(1,))
    first, second, *_ = protocol.evaluate(_embeddings(protocol, scale=3.0)).metrics
    assert (first.name, first.kind, first.value) == ("rank-1 (TinyFace script)", "reference", 0.5)
    assert second.name == "mAP (TinyFace script)"


def test_by_distance_orders_as_the_distance_does() -> None:
    random = np.random.default_rng(0)
    probe, gallery = random.normal(size=(4, 3)), random.normal(size=(9, 3))
    left, right = by_distance(probe, gallery)
    distance = np.linalg.norm(probe[:, None] - gallery, axis=2)
    assert np.argsort(-(left @ right.T), axis=1).tolist() == np.argsort(distance, axis=1).tolist()


def test_missing_things_are_named(layout: Make, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"needs images in the folder 'Gallery_Distractor', which is missing or empty"):
        TinyFace(layout("a", {**IMAGES, "Gallery_Distractor": []}) / "a")
    with pytest.raises(DataError, match=r"name must begin with the person's number, as in '12_1.jpg'"):
        TinyFace(layout("b", {**IMAGES, "Probe": ["anna_1.jpg"]}) / "b")
    with pytest.raises(DataError, match="no probe has a mate in the gallery"):
        TinyFace(layout("c", {**IMAGES, "Probe": ["9_1.jpg"]}) / "c")
    with pytest.raises(DataError, match="no such folder or archive"):
        TinyFace(tmp_path / "nowhere")
    root = layout("d") / "d"
    _lists(tmp_path / "lists", ["1_1.jpg", "1_5.jpg"], [7, 7])
    with pytest.raises(DataError, match=r"probe_img_ID_pairs.mat: 1 of 2 images are missing in .*Probe.* '1_5.jpg'"):
        TinyFace(root, lists=tmp_path / "lists")
    _lists(tmp_path / "lists", ["1_1.jpg", "2_1.jpg"], [7])
    with pytest.raises(DataError, match="2 names and 1 people do not make a list"):
        TinyFace(root, lists=tmp_path / "lists")
    _lists(tmp_path / "lists", ["1_1.jpg", "2_1.jpg"], [7, 7.5])
    with pytest.raises(DataError, match="probe_ids is not a column of whole numbers"):
        TinyFace(root, lists=tmp_path / "lists")
    (tmp_path / "lists" / "probe_img_ID_pairs.mat").write_bytes(b"text")
    with pytest.raises(DataError, match="is not a readable MATLAB file"):
        TinyFace(root, lists=tmp_path / "lists")


def test_two_images_of_one_stem_are_refused_where_lists_name_stems(layout: Make, tmp_path: Path) -> None:
    root = layout("", {**IMAGES, "Probe": ["1_1.jpg", "1_1.png"]})
    _lists(tmp_path / "lists", ["1_1.jpg"], [7])
    with pytest.raises(DataError, match=r"'Probe/1_1.jpg' and 'Probe/1_1.png' are both the image '1_1'"):
        TinyFace(root, lists=tmp_path / "lists")


def test_embeddings_that_do_not_fit_are_refused(layout: Make) -> None:
    protocol = TinyFace(layout())
    good = _embeddings(protocol)
    with pytest.raises(DataError, match="8 images need as many embeddings"):
        protocol.evaluate(Embeddings(good.values[1:]))
    with pytest.raises(DataError, match="do not fit: there are none"):
        protocol.evaluate(Embeddings(good.values))
    with pytest.raises(DataError, match=r"do not fit: got \(8, 1\) beside \(8, 2\)"):
        protocol.evaluate(Embeddings(good.values, good.values[:, :1]))
    broken = good.values.copy()
    broken[4] = np.nan
    with pytest.raises(DataError, match=r"embedding of image 4 \(from 0\) is not finite"):
        protocol.evaluate(Embeddings(broken, good.values))


def test_options_are_checked(layout: Make) -> None:
    root = layout()
    with pytest.raises(ConfigError, match="a rank is at least 1"):
        TinyFace(root, ranks=(0,))
    with pytest.raises(ConfigError, match="fusion"):
        PROTOCOLS.build("TinyFace", {"root": str(root), "fusion": "average"})


def test_probes_in_another_form_are_searched_in_the_same_gallery(layout: Make) -> None:
    """Turned by 85 degrees in that form, the first probe has all of the second person before its own mate."""
    protocol = TinyFace(layout(), flip=False)
    names = [protocol.images.name(row) for row in range(len(protocol.images))]
    angles = np.radians([ANGLES[name] for name in names])
    both = np.concatenate([angles, angles + np.radians(85)])
    embeddings = Embeddings(np.stack((np.cos(both), np.sin(both)), axis=1).astype(np.float32))
    moved = protocol.with_probes_of(JoinedImages([protocol.images, protocol.images]))
    assert moved.evaluate(embeddings).trials["rank"].tolist()[:2] == [4, 1]
    assert protocol.evaluate(embeddings.part(slice(0, len(names)))).trials["rank"].tolist()[:2] == [2, 1]
