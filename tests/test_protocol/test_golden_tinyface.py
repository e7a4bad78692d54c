"""Every metric of golden ``protocols/tinyface``, by the protocol on files in their real layout."""

import json
import re
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facelab.test_protocol.base import Embeddings, Report
from facelab.test_protocol.protocols.tinyface import TinyFace

SMALL = Path(__file__).resolve().parent.parent / "golden"
FOLDERS = {"Probe": "probe", "Gallery_Match": "gallery", "Gallery_Distractor": "distractor"}
FUSIONS: dict[str, dict[str, Any]] = {
    "none": {"flip": False},
    "pre_norm_vector_add": {"fusion": "sum"},
    "norm_weighted_avg": {"fusion": "sum"},
    "average": {"fusion": "normalised_sum"},
    "concat": {"fusion": "concat"},
}
RANKS = (1, 5, 10, 20)


class Golden:
    """One folder ``protocols/tinyface``, laid out below ``root`` with empty files for images."""

    def __init__(self, folder: Path, root: Path, *, lists: bool) -> None:
        self.root = root
        self.expected: dict[str, Any] = json.loads((folder / "expected.json").read_text())["metrics"]
        self.vectors: dict[str, tuple[Any, Any]] = {}
        testing_set = root / "tinyface" / "Testing_Set"
        with np.load(folder / "embeddings.npz") as arrays:
            for name, key in FOLDERS.items():
                names = (folder / f"{name}_files.txt").read_text().split()
                rows = zip(names, arrays[key], arrays[f"{key}_flip"], strict=True)
                self.vectors |= {f"{name}/{image}": (plain, flipped) for image, plain, flipped in rows}
                (testing_set / name).mkdir(parents=True)
                for image in names:
                    (testing_set / name / image).touch()
        for path in (folder / "tinyface" / "Testing_Set").glob("*.mat") if lists else ():
            shutil.copy(path, testing_set)
        self.order = (folder / "Probe_files.txt").read_text().split()
        self.report = cache(self._report)

    def _report(self, fusion: str) -> tuple[Report, list[str]]:
        protocol = TinyFace(self.root, **FUSIONS[fusion], rules="tinyface", ranks=RANKS)
        names = [protocol.images.name(row) for row in range(len(protocol.images))]
        plain, flipped = (np.array([self.vectors[name][side] for name in names], np.float32) for side in (0, 1))
        return protocol.evaluate(Embeddings(plain, flipped if protocol.flip else None)), names

    def value(self, metric: str) -> Any:
        """What we compute for a metric."""
        if metric == "info/counts":
            return self._counts()
        _, fusion, what = metric.split("/")
        script = fusion == "euclidean_raw_original"
        report, names = self.report("none" if script else fusion)
        values = {metric.name: metric.value for metric in report.metrics}
        if what == "rank_of_best_mate_per_probe":
            by_name = dict(zip(names, report.trials["rank"].tolist(), strict=False))
            return [by_name[f"Probe/{name}"] for name in self.order]
        if what.startswith("rank"):
            ranks = [f"rank-{rank}" for rank in re.findall(r"\d+", what)]
            return [values[f"{rank} (TinyFace script)" if script else rank] for rank in ranks]
        return values[{"mAP": "mAP", "mAP_trapezoid": "mAP (trapezoid)"}[what]]

    def _counts(self) -> dict[str, int]:
        report, _ = self.report("none")
        counts = {metric.name: int(metric.value or 0) for metric in report.metrics if metric.unit == "count"}
        without = counts["probes without a mate"]
        distractors = report.options["distractors"]
        return {
            "probes": counts["probes with a mate"] + without,
            "probes_without_mate": without,
            "gallery_match": counts["gallery images"] - distractors,
            "distractors": distractors,
            "identities": len(np.unique(report.trials["person"][report.trials["rank"] > 0])),
        }


def check_all(golden: Golden) -> None:
    wrong = []
    for name, entry in golden.expected.items():
        ours, expected, tolerance = golden.value(name), entry["value"], float(entry["tolerance"])
        same = ours == expected if isinstance(expected, dict) else np.allclose(ours, expected, rtol=0, atol=tolerance)
        if not same:
            wrong.append(f"{name}: expected {expected}, got {ours}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("lists", [True, False])
def test_every_metric_of_the_small_copy(tmp_path: Path, lists: bool) -> None:
    check_all(Golden(SMALL / "protocols" / "tinyface", tmp_path, lists=lists))


@pytest.mark.golden
@pytest.mark.parametrize("lists", [True, False])
def test_every_metric_of_the_golden_folder(golden_root: Path, tmp_path: Path, lists: bool) -> None:
    check_all(Golden(golden_root / "protocols" / "tinyface", tmp_path, lists=lists))
