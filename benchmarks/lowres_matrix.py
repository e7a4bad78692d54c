"""What is trained with one recipe and tested with the others, and at other sizes: the tables of `lowres_adaptation`."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from lowres_arms import Setting
from lowres_faces import PROBE_SIZES
from lowres_results import Runs, cell, low_difference, read_runs, same_seeds

from facelab.data.transforms.low_resolution import Recipe

RECIPES: tuple[Recipe, ...] = get_args(Recipe)
SIZE = 16
WINNERS = ("silent, BRISQUE", "silent, BRISQUE, average")
"""With a real scorer; both halves side by side, and added."""
SHOWN = (
    "frozen",
    "frozen, flipped",
    "full",
    "single",
    "single, no replay",
    "single, no replay, flipped",
    "single, aligned",
    "single, aligned, flipped",
    "silent, two spaces",
    "silent, Perfect, average",
    *WINNERS,
    "silent, BRISQUE, PCA",
    "silent, CNNIQA",
    "silent, CNNIQA, average",
    "silent, Sharpness",
    "silent, Sharpness, average",
)
SIDES = ("arm", "against")
AGAINST = (
    WINNERS[0],
    "frozen, flipped",
    "full",
    "single, no replay",
    "single, no replay, flipped",
    "single, aligned",
    "single, aligned, flipped",
)


def matrices(out: Path, setting: Setting) -> str:
    """The tables of everything that was run with this base, split and number of steps; empty if nothing was."""
    trained = {recipe: read_runs(out, replace(setting, train_recipe=recipe)) for recipe in RECIPES}
    trained = {recipe: runs for recipe, runs in trained.items() if any(run[0]["trained"] for run in runs.values())}
    parts = []
    if trained:
        parts = [_across(trained), _paired(trained)]
    for recipe, runs in trained.items():
        parts += [_sizes(recipe, runs), _paired_sizes(recipe, runs)]
    return "\n".join(parts)


def _table(title: str, heads: Sequence[str], rows: Iterator[list[str]]) -> str:
    lines = [f"{title}\n", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"


def _across(trained: dict[Recipe, Runs]) -> str:
    def rows() -> Iterator[list[str]]:
        for recipe, runs in trained.items():
            for arm in (arm for arm in SHOWN if arm in runs):
                low = [cell(runs[arm], "low rank-1", f"{probe} {SIZE}") for probe in RECIPES]
                yield [recipe, arm, *low, cell(runs[arm], "high rank-1"), cell(runs[arm], "LFW accuracy")]

    heads = ["trained with", "arm", *RECIPES, "high rank-1", "LFW accuracy"]
    return _table(f"Rank-1 of probes of {SIZE} pixels by their recipe.", heads, rows())


def _paired(trained: dict[Recipe, Runs]) -> str:
    def rows() -> Iterator[list[str]]:
        for recipe, runs in trained.items():
            for winner, other in _pairs(runs):
                differences = _differences(runs[winner], runs[other], [f"{probe} {SIZE}" for probe in RECIPES])
                yield [recipe, winner, other, *differences]

    return _table("Points of the silent expert over other arms, and p.", ["trained with", *SIDES, *RECIPES], rows())


def _sizes(recipe: Recipe, runs: Runs) -> str:
    def rows() -> Iterator[list[str]]:
        for probe in RECIPES:
            for arm in (arm for arm in SHOWN if arm in runs):
                yield [probe, arm, *(cell(runs[arm], "low rank-1", f"{probe} {size}") for size in PROBE_SIZES)]

    heads = ["tested with", "arm", *(f"{size} pixels" for size in PROBE_SIZES)]
    return _table(f"Rank-1 by size, trained with {recipe}.", heads, rows())


def _paired_sizes(recipe: Recipe, runs: Runs) -> str:
    def rows() -> Iterator[list[str]]:
        for probe in RECIPES:
            for winner, other in _pairs(runs):
                differences = _differences(runs[winner], runs[other], [f"{probe} {size}" for size in PROBE_SIZES])
                yield [probe, winner, other, *differences]

    heads = ["tested with", *SIDES, *(f"{size} pixels" for size in PROBE_SIZES)]
    return _table(f"The same by size, trained with {recipe}.", heads, rows())


def _pairs(runs: Runs) -> list[tuple[str, str]]:
    return [
        (winner, other)
        for winner in WINNERS
        if winner in runs
        for other in AGAINST
        if other in runs and other != winner
    ]


def _differences(own: Sequence[dict[str, Any]], other: Sequence[dict[str, Any]], conditions: list[str]) -> list[str]:
    sides = same_seeds(own, other)
    return ["{}, p {}".format(*low_difference(*sides, condition)) if sides[0] else "" for condition in conditions]
