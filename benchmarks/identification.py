"""How fast are MegaFace and TinyFace evaluated at their real sizes? A straightforward NumPy program against facelab.

The straightforward program is FaceX-Zoo's MegaFace evaluator as its users know it: all scores of 3,530 probes in one
array, for each rank from 1 to 10 a selection of the k-th best distractor of every probe over again, and a loop over
people, gallery images and probes. Embeddings are drawn and lie in memory; both must find the same rates. Then ours
alone, where that program's array does not fit: MegaFace with a million distractors, with verification, and TinyFace
with 3,728 probes in 157,871 gallery images, ranks and mean average precision.

    python benchmarks/identification.py --out identification.json
"""

import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from comparison import Comparison, compare, report
from numpy.typing import NDArray
from rich.console import Console

from facelab.errors import DataError
from facelab.test_protocol.metrics.identification import closed_set, mean_known, rank_mates
from facelab.test_protocol.metrics.mate_pairs import MatePairs
from facelab.test_protocol.metrics.score_tiles import NOBODY, Faces
from facelab.test_protocol.protocols.distractors import against_distractors

Array = NDArray[Any]
RANKS = tuple(range(1, 11))
FARS = (1e-6, 1e-5, 1e-4)
MEGAFACE_PEOPLE, TINYFACE_PEOPLE = 80, 2569
MEGAFACE_SPREAD, TINYFACE_SPREAD = 2.0, 2.0
"""How far images of one person lie apart; chosen so that rank-1 is neither near 0 nor near 1."""


@dataclass(frozen=True)
class Alone:
    """What our program needs where there is no other to compare with.

    Attributes:
        what: The work.
        seconds: From embeddings in memory to the last number.
        embeddings_gb: The embeddings themselves.
        peak_gb: Largest memory of the process so far, embeddings and libraries included.
    """

    what: str
    seconds: float
    embeddings_gb: float
    peak_gb: float


def strangers(count: int, dim: int, seed: int) -> Array:
    """Vectors of unit length in all directions, float32, (count, dim)."""
    random = np.random.default_rng(seed)
    result = np.empty((count, dim), np.float32)
    for start in range(0, count, 65536):
        block = random.standard_normal((min(65536, count - start), dim), dtype=np.float32)
        result[start : start + len(block)] = block / np.linalg.norm(block, axis=1, keepdims=True)
    return result


def faces(person: Array, dim: int, spread: float, seed: int) -> Array:
    """Vectors of unit length around the direction of each person, float32, (N, dim)."""
    centre = strangers(int(person.max()) + 1, dim, seed)
    near = centre[person] + spread * strangers(len(person), dim, seed + 1)
    return np.asarray(near / np.linalg.norm(near, axis=1, keepdims=True))


def straightforward(probe: Array, person: Array, distractors: Array) -> list[float]:
    """Rates at ranks 1 to 10, as FaceX-Zoo's evaluator finds them."""
    scores = np.dot(probe, distractors.T)
    return [_straightforward_rank(probe, person, scores, rank) for rank in RANKS]


def _straightforward_rank(probe: Array, person: Array, scores: Array, rank: int) -> float:
    places = np.argpartition(scores, -rank, axis=1)[:, -rank]
    limits = scores[np.arange(len(probe)), places]
    hits = count = 0
    for one in np.unique(person):
        rows = np.flatnonzero(person == one)
        for gallery in rows:
            for searched in rows:
                if gallery == searched:
                    continue
                count += 1
                hits += bool(np.dot(probe[gallery], probe[searched]) >= limits[searched])
    return hits / count


def ours(probe: Array, person: Array, distractors: Array, fars: tuple[float, ...] = ()) -> list[float]:
    """Rates at ranks 1 to 10, and verification if there are rates for it."""
    clean = np.ones(len(probe), bool)
    pairs = MatePairs.of(person, clean)
    found = against_distractors(probe, probe, pairs, clean, Faces.strangers(distractors), RANKS, fars)
    return found.rates(RANKS)


def check_agreement(plain: list[float], mine: list[float]) -> None:
    """Refuse to compare programs that find different rates.

    Raises:
        DataError: If two rates differ by more than float32 rounding of a few scores explains.
    """
    if not np.allclose(plain, mine, rtol=0, atol=1e-4):
        raise DataError(f"the programs disagree: {plain} and {mine}.")


def megaface(probes: int, distractors: int, dim: int) -> Comparison:
    """Both programs on a number of distractors."""
    person = np.arange(probes) % MEGAFACE_PEOPLE
    probe, gallery = faces(person, dim, MEGAFACE_SPREAD, seed=0), strangers(distractors, dim, seed=2)
    found: dict[str, list[float]] = {}

    def rate(name: str, run: Callable[[], list[float]]) -> Callable[[], float]:
        def measured() -> float:
            start = time.perf_counter()
            found[name] = run()
            return probes / (time.perf_counter() - start)

        return measured

    row = compare(
        f"MegaFace, {probes:,} probes, {distractors:,} distractors, ranks 1 to 10",
        rate("plain", lambda: straightforward(probe, person, gallery)),
        rate("ours", lambda: ours(probe, person, gallery)),
        rounds=1,
        goal=10.0,
    )
    check_agreement(found["plain"], found["ours"])
    return Comparison(row.what, row.baseline, row.facelab, unit="probes/s", goal=row.goal)


def megaface_alone(probes: int, distractors: int, dim: int) -> Alone:
    """Ours with all distractors, verification included."""
    person = np.arange(probes) % MEGAFACE_PEOPLE
    probe, gallery = faces(person, dim, MEGAFACE_SPREAD, seed=0), strangers(distractors, dim, seed=2)
    start = time.perf_counter()
    rates = ours(probe, person, gallery, FARS)
    what = f"MegaFace, {probes:,} probes, {distractors:,} distractors, ranks and TAR (rank-1 {rates[0]:.3f})"
    return _alone(what, start, probe, gallery)


def tinyface_alone(probes: int, match: int, distractors: int, dim: int) -> Alone:
    """Ours on TinyFace's numbers of images: ranks and mean average precision."""
    random = np.random.default_rng(5)
    people = min(TINYFACE_PEOPLE, match)
    own = np.concatenate((np.arange(people), random.integers(0, people, match - people)))
    searched = random.integers(0, people, probes)
    near = faces(np.concatenate((searched, own)), dim, TINYFACE_SPREAD, seed=3)
    gallery = np.concatenate((near[probes:], strangers(distractors, dim, seed=6)))
    person = np.concatenate((own, np.full(distractors, NOBODY)))
    start = time.perf_counter()
    ranking = rank_mates(near[:probes], gallery, searched, person)
    rate, mean = closed_set(ranking.found, [1])[0], mean_known(ranking.average_precision())
    what = f"TinyFace, {probes:,} probes, {len(gallery):,} gallery images, ranks and mAP"
    return _alone(f"{what} (rank-1 {rate:.3f}, mAP {mean:.3f})", start, near[:probes], gallery)


def _alone(what: str, start: float, *embeddings: Array) -> Alone:
    seconds = time.perf_counter() - start
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return Alone(what, seconds, sum(part.nbytes for part in embeddings) / 1e9, peak / 1e9)


def main(
    probes: Annotated[int, typer.Option(help="FaceScrub images.")] = 3530,
    compared: Annotated[int, typer.Option(help="Distractors for both programs; 0 passes over that.")] = 100_000,
    distractors: Annotated[int, typer.Option(help="Distractors for ours alone.")] = 1_000_000,
    tiny: Annotated[tuple[int, int, int], typer.Option(help="TinyFace: probes, matches, distractors.")] = (
        3728,
        4443,
        153_428,
    ),
    dim: Annotated[int, typer.Option(help="Numbers of an embedding.")] = 512,
    threads: Annotated[int, typer.Option(help="Threads of ours; the plain program takes NumPy's.")] = 2,
    out: Annotated[Path | None, typer.Option(help="JSON file for the figures.")] = None,
) -> None:
    """Compare identification speed."""
    torch.set_num_threads(threads)
    console = Console()
    alone = [tinyface_alone(*tiny, dim), megaface_alone(probes, distractors, dim)]  # before the plain one's memory
    rows = [megaface(probes, compared, dim)] if compared else []
    report(f"Identification from {dim} numbers an image: NumPy against facelab", rows, out, console)
    for one in alone:
        memory = f"{one.peak_gb:.2f} GB in all, of which embeddings {one.embeddings_gb:.2f} GB"
        console.print(f"facelab alone: {one.what}: {one.seconds:.1f} s, {memory}", highlight=False)
    if out is not None:
        out.write_text(json.dumps({**json.loads(out.read_text()), "alone": [asdict(one) for one in alone]}, indent=1))


if __name__ == "__main__":
    typer.run(main)
