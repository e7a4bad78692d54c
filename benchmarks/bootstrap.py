"""How long does a bootstrap by identity take? Repeating and sorting the pairs of every draw, or counting them once.

The plain program repeats each pair as often as its people were drawn and makes a ROC of that. Both get the same draws,
and their rates must agree in every one of them. Then ours alone, at the size of IJB-C's 1:1 protocol.

    python benchmarks/bootstrap.py --out bootstrap.json
"""

import json
import resource
import time
from itertools import chain
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from comparison import Comparison, machine, report
from numpy.typing import NDArray
from rich.console import Console

from facelab.test_protocol.metrics import metrics
from facelab.test_protocol.metrics.metrics import Booleans, Floats
from facelab.test_protocol.statistics import bootstrap
from facelab.test_protocol.statistics.bootstrap import ResampledRoc, percentile_interval
from facelab.test_protocol.statistics.resampling import Units, multiplicities, units_of_pairs

FARS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
SMALL_PAIRS, SMALL_PEOPLE, SMALL_DRAWS = 200_000, 500, 20
Scores = NDArray[np.float32]


def synthetic_pairs(pairs: int, people: int, same_share: float) -> tuple[Scores, Booleans, Units]:
    """Scores of random pairs of people; some people are harder than others."""
    random = np.random.default_rng(0)
    same = np.arange(pairs) < pairs * same_share
    left = random.integers(people, size=pairs, dtype=np.int32)
    right = np.where(same, left, (left + random.integers(1, people, size=pairs, dtype=np.int32)) % people)
    ease = random.normal(size=people).astype(np.float32)
    score = np.float32(0.07) * random.standard_normal(pairs, dtype=np.float32)
    score += np.float32(0.02) * (ease[left] + ease[right]) + np.float32(0.5) * same
    return score, same, units_of_pairs({"same": same, "left": left, "right": right.astype(np.int32)})


def plain(score: Scores, same: Booleans, units: Units, draws: int) -> Floats:
    """TAR at each FAR and AUC of each draw, from the repeated pairs, (7, draws)."""
    result = []
    for weight in chain.from_iterable(block.T for block in multiplicities(units.count, draws, 0)):
        times = (weight[units.first] * weight[units.second]).astype(np.int64)
        curve = metrics.roc(np.repeat(score, times), np.repeat(same, times))
        result.append([*(point.tar for point in metrics.tar_at_far(curve, FARS)), metrics.auc(curve)])
    return np.array(result).T


def ours(score: Scores, same: Booleans, units: Units, draws: int) -> Floats:
    """The same from counts."""
    statistics = [*map(bootstrap.tar_at_far, FARS), bootstrap.auc]
    return ResampledRoc(score, same, units).draw(statistics, draws, 0)


def against_plain() -> tuple[Comparison, float]:
    """Draws a second of both on a small list, and their largest difference."""
    small = synthetic_pairs(SMALL_PAIRS, SMALL_PEOPLE, 0.01)
    seconds, values = [], []
    for program in (plain, ours):
        start = time.perf_counter()
        values.append(program(*small, SMALL_DRAWS))
        seconds.append(time.perf_counter() - start)
    what = f"{SMALL_PAIRS:,} pairs of {SMALL_PEOPLE:,} people, {SMALL_DRAWS} draws"
    rates = [(SMALL_DRAWS / one,) for one in seconds]
    return Comparison(what, *rates, unit="draws/s"), float(np.abs(values[0] - values[1]).max())


def main(
    pairs: Annotated[int, typer.Option(help="Pairs; by default those of IJB-C.")] = 15_658_489,
    people: Annotated[int, typer.Option(help="People.")] = 3_531,
    same_pairs: Annotated[int, typer.Option(help="Same pairs among the pairs.")] = 19_557,
    draws: Annotated[int, typer.Option(help="Bootstrap draws.")] = 1000,
    out: Annotated[Path | None, typer.Option(help="JSON file for the figures.")] = None,
) -> None:
    """Compare with brute force at a small size, then measure the full one."""
    console = Console()
    row, difference = against_plain()
    report("Bootstrap by identity: sorting each draw against counting once", [row], out, console)
    console.print(f"largest difference of a rate in a draw: {difference:.1e}", highlight=False)
    sample = synthetic_pairs(pairs, people, same_pairs / pairs)
    before = _peak_gigabytes()
    start = time.perf_counter()
    values = ours(*sample, draws)
    seconds = time.perf_counter() - start
    console.print(f"{pairs:,} pairs of {people:,} people, {draws:,} draws: {seconds:.1f} s", highlight=False)
    console.print(f"peak memory {_peak_gigabytes():.2f} GB, {before:.2f} GB before the bootstrap", highlight=False)
    intervals = {}
    for name, one in zip([*(f"TAR@FAR={far:g}" for far in FARS), "AUC"], values, strict=True):
        intervals[name] = percentile_interval(one, 0.95)
        console.print(f"{name:>14} {intervals[name]}", highlight=False)
    if out is not None:
        full = {"pairs": pairs, "people": people, "draws": draws, "seconds": seconds, "gigabytes": _peak_gigabytes()}
        figures = json.loads(out.read_text())
        figures |= {"machine": machine(), "difference": difference, "full": {**full, "intervals": intervals}}
        out.write_text(json.dumps(figures, indent=1) + "\n")


def _peak_gigabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


if __name__ == "__main__":
    typer.run(main)
