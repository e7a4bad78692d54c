"""How fast is IJB-C 1:1 evaluated at its real size? A straightforward NumPy program against facelab.

The straightforward program is what FaceX-Zoo's and InsightFace's users know: a loop over templates that looks for the
images of each among all, float64 templates, scores in parts of 100,000 pairs into one float64 array, and scikit-learn's
``roc_curve``. Embeddings are drawn and lie in memory: 469,375 images, 23,124 templates, 15,658,489 pairs, each of one
of 3,531 gallery and one of 19,593 probe templates; ``--uniform`` draws pairs of any two templates, which is harder for
us. Features have unit length and are weighed by detector scores (FaceX-Zoo's default). Both must find the same rates;
ours gives AUC, EER and the exact rates with their thresholds beside them.

    python benchmarks/ijb.py --out ijb.json
"""

import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from comparison import Comparison, report
from numpy.typing import NDArray
from rich.console import Console

from facelab.errors import DataError
from facelab.test_protocol.base import Embeddings
from facelab.test_protocol.lists.ijb_files import TemplatePairs
from facelab.test_protocol.metrics.ijb_reference import nearest_tar
from facelab.test_protocol.metrics.templates import FeatureRules, Grouping, join_templates
from facelab.test_protocol.protocols.ijb_verification import ScoredTemplatePairs, verification_metrics

Array = NDArray[Any]
FARS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
PAIRS_AT_ONCE = 100_000
GALLERY_SHARE = 3531 / 23124
SAME_SHARE = 19557 / 15658489
SPREAD = 10.0
"""How far images of one person lie apart; chosen so that rates are neither near 0 nor near 1."""


@dataclass(frozen=True)
class Drawn:
    """A set of IJB-C's form.

    Attributes:
        embeddings: float32, (N, D).
        grouping: Template and medium of each image.
        detector_score: (N,).
        pairs: What is compared.
    """

    embeddings: Array
    grouping: Grouping
    detector_score: Array
    pairs: TemplatePairs


def draw(images: int, templates: int, pairs: int, dim: int, uniform: bool) -> Drawn:
    """Templates of one person in the gallery and several probes each, and embeddings around the person's direction."""
    random = np.random.default_rng(0)
    gallery = max(round(GALLERY_SHARE * templates), 1)
    person = np.concatenate((np.arange(gallery), random.integers(0, gallery, templates - gallery)))
    template = random.permutation(
        np.concatenate((np.arange(templates), random.integers(0, templates, images - templates)))
    )
    embeddings = random.standard_normal((images, dim), dtype=np.float32)
    centre = random.standard_normal((gallery, dim), dtype=np.float32) / np.float32(SPREAD)
    for start in range(0, images, 65536):
        embeddings[start : start + 65536] += centre[person[template[start : start + 65536]]]
    score = random.uniform(0.5, 1.0, images).astype(np.float32)
    grouping = Grouping(template, template * 8 + random.integers(0, 8, images), templates)
    return Drawn(embeddings, grouping, score, _pairs(random, person, gallery, pairs, uniform))


def _pairs(random: np.random.Generator, person: Array, gallery: int, count: int, uniform: bool) -> TemplatePairs:
    probes = np.arange(gallery, len(person))
    same = probes[random.integers(0, len(probes), max(round(SAME_SHARE * count), 1))]
    left = random.integers(0, len(person) if uniform else gallery, count - len(same))
    right = random.integers(0 if uniform else gallery, len(person), count - len(same))
    rows = np.concatenate((np.stack((person[same], same), 1), np.stack((left, right), 1))).astype(np.int32)
    rows = rows[random.permutation(count)]
    return TemplatePairs(rows[:, 0].copy(), rows[:, 1].copy(), person[rows[:, 0]] == person[rows[:, 1]])


def straightforward(drawn: Drawn) -> list[float]:
    """TAR at the points of the ROC nearest to the rates, with a loop over templates."""
    from sklearn.metrics import roc_curve

    features = drawn.embeddings / np.linalg.norm(drawn.embeddings, axis=1, keepdims=True)
    features = features * drawn.detector_score[:, np.newaxis]
    templates = np.zeros((drawn.grouping.count, features.shape[1]))
    for template in range(drawn.grouping.count):
        (rows,) = np.where(drawn.grouping.template == template)
        faces, media = features[rows], drawn.grouping.media[rows]
        means = []
        for medium in np.unique(media):
            (frames,) = np.where(media == medium)
            means.append(np.mean(faces[frames], axis=0))
        templates[template] = np.sum(means, axis=0)
    templates /= np.linalg.norm(templates, axis=1, keepdims=True)
    scores = np.zeros(len(drawn.pairs.same))
    for start in range(0, len(scores), PAIRS_AT_ONCE):
        part = slice(start, start + PAIRS_AT_ONCE)
        scores[part] = np.sum(templates[drawn.pairs.left[part]] * templates[drawn.pairs.right[part]], axis=-1)
    far, tar, _ = roc_curve(drawn.pairs.same.astype(int), scores)
    # From behind, as the published programs do: of equally near rates argmin() then takes the larger.
    far, tar = np.flipud(far), np.flipud(tar)
    return [float(tar[np.argmin(np.abs(far - target))]) for target in FARS]


def ours(drawn: Drawn) -> tuple[ScoredTemplatePairs, dict[str, float | None]]:
    """All numbers of 1:1."""
    rules = FeatureRules(norm_score=False, detector_score=True, flip=False)
    templates = join_templates(Embeddings(drawn.embeddings), drawn.grouping, rules, drawn.detector_score)
    scored = ScoredTemplatePairs.of(templates, drawn.pairs)
    return scored, {metric.name: metric.value for metric in verification_metrics(scored, FARS)}


def check_agreement(plain: list[float], mine: list[float]) -> None:
    """Refuse to compare programs that find different rates.

    Raises:
        DataError: If two rates differ by more than float32 rounding of a few scores explains.
    """
    if not np.allclose(plain, mine, rtol=0, atol=1e-3):
        raise DataError(f"the programs disagree: {plain} and {mine}.")


def main(
    images: Annotated[int, typer.Option(help="Images.")] = 469_375,
    templates: Annotated[int, typer.Option(help="Templates, of gallery and probes.")] = 23_124,
    pairs: Annotated[int, typer.Option(help="Pairs of templates.")] = 15_658_489,
    dim: Annotated[int, typer.Option(help="Numbers of an embedding.")] = 512,
    uniform: Annotated[bool, typer.Option(help="Pairs of any two templates.")] = False,
    rounds: Annotated[int, typer.Option(help="Measurements of ours; the plain program runs once.")] = 3,
    out: Annotated[Path | None, typer.Option(help="JSON file for the figures.")] = None,
) -> None:
    """Compare the speed of IJB-C 1:1, from embeddings in memory to the rates."""
    console = Console()
    drawn = draw(images, templates, pairs, dim, uniform)
    rates = []
    for _ in range(rounds):
        start = time.perf_counter()
        scored, found = ours(drawn)
        rates.append(pairs / (time.perf_counter() - start))
    peak = _peak_gb()  # before the plain program's memory
    start = time.perf_counter()
    plain = straightforward(drawn)
    seconds = time.perf_counter() - start
    check_agreement(plain, [point.tar for point in nearest_tar(scored.positives, scored.negatives, FARS)])
    row = Comparison("templates, scores and TAR", (pairs / seconds,), tuple(rates), unit="pairs/s", goal=10.0)
    title = f"IJB-C 1:1, {images:,} images, {templates:,} templates, {pairs:,} pairs, {dim} numbers an image"
    report(f"{title}: NumPy against facelab", [row], out, console)
    memory = f"peak {peak:.2f} GB, of which embeddings {drawn.embeddings.nbytes / 1e9:.2f} GB"
    best = ", ".join(f"{pairs / rate:.1f}" for rate in rates)
    console.print(f"plain program {seconds:.1f} s; facelab {best} s, {memory}; AUC {found['AUC']:.4f}", highlight=False)


def _peak_gb() -> float:
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


if __name__ == "__main__":
    typer.run(main)
