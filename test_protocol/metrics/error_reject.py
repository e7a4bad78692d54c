"""Error-versus-reject curves: what is left of the errors when the pairs of least quality are not decided.

A quality score is good if the errors vanish early (Grother and Tabassi, TPAMI 2007). The area below the curve is the
figure that compares scorers on the same pairs and embeddings.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from facelab.errors import ConfigError, DataError, in_range
from facelab.test_protocol.metrics.metrics import Booleans, Floats, Integers, checked, roc, tar_at_far

RATES = tuple(step / 20 for step in range(20))
MAGFACE_RATES = tuple(0.05 * step for step in range(20))  # 0.15000000000000002 …: its program counts with these
MAGFACE_TARGETS = {1e-1: 1, 1e-2: 2, 1e-3: 3}  # others never equal its running 1 / 10 / 10 …


@dataclass(frozen=True)
class ErrorReject:
    """False non-matches at rising shares of rejected pairs.

    Attributes:
        rate: Share of all pairs, same and different ones, that is rejected, (R,), rising.
        fnmr: False non-match rate of the remaining pairs, (R,); 1 where it cannot be measured.
        fmr: False match rate of the remaining pairs, (R,); 0 where there are no different ones.
        threshold: What a pair is compared with, (R,): it is accepted where its score is at least this (MagFace: where
            its distance is below).
    """

    rate: Floats
    fnmr: Floats
    fmr: Floats
    threshold: Floats

    @property
    def area(self) -> float:
        """Area below ``fnmr`` by trapezoids, over the width of ``rate``: a mean rate; less is better."""
        if len(self.rate) < 2:
            return float("nan")
        areas = np.diff(self.rate) * (self.fnmr[1:] + self.fnmr[:-1]) / 2.0
        return float(areas.sum() / (self.rate[-1] - self.rate[0]))


def pair_quality(quality: ArrayLike, pairs: Integers, *, higher_is_better: bool) -> Floats:
    """Quality of each pair, (P,): that of its worse image.

    Args:
        quality: Of each image, (N,).
        pairs: Rows of images, (P, 2).
        higher_is_better: Direction of ``quality``.
    """
    both = np.asarray(quality, np.float64)[pairs]
    return np.asarray(both.min(axis=1) if higher_is_better else both.max(axis=1))


def dropped(rates: Sequence[float], pairs: int) -> Integers:
    """How many of ``pairs`` are rejected at each rate, (R,): the whole part of the product, rounding errors aside."""
    return np.floor(np.asarray(rates) * pairs + 1e-9).astype(np.int64)


def error_versus_reject(
    scores: ArrayLike,
    same: ArrayLike,
    quality: ArrayLike,
    target: float,
    *,
    higher_is_better: bool,
    refit: bool = False,
    rates: Sequence[float] = RATES,
) -> ErrorReject:
    """The curve at the lowest false non-match rate whose false match rate does not exceed a target.

    Args:
        scores: Similarity of each pair, (P,); accepted where it is at least the threshold.
        same: Whether each pair shows one person, (P,).
        quality: Of each pair, (P,); pairs of equal quality are rejected in their order.
        target: False match rate, in (0, 1].
        higher_is_better: Direction of ``quality``.
        refit: Whether the threshold is chosen anew on the remaining pairs at each rate; then the error may rise when
            pairs are rejected. Otherwise it is that of all pairs, as in the standard.
        rates: Shares of the pairs to reject, rising, from 0 to below 1.

    Raises:
        ConfigError: If the target or a rate is out of range.
        DataError: If the shapes differ, a number is NaN, or all pairs are of one class.
    """
    values, labels, order = _checked(scores, same, quality, higher_is_better)
    in_range("a target FMR", target, 0.0, 1.0, low_open=True)
    _check_rates(rates)
    counts = dropped(rates, len(values))
    values, labels = values[order], labels[order]  # the worst first
    curve = _refitted if refit else _fixed
    return ErrorReject(np.array(rates, np.float64), *curve(values, labels, counts, target))


def _fixed(values: Floats, same: Booleans, counts: Integers, target: float) -> tuple[Floats, Floats, Floats]:
    threshold = tar_at_far(roc(values, same), [target])[0].threshold
    # One pass for all rates: pairs come worst first, so that what is left of a count is a difference of running sums.
    accepted = values >= threshold
    missed = _left(same & ~accepted, counts), _left(same, counts)
    matched = _left(~same & accepted, counts), _left(~same, counts)
    fnmr = np.where(missed[1] > 0, missed[0] / np.maximum(missed[1], 1), 1.0)
    return fnmr, matched[0] / np.maximum(matched[1], 1), np.full(len(counts), threshold)


def _left(marked: Booleans, counts: Integers) -> Integers:
    """How many marked pairs are left when so many of the first ones are gone, (R,)."""
    gone = np.concatenate(([0], np.cumsum(marked)))
    return np.asarray(gone[-1] - gone[counts])


def _refitted(values: Floats, same: Booleans, counts: Integers, target: float) -> tuple[Floats, Floats, Floats]:
    points = []
    for count in counts.tolist():
        labels = same[count:]
        if labels.all() or not labels.any():
            points.append((1.0, 0.0, np.inf))  # no threshold can be chosen, so nothing is accepted: the worst case
            continue
        (point,) = tar_at_far(roc(values[count:], labels), [target])
        points.append((1.0 - point.tar, point.far, point.threshold))
    fnmr, fmr, threshold = np.array(points, np.float64).T
    return fnmr, fmr, threshold


def magface_error_reject(cosine: ArrayLike, same: ArrayLike, quality: ArrayLike, target: float = 1e-3) -> ErrorReject:
    """The curve as MagFace's ``eval_quality`` draws it; higher quality is better.

    The distance is ``arccos(cosine) / pi``. On the remaining pairs the threshold is a distance of a different pair: its
    place among them starts at the last and is divided by 10 for each decade of the target, so that the false match rate
    is nominal and often 0. Where the place reaches 0 before the target, the program appends nothing: the curve is
    shorter than the rates. A pair is accepted where its distance is below the threshold.

    Args:
        cosine: Of each pair, (P,).
        same: Whether each pair shows one person, (P,).
        quality: Of each pair, (P,).
        target: 0.1, 0.01 or 0.001; the program compares it with ``==``.

    Raises:
        ConfigError: If the target is another.
        DataError: If the shapes differ, a number is NaN, or all pairs are of one class.
    """
    if target not in MAGFACE_TARGETS:
        raise ConfigError(f"MagFace's error-versus-reject knows the FMRs 0.1, 0.01 and 0.001, not {target!r}.")
    values, labels, order = _checked(cosine, same, quality, higher_is_better=True)
    distance, labels = np.arccos(np.clip(values, -1.0, 1.0))[order] / np.pi, labels[order]
    points = []
    for rate in MAGFACE_RATES:
        # Cut off with its rounding errors, as the program does it: `dropped` would count otherwise.
        count = int(rate * len(distance))
        threshold = _magface_threshold(distance[count:][~labels[count:]], MAGFACE_TARGETS[target])
        if threshold is None:
            break
        accepted, left = distance[count:] < threshold, labels[count:]
        missed, matched = int(np.sum(left & ~accepted)), int(np.sum(~left & accepted))
        points.append((rate, missed / max(int(left.sum()), 1), matched / int(np.sum(~left)), threshold))
    rate_, fnmr, fmr, thresholds = np.array(points, np.float64).reshape(-1, 4).T
    return ErrorReject(rate_, fnmr, fmr, thresholds)


def _magface_threshold(impostors: Floats, decades: int) -> float | None:
    place = len(impostors) - 1
    for _ in range(decades):
        if place <= 0:
            return None
        place //= 10
    return float(np.sort(impostors)[place])


def _checked(
    scores: ArrayLike, same: ArrayLike, quality: ArrayLike, higher_is_better: bool
) -> tuple[Floats, Booleans, Integers]:
    """Scores and labels, and the order of the pairs from the worst quality to the best, ties in their own order."""
    values, labels = checked(scores, same)
    worth = np.asarray(quality, np.float64)
    if worth.shape != values.shape:
        raise DataError(f"{len(values)} pairs need as many qualities, got an array of shape {worth.shape}.")
    if np.isnan(worth).any():
        raise DataError(f"the quality of pair {int(np.argmax(np.isnan(worth)))} (from 0) is not a number.")
    return values, labels, np.argsort(worth if higher_is_better else -worth, kind="stable")


def _check_rates(rates: Sequence[float]) -> None:
    for rate in rates:
        in_range("a reject rate", rate, 0.0, 1.0, high_open=True)
    if not len(rates) or (np.diff(rates) <= 0).any():
        raise ConfigError(f"reject rates must rise, got {list(rates)}.")
