"""IJB-B and IJB-C from files to report, and every refusal with its file and line."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from facelab.data.alignment.alignment import ARCFACE_112, align
from facelab.data.formats.images import decode_image
from facelab.errors import ConfigError, CorruptImage, DataError
from facelab.test_protocol.base import PROTOCOLS, Embeddings, Report
from facelab.test_protocol.lists.facexzoo_conf import facexzoo_sets
from facelab.test_protocol.metrics.identification import Search
from facelab.test_protocol.metrics.ijb_reference import evals_open_set, evals_ranks, merged_search
from facelab.test_protocol.metrics.score_tiles import Faces
from facelab.test_protocol.protocols.ijb import IJBB, IJBC
from facelab.test_protocol.protocols.ijb_verification import people_of_templates
from facelab.test_protocol.run import run_protocols

PEOPLE, PER_TEMPLATE = 8, 3
GALLERY, PROBE = 100, 200  # template ids: gallery 100 + person, probe 200 + person
HEADER = "TEMPLATE_ID,SUBJECT_ID,FILENAME\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """IJB-C with 8 people of their own colour, each with a gallery and a probe template of 3 images in 2 media."""
    random = np.random.default_rng(5)
    folder = tmp_path / "IJBC"
    (folder / "meta").mkdir(parents=True)
    (folder / "loose_crop").mkdir()
    media, points, number = [], [], 0
    for person, colour in enumerate(random.integers(20, 236, (PEOPLE, 4, 4, 3))):
        for first in (GALLERY, PROBE):
            for image in range(PER_TEMPLATE):
                number += 1
                pixels = np.kron(colour, np.ones((5, 5, 1))) + random.normal(0, 4, (20, 20, 3))
                path = folder / "loose_crop" / f"{number}.jpg"
                cv2.imwrite(str(path.with_suffix(".png")), pixels.clip(0, 255).astype(np.uint8))
                path.with_suffix(".png").rename(path)  # the decoder looks at the content
                media.append(f"{number}.jpg {first + person} {image // 2}")
                five = " ".join(f"{value:.3f}" for value in (ARCFACE_112 * 20 / 112).ravel())
                points.append(f"{number}.jpg {five} {0.5 + 0.01 * image:.3f}")
    write(folder, "face_tid_mid.txt", media)
    write(folder, "name_5pts_score.txt", points)
    pairs = [(a, b) for a in range(PEOPLE) for b in range(PEOPLE)]
    write(folder, "template_pair_label.txt", [f"{GALLERY + a} {PROBE + b} {int(a == b)}" for a, b in pairs])
    for name, people in (("G1", range(4)), ("G2", range(4, 8))):
        lines = [f"{GALLERY + p},{1000 + p},x.jpg\n" * PER_TEMPLATE for p in people]
        (folder / "meta" / f"ijbc_1N_gallery_{name}.csv").write_text(HEADER + "".join(lines))
    lines = [f"{PROBE + p},{1000 + p},x.jpg\n" for p in range(PEOPLE)]
    (folder / "meta" / "ijbc_1N_probe_mixed.csv").write_text(HEADER + "".join(lines))
    return folder


def write(root: Path, name: str, lines: list[str]) -> None:
    (root / "meta" / f"ijbc_{name}").write_text("\n".join(lines) + "\n")


def edit(root: Path, name: str, line: int, new: str | None) -> None:
    """Replace line ``line`` (from 1), or remove it."""
    path = root / "meta" / f"ijbc_{name}"
    lines = path.read_text().splitlines(keepends=True)
    lines[line - 1] = "" if new is None else new + "\n"
    path.write_text("".join(lines))


def values_of(report: Report) -> dict[str, float | None]:
    return {metric.name: metric.value for metric in report.metrics}


def test_from_images_to_report(root: Path, tiny_net: Any) -> None:
    protocol = PROTOCOLS.build("IJBC", {"root": str(root), "size": 16, "fars": [0.1, 1e-4], "fpirs": [0.25]})
    (report,) = run_protocols(tiny_net, [("IJB-C", protocol)])
    values = values_of(report)
    assert report.headline.name == "TAR@FAR=1e-4"
    assert report.headline.value is None
    assert "needs 10,000 different pairs, there are 56" in report.headline.note
    assert values["TAR@FAR=1e-1"] == values["AUC"] == values["rank-1"] == values["TPIR@FPIR=0.25"] == 1.0
    assert values["G2 rank-5"] == 1.0
    assert (values["same pairs"], values["different pairs"]) == (8, 56)
    assert all(report.options[name] is True for name in ("norm_score", "detector_score", "flip"))
    assert report.options["alignment"].startswith("ArcFace scaled 16")
    assert report.curves["same_count"].sum() == 8
    assert report.curves["rank_rate"].tolist() == [1.0] * 4
    same, left, right = (report.trials[name] for name in ("same", "left", "right"))
    assert ((left == right) == same).all()
    assert report.trials["score"].dtype == np.float32
    assert report.mistakes == ()


def random_embeddings(images: int = 2 * PEOPLE * PER_TEMPLATE, **more: Any) -> Embeddings:
    random = np.random.default_rng(1)
    values, flipped = (random.normal(size=(images, 8)).astype(np.float32) for _ in range(2))
    return Embeddings(values, flipped, **more)


def test_mistakes_show_images_of_both_templates(root: Path) -> None:
    protocol = IJBC(root)
    report = protocol.evaluate(random_embeddings())
    assert len(report.mistakes) >= 10
    for mistake in report.mistakes:
        left, right = (
            protocol.listed.template_ids[protocol.listed.grouping.template[row]]
            for row in (mistake.left, mistake.right)
        )
        assert (left - GALLERY == right - PROBE) == (mistake.kind == "false non-match")
        assert mistake.left % PER_TEMPLATE == PER_TEMPLATE - 1  # the image with the highest detector score


def test_skipped_images_and_what_hangs_on_them(root: Path) -> None:
    skipped = np.zeros(2 * PEOPLE * PER_TEMPLATE, bool)
    skipped[:PER_TEMPLATE] = True  # the whole gallery template of person 0
    skipped[10] = True
    report = IJBC(root, fpirs=(0.2,)).evaluate(random_embeddings(skipped=skipped))
    names = ("skipped_images", "empty_templates", "skipped_pairs", "skipped_searches")
    assert [report.options[name] for name in names] == [4, 1, 8, 1]
    assert values_of(report)["different pairs"] == 49
    assert report.mistakes
    assert all(mistake.left >= PER_TEMPLATE and mistake.left != 10 for mistake in report.mistakes)


@pytest.mark.parametrize(
    ("rules", "first"),
    [
        ("insightface", "TAR@FAR=1e-4 (InsightFace)"),
        ("insightface_evals", "TAR@FAR=1e-4 (InsightFace evals)"),
        ("adaface", "TAR@FAR=1e-4 (AdaFace)"),
        ("facexzoo", "TAR@FAR=1e-4 (FaceX-Zoo)"),
    ],
)
def test_the_chosen_evaluator_comes_first(root: Path, rules: Any, first: str) -> None:
    report = IJBC(root, rules=rules).evaluate(random_embeddings())
    assert (report.headline.name, report.headline.kind) == (first, "reference")
    assert any(metric.name == "TAR@FAR=1e-1" and metric.kind == "correct" for metric in report.metrics)
    search = [metric for metric in report.metrics if metric.name.startswith("rank-1 (")]
    assert len(search) == (0 if rules == "facexzoo" else 1)


def test_options_given_win_over_those_of_the_evaluator(root: Path) -> None:
    assert not IJBC(root, rules="facexzoo").flip
    assert IJBC(root, rules="facexzoo", flip=True).features.flip
    assert not IJBC(root, norm_score=False).features.norm_score


def test_images_are_aligned_while_they_are_read(root: Path) -> None:
    protocol = IJBC(root, size=64)
    path = root / "loose_crop" / "7.jpg"
    expected = align(decode_image(path.read_bytes(), ""), ARCFACE_112 * 20 / 112, 64)
    assert np.abs(protocol.images.read(6).astype(int) - expected).max() <= 1  # points have three decimals
    assert protocol.images.location(6) == str(path)
    assert protocol.images.name(6) == "7.jpg"
    assert IJBC(root, aligned=True).images.read(6).shape == (20, 20, 3)
    elsewhere = (root / "loose_crop").rename(root.parent / "crops")
    assert IJBC(root, images=elsewhere, aligned=True).images.read(6).shape == (20, 20, 3)
    elsewhere.rename(root / "loose_crop")
    sets = [protocol, IJBC(root, size=32), IJBC(root, aligned=True)]
    assert len({one.images.fingerprint() for one in sets}) == 3
    edit(root, "name_5pts_score.txt", 7, "7.jpg 1 1 1 1 1 1 1 1 1 1 0.5")
    with pytest.raises(CorruptImage, match=r"7\.jpg: the landmarks lie within"):
        IJBC(root).images.read(6)


def test_facexzoo_keeps_aligned_images_elsewhere(root: Path, tmp_path: Path) -> None:
    (root / "loose_crop").rename(tmp_path / "cropped")
    conf = tmp_path / "data_conf.yaml"
    meta = "IJBC/meta/ijbc"
    paths = {
        "cropped_face_folder": "cropped",
        "image_list_file_path": f"{meta}_face_tid_mid.txt",
        "template_media_list_path": f"{meta}_face_tid_mid.txt",
        "template_pair_list_path": f"{meta}_template_pair_label.txt",
        "image_score_list_path": f"{meta}_name_5pts_score.txt",
    }
    conf.write_text("IJBC:\n" + "".join(f"  {key}: {path}\n" for key, path in paths.items()))
    (options,) = facexzoo_sets(conf)[0]["IJB-C"].values()
    assert PROTOCOLS.build("IJBC", options).images.read(3).shape == (20, 20, 3)


def test_ijbb_has_its_own_names(root: Path) -> None:
    for path in list((root / "meta").iterdir()):
        name = path.name.replace("ijbc", "ijbb").replace("_G", "_S")
        path.rename(path.with_name(name))
    report = IJBB(root).evaluate(random_embeddings())
    assert "S2 rank-1" in values_of(report)
    assert report.protocol == "IJBB"


def test_without_lists_there_is_no_search_and_people_follow_from_same_pairs(root: Path) -> None:
    known = IJBC(root)
    for path in (root / "meta").glob("*1N*"):
        path.unlink()
    protocol = IJBC(root)
    report = protocol.evaluate(random_embeddings())
    assert not any("rank" in metric.name for metric in report.metrics)
    assert report.options["identification"] is False
    same = protocol.people[:, None] == protocol.people
    assert (same == (known.people[:, None] == known.people)).all()


def test_templates_outside_the_lists_are_people_of_their_own(root: Path) -> None:
    edit(root, "1N_probe_mixed.csv", 9, None)
    protocol = IJBC(root)
    people = people_of_templates(16, protocol.pairs, protocol.lists)
    assert len(np.unique(people)) == PEOPLE + 1


def test_all_pairs_of_one_kind(root: Path) -> None:
    write(root, "template_pair_label.txt", [f"{GALLERY + a} {PROBE + a} 1" for a in range(PEOPLE)])
    report = IJBC(root, rules="insightface").evaluate(random_embeddings())
    assert {metric.value for metric in report.metrics if metric.name.startswith(("TAR", "AUC", "EER"))} == {None}
    assert not report.mistakes


FIVE = " 1 2 3 4 5 6 7 8 9 10"


@pytest.mark.parametrize(
    ("name", "line", "new", "message"),
    [
        ("face_tid_mid.txt", 3, "3.jpg 100", r"tid_mid\.txt:3: expected 'image template media', got '3\.jpg 100'"),
        ("face_tid_mid.txt", 3, "3.jpg x 0", r"tid_mid\.txt:3: expected 'image template media'"),
        ("face_tid_mid.txt", 3, "x.jpg 100 0", r"tid_mid\.txt:3: image 'x\.jpg' is not in .*5pts_score\.txt"),
        ("face_tid_mid.txt", 3, None, r"5pts_score\.txt:3: image '3\.jpg' is not in .*tid_mid\.txt"),
        ("face_tid_mid.txt", 3, "2.jpg 100 0", r"5pts_score\.txt:3: image '3\.jpg' is not in"),
        ("name_5pts_score.txt", 5, "5.jpg 1 2 3", r"5pts_score\.txt:5: expected 'image x1 y1 \.\.\. x5 y5 score'"),
        ("name_5pts_score.txt", 5, f"5.jpg{FIVE} nan", r"5pts_score\.txt:5: a number is not finite"),
        ("name_5pts_score.txt", 2, f"1.jpg{FIVE} 1", r"image '2\.jpg' is not in"),
        ("template_pair_label.txt", 9, "100 200", r"label\.txt:9: expected 'template1 template2 label'"),
        ("template_pair_label.txt", 9, "100 200 2", r"label\.txt:9: the label is 2, but must be 0 or 1"),
        ("template_pair_label.txt", 9, "100 999 0", r"label\.txt:9: template 999 has no image in .*tid_mid"),
        ("template_pair_label.txt", 9, "150 200 0", r"label\.txt:9: template 150 has no image in .*tid_mid"),
        ("1N_gallery_G1.csv", 3, "100;1000", r"G1\.csv:3: expected 'template,subject,…', got '100;1000'"),
        ("1N_gallery_G1.csv", 3, "100,1001,x", r"G1\.csv:3: template 100 has subject 1001, but 1000 in .*G1\.csv:2"),
        ("1N_gallery_G2.csv", 3, "100,1000,x", r"G2\.csv:3: template 100 is in ijbc_1N_gallery_G1\.csv:2 too"),
        ("1N_probe_mixed.csv", 3, "100,1000,x", r"mixed\.csv:3: template 100 is in ijbc_1N_gallery_G1\.csv:2 too"),
        ("1N_probe_mixed.csv", 3, "999,1000,x", r"mixed\.csv:3: template 999 has no image in"),
    ],
)
def test_bad_lines(root: Path, name: str, line: int, new: str | None, message: str) -> None:
    edit(root, name, line, new)
    with pytest.raises(DataError, match=message):
        IJBC(root)


def test_other_refusals(root: Path) -> None:
    meta = root / "meta"
    with pytest.raises(DataError, match=r"ijbb_face_tid_mid\.txt: there is no such file"):
        IJBB(root)
    with pytest.raises(ConfigError, match="rules is 'insightfase'.* Did you mean 'insightface'"):
        IJBC(root, rules="insightfase")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="a rate of fpirs is 0"):
        IJBC(root, fpirs=(0,))
    swapped = (meta / "ijbc_name_5pts_score.txt").read_text().splitlines()
    write(root, "name_5pts_score.txt", [swapped[1], swapped[0], *swapped[2:]])
    with pytest.raises(DataError, match=r"in another order or twice, from image 1 on"):
        IJBC(root)
    write(root, "name_5pts_score.txt", swapped)
    probes = (meta / "ijbc_1N_probe_mixed.csv").read_text()
    (meta / "ijbc_1N_probe_mixed.csv").write_text(HEADER + "200,1000,x\n")
    with pytest.raises(DataError, match=r"G2\.csv: no subject of this gallery is among the probes"):
        IJBC(root)
    (meta / "ijbc_1N_probe_mixed.csv").unlink()
    with pytest.raises(DataError, match=r"probe_mixed\.csv: is missing, but other lists for 1:N search are there"):
        IJBC(root)
    (meta / "ijbc_1N_probe_mixed.csv").write_text(probes)
    (root / "loose_crop" / "4.jpg").unlink()
    with pytest.raises(
        DataError, match=r"1 of 48 images are missing, the first is '4\.jpg', which .*tid_mid\.txt:4 names"
    ):
        IJBC(root)


def test_embeddings_must_fit(root: Path) -> None:
    protocol = IJBC(root)
    good = random_embeddings()
    with pytest.raises(DataError, match=r"48 images need as many embeddings, got an array of shape \(47, 8\)"):
        protocol.evaluate(random_embeddings(47))
    with pytest.raises(DataError, match="no embeddings of the mirrored images"):
        protocol.evaluate(Embeddings(good.values))
    bad = good.values.copy()
    bad[3, 1] = np.nan
    with pytest.raises(DataError, match=r"image 3 \(from 0\), .*4\.jpg, is not finite"):
        protocol.evaluate(Embeddings(bad, good.flipped))
    with pytest.raises(DataError, match="no pair is left: each of the 64"):
        protocol.evaluate(random_embeddings(skipped=np.ones(48, bool)))


def test_the_mean_rank_of_the_newer_insightface_script_pools_over_probes() -> None:
    # Person 0 to 2 are in the first gallery, 3 in the second, 4 in none; persons 2 and 3 are taken for others.
    def found(mate: list[float], rival: list[float]) -> Search:
        scores = np.array(mate), np.array(rival)
        behind = (scores[1] > scores[0]).astype(np.int64) * np.isfinite(scores[0])
        entries = np.zeros(len(mate), np.int64)
        return Search(*scores, behind, np.zeros_like(entries), entries, entries)

    none = -np.inf
    first = found([0.9, 0.8, 0.2, none, none], [0.1, 0.2, 0.3, 0.4, 0.5])
    second = found([none, none, none, 0.1, none], [0.2, 0.2, 0.2, 0.2, 0.2])
    assert evals_ranks((first, second), (1, 2)) == [2 / 5, 4 / 5]  # the means of the galleries are 1/3 and 1
    assert evals_ranks((second, second), (1,)) == [0.0]
    assert np.isnan(evals_ranks((found([none], [0.1]),), (1, 5))).all()
    with pytest.raises(ConfigError, match=r"ranks are \[0\]"):
        evals_ranks((first,), (0,))


def test_published_searches_want_mates_strictly_above_threshold_and_rivals() -> None:
    unit = np.array([[0.6, 0.8], [0.6, -0.8]])  # a mate and a stranger, equally near to the probe
    merged = merged_search(
        Faces(np.array([[1.0, 0.0]]), np.array([0])), Faces(unit, np.array([0, 1])), ranks=(1,), fars=(1.0,)
    )
    assert (merged.recall, merged.threshold) == ((0.0,), (0.6,))
    entries = np.zeros(3, np.int64)
    for mate, rival, tpir in ((0.5, 0.1, 0.0), (0.51, 0.51, 0.0), (0.51, 0.5, 1.0)):
        scores = np.array([mate, -np.inf, -np.inf]), np.array([rival, 0.5, 0.2])
        (point,) = evals_open_set(Search(*scores, entries, entries, entries, entries), (0.5,))
        assert (point.tpir, point.threshold) == (tpir, 0.5)


def test_the_report_of_the_newer_insightface_script_has_the_pooled_mean(root: Path) -> None:
    edit(root, "1N_probe_mixed.csv", 9, None)
    protocol = IJBC(root, rules="insightface_evals", ranks=(1, 2))
    values = values_of(protocol.evaluate(random_embeddings()))
    name = "rank-{} (InsightFace evals)"
    mates = {"G1": 4, "G2": 3}
    for rank in (1, 2):
        pooled = sum(values[f"{place} {name.format(rank)}"] * count for place, count in mates.items()) / 7
        assert values[name.format(rank)] == pytest.approx(pooled)
