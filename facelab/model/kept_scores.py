"""Scores that are made once: those of a set by a scorer are kept, so that no run or command scores an image again."""

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facelab import distributed
from facelab.data.synthetic.cache import cache_folder
from facelab.errors import DataError
from facelab.iqa.base import PixelScorer
from facelab.iqa.scored_set import ReadableImages, ScoredSet, ScoringOptions
from facelab.iqa.shares import Share, score_in_shares
from facelab.progress import OnProgress
from facelab.quality.card import ScorerCard
from facelab.quality.table import ScoreTable, revision_of, write_scores


def kept_table(card: ScorerCard, images: ReadableImages, more: str = "") -> Path:
    """Where the scores of a set by a scorer are kept: in ``FACELAB_CACHE``, else in the user's cache folder.

    Args:
        card: The scorer, whose version says what its numbers depend on.
        images: The set, as it is now: images that were written anew are scored anew.
        more: What they depend on besides.
    """
    made_of = f"{card.model_dump_json()} {revision_of(images)} {more}"
    return cache_folder() / "scores" / f"{card.name}-{hashlib.sha256(made_of.encode()).hexdigest()[:24]}.csv"


def score_once(
    scorer: PixelScorer, images: ReadableImages, options: ScoringOptions, progress: OnProgress | None = None
) -> tuple[Path, ScoredSet]:
    """The kept scores of a set; what lacks one is scored, be it everything or what could not be read before.

    Every process of a distributed run must call this; each scores a share of the images, and the main one writes.

    Returns:
        The table, and its scores with the images that cannot be read now.

    Raises:
        DataError: If an image cannot be scored, or the table cannot be written.
    """
    path = distributed.broadcast_object(kept_table(scorer.card, images))
    # One process says what is missing, so that all share out the same images.
    values = distributed.broadcast_object(_known(path, scorer.card, images))
    rows = np.flatnonzero(np.isnan(values))
    if not len(rows):
        return path, ScoredSet(values)
    share = Share(images, rows.tolist()) if len(rows) < len(images) else images
    found = score_in_shares(scorer, share, options, progress)
    values[rows] = found.values
    distributed.together(lambda: write_scores(path, images, values, scorer.card) if distributed.is_main() else None)
    return path, ScoredSet(values, tuple((int(rows[place]), reason) for place, reason in found.failed))


def _known(path: Path, card: ScorerCard, images: ReadableImages) -> NDArray[np.float32]:
    """What is kept, (N,); NaN where there is nothing."""
    nothing = np.full(len(images), np.nan, np.float32)
    if not path.is_file():
        return nothing
    try:
        table = ScoreTable(path)
    except DataError:
        return nothing  # damaged: it is made anew
    return table.values if table.scorer == card and len(table.values) == len(images) else nothing
