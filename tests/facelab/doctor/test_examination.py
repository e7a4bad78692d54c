"""A set of drawn faces with every error at once, its page, and the list without it."""

import csv
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from torch import nn

from facelab.data.sources.image_folder import ImageFolder
from facelab.data.sources.image_list import ImageList
from facelab.data.sources.selection import read_entries, rows_of_list, write_list
from facelab.doctor.examination import ExaminationOptions, examine
from facelab.doctor.findings import KINDS, Diagnosis
from facelab.doctor.page import render_page
from facelab.doctor.written import check_names, write_diagnosis
from facelab.errors import ConfigError, DataError
from facelab.iqa.base import SCORERS, PixelScorer

LEFT_OUT = frozenset(name for name, kind in KINDS.items() if kind.left_out)


def found(diagnosis: Diagnosis) -> dict[str, list[str]]:
    name = diagnosis.source.name
    return {one.kind: sorted(name(row) for row in one.suspects.tolist()) for one in diagnosis.findings if len(one.rows)}


@pytest.fixture
def spoilt(folder: Path) -> Path:
    """A wrong label, a person under two labels, a copy under another label, one under its own, and a broken file."""
    (folder / "p1" / "4.png").rename(folder / "p6" / "w.png")
    (folder / "p8").mkdir()
    for photo in (0, 1):
        (folder / "p2" / f"{photo}.png").rename(folder / "p8" / f"{photo}.png")
    shutil.copy(folder / "p3" / "0.png", folder / "p4" / "copy.png")
    dark = (cv2.imread(str(folder / "p5" / "0.png")) * 0.9).astype(np.uint8)
    cv2.imwrite(str(folder / "p5" / "0_dark.png"), dark)
    (folder / "p7" / "3.png").write_bytes(b"no image")
    return folder


@pytest.fixture
def test_set(drawn: list[list[np.ndarray]], tmp_path: Path) -> Path:
    path = tmp_path / "tested" / "somebody" / "0.png"
    path.parent.mkdir(parents=True)
    cv2.imwrite(str(path), cv2.GaussianBlur(drawn[0][0], (0, 0), 0.8)[..., ::-1])
    return path.parents[1]


def test_every_error_is_found_and_left_out_of_the_list(
    spoilt: Path, test_set: Path, network: nn.Module, tmp_path: Path
) -> None:
    source, tested = ImageFolder(spoilt), ImageFolder(test_set)
    stages: list[str] = []
    looks = ExaminationOptions(network=network, against={"tested": tested}, workers=1)
    diagnosis = examine(source, looks, lambda stage, done, total: stages.append(stage))
    assert list(dict.fromkeys(stages)) == ["looking at images", "embedding", "comparing", "embedding tested"]
    errors = found(diagnosis)
    assert errors["unreadable"] == ["p7/3.png"]
    assert errors["wrong label"] == ["p4/copy.png", "p6/w.png"]
    assert errors["two labels"] == ["p8/0.png", "p8/1.png"]
    assert errors["duplicate elsewhere"] == ["p4/copy.png"]
    assert errors["duplicate"] == ["p5/0_dark.png"]
    assert errors["overlap"] == [f"p0/{photo}.png" for photo in range(5)]
    assert "outlier" not in errors
    write_diagnosis(tmp_path / "doctor", "a set", diagnosis, LEFT_OUT, shown=3)
    entries = read_entries(spoilt)
    assert write_list(tmp_path / "list.txt", entries, rows_of_list(entries, tmp_path / "doctor" / "keep.txt")) == 7
    listed = ImageList(spoilt, tmp_path / "list.txt")
    assert len(listed) == len(source) - 11
    assert not {listed.name(row) for row in range(len(listed))} & {name for names in errors.values() for name in names}
    numbers = json.loads((tmp_path / "doctor" / "doctor.json").read_text())
    assert numbers["kept"] == len(listed)
    with (tmp_path / "doctor" / "findings.csv").open() as file:
        rows = list(csv.DictReader(file))
    (wrong,) = [row for row in rows if row["image"] == "p6/w.png"]
    assert (wrong["finding"], wrong["label"], wrong["of_label"], wrong["left_out"]) == ("wrong label", "6", "1", "yes")


def test_without_a_model_the_notes_say_what_was_not_looked_for(spoilt: Path) -> None:
    diagnosis = examine(ImageFolder(spoilt), ExaminationOptions(workers=1))
    assert set(found(diagnosis)) == {"unreadable", "duplicate", "duplicate elsewhere"}
    assert found(diagnosis)["duplicate elsewhere"] == ["p3/0.png", "p4/copy.png"]
    assert [note.split(":")[0].split(",")[0] for note in diagnosis.notes] == [
        "Alignment was not checked", "Quality was not scored.", "Labels were not checked",
    ]  # fmt: skip


def test_a_model_that_tells_nobody_apart_is_not_believed(folder: Path, network: nn.Module) -> None:
    source = ImageFolder(folder)
    source.labels = np.random.default_rng(0).permutation(source.labels)
    diagnosis = examine(source, ExaminationOptions(network=network, workers=1))
    assert "wrong label" not in {finding.kind for finding in diagnosis.findings}
    assert "the model does not tell these people apart" in diagnosis.notes[-2]


def test_the_same_seed_finds_the_same(spoilt: Path, network: nn.Module) -> None:
    first, second = (
        examine(ImageFolder(spoilt), ExaminationOptions(network=network, workers=2, seed=3)) for _ in range(2)
    )
    assert found(first) == found(second)
    assert first.facts == second.facts


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "sizes",
    [
        {"a/0.png": (48, 48)},
        {"a/0.png": (48, 48), "a/1.png": (48, 48), "a/2.png": (48, 48)},
        {"a/0.png": (1, 1), "a/1.png": (2, 1), "b/0.png": (1, 400)},
        {f"{person}/{photo}.png": (48, 48, "black") for person in "abc" for photo in range(3)},
    ],
    ids=["one image", "one label", "tiny", "black"],
)
def test_odd_sets_are_examined_to_the_end(
    sizes: dict[str, tuple[object, ...]], network: nn.Module, tmp_path: Path
) -> None:
    for name, (height, width, *black) in sizes.items():
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(0).integers(0, 1 if black else 256, (height, width, 3), dtype=np.uint8)  # type: ignore[call-overload]
        cv2.imwrite(str(tmp_path / "set" / name), pixels)
    scorer = SCORERS.build("Sharpness", {})
    assert isinstance(scorer, PixelScorer)
    looks = ExaminationOptions(scorer, lambda images: np.full((len(images), 5, 2), np.nan), network=network, workers=1)
    diagnosis = examine(ImageFolder(tmp_path / "set"), looks)
    write_diagnosis(tmp_path / "doctor", "a set", diagnosis, LEFT_OUT, shown=2)
    assert not {"wrong label", "outlier"} & set(found(diagnosis))


def test_a_network_that_takes_quality_is_refused_before_the_work(network: nn.Module) -> None:
    network.needs_quality = True  # type: ignore[assignment]
    with pytest.raises(ConfigError, match="StripReader takes a quality score of each image"):
        ExaminationOptions(network=network)


def test_test_sets_need_a_model(folder: Path) -> None:
    with pytest.raises(ConfigError, match="give one \\(--model\\)"):
        ExaminationOptions(against={"tested": ImageFolder(folder)})


def test_the_page_escapes_names_and_embeds_so_many_images(spoilt: Path, network: nn.Module) -> None:
    hostile = spoilt / "<img src=x onerror=alert(1)>"
    (spoilt / "p6").rename(hostile)
    diagnosis = examine(ImageFolder(spoilt), ExaminationOptions(network=network, workers=1))
    page = render_page("<script>alert(1)</script>", diagnosis, LEFT_OUT, shown=9)
    assert "<script" not in page
    assert "<img src=x" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;/w.png" in page
    assert "http" not in page.replace("http-equiv", "")
    assert page.count("<li>") == 1 + len(diagnosis.notes)
    assert "p7/3.png: " in page
    first = render_page("a set", diagnosis, LEFT_OUT, shown=1)
    pairs = [one for one in diagnosis.findings if len(one.rows) and not one.reasons]
    assert first.count("data:image/jpeg;base64,") == sum(1 + int(one.beside[0] >= 0) for one in pairs) > 5
    assert "and 1 more" in first


def test_names_that_no_list_can_hold_are_refused_early(folder: Path) -> None:
    (folder / "p0" / "0.png").rename(folder / "p0" / "0\n.png")
    with pytest.raises(DataError, match="cannot stand in a list; rename the file"):
        check_names(ImageFolder(folder))


def test_names_that_are_no_text_survive(spoilt: Path, network: nn.Module, tmp_path: Path) -> None:
    (spoilt / "p6" / "w.png").rename(spoilt / "p6" / "w\udcff.png")
    diagnosis = examine(ImageFolder(spoilt), ExaminationOptions(network=network, workers=1))
    write_diagnosis(tmp_path / "doctor", "a set", diagnosis, frozenset(), shown=3)
    entries = read_entries(spoilt)
    assert len(rows_of_list(entries, tmp_path / "doctor" / "keep.txt")) == len(entries.names)
    assert "\\udcff" in (tmp_path / "doctor" / "doctor.html").read_text()
