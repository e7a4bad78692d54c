"""Where models put the faces of some people: gallery and probes on the two main axes of each model's embeddings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facelab.errors import DataError
from facelab.test_protocol.report.drawing import drawing, name_lines, short_name
from facelab.test_protocol.report.plots import DOTS_PER_INCH, save_figure

Floats = NDArray[np.float32]
COLOURS, PEOPLE = "tab10", 10  # people have other colours than models
COLUMNS = 3
GALLERY, PROBE = ("s", 60), ("o", 16)  # mark and size
LONGEST = 24  # letters of a person's name


@dataclass(frozen=True)
class Shown:
    """Embeddings of gallery and probes by one model.

    Attributes:
        gallery: Unit embeddings, (G, D).
        gallery_person: Number of the person of each, (G,).
        probe: Unit embeddings, (P, D).
        probe_person: Number of the person of each, (P,).
        names: What the people are called, by their numbers.
    """

    gallery: Floats
    gallery_person: NDArray[np.int64]
    probe: Floats
    probe_person: NDArray[np.int64]
    names: Sequence[str]

    def found(self) -> float:
        """Share of the probes whose nearest gallery image is of their person."""
        nearest = (self.probe @ self.gallery.T).argmax(axis=1)
        return float(np.mean(self.gallery_person[nearest] == self.probe_person))

    def flat(self) -> tuple[Floats, Floats, Floats]:
        """Gallery (G, 2) and probes (P, 2) on the two main axes of both together, from their middle (PCA).

        The third are the shares of the spread of all embeddings that lie along the two axes, (2,).
        """
        both = np.concatenate([self.gallery, self.probe]).astype(np.float64)
        centred = both - both.mean(axis=0)
        _, lengths, axes = np.linalg.svd(centred, full_matrices=False)
        places = (centred @ axes[:2].T).astype(np.float32)
        # Embeddings that are all equal have no spread to share.
        shares = np.square(lengths[:2]) / max(np.square(lengths).sum(), np.finfo(np.float64).tiny)
        return places[: len(self.gallery)], places[len(self.gallery) :], shares.astype(np.float32)


def plot_embeddings(models: Mapping[str, Shown], png: Path) -> Path:
    """Draw a panel for each model: squares are the gallery, dots the probes, a colour is a person.

    Each panel has axes of its own on one scale, and two axes show little of many: their labels say how much of the
    spread they show, the title how many probes are nearest to their person in the whole space.

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
    with drawing():
        return save_figure(_figure(models), png)


def _figure(models: Mapping[str, Shown]) -> Any:
    from matplotlib.figure import Figure  # not pyplot: no global state, no window system

    columns = min(COLUMNS, len(models))
    rows = -(-len(models) // columns)
    size = (4.2 * columns + 1.6, 4.3 * rows)
    figure = Figure(figsize=size, dpi=DOTS_PER_INCH, layout="constrained", facecolor="white")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    reach = max(float(np.abs(place).max()) for shown in models.values() for place in shown.flat()[:2])
    for axes, (name, shown) in zip(panels, models.items(), strict=False):
        _draw(axes, name, shown, 1.08 * reach or 1.0)
    for empty in panels[len(models) :]:
        empty.set_visible(False)
    _legend(figure, panels[0], next(iter(models.values())).names)
    return figure


def _draw(axes: Any, name: str, shown: Shown, reach: float) -> None:
    gallery, probe, shares = shown.flat()
    for places, person, marker, size in (
        (gallery, shown.gallery_person, *GALLERY),
        (probe, shown.probe_person, *PROBE),
    ):
        axes.scatter(*places.T, c=person, cmap=COLOURS, vmin=0, vmax=PEOPLE - 1, marker=marker, s=size, linewidths=0)
    axes.set_title(
        f"{short_name(name)}\n{shown.found():.0%} of the probes nearest to their person", fontsize=9, parse_math=False
    )
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
    axes.set_xlabel(f"first main axis ({shares[0]:.0%} of the spread)", fontsize=8)
    axes.set_ylabel(f"second main axis ({shares[1]:.0%})", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.grid(color="#e3e7eb", linewidth=0.6)
    axes.set_axisbelow(True)


def _legend(figure: Any, axes: Any, names: Sequence[str]) -> None:
    """People by their colours, and the two sides by their marks."""
    from matplotlib import colormaps

    colours = [colormaps[COLOURS](number) for number in range(len(names))]
    people = [axes.scatter([], [], color=colour, marker="o", s=36) for colour in colours]
    sides = [axes.scatter([], [], color="#5b6671", marker=marker, s=size) for marker, size in (GALLERY, PROBE)]
    labels = ["gallery", "probe", *(short_name(name, LONGEST) for name in names)]
    name_lines(figure, [*sides, *people], labels, loc="outside right upper", fontsize=8)
