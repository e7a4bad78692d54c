"""Every metric of golden ``protocols/lfw``: parsers, clean definitions, and the numbers of reference evaluators."""

import hashlib
import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facelab.errors import DataError
from facelab.test_protocol.base import Embeddings
from facelab.test_protocol.lists.pairs import PairList
from facelab.test_protocol.metrics import metrics, reference_rules
from facelab.test_protocol.metrics.pair_scores import Rules, ScoredPairs
from facelab.test_protocol.protocols import agedb, calfw, cfp, cplfw, lfw, rfw

SMALL = Path(__file__).resolve().parent.parent / "golden"
RULES = {
    "orig": Rules(),
    "flip_sum": Rules(flip=True),
    "normalised_sum": Rules(flip=True, fusion="normalised_sum"),
}
READERS: dict[str, Callable[[Path], PairList]] = {
    "LFW": lfw.read_lfw,
    "CPLFW": cplfw.read_cplfw,
    "CALFW": calfw.read_calfw,
    "AgeDB30": agedb.read_agedb,
}


class Golden:
    """One folder ``protocols/lfw``: computes any metric from its name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.expected: dict[str, Any] = json.loads((folder / "expected.json").read_text())["metrics"]
        self.scored = cache(self._scored)
        self.list = cache(self._list)

    def _list(self, name: str) -> PairList:
        """The pair list of a parse metric, by the name of its file or set."""
        if name.startswith("cfp_"):
            return cfp.read_cfp(self.folder / "cfp" / "Protocol", name.removeprefix("cfp_"))
        reader = self.expected[f"parse/{name}"]["options"]
        if reader.startswith("RFW_"):
            return rfw.read_rfw(self.folder / "rfw" / reader.removeprefix("RFW_") / name)
        return READERS[reader](self.folder / name)

    def _pool(self, names: tuple[str, ...]) -> Embeddings:
        """Embeddings of some images, from whichever file holds all of them."""
        for path in sorted(self.folder.glob("*.npz")):
            with np.load(path) as arrays:
                for key in (key for key in arrays if key.startswith("names")):
                    rows = {name: row for row, name in enumerate(arrays[key].tolist())}
                    if not all(name in rows for name in names):
                        continue
                    own = key.replace("names", "feat")
                    picked = [rows[name] for name in names]
                    values = arrays[own if own in arrays else "feat"][picked].astype(np.float32)
                    flipped = arrays["feat_flip"][picked] if "feat_flip" in arrays else None
                    return Embeddings(values, flipped)
        raise AssertionError(f"no embeddings for {names[0]}")

    def _scored(self, name: str, rules: Rules, folds: int) -> ScoredPairs:
        listed = self.list(name)
        fold = metrics.contiguous_folds(len(listed), folds)
        return ScoredPairs.of(self._pool(listed.images), listed.pairs, listed.same, fold, rules)

    def source(self, metric: str, folds: int = 10) -> ScoredPairs:
        """The scored pairs that a metric speaks of."""
        words = metric.removeprefix("correct/").split("/")
        fusion = next((word for word in words if word in RULES), "orig")
        name = "pairs.txt" if words[0] in ("insightface", "petalface_hq", "magface") else words[0]
        if words[0] == "facexzoo":
            name = words[1]
        if "rfw_" in metric:
            name = re.findall(r"rfw_(\w+)", metric)[0] + "_pairs.txt"
        return self.scored(name, RULES[fusion], folds)

    def value(self, metric: str) -> Any:
        """What we compute for a metric."""
        what = metric.rsplit("/", 1)[1]
        if metric.startswith("parse/"):
            return parsed(self.list(what))
        if what == "mean_and_std_over_races":
            races = [name for name in self.expected if re.fullmatch(r"correct/rfw_\w+/accuracy_mean", name)]
            means = [self.value(name) for name in races]
            return [np.mean(means), np.std(means)]
        if metric.startswith("correct/"):
            count = re.search(r"(\d+) (?:contiguous )?folds", str(self.expected[metric].get("options")))
            return correct(self.source(metric, int(count[1]) if count else 10), what)
        return reference(self.source(metric), metric.split("/")[0], what)


def parsed(listed: PairList) -> dict[str, Any]:
    named = [(left, right, int(same)) for left, right, same in listed.named()]
    lines = "".join(f"{left} {right} {label}\n" for left, right, label in named)
    return {
        "n_pairs": len(named),
        "n_positive": int(listed.same.sum()),
        "sha256": hashlib.sha256(lines.encode()).hexdigest(),
        "first": list(named[0]),
        "second_half_first": list(named[len(named) // 2]),
        "last": list(named[-1]),
    }


def correct(scored: ScoredPairs, what: str) -> Any:
    curve = metrics.roc(scored.cosine, scored.same)
    if what.startswith("tar_at_far_"):
        return metrics.tar_at_far(curve, [float(what.removeprefix("tar_at_far_"))])[0].tar
    if what in ("auc", "eer"):
        return {"auc": metrics.auc, "eer": metrics.eer}[what](curve)
    folds = metrics.kfold_accuracy(scored.cosine, scored.same, scored.fold)
    return {
        "accuracy_mean": folds.mean,
        "fold_accuracy": folds.accuracy,
        "fold_threshold_cosine": folds.threshold,
    }[what]


def reference(scored: ScoredPairs, project: str, what: str) -> Any:
    if project == "facexzoo":
        folds = reference_rules.facexzoo_accuracy(scored.cosine, scored.same)
        shown = {"mean_accuracy": folds.mean, "std_error": folds.standard_error}
        return {**shown, "fold_threshold_cosine": folds.threshold, "fold_accuracy": folds.accuracy}[what]
    if what.startswith("roc_tpr_fpr_at_sqL2_"):
        tpr, fpr = reference_rules.grid_roc(scored.squared_distance, scored.same, scored.fold)
        rows = [round(100 * float(number)) for number in what.removeprefix("roc_tpr_fpr_at_sqL2_").split("_")]
        return [[tpr[row], fpr[row]] for row in rows]
    if what.startswith("val") or what == "far_mean":
        target = float(what.split("far_")[1]) if "at_far_" in what else 1e-3
        val = reference_rules.val_at_far(scored.squared_distance, scored.same, scored.fold, target)
        return {"far_mean": val.far.mean(), "val_std": val.val.std()}.get(what, val.val.mean())
    if project == "magface":
        folds = reference_rules.magface_accuracy(*scored.raw_sides, scored.same, scored.fold)
    else:
        folds = reference_rules.grid_accuracy(scored.squared_distance, scored.same, scored.fold)
    return {
        "accuracy_mean": folds.mean,
        "accuracy_std": folds.deviation,
        "fold_accuracy": folds.accuracy,
        "fold_threshold_sqL2": folds.threshold,
        "xnorm": scored.mean_norm,
    }[what]


# Where the reference program crashes, ours answers instead; these are the only metrics that are not compared.
DELIBERATELY_DIFFERENT = re.compile(r"facexzoo/\d+_pairs")


def close(ours: Any, expected: Any, tolerance: float) -> bool:
    numbers = np.array(expected, dtype=object).astype(float)  # "NaN" and "Infinity" are strings there
    return bool(np.allclose(ours, numbers, rtol=0, atol=tolerance + 1e-12, equal_nan=True))


def check_all(folder: Path) -> None:
    golden = Golden(folder)
    wrong = []
    for name, entry in golden.expected.items():
        if name.startswith("info/") or DELIBERATELY_DIFFERENT.fullmatch(name):
            continue
        ours = golden.value(name)
        if isinstance(entry["value"], dict):
            same = ours == entry["value"]
        else:
            same = close(ours, entry["value"], float(entry["tolerance"]))
        if not same:
            wrong.append(f"{name}: expected {entry['value']}, got {ours}")
    assert not wrong, "\n".join(wrong)


def test_every_metric_of_the_small_copy() -> None:
    check_all(SMALL / "protocols" / "lfw")


@pytest.mark.golden
def test_every_metric_of_the_golden_folder(golden_root: Path) -> None:
    check_all(golden_root / "protocols" / "lfw")


@pytest.mark.golden
def test_more_pairs_than_the_reference_holds_are_refused_with_a_sentence(golden_root: Path) -> None:
    """The original stops with an IndexError."""
    golden = Golden(golden_root / "protocols" / "lfw")
    crashes = [name for name in golden.expected if DELIBERATELY_DIFFERENT.fullmatch(name)]
    assert crashes
    assert all(golden.expected[name]["value"].endswith("Error") for name in crashes)
    for name in crashes:
        count = int(re.findall(r"\d+", name)[0])
        random = np.random.default_rng(0)
        scores, same = random.random(count), random.random(count) < 0.5
        with pytest.raises(DataError, match=f"holds 6000 pairs, got {count}; use exact"):
            reference_rules.facexzoo_accuracy(scores, same)
        assert 0 < metrics.kfold_accuracy(scores, same, metrics.contiguous_folds(count, 11)).mean < 1
