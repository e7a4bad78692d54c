"""How the quality of sets of images is distributed, as a chart."""

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from facelab.errors import DataError
from facelab.quality.card import ScorerCard
from facelab.test_protocol.report.charts import Chart, Line, styled
from facelab.test_protocol.report.line_style import styles_of

FEWEST_BINS, MOST_BINS = 12, 60
TAIL = 0.1  # percent of the scores on each side that may lie outside of the chart


def quality_chart(sets: Mapping[str, NDArray[np.float32]], scorer: ScorerCard, threshold: float | None) -> Chart:
    """Histograms of the scores of some sets, in percent of each set.

    Args:
        sets: Scores by the name of the set, (N,) each; NaN is passed over.
        scorer: Who made them.
        threshold: Score between low and high quality, to be marked.

    Raises:
        DataError: If a set has no score.
    """
    found = {name: values[np.isfinite(values)] for name, values in sets.items()}
    for name, values in found.items():
        if not len(values):
            raise DataError(f"{name}: there is no score to draw.")
    everything = np.concatenate(list(found.values())).astype(np.float64)
    low, high = np.percentile(everything, [TAIL, 100 - TAIL])
    # By the smallest set: in more bins it would show mostly its noise.
    bins = int(np.clip(math.sqrt(min(map(len, found.values()))), FEWEST_BINS, MOST_BINS))
    edges = np.linspace(low, high if high > low else low + 1, bins + 1)
    lines = []
    for name, values in found.items():
        # The tails go into the outermost bins, so that each set sums to 100 %.
        counts, _ = np.histogram(values.astype(np.float64).clip(edges[0], edges[-1]), edges)
        lines.append(Line(f"{name} ({len(values):,})", edges, 100 * counts / len(values)))
    top = 1.05 * max(float(line.y.max()) for line in lines)
    marks = () if threshold is None else ((f"threshold (Otsu) {threshold:.4g}", threshold),)
    span = float(edges[0]), float(edges[-1])
    chart = Chart(
        "quality", f"quality: {scorer.name}", f"score ({scorer.describe()})", "share of the images [%]",
        tuple(lines), span, (0.0, top), shape="bars", marks=marks, by_model=False,
    )  # fmt: skip
    return styled(chart, styles_of(line.name for line in lines))
