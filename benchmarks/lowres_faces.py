"""The faces of `lowres_adaptation`: LFW split by identity, every image in high and low resolution, with quality."""

import os
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from lowres_bases import open_base
from made_once import stored_once
from numpy.typing import NDArray

from facelab.data.base import Batch, Pixels, Source
from facelab.data.sources.degradation import Degradation
from facelab.data.sources.image_folder import ImageFolder
from facelab.data.transforms.draws import Draws, draws_of_batch
from facelab.data.transforms.low_resolution import LowResolution, Recipe
from facelab.iqa.base import SCORERS, PixelScorer
from facelab.quality.card import ScorerCard
from facelab.test_protocol.protocols.lfw import LFW

Array = NDArray[Any]
MIN_IMAGES, TRAIN_PEOPLE, ONE_IMAGE_PEOPLE, MOST_PROBES = 5, 300, 2000, 5
TRAIN_SIZES, PROBE_SIZES = (10, 24), (8, 12, 16, 20, 24)
TRAIN_SEED, PROBE_SEED = 1, 2
PERFECT = "Perfect"
AT_ONCE = 64  # images that are degraded or scored in one go
PLAIN = ("gallery", "probe", "pairs")
"""The tested sets in high resolution."""
CONDITIONS = {f"{recipe} {size}": (recipe, size) for recipe in get_args(Recipe) for size in PROBE_SIZES}
"""How the low versions of the probes are made, by name: a recipe and a number of pixels."""


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

    def batch(self, rows: Array, device: torch.device) -> Batch:
        """Some of them, for a step or a forward pass."""
        given = (self.pixels[rows], self.person[rows], np.asarray(rows, np.int64), self.quality[rows])
        pixels, label, index, quality = (torch.from_numpy(array).to(device) for array in given)
        return Batch(pixels.permute(0, 3, 1, 2), label, index, quality)


@dataclass(frozen=True)
class Files:
    """Where things lie.

    Attributes:
        data: Folder with ``faces`` and ``weights``.
        pairs: ``pairs.txt`` of LFW.
        cache: Folder of pixels, scores and embeddings.
    """

    data: Path
    pairs: Path
    cache: Path

    @property
    def archive(self) -> Path:
        """All of LFW, aligned."""
        return self.data / "faces" / "lfw112.tar"

    @property
    def weights(self) -> Path:
        """Those of EdgeFace-XXS."""
        return self.data / "weights" / "edgeface_xxs.safetensors"

    @property
    def cnniqa(self) -> Path:
        """Those of CNNIQA."""
        return self.data / "weights" / "cnniqa_live.safetensors"


@dataclass(frozen=True)
class Faces:
    """All images of the study.

    Attributes:
        train: High versions and then low ones of the training people; persons are 0..299.
        tested: ``gallery``: one high image of each test person and of 2,000 people with one image; ``probe``: up to
            five other images of each test person; their low versions by the names of `CONDITIONS`; ``pairs``: images
            of the LFW pairs.
        lfw: The protocol of those pairs.
        card: What the scores mean.
        folder: Where pixels and scores are kept.
        recipe: That of the low training images.
    """

    train: Images
    tested: Mapping[str, Images]
    lfw: LFW
    card: ScorerCard
    folder: Path
    recipe: Recipe

    def with_scorer(self, name: str, base: str, files: Files) -> "Faces":
        """The same with the scores of a scorer, which are kept in files."""
        if name == PERFECT:
            card = ScorerCard(name=PERFECT, low=0.0, high=1.0)
            return self._scored(card, lambda _, images: images.high.astype(np.float32))
        scorer = open_scorer(name, base, files)
        folder = self.folder / f"{name}-{scorer.card.version.replace(' ', '-')}"
        return self._scored(
            scorer.card, lambda part, one: stored_once(folder / f"{part}.npy", lambda: _scores(scorer, one.pixels))
        )

    def _scored(self, card: ScorerCard, scores: Callable[[str, Images], Array]) -> "Faces":
        half = len(self.train.person) // 2
        halves = {"train": slice(half), f"train {self.recipe}": slice(half, None)}
        images = {**{part: self.train.part(rows) for part, rows in halves.items()}, **self.tested}
        found = {part: np.array(scores(part, images[part])) for part in _in_an_order_of_its_own(images)}
        tested = {part: replace(one, quality=found[part]) for part, one in self.tested.items()}
        train = np.concatenate([found[part] for part in halves])
        return replace(self, card=card, train=replace(self.train, quality=train), tested=tested)


def open_scorer(name: str, base: str, files: Files) -> PixelScorer:
    """A scorer by its registered name, with the files that it needs."""
    options: dict[str, Any] = {}
    if name == "FeatureNorm":
        options = {"network": open_base(base, files.weights).eval()}
    if name == "CNNIQA":
        options = {"weights": files.cnniqa}
    scorer = SCORERS.get(name)(**options)
    if not isinstance(scorer, PixelScorer):
        raise TypeError(f"{name} does not score pixels")
    return scorer


def _scores(scorer: PixelScorer, pixels: Pixels) -> Array:
    parts = [
        scorer.score(torch.from_numpy(np.array(pixels[at : at + AT_ONCE])).permute(0, 3, 1, 2))
        for at in range(0, len(pixels), AT_ONCE)
    ]
    return torch.cat(parts).numpy()


def load_faces(files: Files, recipe: Recipe = "camera", split_seed: int = 0, device: str = "cpu") -> Faces:
    """Read, split and degrade; the second time from files. Their scores are 0 until a scorer gives others.

    Args:
        files: Where LFW lies and the cache.
        recipe: How low versions of the training images are made, see `Degradation`.
        split_seed: Chooses who trains.
        device: Where images are degraded.
    """
    source = ImageFolder(files.archive)
    rows = dict(zip(("train", "gallery", "probe"), split(source, split_seed), strict=True))
    # Whoever trains, or is among gallery and probes, is in none of the pairs.
    lfw = LFW(files.archive, files.pairs, exclude=[source.people[person] for person in many_images(source)])
    folder = files.cache / f"split-{split_seed}-{len(lfw.images)}"

    def high(name: str) -> Pixels:
        images, taken = (lfw.images, np.arange(len(lfw.images))) if name == "pairs" else (source, rows[name])
        return stored_once(folder / f"{name}.npy", lambda: images.read_many(taken))

    def low(name: str, of: str, sizes: tuple[int, int], seed: int, how: Recipe) -> Pixels:
        return stored_once(
            folder / f"{name}.npy", lambda: degraded(high(of), rows[of], Degradation(sizes, recipe=how), seed, device)
        )

    makers: dict[str, Callable[[], Pixels]] = {
        **{name: partial(high, name) for name in ("train", *PLAIN)},
        f"train {recipe}": partial(low, f"train {recipe}", "train", TRAIN_SIZES, TRAIN_SEED, recipe),
        **{
            name: partial(low, name, "probe", (size, size), PROBE_SEED, how) for name, (how, size) in CONDITIONS.items()
        },
    }
    pixels = {name: makers[name]() for name in _in_an_order_of_its_own(makers)}
    person = {"gallery": source.labels[rows["gallery"]], "pairs": lfw.people}
    tested = {
        name: _images(pixels[name], person.get(name, source.labels[rows["probe"]]), name in PLAIN)
        for name in (*PLAIN, *CONDITIONS)
    }
    numbers = np.unique(source.labels[rows["train"]], return_inverse=True)[1]
    train = _both(pixels["train"], pixels[f"train {recipe}"], numbers)
    return Faces(train, tested, lfw, ScorerCard(name="none"), folder, recipe)


def _in_an_order_of_its_own(names: Mapping[str, Any]) -> list[str]:
    """Processes side by side begin with different files, so that they share the work of making them."""
    return random.Random(os.getpid()).sample(list(names), len(names))


def degraded(pixels: Pixels, rows: Array, degradation: Degradation, seed: int, device: str) -> Pixels:
    """Low versions of images, as the source `Degraded` makes them of its images ``rows``, many at once on a device."""
    if degradation.recipe == "camera":
        return np.stack([degradation(one, seed, int(row)) for one, row in zip(pixels, rows, strict=True)])
    transform = LowResolution(1.0, degradation.sizes, degradation.recipe)
    parts = []
    for at in range(0, len(rows), AT_ONCE):
        state = draws_of_batch(seed, 0, 0, rows[at : at + AT_ONCE])
        image = torch.from_numpy(np.array(pixels[at : at + AT_ONCE])).permute(0, 3, 1, 2).to(device)
        low = transform.image(image, Draws(state, "low_resolution"))
        parts.append(low.permute(0, 2, 3, 1).cpu().numpy())
    return np.concatenate(parts)


def many_images(source: Source) -> Array:
    """Numbers of the people with at least five images, which train or are tested."""
    return np.flatnonzero(np.bincount(source.labels) >= MIN_IMAGES)


def split(source: Source, seed: int = 0) -> tuple[Array, Array, Array]:
    """Rows for training, gallery and probes; no person is on two sides."""
    random_numbers = np.random.default_rng(seed)
    people = random_numbers.permutation(many_images(source))
    trained, tested = people[:TRAIN_PEOPLE], people[TRAIN_PEOPLE:]
    single = np.flatnonzero(np.bincount(source.labels) == 1)
    strangers = random_numbers.permutation(single)[:ONE_IMAGE_PEOPLE]
    first = np.unique(source.labels, return_index=True)[1]
    own = np.flatnonzero(np.isin(source.labels, tested))
    gallery = np.concatenate([first[np.sort(tested)], first[np.sort(strangers)]])
    probe = own[(own > first[source.labels[own]]) & (own <= first[source.labels[own]] + MOST_PROBES)]
    return np.flatnonzero(np.isin(source.labels, trained)), gallery, probe


def _images(pixels: Pixels, person: Array, high: bool) -> Images:
    count = len(pixels)
    return Images(pixels, person.astype(np.int64), np.full(count, high), np.zeros(count, np.float32))


def _both(high: Pixels, low: Pixels, person: Array) -> Images:
    count = len(high)
    is_high = np.arange(2 * count) < count
    return Images(np.concatenate([high, low]), np.tile(person, 2).astype(np.int64), is_high, is_high.astype(np.float32))
