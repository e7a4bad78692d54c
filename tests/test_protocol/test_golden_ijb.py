"""Every metric of golden ``protocols/ijb``, by way of the protocol ``IJBC``."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from scipy.integrate import trapezoid

from facelab.test_protocol.base import Embeddings, Report
from facelab.test_protocol.metrics.identification import open_set
from facelab.test_protocol.metrics.ijb_reference import EVALS_GRID, evals_open_set, merged_search, sklearn_roc
from facelab.test_protocol.metrics.metrics import auc
from facelab.test_protocol.metrics.score_tiles import Faces
from facelab.test_protocol.metrics.templates import join_templates
from facelab.test_protocol.protocols.ijb import IJBC
from facelab.test_protocol.protocols.ijb_search import GallerySearches
from facelab.test_protocol.protocols.ijb_verification import ScoredTemplatePairs
from facelab.test_protocol.protocols.verification import far_name

SMALL = Path(__file__).resolve().parent.parent / "golden"
FPIRS = (0.01, 0.1)
WORDS = {"tar_at_far", "printed_percent", "auc", "eer"}


class Golden:
    """The protocol on the golden embeddings with any rules; the images exist, but are never read."""

    def __init__(self, folder: Path, work: Path) -> None:
        self.expected: dict[str, Any] = json.loads((folder / "expected.json").read_text())["metrics"]
        with np.load(folder / "embeddings.npz") as arrays:
            self.names = arrays["names"].tolist()
            self.embeddings = Embeddings(arrays["feat"], arrays["feat_flip"])
        self.root = work / "IJBC"
        shutil.copytree(folder / "IJBC", self.root, copy_function=shutil.copyfile)
        (self.root / "loose_crop").mkdir()
        first = self.root / "loose_crop" / self.names[0]
        cv2.imwrite(str(first), np.zeros((16, 16, 3), np.uint8))
        for name in self.names[1:]:
            (first.parent / name).hardlink_to(first)

    def protocol(self, options: str = "", **more: Any) -> IJBC:
        """With options such as ``N1D0F1``."""
        named = dict(
            zip(("norm_score", "detector_score", "flip"), (sign == "1" for sign in options[1::2]), strict=False)
        )
        return IJBC(self.root, **named, **more)

    def report(self, options: str = "", **more: Any) -> dict[str, float | None]:
        report: Report = self.protocol(options, **more).evaluate(self.embeddings)
        return {metric.name: metric.value for metric in report.metrics}

    def scored(self, options: str) -> ScoredTemplatePairs:
        protocol = self.protocol(options)
        return ScoredTemplatePairs.of(self.templates(protocol), protocol.pairs)

    def searches(self, options: str) -> GallerySearches:
        protocol = self.protocol(options)
        assert protocol.lists is not None
        return GallerySearches.of(self.templates(protocol), protocol.lists)

    def templates(self, protocol: IJBC) -> Any:
        listed = protocol.listed
        return join_templates(self.embeddings, listed.grouping, protocol.features, listed.detector_score)

    def check(self, name: str, computed: Any) -> None:
        entry = self.expected[name]
        value, tolerance = entry["value"], float(entry["tolerance"]) + 1e-12
        if isinstance(value, dict):
            assert list(computed) == list(value), name
            value, computed = list(value.values()), list(computed.values())
        if isinstance(value, str) or (isinstance(value, list) and isinstance(value[0], str)):
            assert computed == value, name
        else:
            np.testing.assert_allclose(computed, value, rtol=0, atol=tolerance, err_msg=name)


@pytest.fixture(scope="module", params=["small copy", pytest.param("golden folder", marks=pytest.mark.golden)])
def golden(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Golden:
    root = SMALL if request.param == "small copy" else request.getfixturevalue("golden_root")
    return Golden(Path(root) / "protocols" / "ijb", tmp_path_factory.mktemp("ijb"))


def fars(golden: Golden) -> list[str]:
    return list(golden.expected["correct/11/N1D1F1/tar_at_far"]["value"])


def tar(golden: Golden, values: dict[str, float | None], project: str = "") -> dict[str, float | None]:
    return {far: values[far_name(float(far)) + project] for far in fars(golden)}


ALL_OPTIONS = [f"N{norm}D{detector}F{flip}" for norm in (1, 0) for detector in (1, 0) for flip in (1, 0)]


@pytest.mark.parametrize("options", ALL_OPTIONS)
def test_verification_with_every_combination(golden: Golden, options: str) -> None:
    values = golden.report(options, rules="insightface")
    nearest = tar(golden, values, " (InsightFace)")
    golden.check(f"insightface_11/{options}/tar_at_far", nearest)
    golden.check(
        f"insightface_11/{options}/printed_percent", [f"{100 * (value or 0):.2f}" for value in nearest.values()]
    )
    golden.check(f"insightface_11/{options}/auc", values["AUC"])
    golden.check(f"correct/11/{options}/auc", values["AUC"])
    golden.check(f"correct/11/{options}/eer", values["EER"])
    other_n = f"N{1 - int(options[1])}{options[2:]}"  # the newer script means the opposite by N
    evals = golden.report(options, rules="insightface_evals")
    golden.check(f"insightface_evals_11/{other_n}/tar_at_far", tar(golden, evals, " (InsightFace evals)"))


@pytest.mark.parametrize("options", ALL_OPTIONS)
def test_correct_tar_where_it_can_be_measured(golden: Golden, options: str) -> None:
    """The fixture gives TAR at a FAR of zero for targets that its pairs cannot tell; a report gives no number there."""
    scored, values = golden.scored(options), golden.report(options)
    expected = golden.expected[f"correct/11/{options}/tar_at_far"]
    for far, value in expected["value"].items():
        reported = values[far_name(float(far))]
        if float(far) * len(scored.negatives) >= 1:
            assert reported == pytest.approx(value, abs=expected["tolerance"])
        else:
            assert reported is None
            roc = scored.roc
            assert roc.tar[roc.far <= float(far)].max() == pytest.approx(value, abs=expected["tolerance"])


@pytest.mark.parametrize("options", ALL_OPTIONS)
def test_nearest_point_of_the_whole_curve(golden: Golden, options: str) -> None:
    scored = golden.scored(options)
    far, rate = sklearn_roc(scored.positives, scored.negatives, drop_intermediate=False)
    last = len(far) - 1
    found = {text: rate[last - np.argmin(np.abs(far - float(text))[::-1])] for text in fars(golden)}
    golden.check(f"info/11/{options}/nearest_without_dropping_collinear_points", found)


def test_scores_of_pairs_and_counts(golden: Golden) -> None:
    names = [name for name in golden.expected if name.endswith("scores_of_pairs_0_1_2_3_4_last")]
    assert names
    for name in names:
        golden.check(name, golden.scored(name.split("/")[1]).score[[0, 1, 2, 3, 4, -1]])
    protocol = golden.protocol()
    assert protocol.lists is not None
    grouping, same = protocol.listed.grouping, protocol.pairs.same
    counts = {
        "images": len(protocol.images),
        "templates": grouping.count,
        "media": len(np.unique(np.stack((grouping.template, grouping.media)), axis=1).T),
        "pairs": len(same),
        "genuine": int(same.sum()),
        "impostor": int((~same).sum()),
        **{f"gallery_{gallery.name}": len(gallery.template) for gallery in protocol.lists.galleries},
        "probes": len(protocol.lists.probes.template),
    }
    golden.check("info/counts", counts)


def test_other_evaluators_of_verification(golden: Golden) -> None:
    for detector in (True, False):
        values = tar(golden, golden.report(rules="facexzoo", detector_score=detector), " (FaceX-Zoo)")
        golden.check(f"facexzoo_ijbc/detector_score_{detector}", {far: f"{value:.4f}" for far, value in values.items()})
    golden.check("petalface_ijb/tar_at_far", tar(golden, golden.report(rules="insightface"), " (InsightFace)"))
    features = golden.protocol(rules="adaface").features
    name = f"N{features.norm_score:d}D{features.detector_score:d}F{features.flip:d}"
    golden.check("adaface_11/equals", name)


@pytest.mark.parametrize(("rules", "project"), [("insightface", "InsightFace"), ("adaface", "AdaFace")])
def test_merged_galleries(golden: Golden, rules: Any, project: str) -> None:
    values = golden.report(rules=rules)
    prefix = f"{rules}_1n/merged"
    golden.check(f"{prefix}/rank1_5_10", [values[f"rank-{rank} ({project})"] for rank in (1, 5, 10)])
    golden.check(f"{prefix}/recall_at_far_0.01_0.1", [values[f"recall@FAR={far} ({project})"] for far in FPIRS])


def test_threshold_of_the_merged_search(golden: Golden) -> None:
    searches = golden.searches("N1D1F1")
    gallery = Faces(
        np.concatenate([part.vectors for part in searches.galleries]),
        np.concatenate([part.person for part in searches.galleries]),
    )
    found = merged_search(searches.probes, gallery, (1,), FPIRS)
    golden.check("insightface_1n/merged/threshold_at_far_0.01_0.1", found.threshold)


def test_newer_insightface_search(golden: Golden) -> None:
    values = golden.report(rules="insightface_evals")
    names = [f"{{}}rank-{rank} (InsightFace evals)" for rank in (1, 5, 10)]
    rates = [f"{{}}TPIR@FPIR={fpir} (InsightFace evals)" for fpir in FPIRS]
    for place, before in (("G1", "G1 "), ("G2", "G2 "), ("mean", "")):
        golden.check(f"insightface_evals_1n/{place}/rank1_5_10", [values[name.format(before)] for name in names])
        golden.check(f"insightface_evals_1n/{place}/tpir_at_fpir_0.01_0.1", [values[n.format(before)] for n in rates])
    searches = golden.searches("N1D1F1")
    for gallery, found in zip(searches.names, searches.found, strict=True):
        bounds = [point.threshold for point in evals_open_set(found, FPIRS)]
        golden.check(f"insightface_evals_1n/{gallery}/threshold_at_fpir_0.01_0.1", bounds)
    grid = [EVALS_GRID[np.argmin(np.abs(EVALS_GRID - fpir))] for fpir in FPIRS]
    golden.check("info/evals_1n_far_grid_values_used", grid)


@pytest.mark.parametrize("options", ["N1D1F1", "N0D0F0"])
def test_correct_search(golden: Golden, options: str) -> None:
    values, searches = golden.report(options), golden.searches(options)
    for place, before in (("G1", "G1 "), ("G2", "G2 "), ("mean", "")):
        prefix = f"correct/1n/{options}/{place}"
        golden.check(f"{prefix}/rank1_5_10", [values[f"{before}rank-{rank}"] for rank in (1, 5, 10)])
        expected = golden.expected[f"{prefix}/tpir_at_fpir_0.01_0.1"]["value"]
        for fpir, value in zip(FPIRS, expected, strict=True):
            reported = values[f"{before}TPIR@FPIR={fpir}"]
            unmated = min(len(found) - len(found.mated) for found in searches.found)
            assert reported == (pytest.approx(value, abs=1e-6) if unmated * fpir >= 1 else None)
    for gallery, found in zip(searches.names, searches.found, strict=True):
        points = open_set(found, FPIRS)
        prefix = f"correct/1n/{options}/{gallery}"
        golden.check(f"{prefix}/tpir_at_fpir_0.01_0.1", [point.tpir for point in points])
        mate, strangers = found.mate[found.mated], found.rival[found.mate == -np.inf]
        # The fixture names the lowest score that is accepted; ours lies just above the highest that is not.
        scores = np.concatenate((mate, strangers))
        lowest = [scores[scores >= point.threshold].min() for point in points]
        golden.check(f"{prefix}/threshold_at_fpir_0.01_0.1", lowest)
        anywhere = [np.mean(mate >= point.threshold) for point in points]
        golden.check(f"{prefix}/tpir_without_rank_at_fpir_0.01_0.1", anywhere)
    tpirs = np.mean([[point.tpir for point in open_set(found, FPIRS)] for found in searches.found], axis=0)
    golden.check(f"correct/1n/{options}/mean/tpir_at_fpir_0.01_0.1", tpirs)


def test_auc_of_the_turns_is_that_of_the_whole_curve(golden: Golden) -> None:
    scored = golden.scored("N1D1F1")
    far, rate = sklearn_roc(scored.positives, scored.negatives)
    assert auc(scored.roc) == pytest.approx(trapezoid(rate, far), abs=1e-12)


def test_no_metric_is_left_out(golden: Golden, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every name of the file is compared by a test above."""
    met: set[str] = {name for name in golden.expected if name.startswith("correct/11/") and name.endswith("tar_at_far")}
    monkeypatch.setattr(golden, "check", lambda name, computed: met.add(name))
    tests: list[Callable[[], None]] = [
        lambda: test_scores_of_pairs_and_counts(golden),
        lambda: test_other_evaluators_of_verification(golden),
        lambda: test_threshold_of_the_merged_search(golden),
        lambda: test_newer_insightface_search(golden),
        *(
            lambda rule=rule: test_merged_galleries(golden, *rule)
            for rule in (("insightface", "InsightFace"), ("adaface", "AdaFace"))
        ),
        *(lambda options=options: test_correct_search(golden, options) for options in ("N1D1F1", "N0D0F0")),
        *(lambda options=options: test_verification_with_every_combination(golden, options) for options in ALL_OPTIONS),
        *(lambda options=options: test_nearest_point_of_the_whole_curve(golden, options) for options in ALL_OPTIONS),
    ]
    for test in tests:
        test()
    assert set(golden.expected) - met == set()
