"""Face recognition metrics on arrays: ``facelab.metrics.tar_at_far(scores, same, 1e-4)``.

Scores are similarities, higher means more alike; a pair is accepted where its score is at least the threshold. Arrays
are NumPy arrays, PyTorch tensors of any device, or sequences of numbers. The definitions are those of
`facelab.test_protocol`, which the protocols use too.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from facelab.errors import ConfigError, DataError, in_range
from facelab.test_protocol.metrics import identification, metrics, operating_points
from facelab.test_protocol.metrics.error_reject import RATES, ErrorReject
from facelab.test_protocol.metrics.error_reject import error_versus_reject as _error_versus_reject
from facelab.test_protocol.metrics.identification import OpenSetPoint
from facelab.test_protocol.metrics.metrics import Booleans, Floats, FoldResult, Integers, OperatingPoint, Roc
from facelab.test_protocol.metrics.score_tiles import Matrix

__all__ = [
    "ErrorReject",
    "FoldResult",
    "OpenSetPoint",
    "OperatingPoint",
    "Roc",
    "VerificationMetrics",
    "accuracy",
    "auc",
    "cmc",
    "eer",
    "error_versus_reject",
    "rank_k",
    "roc",
    "tar_at_far",
    "tpir_at_fpir",
]

Numbers: TypeAlias = ArrayLike | Tensor


def roc(scores: Numbers, same: Numbers) -> Roc:
    """Every operating point, from accepting nothing to accepting all.

    Args:
        scores: Similarity of each pair, (P,).
        same: Whether each pair shows one person, booleans or 0 and 1, (P,).

    Raises:
        DataError: If the shapes differ, a score is NaN, ``same`` holds something else, or a class is missing.
    """
    return metrics.roc(*_pairs(scores, same))


def tar_at_far(scores: Numbers, same: Numbers, far: float) -> OperatingPoint:
    """The largest true accept rate whose false accept rate is at most ``far``, its threshold, and what is reached.

    Args:
        scores: Similarity of each pair, (P,).
        same: As for `roc`.
        far: False accept rate, in (0, 1].

    Returns:
        The point; where ``measurable`` is false there are fewer than ``1 / far`` different pairs to tell.

    Raises:
        ConfigError: If ``far`` is out of range.
        DataError: As for `roc`.
    """
    values, labels = _pairs(scores, same)
    (point,) = operating_points.tar_at_far(values[labels], values[~labels], [far])
    return point


def eer(scores: Numbers, same: Numbers) -> float:
    """Equal error rate, 0..1: where false accepts and false rejects are equal. Arguments and refusals as for `roc`."""
    return metrics.eer(roc(scores, same))


def auc(scores: Numbers, same: Numbers) -> float:
    """Area below the ROC, 0..1: the chance that a same pair scores above a different one, ties counting half.

    Arguments and refusals as for `roc`.
    """
    return metrics.auc(roc(scores, same))


def accuracy(scores: Numbers, same: Numbers, folds: int | Numbers = 10) -> FoldResult:
    """Accuracy as LFW reports it: each fold at the threshold that is best on all others.

    Args:
        scores: Similarity of each pair, (P,).
        same: As for `roc`.
        folds: Number of folds K, into which same and different pairs are each cut in their order (LFW's own folds, for
            pairs in its order); or the number of each pair's fold, integers, (P,).

    Returns:
        Accuracy and threshold of each fold, with ``mean`` and ``standard_error``.

    Raises:
        ConfigError: If there are fewer than two folds, or fewer same or different pairs than folds.
        DataError: As for `roc`; also if there is not a fold for each pair.
    """
    values, labels = _pairs(scores, same)
    if not isinstance(folds, int):
        return metrics.kfold_accuracy(values, labels, _integers(folds, "folds"))
    fewest = min(np.count_nonzero(labels), np.count_nonzero(~labels))
    if not 2 <= folds <= fewest:
        raise ConfigError(
            f"folds is {folds}, but must be at least 2 and at most {fewest}, so that each has same and different pairs."
        )
    return metrics.kfold_accuracy(values, labels, metrics.balanced_folds(labels, folds))


def rank_k(probe: Numbers, gallery: Numbers, probe_labels: Numbers, gallery_labels: Numbers, k: int = 1) -> float:
    """Share of the probes with a mate in the gallery whose mate is among the k nearest entries, 0..1.

    Entries are compared by cosine; ties count against the probe. Memory is bounded: the P x G scores are never kept.

    Args:
        probe: Embeddings, of any norm, (P, D).
        gallery: Embeddings, (G, D).
        probe_labels: Number of each probe's person, integers, (P,); -1 for nobody.
        gallery_labels: Number of each entry's person, integers, (G,); -1 for a distractor.
        k: At least 1.

    Returns:
        The share; NaN if no probe has a mate.

    Raises:
        ConfigError: If ``k`` is below 1.
        DataError: If the shapes do not fit, a number is not finite, labels are not integers, or a side is empty.
    """
    identification.check_ranks([k])
    (share,) = identification.closed_set(_search(probe, gallery, probe_labels, gallery_labels), [k])
    return share


def cmc(probe: Numbers, gallery: Numbers, probe_labels: Numbers, gallery_labels: Numbers, upto: int = 20) -> Floats:
    """Cumulative match characteristic: `rank_k` for k from 1 to ``upto``, (upto,). Arguments as for `rank_k`.

    Raises:
        ConfigError: If ``upto`` is below 1.
        DataError: As for `rank_k`.
    """
    identification.check_ranks([upto])
    return identification.cmc(_search(probe, gallery, probe_labels, gallery_labels), upto)[1]


def tpir_at_fpir(
    probe: Numbers, gallery: Numbers, probe_labels: Numbers, gallery_labels: Numbers, fpir: float
) -> OpenSetPoint:
    """Open-set search: how many probes find their mate when at most ``fpir`` of those without one find anybody.

    Args:
        probe: Embeddings, of any norm, (P, D); those without a mate in the gallery are the non-mated ones.
        gallery: Embeddings, (G, D).
        probe_labels: As for `rank_k`.
        gallery_labels: As for `rank_k`.
        fpir: False positive identification rate, in (0, 1].

    Raises:
        ConfigError: If ``fpir`` is out of range.
        DataError: As for `rank_k`.
    """
    (point,) = identification.open_set(_search(probe, gallery, probe_labels, gallery_labels), [fpir])
    return point


def error_versus_reject(
    scores: Numbers,
    same: Numbers,
    quality: Numbers,
    fmr: float = 1e-3,
    *,
    higher_is_better: bool = True,
    rates: Sequence[float] = RATES,
) -> ErrorReject:
    """False non-matches that are left when the pairs of least quality are rejected; ``area`` sums the curve up.

    Args:
        scores: Similarity of each pair, (P,).
        same: As for `roc`.
        quality: Of each pair, commonly that of its worse image, (P,).
        fmr: False match rate that sets the threshold on all pairs, in (0, 1].
        higher_is_better: Direction of ``quality``.
        rates: Shares of the pairs to reject, rising, from 0 to below 1.

    Raises:
        ConfigError: If ``fmr`` or a rate is out of range.
        DataError: As for `roc`; also if there is not a quality for each pair, or one is NaN.
    """
    worth = _reals(quality, "quality")
    return _error_versus_reject(*_pairs(scores, same), worth, fmr, higher_is_better=higher_is_better, rates=rates)


class VerificationMetrics:
    """Collects pairs batch by batch, in the manner of torchmetrics: ``update`` in the loop, ``compute`` at its end.

    All scores are kept (8 bytes each), because the rates are those of all pairs together and no mean over batches.

    Args:
        far: False accept rates, in (0, 1].

    Raises:
        ConfigError: If a rate is out of range.
    """

    def __init__(self, far: Sequence[float] = (1e-1, 1e-2, 1e-3)) -> None:
        self.far = tuple(in_range("a target FAR", rate, 0.0, 1.0, low_open=True) for rate in far)
        self.reset()

    def reset(self) -> None:
        """Forget all pairs."""
        self._scores: list[Floats] = []
        self._same: list[Booleans] = []

    def update(self, scores: Numbers, same: Numbers) -> None:
        """Add pairs; arguments and refusals as for `roc`, but one class may be missing from a batch."""
        values, labels = _pairs(scores, same)
        # Copies, because these arrays may lie in the caller's memory, which the next batch writes over.
        self._scores.append(values.copy())
        self._same.append(labels.copy())

    def compute(self) -> dict[str, float]:
        """``auc``, ``eer``, and a ``tar@far=…`` for each rate, NaN where there are too few different pairs to tell.

        Raises:
            DataError: If there are no pairs, or only same or only different ones.
        """
        curve = metrics.roc(np.concatenate([[], *self._scores]), np.concatenate([np.empty(0, bool), *self._same]))
        points = metrics.tar_at_far(curve, self.far)
        rates = {f"tar@far={point.target:g}": point.tar if point.measurable else float("nan") for point in points}
        return {"auc": metrics.auc(curve), "eer": metrics.eer(curve), **rates}


def _array(values: Numbers, what: str) -> NDArray[Any]:
    """Any numbers as a NumPy array; those of a tensor without its gradient."""
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        values = (values.float() if values.dtype == torch.bfloat16 else values).numpy()  # NumPy has no bfloat16
    try:
        return np.asarray(values)
    except ValueError:  # rows of different lengths
        raise DataError(f"{what} cannot be made an array: its parts differ in shape.") from None


def _reals(values: Numbers, what: str) -> Floats:
    array = _array(values, what)
    if array.dtype.kind not in "fiu":
        raise DataError(f"{what} must be real numbers, got an array of {array.dtype}.")
    return array.astype(np.float64, copy=False)


def _integers(values: Numbers, what: str) -> Integers:
    array = _array(values, what)
    if array.dtype.kind not in "iu":
        raise DataError(f"{what} must be integers, got an array of {array.dtype}.")
    return array.astype(np.int64, copy=False)


def _pairs(scores: Numbers, same: Numbers) -> tuple[Floats, Booleans]:
    labels = _array(same, "same")
    if labels.dtype.kind not in "biuf":
        raise DataError(f"same must be booleans, or 0 and 1, got an array of {labels.dtype}.")
    if len(wrong := labels[~np.isin(labels, (0, 1))]):
        raise DataError(f"same must be booleans, or 0 and 1, got {wrong[0].item()!r}.")
    return metrics.checked(_reals(scores, "scores"), labels)


def _search(probe: Numbers, gallery: Numbers, probe_labels: Numbers, gallery_labels: Numbers) -> identification.Search:
    return identification.search(
        _directions(probe, "probe"),
        _directions(gallery, "gallery"),
        _integers(probe_labels, "probe_labels"),
        _integers(gallery_labels, "gallery_labels"),
    )


def _directions(vectors: Numbers, what: str) -> Matrix:
    """Vectors of norm 1, in the precision in which they are given; one of zeros stays as it is."""
    array = _array(vectors, what)
    if array.dtype.kind not in "fiu" or array.ndim != 2:
        raise DataError(f"{what} must be real numbers (N, D), got an array of {array.dtype} {array.shape}.")
    rows = array if array.dtype in (np.float32, np.float64) else array.astype(np.float32)
    norms = np.sqrt(np.einsum("nd,nd->n", rows, rows, dtype=np.float64)).astype(rows.dtype)  # squares leave float32
    with np.errstate(invalid="ignore"):  # the search refuses what is not finite, and says where it is
        return np.asarray(rows / np.where(norms > 0, norms, 1)[:, None])
