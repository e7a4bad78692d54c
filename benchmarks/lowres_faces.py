"""The faces of `lowres_adaptation`: LFW split by identity, every image in high and low resolution, with quality."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from facelab.data.base import Batch, Pixels, Source
from facelab.data.sources.degradation import Degraded
from facelab.data.sources.image_folder import ImageFolder
from facelab.data.transforms.low_resolution import Recipe
from facelab.iqa.base import SCORERS, PixelScorer
from facelab.model.face_model import load_backbone
from facelab.quality.card import ScorerCard
from facelab.test_protocol.protocols.lfw import LFW

Array = NDArray[Any]
MIN_IMAGES, TRAIN_PEOPLE, ONE_IMAGE_PEOPLE, MOST_PROBES = 5, 300, 2000, 5
TRAIN_SIZES, PROBE_SIZES = (10, 24), (16, 16)
SPLIT_SEED, TRAIN_SEED, PROBE_SEED = 0, 1, 2
PERFECT = "Perfect"
TESTED = ("gallery", "probe", "pairs")


@dataclass(frozen=True)
class Images:
    """Pixels in memory.

    Attributes:
        pixels: RGB, uint8, (N, 112, 112, 3).
        person: Number of the person on each, (N,).
        high: Which are in high resolution, (N,).
        quality: Score of each, float32, (N,).
    """

    pixels: Pixels
    person: NDArray[np.int64]
    high: NDArray[np.bool_]
    quality: NDArray[np.float32]

    def part(self, rows: Array) -> "Images":
        """Some of them, as a set."""
        return Images(self.pixels[rows], self.person[rows], self.high[rows], self.quality[rows])

    def batch(self, rows: Array) -> Batch:
        """Some of them, for a step or a forward pass."""
        image = torch.from_numpy(self.pixels[rows]).permute(0, 3, 1, 2)
        index = torch.from_numpy(np.asarray(rows, np.int64))
        label, quality = torch.from_numpy(self.person[rows]), torch.from_numpy(self.quality[rows])
        return Batch(image, label, index, quality)


@dataclass(frozen=True)
class Files:
    """Where things lie.

    Attributes:
        weights: Those of the base.
        cnniqa: Those of CNNIQA.
        cache: Folder of pixels and scores.
    """

    weights: Path
    cnniqa: Path
    cache: Path


@dataclass(frozen=True)
class Faces:
    """All images of the study.

    Attributes:
        train: High versions and then low ones of the training people; persons are 0..299.
        gallery: High; one image of each test person and of 2,000 people with one image.
        probe: Up to five other images of each test person, high and then low; row i + n is the low version of row i.
        pairs: Images of the LFW pairs, high.
        lfw: The protocol of those pairs.
        card: What the scores mean.
    """

    train: Images
    gallery: Images
    probe: Images
    pairs: Images
    lfw: LFW
    card: ScorerCard

    def sets(self) -> dict[str, Images]:
        """The sets that are scored, by name."""
        return {name: getattr(self, name) for name in ("train", "gallery", "probe", "pairs")}

    def with_scorer(self, name: str, weights: Path, cnniqa: Path, cache: Path) -> "Faces":
        """The same with the scores of a scorer, which are kept in a file of ``cache``."""
        if name == PERFECT:
            card = ScorerCard(name=PERFECT, low=0.0, high=1.0)
            scored = {key: one.high.astype(np.float32) for key, one in self.sets().items()}
        else:
            scorer = open_scorer(name, weights, cnniqa)
            card = scorer.card
            path = cache / f"{name}-{card.version.replace(' ', '-')}-{len(self.pairs.pixels)}.npz"
            if not path.is_file():
                np.savez(path, **{key: _scores(scorer, one.pixels) for key, one in self.sets().items()})
            with np.load(path) as stored:
                scored = {key: stored[key] for key in stored}
        return replace(self, card=card, **{key: replace(one, quality=scored[key]) for key, one in self.sets().items()})


def open_scorer(name: str, weights: Path, cnniqa: Path) -> PixelScorer:
    """A scorer by its registered name, with the files that it needs."""
    options: dict[str, dict[str, Any]] = {
        "FeatureNorm": {"network": load_backbone("EdgeFace-XXS", weights, device="cpu").network.eval()},
        "CNNIQA": {"weights": cnniqa},
    }
    scorer = SCORERS.get(name)(**options.get(name, {}))
    if not isinstance(scorer, PixelScorer):
        raise TypeError(f"{name} does not score pixels")
    return scorer


def _scores(scorer: PixelScorer, pixels: Pixels) -> Array:
    parts = [
        scorer.score(torch.from_numpy(pixels[at : at + 64]).permute(0, 3, 1, 2)) for at in range(0, len(pixels), 64)
    ]
    return torch.cat(parts).numpy()


def load_faces(
    archive: Path, pair_list: Path, cache: Path, train_recipe: Recipe = "camera", probe_recipe: Recipe = "camera"
) -> Faces:
    """Read, split and degrade; the second time from ``cache``.

    Args:
        archive: ``lfw112.tar``.
        pair_list: ``pairs.txt`` of LFW.
        cache: A folder, of these recipes alone.
        train_recipe: How low versions of the training images are made, see `Degradation`.
        probe_recipe: How those of the probes are.
    """
    source = ImageFolder(archive)
    cache.mkdir(parents=True, exist_ok=True)
    train, gallery, probe = split(source)
    # Whoever trains, or is among gallery and probes, is in none of the pairs.
    known = [source.people[person] for person in many_images(source)]
    lfw = LFW(archive, pair_list, exclude=known)
    path = cache / f"faces-{len(lfw.images)}.npz"
    if not path.is_file():
        np.savez(path, **dict(_read(source, train, gallery, probe, lfw, (train_recipe, probe_recipe))))
    with np.load(path) as pixels:
        high_low = {name: pixels[name] for name in pixels}
    numbers = np.unique(source.labels[train], return_inverse=True)[1]
    return Faces(
        _both(high_low["train"], high_low["train_low"], numbers),
        _images(high_low["gallery"], source.labels[gallery]),
        _both(high_low["probe"], high_low["probe_low"], source.labels[probe]),
        _images(high_low["pairs"], lfw.people),
        lfw,
        ScorerCard(name="none"),
    )


def many_images(source: Source) -> Array:
    """Numbers of the people with at least five images, which train or are tested."""
    return np.flatnonzero(np.bincount(source.labels) >= MIN_IMAGES)


def split(source: Source) -> tuple[Array, Array, Array]:
    """Rows for training, gallery and probes; no person is on two sides."""
    random = np.random.default_rng(SPLIT_SEED)
    people = random.permutation(many_images(source))
    trained, tested = people[:TRAIN_PEOPLE], people[TRAIN_PEOPLE:]
    single = np.flatnonzero(np.bincount(source.labels) == 1)
    strangers = random.permutation(single)[:ONE_IMAGE_PEOPLE]
    first = np.unique(source.labels, return_index=True)[1]
    own = np.flatnonzero(np.isin(source.labels, tested))
    gallery = np.concatenate([first[np.sort(tested)], first[np.sort(strangers)]])
    probe = own[(own > first[source.labels[own]]) & (own <= first[source.labels[own]] + MOST_PROBES)]
    return np.flatnonzero(np.isin(source.labels, trained)), gallery, probe


def _read(
    source: Source, train: Array, gallery: Array, probe: Array, lfw: LFW, recipes: tuple[Recipe, Recipe]
) -> Iterator[tuple[str, Pixels]]:
    yield "gallery", source.read_many(gallery)
    for name, rows, sizes, seed, recipe in (
        ("train", train, TRAIN_SIZES, TRAIN_SEED, recipes[0]),
        ("probe", probe, PROBE_SIZES, PROBE_SEED, recipes[1]),
    ):
        yield name, source.read_many(rows)
        yield f"{name}_low", Degraded(source, sizes, seed, recipe=recipe).read_many(rows)
    yield "pairs", lfw.images.read_many(np.arange(len(lfw.images)))


def _images(pixels: Pixels, person: Array) -> Images:
    count = len(pixels)
    return Images(pixels, person.astype(np.int64), np.ones(count, bool), np.zeros(count, np.float32))


def _both(high: Pixels, low: Pixels, person: Array) -> Images:
    count = len(high)
    is_high = np.arange(2 * count) < count
    return Images(np.concatenate([high, low]), np.tile(person, 2).astype(np.int64), is_high, is_high.astype(np.float32))
