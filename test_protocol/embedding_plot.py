"""Where models put the faces of some people: gallery and probes on the two main axes of each model's embeddings."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facelab.errors import DataError
from facelab.test_protocol.plots import DOTS_PER_INCH, save_figure

Floats = NDArray[np.float32]
PEOPLE = 10  # colours of the map "tab10"
COLUMNS = 3


@dataclass(frozen=True)
class Shown:
    """Embeddings of gallery and probes by one model.

    Attributes:
        gallery: Unit embeddings, (G, D).
        gallery_person: Number of the person of each, (G,).
        probe: Unit embeddings, (P, D).
        probe_person: Number of the person of each, (P,).
    """

    gallery: Floats
    gallery_person: NDArray[np.int64]
    probe: Floats
    probe_person: NDArray[np.int64]

    def found(self) -> float:
        """Share of the probes whose nearest gallery image is of their person."""
        nearest = (self.probe @ self.gallery.T).argmax(axis=1)
        return float(np.mean(self.gallery_person[nearest] == self.probe_person))

    def flat(self) -> tuple[Floats, Floats]:
        """Gallery (G, 2) and probes (P, 2) on the two main axes of both together (PCA)."""
        both = np.concatenate([self.gallery, self.probe]).astype(np.float64)
        axes = np.linalg.svd(both - both.mean(axis=0), full_matrices=False)[2][:2]
        places = (both @ axes.T).astype(np.float32)
        return places[: len(self.gallery)], places[len(self.gallery) :]


def plot_embeddings(models: Mapping[str, Shown], png: Path) -> Path:
    """Draw a panel for each model: squares are the gallery, dots the probes, a colour is a person.

    Each panel has axes of its own, and two axes show little of many: the title says how many probes are nearest to
    their person in the whole space.

    Args:
        models: What each model gives, by its name.
        png: File to write.

    Raises:
        DataError: If there is nothing to draw, there are more than `PEOPLE` people, or the file cannot be written.
    """
    for name, shown in models.items():
        people = len(np.union1d(shown.gallery_person, shown.probe_person))
        if not len(shown.gallery) or not len(shown.probe) or people > PEOPLE:
            raise DataError(
                f"{png}: '{name}' has {len(shown.gallery)} gallery and {len(shown.probe)} probe images of {people} "
                f"people; needed are one of each at least, and at most {PEOPLE} people."
            )
    if not models:
        raise DataError(f"{png}: there is nothing to draw.")
    from matplotlib.figure import Figure  # not pyplot: no global state, no window system

    columns = min(COLUMNS, len(models))
    rows = -(-len(models) // columns)
    size = (4.2 * columns, 4.1 * rows)
    figure = Figure(figsize=size, dpi=DOTS_PER_INCH, layout="constrained", facecolor="white")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (name, shown) in zip(panels, models.items(), strict=False):
        _draw(axes, name, shown)
    for empty in panels[len(models) :]:
        empty.set_visible(False)
    return save_figure(figure, png)


def _draw(axes: Any, name: str, shown: Shown) -> None:
    gallery, probe = shown.flat()
    for places, person, marker, size in (
        (gallery, shown.gallery_person, "s", 60),
        (probe, shown.probe_person, "o", 16),
    ):
        axes.scatter(*places.T, c=person, cmap="tab10", vmin=0, vmax=9, marker=marker, s=size, linewidths=0)
    axes.set_title(f"{name}\n{shown.found():.0%} of the probes nearest to their person", fontsize=9, parse_math=False)
    axes.set_xticks([])
    axes.set_yticks([])
