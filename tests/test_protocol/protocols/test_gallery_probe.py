"""Own galleries and probes: numbers by hand and against the whole matrix, templates, skipped images, and refusals."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facelab.errors import ConfigError, DataError
from facelab.test_protocol.base import PROTOCOLS, Embeddings, Report
from facelab.test_protocol.lists.template_list import read_template_list
from facelab.test_protocol.metrics.metrics import roc, tar_at_far
from facelab.test_protocol.protocols.gallery_probe import GalleryProbe

GALLERY = "g/1.jpg\tAnna A\tT1\ng/2.jpg\tBen\tT2\ng/3.jpg\tCleo\tT3\n"
PROBE = "p/1.jpg\tAnna A\tP1\np/2.jpg\tBen\tP2\np/3.jpg\tBen\tP2\np/4.jpg\tDora\tP3\n"
ANGLES = {"g/1.jpg": 0, "g/2.jpg": 90, "g/3.jpg": 20, "p/1.jpg": 15, "p/2.jpg": 60, "p/3.jpg": 100, "p/4.jpg": 170}

Make = Callable[..., GalleryProbe]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def make(gallery: str = GALLERY, probe: str = PROBE, **options: Any) -> GalleryProbe:
        for name in ANGLES:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).touch()
        (tmp_path / "gallery.txt").write_text(gallery)
        (tmp_path / "probe.txt").write_text(probe)
        given: dict[str, Any] = {"ranks": (1, 2), "fpirs": (1.0,), "fars": (0.2,)}
        return GalleryProbe(tmp_path, tmp_path / "gallery.txt", tmp_path / "probe.txt", **(given | options))

    return make


def _embeddings(protocol: GalleryProbe, norms: dict[str, float] | None = None) -> Embeddings:
    names = [protocol.images.name(row) for row in range(len(protocol.images))]
    angles = np.radians([ANGLES[name] for name in names])
    scale = np.array([(norms or {}).get(name, 2.0) for name in names])
    return Embeddings((scale[:, None] * np.stack((np.cos(angles), np.sin(angles)), axis=1)).astype(np.float32))


def _values(report: Report) -> dict[str, float | None]:
    return {metric.name: metric.value for metric in report.metrics}


def test_numbers_by_hand(make: Make) -> None:
    """P1 at 15 is nearer to Cleo (20) than to Anna (0); P2 is between 60 and 100, 10 from Ben; Dora is unknown."""
    report = make().evaluate(_embeddings(make()))
    values = _values(report)
    assert (values["rank-1"], values["rank-2"]) == (0.5, 1.0)
    assert values["TPIR@FPIR=1"] == 0.5
    assert (values["probes with a mate"], values["probes without a mate"], values["gallery templates"]) == (2, 1, 3)
    # genuine 15 and 10; impostors 5, 60 | 80, 60 | 170, 80, 150: one of seven may pass, so all but 5 degrees
    assert values["TAR@FAR=2e-1"] == 1.0
    assert report.trials["rank"].tolist() == [2, 1, 0]
    assert report.trials["score"] == pytest.approx(np.cos(np.radians([5, 10, 80])), abs=1e-6)
    assert report.curves["rank_rate"][:2].tolist() == [0.5, 1.0]


def test_weights_move_a_template(make: Make) -> None:
    plain, weighted = make(), make(weighting="norm")
    norms = {"p/2.jpg": 20.0}  # ten times that of p/3.jpg, so P2 is now near 60 degrees
    turn = np.radians(100 - 60)
    moved = 60.0 + np.degrees(np.arctan2(np.sin(turn), 10.0 + np.cos(turn)))
    for protocol, angle in ((plain, 10.0), (weighted, 90.0 - moved)):
        score = protocol.evaluate(_embeddings(protocol, norms)).trials["score"][1]
        assert np.degrees(np.arccos(score)) == pytest.approx(angle, abs=0.01)
    by_quality = make(weighting="quality")
    quality = np.array([name == "p/3.jpg" for name in map(by_quality.images.name, range(7))], np.float32)
    embeddings = replace(_embeddings(by_quality), quality_scores=quality + 1e-6)
    assert by_quality.evaluate(embeddings).trials["score"][1] == pytest.approx(np.cos(np.radians(10)), abs=1e-4)
    with pytest.raises(ConfigError, match="the images have no quality scores"):
        by_quality.evaluate(_embeddings(by_quality))
    with pytest.raises(DataError, match="a weight must be 0 or more"):
        by_quality.evaluate(replace(embeddings, quality_scores=quality - 1))


def test_verification_takes_every_probe_against_every_entry(make: Make, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    people = {side: random.integers(0, 12, count) for side, count in (("g", 30), ("p", 40))}
    for side, numbers in people.items():
        (tmp_path / side).mkdir()
        for row in range(len(numbers)):
            (tmp_path / side / f"{row}.png").touch()
        lines = [f"{side}/{row}.png person{person}" for row, person in enumerate(numbers)]
        (tmp_path / f"{side}.txt").write_text("\n".join(lines))
    fars = (0.0005, 0.01, 0.2)
    protocol = GalleryProbe(tmp_path, tmp_path / "g.txt", tmp_path / "p.txt", fars=fars)
    values = random.normal(size=(70, 3)).astype(np.float32)
    report = protocol.evaluate(Embeddings(values))
    vectors = values.astype(np.float64) / np.linalg.norm(values.astype(np.float64), axis=1, keepdims=True)
    same = people["p"][:, None] == people["g"]
    curve = roc((vectors[30:] @ vectors[:30].T).ravel(), same.ravel())
    rates = [metric.value for metric in report.metrics if metric.name.startswith("TAR")]
    whole = tar_at_far(curve, fars)
    assert rates[0] is None
    assert rates[1:] == pytest.approx([point.tar for point in whole[1:]])


def test_skipped_images_leave_their_templates(make: Make) -> None:
    protocol = make()
    names = [protocol.images.name(row) for row in range(len(protocol.images))]
    skipped = np.isin(names, ["g/3.jpg", "p/2.jpg", "p/4.jpg"])
    report = protocol.evaluate(replace(_embeddings(protocol), skipped=skipped))
    values = _values(report)
    assert (values["rank-1"], values["gallery templates"], values["probes without a mate"]) == (1.0, 2, 0)
    assert (report.options["skipped_images"], report.options["templates_without_image"]) == (3, 2)
    assert "needs 1 probes without a mate, there are 0" in {m.name: m.note for m in report.metrics}["TPIR@FPIR=1"]


def test_mistakes_show_the_first_image_of_a_template(make: Make) -> None:
    protocol = make()
    mistakes = protocol.evaluate(_embeddings(protocol)).mistakes
    named = [(one.kind, protocol.images.name(one.left), protocol.images.name(one.right)) for one in mistakes]
    assert named == [
        ("false match", "p/1.jpg", "g/3.jpg"),
        ("false match", "p/4.jpg", "g/2.jpg"),
        ("false non-match", "p/1.jpg", "g/1.jpg"),
    ]


@pytest.mark.parametrize("mark", ["\t", ",", "  "])
def test_lists_may_have_a_header_and_any_of_three_separators(mark: str, tmp_path: Path) -> None:
    lines = (("path", "person", "template"), ("a b.jpg" if mark != "  " else "ab.jpg", "x", "1"), ("c.jpg", "y", "2"))
    (tmp_path / "list.txt").write_text("\n\n".join(mark.join(line) for line in lines))
    listed = read_template_list(tmp_path / "list.txt")
    assert listed.person == ("x", "y")
    assert listed.lines.tolist() == [3, 5]
    assert listed.images[1] == "c.jpg"


def test_lines_of_a_template_need_not_stand_together(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("a x 1\nb y 2\nc x 1\na y 2\n")
    listed = read_template_list(tmp_path / "list.txt")
    assert listed.template.tolist() == [0, 1, 0, 1]
    assert listed.first_line.tolist() == [0, 1]
    assert len(listed) == 2


@pytest.mark.parametrize(
    ("probe", "sentence"),
    [
        ("", r"probe.txt: there are no images in it; expected lines of 'path person'"),
        ("path\tperson\n", r"probe.txt: there are no images in it"),
        ("p/1.jpg\tAnna A\np/2.jpg\n", r"probe.txt:2: expected 'path person' .* got 'p/2.jpg'"),
        ("p/1.jpg\n", r"probe.txt:1: expected 'path person'"),
        ("p/1.jpg\tAnna A\tT\np/2.jpg\tBen\tT\n", r":2: template 'T' is of 'Ben' here and of 'Anna A' in line 1"),
        ("p/1.jpg\tAnna A\tT\np/1.jpg\tAnna A\tT\n", r"probe.txt:2: the image 'p/1.jpg' stands in line 1 already"),
        ("p/1.jpg\tZoe\n", r"none of its people is in the gallery .*gallery.txt; the first is 'Zoe'"),
        ("p/1.jpg\tAnna A\ng/2.jpg\tBen\n", r"probe.txt:2: the image 'g/2.jpg' is in .* too \(.*gallery.txt:2\)"),
        ("p/1.jpg\tAnna A\np/9.jpg\tBen\n", r"1 of 5 images are missing, .* 'p/9.jpg', which .*probe.txt:2 names"),
    ],
)
def test_bad_lists_are_refused_by_line(make: Make, probe: str, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        make(probe=probe)


def test_bad_embeddings_are_refused(make: Make) -> None:
    protocol, flipped = make(), make(flip=True)
    good = _embeddings(protocol)
    broken = good.values.copy()
    broken[3] = np.inf
    with pytest.raises(DataError, match=r"embedding of image 3 \(from 0\) is not finite"):
        protocol.evaluate(Embeddings(broken))
    with pytest.raises(DataError, match="7 images need as many embeddings"):
        protocol.evaluate(Embeddings(good.values[:5]))
    with pytest.raises(DataError, match=r"do not fit: got \(7, 1\) beside \(7, 2\)"):
        flipped.evaluate(Embeddings(good.values, good.values[:, :1]))


def test_options_are_checked_and_the_registry_knows_it(make: Make, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="one of fpirs is 0"):
        make(fpirs=(0.0,))
    with pytest.raises(ConfigError, match="weighting"):
        make(weighting="length")
    make()
    options = {"root": str(tmp_path), "gallery": str(tmp_path / "gallery.txt"), "probe": str(tmp_path / "probe.txt")}
    assert len(PROTOCOLS.build("GalleryProbe", options).images) == len(ANGLES)
