"""Every metric of golden ``protocols/quality``: error versus reject, MagFace's rule and the clean definitions."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facelab.test_protocol.metrics.error_reject import (
    MAGFACE_RATES,
    RATES,
    ErrorReject,
    dropped,
    error_versus_reject,
    magface_error_reject,
    pair_quality,
)

SMALL = Path(__file__).resolve().parent.parent / "golden" / "protocols" / "quality"


class Golden:
    """One folder ``protocols/quality``: computes any metric from its name."""

    def __init__(self, folder: Path) -> None:
        self.expected: dict[str, Any] = json.loads((folder / "expected.json").read_text())["metrics"]
        table = np.genfromtxt(folder / "pair_scores.csv", delimiter=",", names=True)
        self.same, self.cosine = table["label"] == 1, table["cosine"]
        images = np.stack([table["quality_a"], table["quality_b"]], axis=1).ravel()
        pairs = np.arange(len(images)).reshape(-1, 2)
        self.quality = pair_quality(images, pairs, higher_is_better=True)
        np.testing.assert_array_equal(self.quality, table["pair_quality"])

    def value(self, metric: str) -> Any:
        """What we compute for a metric."""
        kind, what = metric.split("/")
        if kind == "info":
            return self.info(what)
        found = re.fullmatch(r"([a-z_]+)_([\d.e-]+)", what)
        assert found is not None, metric
        if kind == "magface":
            curve = magface_error_reject(self.cosine, self.same, self.quality, float(found[2]))
            return {
                "fnmr_at_fmr": curve.fnmr,
                "threshold_at_fmr": curve.threshold,
                "actual_fmr_at_nominal": curve.fmr,
            }[found[1]]
        fixed, refit = (self.curve(float(found[2]), refit=refit) for refit in (False, True))
        return {
            "fnmr_refit_threshold_at_fmr": refit.fnmr,
            "auc_refit_fmr": refit.area,
            "fnmr_fixed_threshold_at_fmr": fixed.fnmr,
            "auc_fixed_fmr": fixed.area,
            "threshold_fixed_fmr": np.arccos(fixed.threshold[0]) / np.pi,
        }[found[1]]

    def curve(self, target: float, *, refit: bool) -> ErrorReject:
        return error_versus_reject(self.cosine, self.same, self.quality, target, higher_is_better=True, refit=refit)

    def info(self, what: str) -> Any:
        count = len(self.same)
        if what == "pairs_positive_negative_left":
            ordered = self.same[np.argsort(self.quality)]
            return [[ordered[gone:].sum(), (~ordered[gone:]).sum()] for gone in dropped(RATES, count)]
        return {
            "unconsidered_rates": MAGFACE_RATES,
            "dropped_pairs_reference": [int(rate * count) for rate in MAGFACE_RATES],
            "dropped_pairs_exact": dropped(RATES, count),
        }[what]


def check_all(folder: Path) -> None:
    golden = Golden(folder)
    wrong = []
    for name, entry in golden.expected.items():
        ours, expected = np.asarray(golden.value(name), np.float64), np.asarray(entry["value"], np.float64)
        if ours.shape != expected.shape or not np.allclose(ours, expected, rtol=0, atol=entry["tolerance"] + 1e-12):
            wrong.append(f"{name}: expected {entry['value']}, got {ours}")
    assert not wrong, "\n".join(wrong)


def test_every_metric_of_the_small_copy() -> None:
    check_all(SMALL)


@pytest.mark.golden
def test_every_metric_of_the_golden_folder(golden_root: Path) -> None:
    check_all(golden_root / "protocols" / "quality")
