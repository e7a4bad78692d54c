"""LFW from files to report, and the people that are left out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facelab.errors import ConfigError, DataError
from facelab.test_protocol.base import PROTOCOLS, Embeddings
from facelab.test_protocol.protocols.lfw import LFW
from facelab.test_protocol.protocols.listed_pairs import folder_or_name
from facelab.test_protocol.run import run_protocols


def test_colours_are_verified(small_lfw: tuple[Path, Path], tiny_net: Any) -> None:
    root, pairs = small_lfw
    protocol = PROTOCOLS.build("LFW", {"root": str(root), "pairs": str(pairs), "flip": True, "fars": [0.2]})
    (report,) = run_protocols(tiny_net, [("faces", protocol)])
    values = {metric.name: metric.value for metric in report.metrics}
    assert values["AUC"] == 1.0
    assert (values["accuracy"] or 0) > 0.9
    assert values["TAR@FAR=2e-1"] == 1.0
    assert values["same pairs"] == 6.0
    assert report.protocol == "faces"
    assert report.options["flip"] is True
    assert report.options["precision"] == "fp32"
    assert report.options["folds"] == 3
    assert len(report.options["model"]) == 32


@pytest.mark.parametrize(
    ("thresholds", "headline"),
    [
        ("exact", "accuracy"),
        ("insightface", "accuracy (InsightFace)"),
        ("facexzoo", "accuracy (FaceX-Zoo)"),
        ("magface", "accuracy (MagFace)"),
    ],
)
def test_the_chosen_evaluator_comes_first(
    small_lfw: tuple[Path, Path], tiny_net: Any, thresholds: Any, headline: str
) -> None:
    (report,) = run_protocols(tiny_net, [("LFW", LFW(*small_lfw, thresholds=thresholds))])
    assert report.headline.name == headline
    assert report.headline.kind == ("correct" if thresholds == "exact" else "reference")
    assert any(metric.name == "accuracy" and metric.kind == "correct" for metric in report.metrics)


def test_each_image_is_embedded_once(small_lfw: tuple[Path, Path]) -> None:
    protocol = LFW(*small_lfw)
    assert len(protocol.images) == len({tuple(row) for row in protocol.pairs.reshape(-1, 1)}) == 18


def test_excluded_people_take_their_pairs_with_them(small_lfw: tuple[Path, Path], tmp_path: Path) -> None:
    root, pairs = small_lfw
    protocol = LFW(root, pairs, exclude=["Person_0"])
    assert len(protocol.same) == 9  # of fold 0 only the same pair of Person_1 is left
    assert protocol.fold.tolist() == [0, *[1] * 4, *[2] * 4]
    assert protocol.options()["excluded_pairs"] == 3
    training_list = tmp_path / "train.txt"
    training_list.write_text("Person_0/Person_0_0001.jpg 0\nPerson_0/Person_0_0002.jpg 0\n\n")
    assert LFW(root, pairs, exclude=training_list).same.tolist() == protocol.same.tolist()


def test_excluded_names_meet_in_any_unicode_form_and_from_any_editor(
    small_lfw: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root, pairs = small_lfw
    (root / "Person_0").rename(root / "Jose\u0301")  # as macOS writes an accent
    for image in (root / "Jose\u0301").iterdir():
        image.rename(image.with_name(image.name.replace("Person_0", "Jose\u0301")))
    pairs.write_text(pairs.read_text().replace("Person_0", "Jose\u0301"))
    left_out = LFW(root, pairs, exclude=["Jose\u0301"]).left_out
    assert left_out > 0
    for number, text in enumerate(("Jos\u00e9", "\ufeffJos\u00e9\r\nNobody\r\n", "Jos\u00e9\\1.jpg 0\n")):
        path = tmp_path / f"{number}.txt"
        path.write_text(text, encoding="utf-8", newline="")
        assert LFW(root, pairs, exclude=path).left_out == left_out
    assert not caplog.records
    assert LFW(root, pairs, exclude=["Jane", "Zoe"]).left_out == 0
    assert "pairs.txt: no pair shows any of the 2 people to exclude, the first is 'Jane'" in caplog.text


def test_people_of_lists() -> None:
    assert [folder_or_name(text) for text in ("Al", "Al/1.jpg 0", "x/Al/1.jpg")] == ["Al", "Al", "Al"]


def test_folds_can_be_cut_anew(small_lfw: tuple[Path, Path]) -> None:
    protocol = LFW(*small_lfw, folds=2)
    assert np.bincount(protocol.fold[protocol.same]).tolist() == [3, 3]


def test_refusals(small_lfw: tuple[Path, Path], tmp_path: Path) -> None:
    root, pairs = small_lfw
    with pytest.raises(DataError, match="no pair is left after 6 people were excluded"):
        LFW(root, pairs, exclude=[f"Person_{n}" for n in range(6)])
    with pytest.raises(DataError, match="names nobody"):
        LFW(root, pairs, exclude=[" "])
    with pytest.raises(DataError, match=r"none\.txt: there is no such file"):
        LFW(root, pairs, exclude=tmp_path / "none.txt")
    with pytest.raises(ConfigError, match=r"fars: 0\.0 is not in \(0, 1\]"):
        LFW(root, pairs, fars=(0.0,))
    with pytest.raises(ConfigError, match="Did you mean 'insightface'"):
        LFW(root, pairs, thresholds="insigtface")  # type: ignore[arg-type]
    (root / "Person_3" / "Person_3_0001.jpg").unlink()
    with pytest.raises(DataError, match=r"1 of 18 images are missing, the first is 'Person_3/Person_3_0001\.jpg'"):
        LFW(root, pairs)


def test_embeddings_must_fit(small_lfw: tuple[Path, Path], make_net: Callable[..., Any]) -> None:
    protocol = LFW(*small_lfw, flip=True)
    good = np.ones((18, 4), np.float32)
    with pytest.raises(DataError, match=r"18 images need as many embeddings, got an array of shape \(17, 4\)"):
        protocol.evaluate(Embeddings(good[:17], good[:17]))
    with pytest.raises(DataError, match="no embeddings of the mirrored images"):
        protocol.evaluate(Embeddings(good))
    bad = good.copy()
    bad[3, 1] = np.inf
    with pytest.raises(DataError, match=r"image 3 \(from 0\), .*Person_1_0003\.jpg, is not finite"):
        protocol.evaluate(Embeddings(good, bad))


def test_too_few_negatives_give_no_number(small_lfw: tuple[Path, Path], tiny_net: Any) -> None:
    (report,) = run_protocols(tiny_net, [("LFW", LFW(*small_lfw))])
    tar = next(metric for metric in report.metrics if metric.name == "TAR@FAR=1e-3")
    assert tar.value is None
    assert tar.note == "cannot be measured: needs 1,000 different pairs, there are 6"


@pytest.mark.real
def test_people_with_five_images_leave_4241_pairs(shared_root: Path) -> None:
    faces = shared_root / "data" / "faces"
    from facelab.data.formats.open_files import open_files

    training = [person for person, images in open_files(faces / "lfw112.tar").people() if len(images) >= 5]
    assert len(training) == 423
    protocol = LFW(faces / "lfw112.tar", faces / "lfw_pairs.txt", exclude=training)
    assert (int(protocol.same.sum()), int((~protocol.same).sum())) == (1626, 2615)
    assert len(np.unique(protocol.fold)) == 10


@pytest.mark.real
@pytest.mark.slow
def test_edgeface_reaches_its_published_accuracy(shared_root: Path) -> None:
    """7,701 images: a minute on two idle cores."""
    from facelab.backbone.base import BACKBONES

    data = shared_root / "data"
    weights = data / "weights" / "edgeface_xxs.safetensors"
    options = {"model": "edgenext_xx_small", "output": "classifier", "weights": weights}
    network = BACKBONES.build("Timm", options)
    protocol = LFW(data / "faces" / "lfw112.tar", data / "faces" / "lfw_pairs.txt")
    (report,) = run_protocols(network, [("LFW", protocol)], precision="bf16")
    assert report.headline.value == pytest.approx(0.9945, abs=0.001)
