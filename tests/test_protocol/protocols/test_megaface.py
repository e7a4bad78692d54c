"""MegaFace: numbers by hand, masked probes, noise, skipped images, and refusals."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facelab.errors import ConfigError, DataError
from facelab.test_protocol.base import PROTOCOLS, Embeddings, Report
from facelab.test_protocol.lists.megaface_lists import read_feature_list, read_noises
from facelab.test_protocol.protocols.megaface import MegaFace

FACES = {"a/a_1.jpg": 0, "a/a_2.jpg": 30, "a/a_3.jpg": 170, "b/b_1.jpg": 90, "b/b_2.jpg": 94}  # a_3 is not a
STRANGERS = {"1/x/0.jpg": 50, "2/y/0.jpg": 92, "3/z/0.jpg": 270}
MASKED = {"a/a_1.jpg": 45, "a/a_2.jpg": 30, "a/a_3.jpg": 170, "b/b_1.jpg": 90, "b/b_2.jpg": 94}

PATHS = ("masked", "facescrub_noises", "megaface_noises")

Make = Callable[..., MegaFace]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    for below, names in (("faces", FACES), ("masked", MASKED), ("strangers", STRANGERS)):
        for name in names:
            (tmp_path / below / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / below / name).touch()
    people = [name.split("/")[0] for name in FACES]
    (tmp_path / "faces.json").write_text(json.dumps({"path": list(FACES), "id": people}))
    (tmp_path / "3.json").write_text(json.dumps({"path": list(STRANGERS)}))
    (tmp_path / "1.json").write_text(json.dumps({"path": list(STRANGERS)[:1]}))
    (tmp_path / "noise.txt").write_text("# noisy\na_3.jpg\nnot_here.jpg\n")
    (tmp_path / "strangers.txt").write_text("# noisy\nsomething\t2/y/0.jpg\n")

    def make(lists: tuple[str, ...] = ("3.json",), **options: Any) -> MegaFace:
        given: dict[str, Any] = {
            "root": tmp_path / "faces",
            "facescrub_list": tmp_path / "faces.json",
            "megaface_list": tuple(tmp_path / name for name in lists),
            "distractors": tmp_path / "strangers",
            "ranks": (1, 2),
            "fars": (0.5,),
        }
        paths = {key: tmp_path / value for key, value in options.items() if key in PATHS}
        return MegaFace(**(given | options | paths))

    return make


def _embeddings(masked: bool = False) -> Embeddings:
    angles = [*FACES.values(), *(MASKED.values() if masked else ()), *STRANGERS.values()]
    radians = np.radians(angles)
    return Embeddings(np.stack((np.cos(radians), np.sin(radians)), axis=1).astype(np.float32) * 3)


def _values(report: Report) -> dict[str, float | None]:
    return {metric.name: metric.value for metric in report.metrics}


def test_numbers_by_hand(make: Make) -> None:
    """Pairs of a: 30 apart, and with the wrong image far apart; of b: 4 apart, a stranger is 2 away from both."""
    report = make().evaluate(_embeddings())
    values = _values(report)
    # a_1 -> a_2 is 30, its best stranger 50: found. a_2 -> a_1 is 30, stranger 20: second. b: second both times.
    # a_3 -> a_1 170, a_2 140: strangers at 78, 100, 120: neither. a_1 -> a_3: 170 against 50, 92, 90; a_2 -> a_3: 140
    assert values["rank-1"] == pytest.approx(1 / 8)
    assert values["rank-2"] == pytest.approx(4 / 8)
    assert report.headline.name == "rank-1"
    assert (values["people"], values["genuine pairs"], values["distractors"]) == (2, 8, 3)
    assert sorted(report.trials["rank"].tolist()) == [1, 2, 2, 2, 3, 3, 3, 3]
    assert report.trials["person"].tolist() == [0] * 6 + [1] * 2
    assert report.curves["rank_rate"].tolist() == [1 / 8, 4 / 8]


def test_noisy_images_take_part_in_nothing(make: Make) -> None:
    report = make(facescrub_noises="noise.txt", megaface_noises="strangers.txt").evaluate(_embeddings())
    values = _values(report)
    assert values["rank-1"] == pytest.approx(3 / 4)
    assert (values["genuine pairs"], values["distractors"]) == (4, 2)
    assert (values["noisy FaceScrub images"], values["noisy distractors"]) == (1, 1)


def test_facexzoo_replaces_noise_and_counts_it(make: Make) -> None:
    protocol = make(facescrub_noises="noise.txt", megaface_noises="strangers.txt", rules="facexzoo")
    first, second, ours, *_ = protocol.evaluate(_embeddings()).metrics
    # the third image of a becomes the middle of the others, 15 degrees from both: its 4 pairs are all found
    assert (first.name, first.kind, first.value) == ("rank-1 (FaceX-Zoo)", "reference", pytest.approx(7 / 8))
    assert second.value == 1.0
    assert (ours.name, ours.value) == ("rank-1", pytest.approx(3 / 4))


def test_masked_probes_search_faces_without_masks(make: Make) -> None:
    report = make(masked="masked", facescrub_noises="noise.txt", megaface_noises="strangers.txt").evaluate(
        _embeddings(masked=True)
    )
    values = _values(report)
    assert values["rank-1"] == pytest.approx(3 / 4)
    assert values["masked rank-1"] == pytest.approx(2 / 4)  # a_1 with a mask is 5 from a stranger


def test_verification_and_what_cannot_be_measured(make: Make) -> None:
    report = make(fars=[0.5, 1e-3]).evaluate(_embeddings())
    by_name = {metric.name: metric for metric in report.metrics}
    scores = np.cos(np.radians(np.subtract.outer(list(FACES.values()), list(STRANGERS.values())))).ravel()
    limit = np.sort(scores)[::-1][7]
    genuine = np.cos(np.radians([30, 170, 140, 4]))
    assert by_name["TAR@FAR=5e-1"].value == pytest.approx(np.mean(genuine > limit))
    assert by_name["TAR@FAR=1e-3"].value is None
    assert "needs 1,000 different pairs, there are 15" in by_name["TAR@FAR=1e-3"].note


def test_without_false_accept_rates_people_are_only_searched(make: Make) -> None:
    values = _values(make(fars=()).evaluate(_embeddings()))
    assert values == {key: value for key, value in _values(make().evaluate(_embeddings())).items() if "FAR" not in key}


def test_several_lists_share_their_images(make: Make) -> None:
    protocol = make(("1.json", "3.json"))
    assert len(protocol.images) == len(FACES) + len(STRANGERS)
    report = protocol.evaluate(_embeddings())
    by_name = {metric.name: metric for metric in report.metrics}
    assert report.headline.name == "rank-1"
    assert by_name["rank-1"].value == pytest.approx(1 / 8)
    assert by_name["rank-1@1"].value == pytest.approx(3 / 8)  # only the stranger at 50 degrees
    assert by_name["rank-2@1"].value is None
    assert "there are 1 distractors" in by_name["rank-2@1"].note
    with pytest.raises(ConfigError, match="lists of different size"):
        make(("3.json", "3.json"))


def test_the_registry_takes_one_list_or_several(make: Make, tmp_path: Path) -> None:
    make()
    options = {"root": str(tmp_path / "faces"), "facescrub_list": str(tmp_path / "faces.json")}
    options |= {"distractors": str(tmp_path / "strangers")}
    for lists in (str(tmp_path / "3.json"), [str(tmp_path / "3.json"), str(tmp_path / "1.json")]):
        protocol = PROTOCOLS.build("MegaFace", {**options, "megaface_list": lists})
        assert len(protocol.images) == len(FACES) + len(STRANGERS)


def test_skipped_images_are_left_out(make: Make) -> None:
    skipped = np.zeros(len(FACES) + len(STRANGERS), bool)
    skipped[[2, 6]] = True  # a_3 and the stranger between the images of b
    report = make().evaluate(replace(_embeddings(), skipped=skipped))
    assert _values(report)["rank-1"] == pytest.approx(3 / 4)
    assert report.options["skipped_images"] == 2


def test_mistakes_name_the_images(make: Make) -> None:
    protocol = make(facescrub_noises="noise.txt")
    mistakes = protocol.evaluate(_embeddings()).mistakes
    named = {
        (one.kind, *(protocol.images.location(row).split("/")[-1] for row in (one.left, one.right))) for one in mistakes
    }
    assert ("false match", "b_1.jpg", "0.jpg") in named
    assert ("false non-match", "a_2.jpg", "a_1.jpg") in named
    assert max(one.right for one in mistakes if one.kind == "false match") < len(protocol.images)


def test_refusals(make: Make, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="fars are"):
        make(fars=[2.0])
    with pytest.raises(ConfigError, match="rules is 'exactly'. Did you mean 'exact'"):
        make(rules="exactly")
    with pytest.raises(ConfigError, match="fusion is 'add'"):
        make(fusion="add")
    (tmp_path / "strangers" / "1" / "x" / "0.jpg").unlink()
    with pytest.raises(DataError, match=r"1 of 3 images are missing, the first is '1/x/0.jpg'"):
        make()
    (tmp_path / "noise.txt").write_text("a_2.jpg\na_3.jpg\nb_1.jpg\n")
    with pytest.raises(DataError, match="no person has two images that are not noisy"):
        make(facescrub_noises="noise.txt")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "is not a list of MegaFace in JSON"),
        ("[]", "is a JSON object with 'path'"),
        ('{"path": []}', "the list names no image"),
        ('{"path": "a.jpg"}', "'path' is not a list of texts"),
        ('{"path": ["a.jpg", "b.jpg"], "id": ["a"]}', "2 paths and 1 ids"),
        ('{"path": ["a.jpg", "a.jpg"]}', "names the image 'a.jpg' 2 times"),
    ],
)
def test_damaged_lists_are_refused(content: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text(content)
    with pytest.raises(DataError, match=sentence):
        read_feature_list(tmp_path / "list.json")


def test_missing_lists_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="(?i)no such file"):
        read_feature_list(tmp_path / "none.json")
    with pytest.raises(DataError, match="(?i)no such file"):
        read_noises(tmp_path / "none.txt")
    (tmp_path / "empty.txt").write_text("# nothing\n")
    with pytest.raises(DataError, match="names no image"):
        read_noises(tmp_path / "empty.txt")
