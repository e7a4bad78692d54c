"""LFW's relatives from files to report: lists, people, missing images, repeated pairs, images that were skipped."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from facelab.errors import ConfigError, DataError
from facelab.test_protocol.base import PROTOCOLS, Embeddings, Report
from facelab.test_protocol.protocols.agedb import agedb_person
from facelab.test_protocol.protocols.cfp import cfp_person
from facelab.test_protocol.protocols.listed_pairs import ListedPairs, person_stem

PEOPLE = 20


def touch(root: Path, *names: str) -> None:
    """Images that are only looked for."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def two_line_list(root: Path, image: Callable[[int, int], str]) -> Path:
    """20 same and 20 different pairs of 20 people with two images each."""
    lines = []
    for person in range(PEOPLE):
        lines += [f"{image(person, 1)} 1", f"{image(person, 2)} 1"]
    for person in range(PEOPLE):
        lines += [f"{image(person, 1)} 0", f"{image((person + 1) % PEOPLE, 1)} 0"]
    touch(root / "images", *(image(person, number) for person in range(PEOPLE) for number in (1, 2)))
    (root / "list.txt").write_text("\n".join(lines) + "\n")
    return root / "list.txt"


def agedb_list(root: Path) -> Path:
    """10 splits of a same and a different pair."""
    splits = np.empty((10, 1), object)
    for number in range(10):
        cells = np.empty((2, 2), object)
        stems = [[f"{number}_Al_20_m", f"{number}_Al_20_m"], [f"{number}_Al_50_m", f"{number}_Bo_Cy_50_f"]]
        for place in np.ndindex(2, 2):
            cells[place] = {"name": stems[place[0]][place[1]]}
            touch(root / "images", f"{stems[place[0]][place[1]]}.jpg")
        splits[number, 0] = {"pairs": cells, "labels": np.array([[1, -1]])}
    savemat(root / "list.mat", {"splits": splits})
    return root / "list.mat"


def cfp_list(root: Path, kind: str) -> Path:
    """2 folds of a same and a different pair."""
    protocol = root / "images" / "Protocol"
    protocol.mkdir(parents=True)
    for letter, view in (("F", "frontal"), ("P", "profile")):
        names = [f"Data/Images/00{person}/{view}/01.jpg" for person in (1, 2)]
        touch(root / "images", *names)
        lines = [f"{number} ../{name}" for number, name in enumerate(names, 1)]
        (protocol / f"Pair_list_{letter}.txt").write_text("\n".join(lines))
    for fold in ("01", "02"):
        folder = protocol / "Split" / kind / fold
        folder.mkdir(parents=True)
        (folder / "same.txt").write_text("1,1\n")
        (folder / "diff.txt").write_text("1,2\n")
    return protocol


LISTS: dict[str, Callable[[Path], Path]] = {
    "CPLFW": lambda root: two_line_list(root, lambda person, number: f"P_{person}_{number}.jpg"),
    "CALFW": lambda root: two_line_list(root, lambda person, number: f"P_{person}_{number:04d}.jpg"),
    "AgeDB30": agedb_list,
    "CFP-FP": lambda root: cfp_list(root, "FP"),
    "CFP-FF": lambda root: cfp_list(root, "FF"),
}


def opened(name: str, root: Path, **options: Any) -> ListedPairs:
    protocol = PROTOCOLS.build(name, {"root": str(root / "images"), "pairs": str(LISTS[name](root)), **options})
    assert isinstance(protocol, ListedPairs)
    return protocol


def embeddings(protocol: ListedPairs, **options: Any) -> Embeddings:
    """Each person has a direction of its own."""
    directions = np.eye(protocol.people.max() + 2, dtype=np.float32)
    return Embeddings(directions[protocol.people], **options)


def value(report: Report, name: str) -> float | None:
    return next(metric.value for metric in report.metrics if metric.name == name)


@pytest.mark.parametrize("name", LISTS)
def test_people_who_are_told_apart_are_verified(name: str, tmp_path: Path) -> None:
    protocol = opened(name, tmp_path, fars=[0.5])
    report = protocol.evaluate(embeddings(protocol))
    assert report.headline.name == "accuracy"
    assert report.headline.value == value(report, "TAR@FAR=5e-1") == 1.0
    assert report.mistakes == ()
    same = report.trials["left"] == report.trials["right"]
    assert same.tolist() == report.trials["same"].tolist() == protocol.same.tolist()
    assert report.trials["score"].tolist() == protocol.same.astype(float).tolist()
    assert {str(array.dtype) for array in report.trials.values()} == {"float32", "bool", "int32"}


@pytest.mark.parametrize(
    ("name", "gone", "place"),
    [
        ("CPLFW", "P_3_2.jpg", r"list\.txt:8"),
        ("CALFW", "P_3_0002.jpg", r"list\.txt:8"),
        ("AgeDB30", "2_Bo_Cy_50_f.jpg", r"list\.mat: split 3, pair 2"),
        ("CFP-FP", "Data/Images/002/profile/01.jpg", r"01/diff\.txt:1"),
    ],
)
def test_a_missing_image_is_named_with_the_line_that_wants_it(name: str, gone: str, place: str, tmp_path: Path) -> None:
    pairs = LISTS[name](tmp_path)
    (tmp_path / "images" / gone).unlink()
    with pytest.raises(DataError, match=rf"1 of \d+ images are missing, the first is '{gone}', which .*{place} names"):
        PROTOCOLS.build(name, {"root": str(tmp_path / "images"), "pairs": str(pairs)})


def test_excluded_people_and_new_folds(tmp_path: Path) -> None:
    protocol = opened("CPLFW", tmp_path, exclude=["P_0", "P_7"], folds=3)
    assert (protocol.same.sum(), len(protocol.same)) == (18, 34)
    assert len(np.unique(protocol.fold)) == 3
    assert {"excluded_people": 2, "excluded_pairs": 6}.items() <= dict(protocol.options()).items()
    with pytest.raises(ConfigError, match="40 pairs cannot be cut into 41 folds"):
        opened("CALFW", tmp_path / "other", folds=41)


def test_without_folds_there_is_no_accuracy_and_mistakes_are_those_at_the_equal_error_rate(tmp_path: Path) -> None:
    protocol = opened("CPLFW", tmp_path, folds=1, fars=[0.1])
    values = embeddings(protocol).values
    twin = int(np.flatnonzero(protocol.people == 1)[0])
    values[twin] = values[0]  # the first image of the second person looks like the first person
    report = protocol.evaluate(Embeddings(values))
    assert report.headline.name == "TAR@FAR=1e-1"
    assert value(report, "threshold@FAR=1e-1") == 1.0
    kinds = [(mistake.kind, mistake.score) for mistake in report.mistakes]
    assert kinds == [("false match", 1.0), ("false non-match", 0.0)]
    assert all(twin in (mistake.left, mistake.right) for mistake in report.mistakes)


def test_repeated_pairs_are_counted(tmp_path: Path) -> None:
    pairs = LISTS["CPLFW"](tmp_path)
    lines = pairs.read_text().splitlines()
    pairs.write_text("\n".join([*lines, *lines[:2], lines[1], lines[0]]) + "\n")
    protocol = PROTOCOLS.build("CPLFW", {"root": str(tmp_path / "images"), "pairs": str(pairs)})
    assert isinstance(protocol, ListedPairs)
    report = protocol.evaluate(embeddings(protocol))
    assert report.options["repeated_pairs"] == value(report, "repeated pairs") == 2
    assert value(report, "same pairs") == 22


def test_pairs_with_images_that_were_skipped_are_left_out(tmp_path: Path) -> None:
    protocol = opened("CPLFW", tmp_path)
    skipped = np.zeros(len(protocol.images), bool)
    skipped[3] = True  # the second image of the second person, in one pair
    report = protocol.evaluate(embeddings(protocol, skipped=skipped))
    assert report.options["skipped_pairs"] == value(report, "skipped pairs") == 1
    assert (value(report, "same pairs"), len(report.trials["same"])) == (19, 39)
    with pytest.raises(DataError, match="CPLFW: each of the 40 pairs has an image that could not be read"):
        protocol.evaluate(embeddings(protocol, skipped=np.ones(len(protocol.images), bool)))


def test_embeddings_of_another_size_are_refused(tmp_path: Path) -> None:
    protocol = opened("CPLFW", tmp_path)
    good = embeddings(protocol).values
    with pytest.raises(DataError, match="embeddings of 21 values, but 20 values for the mirrored images"):
        protocol.evaluate(Embeddings(good, good[:, 1:]))
    with pytest.raises(DataError, match="have no length"):
        protocol.evaluate(Embeddings(good[:, :0]))
    with pytest.raises(DataError, match="40 images need as many embeddings"):
        protocol.evaluate(Embeddings(good[1:]))


def test_people_in_image_names() -> None:
    assert [person_stem(name) for name in ("A_B_0001.jpg", "A_1.png", "A.jpg", "A_b.jpg")] == ["A_B", "A", "", ""]
    assert [agedb_person(name) for name in ("12_AlBo_30_m.jpg", "x/1_A_b_3_f.jpg", "x.jpg")] == ["AlBo", "A_b", ""]
    assert [cfp_person(name) for name in ("Data/Images/007/frontal/01.jpg", "01.jpg")] == ["007", ""]
