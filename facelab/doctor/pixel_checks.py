"""What the survey of pixels says: size, colour order, quality, alignment."""

import numpy as np
from numpy.typing import NDArray

from facelab.data.alignment.alignment import template
from facelab.data.base import Source
from facelab.doctor.findings import Finding
from facelab.doctor.survey import Survey
from facelab.quality.card import ScorerCard

COLD = -0.03  # warmth below which red and blue are swapped
LOW_QUALITY = 3.0  # median deviations below the median
MISALIGNED, DEVIATIONS = 4.5, 6.0  # pixels of 112; median deviations, where a detector is unsure of all images
HALF = 0.5
TINY = 1e-6


def find_unreadable(survey: Survey) -> Finding:
    """Images that cannot be read, with the reasons."""
    rows = np.array([row for row, _ in survey.failed], np.int64)
    empty = np.full(len(rows), -1, np.int64), np.full(len(rows), np.nan, np.float32)
    return Finding("unreadable", rows, *empty, rows, tuple(reason for _, reason in survey.failed))


def find_other_sizes(survey: Survey) -> Finding:
    """Images of another size than most."""
    sizes, counts = np.unique(survey.size[survey.readable], axis=0, return_counts=True)
    height, width = sizes[counts.argmax()].tolist()
    if counts.max() < HALF * counts.sum():
        note = f"The images have {len(sizes):,} sizes, and none of them half of the images: these are no aligned faces."
        return Finding.of("size", np.empty(0, np.int64), note=note)
    rows = np.flatnonzero(survey.readable & (survey.size != (height, width)).any(axis=1))
    return Finding.of("size", rows, note=f"Most images are {height}x{width}.")


def find_swapped_colours(survey: Survey) -> Finding:
    """Images whose skin is blue."""
    cold = survey.readable & (survey.warmth < COLD)
    rows = np.flatnonzero(cold)
    if len(rows) <= HALF * survey.readable.sum():
        return Finding.of("colour", rows, score=survey.warmth[rows])
    note = "Most of the set has red and blue swapped: write it anew in the right order. Nothing is left out for it."
    return Finding.of("colour", rows, score=survey.warmth[rows], suspects=rows[:0], note=note)


def find_low_quality(survey: Survey, scorer: ScorerCard) -> list[Finding]:
    """Images whose score is far below those of most."""
    if survey.quality is None:
        return []
    if not np.isfinite(survey.quality).any():
        return [Finding.of("quality", np.empty(0, np.int64), note=f"No image is large enough for {scorer.name}.")]
    quality = scorer.quality(survey.quality)
    middle = np.nanmedian(quality)
    least = middle - LOW_QUALITY * np.nanmedian(np.abs(quality - middle))
    rows = np.flatnonzero(quality < least)
    note = f"{scorer.name}; the limit is {least if scorer.higher_is_better else -least:.3g}."
    return [Finding.of("quality", rows, score=survey.quality[rows], ascending=scorer.higher_is_better, note=note)]


def find_misaligned(survey: Survey) -> list[Finding]:
    """Images whose landmarks lie elsewhere than usual, and those without."""
    if survey.points is None:
        return []
    found = np.isfinite(survey.points).all(axis=(1, 2))
    sized = survey.readable & (survey.size == np.median(survey.size[survey.readable], axis=0)).all(axis=1)
    found &= sized
    missing = Finding.of("no face", np.flatnonzero(sized & ~found))
    if not found.any():
        return [Finding.of("alignment", np.empty(0, np.int64)), missing]
    height = int(np.median(survey.size[survey.readable, 0]))
    usual = np.median(survey.points[found], axis=0).astype(np.float64)
    off = np.full(len(found), np.nan)
    off[found] = shift_of(survey.points[found], usual) * 112 / height
    middle = np.median(off[found])
    least = max(MISALIGNED, middle + DEVIATIONS * np.median(np.abs(off[found] - middle)))
    from_template = float(np.abs(usual - template(height)).mean() * 112 / height)
    note = (
        f"Of the set as a whole, landmarks lie {from_template:.1f} pixels (of 112) off ArcFace's template; limit "
        f"{least:.1f}."
    )
    rows = np.flatnonzero(found & (off > least))
    return [Finding.of("alignment", rows, score=off[rows], ascending=False, note=note), missing]


def shift_of(points: NDArray[np.floating], usual: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far an image must be shifted, turned and scaled for its landmarks to lie as usual, (N, 5, 2) -> (N,).

    In pixels, the mean over the five places. What is left after that, as the nose of a turned head, does not count.
    """
    z, w = (_complex(some - some.mean(axis=-2, keepdims=True)) for some in (points, usual))
    turn = (z.conj() * w).sum(axis=1) / np.maximum((np.abs(z) ** 2).sum(axis=1), TINY)
    # Where the usual places go: turned about the middle of the landmarks, which then is where it usually is.
    centre, target = _complex(points.mean(axis=1)), _complex(usual.mean(axis=0))
    moved = turn[:, None] * (_complex(usual) - centre[:, None]) + target
    return np.asarray(np.abs(moved - _complex(usual)).mean(axis=1))


def _complex(points: NDArray[np.floating]) -> NDArray[np.complex128]:
    return np.asarray(points[..., 0] + 1j * points[..., 1])


def find_singles(source: Source) -> Finding:
    """Images that are the only one of their label."""
    return Finding.of("single", np.flatnonzero(np.bincount(source.labels)[source.labels] == 1))
