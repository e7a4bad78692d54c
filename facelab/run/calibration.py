"""Measuring the thresholds and probabilities of a model on a verification protocol: what ``facelab calibrate`` runs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from facelab.errors import ConfigError, DataError
from facelab.model.face_model import FaceModel
from facelab.progress_bar import counted_bars
from facelab.quality.card import ScoreSource
from facelab.run.model_evaluation import EvaluationOptions, quality_scores
from facelab.test_protocol.base import Protocol, Report
from facelab.test_protocol.extraction.embed import embed
from facelab.test_protocol.metrics.calibration import LogisticMap, cllr, fit_logistic, isotonic, min_cllr
from facelab.test_protocol.metrics.impostors import count_impostors, most_alike
from facelab.test_protocol.metrics.metrics import Floats, Integers
from facelab.test_protocol.metrics.operating_points import allowed
from facelab.test_protocol.metrics.pair_scores import ScoredPairs, unit
from facelab.test_protocol.protocols.joint import JointVerification
from facelab.test_protocol.protocols.verification import Verification, curves
from facelab.test_protocol.report.charts import Chart, Line, scores
from facelab.test_protocol.report.line_style import OTHERS
from facelab.test_protocol.statistics.threshold_rates import Errors, of_all_pairs, of_pairs
from facelab.weights.calibration import FMRS, Calibration, Threshold, is_too_few, rate_name, too_few
from facelab.weights.state_hash import state_hash

Which = Literal["all", "listed"]


@dataclass(frozen=True)
class Calibrated:
    """What was measured.

    Attributes:
        calibration: For the model's card.
        refused: Why there is no threshold for some rates, a clause each.
        charts: The cosines of the listed pairs with the thresholds; the probability over the cosine, as fitted and as
            the best rising map of these pairs has it.
    """

    calibration: Calibration
    refused: tuple[str, ...]
    charts: tuple[Chart, ...]


@dataclass(frozen=True)
class _Impostors:
    """Different pairs, the most alike first: as many as thresholds need.

    Attributes:
        score: Falling, (K,).
        errors: Those from a threshold on as false matches, by their number.
        total: Number of all different pairs.
    """

    score: Floats
    first: Integers
    second: Integers
    total: int
    weigh: Any
    units: int

    def accepted(self, count: int) -> Errors:
        """The ``count`` most alike as false matches."""
        return Errors(self.first[:count], self.second[:count], self.total, self.weigh, self.units)


def calibrate(
    model: FaceModel,
    name: str,
    protocol: Protocol,
    *,
    options: EvaluationOptions | None = None,
    quality: ScoreSource | None = None,
    fmrs: Sequence[float] = FMRS,
    impostors: Which = "all",
    draws: int = 1000,
    console: Console | None = None,
) -> Calibrated:
    """Thresholds for false match rates and a map to probabilities, from the pairs of a protocol.

    A threshold is the lowest cosine whose false match rate does not exceed what is asked for. It is refused where fewer
    than ten false matches are to be expected. Probabilities are fitted to the listed pairs, and Cllr is measured on
    people that each fit did not see, where the protocol has folds.

    Args:
        model: The model.
        name: What the protocol is called.
        protocol: One that compares pairs of images.
        options: How images are embedded.
        quality: Score table or scorer of the images, for models that take quality scores.
        fmrs: False match rates, in (0, 1).
        impostors: ``all`` takes every pair of images of two people where the people are known, which is thousands of
            times as many as most lists name; ``listed`` those of the list alone.
        draws: Bootstrap draws of the intervals.
        console: Where progress is shown.

    Raises:
        ConfigError: If the protocol does not compare pairs of images, or joins mirrored images otherwise than
            `FaceModel.embed`.
        DataError: If it lacks same or different pairs, or their scores cannot be calibrated.
    """
    options = options or EvaluationOptions()
    pairs = _checked(name, protocol)
    scored = _scored(model, name, pairs, options, quality, console or Console(quiet=True, markup=False))
    if scored.one_class:
        raise DataError(f"{name}: a calibration needs same and different pairs; all pairs are of one kind.")
    people = pairs.people
    most = max((fmr for fmr in fmrs), default=0.0)
    of_all = impostors == "all" and count_impostors(people) > int((~scored.same).sum())
    found = _all_impostors(scored, people, most) if of_all else _listed_impostors(scored, people)
    refused = tuple(f"{rate_name(fmr)}: {why}" for fmr in fmrs if (why := _refusal(fmr, found)))
    genuine = _Genuine.of(scored, people)
    thresholds = (_threshold(fmr, found, genuine, draws) for fmr in fmrs if not _refusal(fmr, found))
    fitted, costs = fit_logistic(scored.cosine, scored.same), _costs(scored, people)
    known = people[people >= 0]
    calibration = Calibration(
        version=1,
        weights=state_hash(model.network.state_dict()),
        input=model.input_spec.describe(),
        flip=pairs.flip,
        resize=options.resize,
        any_photo=options.any_photo,
        alignment=pairs.images.alignment,
        protocol=name,
        image_set=pairs.images.fingerprint(),
        same=int(scored.same.sum()),
        different=found.total,
        impostors="all" if of_all else "listed",
        people=len(np.unique(known)) if len(known) == len(people) else None,
        thresholds=tuple(sorted(thresholds, key=lambda threshold: -threshold.fmr)),
        slope=fitted.slope,
        offset=fitted.offset,
        cllr=costs[0],
        min_cllr=min_cllr(scored.cosine, scored.same),
        folds=costs[1],
    )
    return Calibrated(calibration, refused, _charts(calibration, scored))


def _charts(calibration: Calibration, scored: ScoredPairs) -> tuple[Chart, Chart]:
    title = f"{calibration.protocol}: listed pairs"
    histogram = scores(Report(calibration.protocol, (), curves=curves(scored)), title)
    assert histogram is not None, "there are pairs of both kinds"
    marks = tuple((f"FMR {rate_name(one.fmr)}", one.threshold) for one in calibration.thresholds)
    low, high = histogram.x_range
    cosine = np.linspace(low, high, 200)
    order = np.argsort(scored.cosine, kind="stable")
    share, same = isotonic(scored.cosine, scored.same)[order], scored.same.mean()
    pooled = 100.0 * share * (1.0 - same) / (share * (1.0 - same) + (1.0 - share) * same)  # at a prior of one half
    fitted = Line("logistic, as fitted", cosine, 100.0 * calibration.probability(cosine))
    steps = Line("best rising map (PAV)", scored.cosine[order], pooled, style=OTHERS)
    probability = Chart(
        "probability", "Probability of the same person", "cosine", "probability at a prior of one half [%]",
        (fitted, steps), (low, high), (0.0, 100.0), marks=marks, by_model=False,
    )  # fmt: skip
    return replace(histogram, marks=marks), probability


def _checked(name: str, protocol: Protocol) -> Verification:
    if isinstance(protocol, JointVerification) and len(protocol.parts) == 1:
        protocol = protocol.parts[0]
    if not isinstance(protocol, Verification):
        raise ConfigError(
            f"{name} does not compare pairs of single images as they are, so its scores are not those of two photos; "
            "calibrate on one list of pairs such as LFW, CFP-FP, AgeDB-30, a .bin pack or SyntheticPairs, without "
            "resolution, degradation or occlude."
        )
    if protocol.flip and protocol.rules.fusion != "sum":
        raise ConfigError(
            f"{name} joins mirrored images by {protocol.rules.fusion}, but `facelab verify` adds them as they are; set "
            f"{name}.fusion=sum."
        )
    return protocol


def _scored(
    model: FaceModel,
    name: str,
    pairs: Verification,
    options: EvaluationOptions,
    quality: ScoreSource | None,
    console: Console,
) -> ScoredPairs:
    with counted_bars(console) as show:
        sources = {} if quality is None else {name: quality}
        tables = quality_scores(model, [(name, pairs)], sources, options, show)
        embeddings = embed(
            model.network,
            pairs.images,
            device=model.device,
            flip=pairs.flip,
            **vars(options),
            quality=tables.get(name),
            progress=lambda done, total: show(f"{model.name} on {name}", done, total),
        )
    return pairs.scored(embeddings)


def _refusal(fmr: float, impostors: _Impostors) -> str:
    if is_too_few(fmr, impostors.total):
        return too_few(fmr, impostors.total)
    if impostors.score[0] == impostors.score[min(allowed(fmr, impostors.total), len(impostors.score) - 1)]:
        return "the most alike different pairs are all equally alike"
    return ""


def _threshold(fmr: float, impostors: _Impostors, genuine: "_Genuine", draws: int) -> Threshold:
    """Accept from the lowest score on that is above the first false match too many, whose ties all stay out."""
    bound = impostors.score[min(allowed(fmr, impostors.total), len(impostors.score) - 1)]
    matches = impostors.accepted(int(np.sum(impostors.score > bound)))
    above = genuine.score[genuine.score > bound]
    threshold = min([float(impostors.score[len(matches.first) - 1]), *([float(above.min())] if len(above) else [])])
    misses = genuine.rejected(threshold)
    (low, high), (fnmr_low, fnmr_high) = matches.interval(draws), misses.interval(draws)
    return Threshold(
        fmr=fmr,
        threshold=min(max(threshold, -1.0), 1.0),
        real_fmr=matches.rate,
        fmr_low=low,
        fmr_high=high,
        fnmr=misses.rate,
        fnmr_low=fnmr_low,
        fnmr_high=fnmr_high,
    )


@dataclass(frozen=True)
class _Genuine:
    score: Floats
    unit: Integers
    units: int

    @classmethod
    def of(cls, scored: ScoredPairs, people: Integers) -> "_Genuine":
        person = people[scored.pairs[scored.same, 0]]
        known, unit = np.unique(person, return_inverse=True)
        return cls(scored.cosine[scored.same], unit.reshape(-1) + 1, 0 if (person < 0).any() else len(known))

    def rejected(self, threshold: float) -> Errors:
        """Same pairs below a threshold."""
        wrong, none = self.unit[self.score < threshold], np.zeros_like
        return Errors(wrong, none(wrong), len(self.score), of_pairs(self.unit, none(self.unit)), self.units)


def _listed_impostors(scored: ScoredPairs, people: Integers) -> _Impostors:
    score, sides = scored.cosine[~scored.same], people[scored.pairs[~scored.same]]
    known, number = np.unique(sides, return_inverse=True)
    first, second = number.reshape(sides.shape).T + 1
    order = np.argsort(-score, kind="stable")
    units = 0 if (sides < 0).any() else len(known)
    return _Impostors(score[order], first[order], second[order], len(score), of_pairs(first, second), units)


def _all_impostors(scored: ScoredPairs, people: Integers, fmr: float) -> _Impostors:
    """Every pair of images of two people; images that could not be read are in no pair, as in the list."""
    used = np.zeros(len(people), bool)
    used[scored.pairs] = True
    person = np.where(used, people, -1)
    count = allowed(fmr, count_impostors(person)) + 1
    found = most_alike(unit(scored.fused.astype(np.float32)), person, count)
    known, images = np.unique(person[person >= 0], return_counts=True)
    first, second = (np.searchsorted(known, side) + 1 for side in (found.left, found.right))
    return _Impostors(found.score, first, second, found.total, of_all_pairs(images), len(known))


def _costs(scored: ScoredPairs, people: Integers) -> tuple[float, int]:
    """Cllr and the number of folds that it was cross-validated over; 0 if there is one fold."""
    folds = np.unique(scored.fold)
    if len(folds) < 2:
        return cllr(fit_logistic(scored.cosine, scored.same).llr(scored.cosine), scored.same), 0
    llr = np.empty(len(scored.same))
    for test, train in _parts(scored, people, folds):
        llr[test] = _fit(scored.cosine[train], scored.same[train]).llr(scored.cosine[test])
    return cllr(llr, scored.same), len(folds)


def _parts(
    scored: ScoredPairs, people: Integers, folds: Integers
) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    """Pairs of each fold, and the pairs of others that share none of its people."""
    sides = people[scored.pairs]
    for fold in folds:
        test = scored.fold == fold
        tested = np.unique(sides[test])
        yield test, ~test & ~np.isin(sides, tested[tested >= 0]).any(axis=1)


def _fit(scores: Floats, same: NDArray[np.bool_]) -> LogisticMap:
    try:
        return fit_logistic(scores, same)
    except DataError as error:
        raise DataError(
            f"the calibration cannot be cross-validated: without the people of one fold, {error} Take a protocol of "
            "more people, or set folds=1 where it has that option."
        ) from None
