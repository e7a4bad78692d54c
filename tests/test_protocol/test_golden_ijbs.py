"""Every metric of golden ``protocols/ijbs``, reached through the protocol itself."""

import csv
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facelab.test_protocol.base import Embeddings
from facelab.test_protocol.metrics.frame_sums import Weighting
from facelab.test_protocol.metrics.identification import closed_set, open_set
from facelab.test_protocol.protocols.ijbs import IJBS
from facelab.test_protocol.protocols.ijbs_search import Searched, reference_open_set

SMALL = Path(__file__).resolve().parent.parent / "golden" / "protocols" / "ijbs"
WEIGHTS: dict[str, Weighting] = {
    "petalface": "norm2",
    "adaface": "norm",
    "unweighted": "unit",
    "correct/norm2": "norm2",
    "correct/norm": "norm",
    "correct/unit": "unit",
}
SIZES = {  # name in info/templates: protocol, and its probes or one of its galleries
    "video2image_probe": ("surveillance_to_single", None),
    "video2video_probe": ("surveillance_to_surveillance", None),
    "multiview_video_probe": ("multiview_surveillance_to_booking", None),
    "uav_probe": ("uav_surveillance_to_booking", None),
    "video_gallery1": ("surveillance_to_surveillance", 0),
    "video_gallery2": ("surveillance_to_surveillance", 1),
    "single_image_gallery1": ("surveillance_to_single", 0),
    "single_image_gallery2": ("surveillance_to_single", 1),
    "booking_image_gallery1": ("surveillance_to_booking", 0),
    "booking_image_gallery2": ("surveillance_to_booking", 1),
}


class Golden:
    """One folder ``protocols/ijbs``: computes any metric from its name."""

    def __init__(self, folder: Path, crops: Path) -> None:
        self.folder, self.crops = folder, crops
        self.expected: dict[str, Any] = json.loads((folder / "expected.json").read_text())["metrics"]
        with (folder / "image_paths.csv").open() as file:
            paths = [row[1] for row in list(csv.reader(file))[1:]]
        for path in paths:  # the protocol asks only whether a crop is there
            (crops / path).parent.mkdir(parents=True, exist_ok=True)
            (crops / path).touch()
        with np.load(folder / "embeddings.npz") as arrays:
            self.row = {str(path): number for number, path in enumerate(arrays["paths"])}
            self.feat = arrays["feat"].astype(np.float32)
        self.searched = cache(self._searched)

    def protocol(self, weight: Weighting) -> tuple[IJBS, Embeddings]:
        protocol = IJBS(self.folder, images=self.crops, weighting=weight, thresholds="reference")
        rows = [self.row[protocol.images.name(number)] for number in range(len(protocol.images))]
        return protocol, Embeddings(self.feat[rows])

    def _searched(self, weight: Weighting) -> dict[str, Searched]:
        protocol, embeddings = self.protocol(weight)
        return {task.name: task for task in protocol.search(embeddings)}

    def value(self, metric: str) -> Any:
        """What we compute for a metric."""
        if metric.startswith("info/"):
            return self.info(metric.removeprefix("info/"))
        who, task, what = metric.rsplit("/", 2)
        found = self.searched(WEIGHTS[who])[task]
        if what.startswith("closed_rank"):
            return closed_set(found.closed, [int(rank) for rank in what.removeprefix("closed_rank").split("_")])
        if what == "open_per_gallery":
            return {name: rates(found, place) for place, name in enumerate(("g1", "g2"))}
        targets = [float(text) for text in what.removeprefix("open_tpir_at_fpir_").split("_")]
        if who.startswith("correct"):
            return np.mean([[point.tpir for point in open_set(side, targets)] for side in found.apart], axis=0)
        return [np.mean([reference_open_set(side, target).tpir for side in found.apart]) for target in targets]

    def info(self, name: str) -> Any:
        """Sizes of the input."""
        protocol, _ = self.protocol("norm")
        tasks = {task.name: task for task in protocol.tasks}
        if name == "frames":
            return len(protocol.images)
        if name == "templates":
            sizes = {
                key: len(tasks[task].probes if side is None else tasks[task].galleries[side])
                for key, (task, side) in SIZES.items()
            }
            templates = {t for task in tasks.values() for part in (task.probes, *task.galleries) for t in part}
            return {"total": len(templates), **sizes}
        task = tasks[name.removesuffix("/counts")]
        entries = [template.subject for gallery in task.galleries for template in gallery]
        mated = sum(probe.subject in entries for probe in task.probes)
        return {"probes": len(task.probes), "mated": mated, "gallery": len(entries)}


def rates(found: Searched, place: int) -> list[float]:
    return [point.tpir for point in open_set(found.apart[place], (0.01, 0.1))]


def close(ours: Any, expected: Any, tolerance: float) -> bool:
    if isinstance(expected, dict):
        return ours.keys() == expected.keys() and all(close(ours[key], expected[key], tolerance) for key in expected)
    return bool(np.allclose(ours, expected, rtol=0, atol=tolerance + 1e-12))


def check_all(folder: Path, crops: Path) -> None:
    golden = Golden(folder, crops)
    wrong = []
    for name, entry in golden.expected.items():
        ours = golden.value(name)
        if not close(ours, entry["value"], float(entry["tolerance"])):
            wrong.append(f"{name}: expected {entry['value']}, got {ours}")
    assert not wrong, "\n".join(wrong)


def test_every_metric_of_the_small_copy(tmp_path: Path) -> None:
    check_all(SMALL, tmp_path)


@pytest.mark.golden
def test_every_metric_of_the_golden_folder(golden_root: Path, tmp_path: Path) -> None:
    check_all(golden_root / "protocols" / "ijbs", tmp_path)


def test_the_report_puts_the_reference_first_and_refuses_what_cannot_be_measured(tmp_path: Path) -> None:
    golden = Golden(SMALL, tmp_path)
    report = IJBS.evaluate(*golden.protocol("norm"))
    values = {metric.name: metric for metric in report.metrics}
    expected = golden.expected["adaface/surveillance_to_single/closed_rank1_5_10"]["value"]
    assert report.headline.name == "surveillance_to_single rank-1 (reference)"
    assert report.headline.value == pytest.approx(expected[0], abs=1e-6)
    assert [metric.kind for metric in report.metrics] == ["reference"] * 25 + ["correct"] * 25
    ours = values["surveillance_to_booking TPIR@FPIR=0.1"]
    assert ours.value is not None
    assert ours.note.startswith("G1 ")
    assert values["surveillance_to_booking TPIR@FPIR=0.01"].value is None
    assert "needs 100 probes without a mate" in values["surveillance_to_booking TPIR@FPIR=0.01"].note
