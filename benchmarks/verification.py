"""How long does 10-fold verification take on LFW's 6,000 pairs? Straightforward evaluators against ours.

The plain programs do what published ones do (docs/protocols.md says which rule is whose): a Python loop over thresholds
for every fold, NumPy inside it, scikit-learn's ``roc_curve`` for TAR@FAR. InsightFace's tries 400 thresholds on both
parts of each fold for the accuracy and 4,000 for VAL@FAR; FaceX-Zoo's tries 1,000, and compares pair by pair. The
first two rows start from scores: accuracy over folds and TAR at three FARs. The others go from embeddings to the end,
where ours gives the whole report: checks, accuracy over folds, TAR and threshold at three FARs, AUC, EER, curves,
trials and hardest errors. Its compatible modes must give the plain program's number.

    python benchmarks/verification.py --out verification.json
"""

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from comparison import compare, report
from numpy.typing import NDArray
from rich.console import Console
from sklearn.metrics import roc_curve
from sklearn.preprocessing import normalize

from facelab.data.base import ImageSet, Pixels
from facelab.test_protocol.base import Embeddings
from facelab.test_protocol.metrics import metrics
from facelab.test_protocol.metrics.pair_scores import Rules, Thresholds
from facelab.test_protocol.protocols.verification import Verification

FOLDS, IMAGES, PEOPLE = 10, 7701, 1680  # images that LFW's pairs name
FARS = (1e-3, 1e-2, 1e-1)

Array = NDArray[Any]


class NoImages(ImageSet):
    """Images that only have a number."""

    def __len__(self) -> int:
        """Number of images."""
        return IMAGES

    def read(self, index: int) -> Pixels:
        """Nothing to read."""
        raise NotImplementedError

    def location(self, index: int) -> str:
        """The number."""
        return str(index)

    def fingerprint(self) -> str:
        """Nothing to hash."""
        return ""


def drawn(pairs: int, width: int) -> tuple[Embeddings, Array, Array]:
    """Embeddings of people, pairs of images and their answers, half of each kind in every fold."""
    random = np.random.default_rng(0)
    person = np.concatenate([np.repeat(np.arange(PEOPLE), 2), random.integers(0, PEOPLE, IMAGES - 2 * PEOPLE)])
    centre = random.normal(size=(PEOPLE, width))
    sides = [(centre[person] + 2.5 * random.normal(size=(IMAGES, width))).astype(np.float32) for _ in range(2)]
    same = np.arange(pairs) // (pairs // (2 * FOLDS)) % 2 == 0
    left = random.integers(0, IMAGES, pairs)
    right = random.integers(0, IMAGES, pairs)
    for row in np.flatnonzero(same):
        right[row] = random.choice(np.setdiff1d(np.flatnonzero(person == person[left[row]]), left[row]))
    # Two images that were drawn for a different pair may be of one person.
    same = person[left] == person[right]
    return Embeddings(sides[0], sides[1]), np.stack([left, right], 1), same


def splits(pairs: int) -> list[tuple[Array, Array]]:
    """Training and test rows of each fold."""
    parts = np.array_split(np.arange(pairs), FOLDS)
    return [(np.concatenate(parts[:fold] + parts[fold + 1 :]), part) for fold, part in enumerate(parts)]


def tars(scores: Array, same: Array) -> list[float]:
    """True accept rates at the FARs nearest to those asked for."""
    fpr, tpr, _ = roc_curve(same, scores)
    return [float(tpr[np.argmin(np.abs(fpr - far))]) for far in FARS]


def insightface_rates(threshold: float, distance: Array, same: Array) -> tuple[float, float, float]:
    """TPR, FPR and accuracy at one threshold."""
    accepted = np.less(distance, threshold)
    tp = np.sum(np.logical_and(accepted, same))
    fp = np.sum(np.logical_and(accepted, np.logical_not(same)))
    tn = np.sum(np.logical_and(np.logical_not(accepted), np.logical_not(same)))
    fn = np.sum(np.logical_and(np.logical_not(accepted), same))
    return float(tp / max(tp + fn, 1)), float(fp / max(fp + tn, 1)), float((tp + tn) / len(distance))


def insightface_distances(embeddings: Embeddings, pairs: Array) -> Array:
    """Squared distance of each pair, of an image and its mirror image joined."""
    joined = normalize(embeddings.values + embeddings.flipped)
    return np.asarray(np.sum(np.square(np.subtract(joined[pairs[:, 0]], joined[pairs[:, 1]])), 1))


def insightface(distance: Array, same: Array) -> float:
    """Accuracy over folds; its ROC, VAL@FAR=1e-3 and TAR@FAR are computed too."""
    thresholds, fine = np.arange(0, 4, 0.01), np.arange(0, 4, 0.001)
    accuracy = []
    for train, test in splits(len(same)):
        of_train = [insightface_rates(t, distance[train], same[train])[2] for t in thresholds]
        of_test = [insightface_rates(t, distance[test], same[test]) for t in thresholds]
        accuracy.append(of_test[int(np.argmax(of_train))][2])
        far = np.array([insightface_rates(t, distance[train], same[train])[1] for t in fine])
        chosen = fine[np.flatnonzero(far <= FARS[0])[-1]]
        insightface_rates(chosen, distance[test], same[test])
    tars(-distance, same)
    return float(np.mean(accuracy))


def facexzoo_threshold(scores: Array, same: Array) -> float:
    """The one of 1,000 equal steps with the greatest TPR - FPR."""
    low, high = scores.min(), scores.max()
    positive, negative = scores[same], scores[~same]
    gaps, steps = [], []
    for step in range(1, 1001):
        threshold = low + step * (high - low) / 1000
        tpr = np.sum(positive > threshold) / len(positive)
        fpr = np.sum(negative > threshold) / len(negative)
        gaps.append(tpr - fpr)
        steps.append(threshold)
    return float(steps[int(np.argmax(gaps))])


def facexzoo_scores(embeddings: Embeddings, pairs: Array) -> Array:
    """Cosine of each pair."""
    by_name = {str(row): value / np.linalg.norm(value) for row, value in enumerate(embeddings.values)}
    return np.array([np.dot(by_name[str(left)], by_name[str(right)]) for left, right in pairs])


def facexzoo(scores: Array, same: Array) -> float:
    """Accuracy over folds; TAR@FAR is computed too."""
    accuracy = []
    for train, test in splits(len(same)):
        threshold = facexzoo_threshold(scores[train], same[train])
        right = [
            score > threshold if one else score < threshold for score, one in zip(scores[test], same[test], strict=True)
        ]
        accuracy.append(np.mean(right))
    tars(scores, same)
    return float(np.mean(accuracy))


def ours(scores: Array, same: Array, fold: Array) -> float:
    """Accuracy over folds; TAR@FAR is computed too."""
    metrics.tar_at_far(metrics.roc(scores, same), FARS)
    return metrics.kfold_accuracy(scores, same, fold).mean


def rate(work: Callable[[], float]) -> float:
    """Evaluations a second, for at least a tenth of a second."""
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < 0.1:
        work()
        count += 1
    return count / (time.perf_counter() - start)


def main(
    pairs: Annotated[int, typer.Option(help="Pairs, a multiple of 20.")] = 6000,
    width: Annotated[int, typer.Option(help="Length of an embedding.")] = 512,
    rounds: Annotated[int, typer.Option(help="Measurements of each.")] = 5,
    out: Annotated[Path | None, typer.Option(help="JSON file for the figures.")] = None,
) -> None:
    """Compare evaluators."""
    torch.set_num_threads(1)
    embeddings, listed, same = drawn(pairs, width)
    fold = np.repeat(np.arange(FOLDS), pairs // FOLDS)
    programs: list[tuple[str, Callable[..., Array], Callable[..., float], bool, Thresholds]] = [
        ("InsightFace's way", insightface_distances, insightface, True, "insightface"),
        ("FaceX-Zoo's way", facexzoo_scores, facexzoo, False, "facexzoo"),
    ]
    rows = []

    def row(what: str, plain: Callable[[], float], work: Callable[[], float], goal: float | None = None) -> None:
        compared = compare(what, partial(rate, plain), partial(rate, work), rounds=rounds, goal=goal)
        rows.append(replace(compared, unit="sets/s"))

    for name, score, plain, _, _ in programs:
        scores = score(embeddings, listed)
        row(f"scores, {name}", partial(plain, scores, same), partial(ours, -scores, same, fold), goal=50.0)
    for name, score, plain, flip, thresholds in programs:
        whole = partial(lambda score, plain: plain(score(embeddings, listed), same), score, plain)
        for rule in ("exact", thresholds):
            protocol = Verification("LFW", NoImages(), listed, same, fold, Rules(flip=flip, thresholds=rule))
            found = headline(protocol, embeddings)
            if rule != "exact" and abs(whole() - found) > 1e-9:
                raise SystemExit(f"{name}: the plain program gives {whole()}, ours {found}")
            row(f"embeddings, {name}; {rule}", whole, partial(headline, protocol, embeddings))
    report(f"{pairs:,} pairs of {width}-d embeddings, 10 folds", rows, out, Console())


def headline(protocol: Verification, embeddings: Embeddings) -> float:
    """The first number of our report."""
    return protocol.evaluate(embeddings).headline.value or 0.0


if __name__ == "__main__":
    typer.run(main)
