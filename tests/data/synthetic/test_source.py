"""Synthetic faces: the same pixels everywhere, other persons in every split, cached once, as hard as promised."""

import hashlib
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from facelab.data.base import SOURCES
from facelab.data.synthetic.person import draw_person
from facelab.data.synthetic.photo import draw_photo
from facelab.data.synthetic.render import render_face
from facelab.data.synthetic.source import (
    FIRST_PERSON,
    LowResolution,
    SyntheticFaces,
    reduce_resolution,
    synthetic_pairs,
)
from facelab.errors import ConfigError


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def faces(cache: Path) -> SyntheticFaces:
    return SyntheticFaces(6, 4, size=32, seed=3, cache=cache)


def test_an_image_depends_on_nothing_but_its_numbers() -> None:
    first = render_face(5, 7, 2, 48)
    render_face(9, 1, 0, 64)
    assert np.array_equal(render_face(5, 7, 2, 48), first)


@pytest.mark.parametrize("other", [(6, 7, 2), (5, 8, 2), (5, 7, 3)])
def test_seed_person_and_photo_all_change_the_image(other: tuple[int, int, int]) -> None:
    assert not np.array_equal(render_face(*other, 48), render_face(5, 7, 2, 48))


def test_another_process_draws_the_same_pixels() -> None:
    code = (
        "import sys, hashlib; from facelab.data.synthetic.render import render_face; "
        "sys.stdout.write(hashlib.sha256(render_face(1, 2, 3, 56).tobytes()).hexdigest()); "
        "assert 'torch' not in sys.modules, 'workers start slowly if the renderer imports torch'"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert there.stdout == hashlib.sha256(render_face(1, 2, 3, 56).tobytes()).hexdigest()


def test_sizes_show_the_same_scene() -> None:
    large, small = render_face(0, 4, 1, 112), render_face(0, 4, 1, 56)
    reduced = large.reshape(56, 2, 56, 2, 3).mean(axis=(1, 3))
    assert np.abs(reduced - small).mean() < 6.0


def test_a_person_keeps_the_traits_and_changes_the_conditions() -> None:
    assert draw_person(0, 3).skin_tone == draw_person(0, 3).skin_tone != draw_person(0, 4).skin_tone
    assert draw_photo(0, 3, 0).yaw != draw_photo(0, 3, 1).yaw


def test_every_image_is_a_picture_and_no_two_are_alike(faces: SyntheticFaces) -> None:
    images = np.stack([faces.read(row) for row in range(len(faces))])
    assert images.shape == (24, 32, 32, 3)
    assert images.dtype == np.uint8
    assert images.std(axis=(1, 2, 3)).min() > 5.0
    assert len(np.unique(images.reshape(24, -1), axis=0)) == 24


def test_labels_are_contiguous_and_person_by_person(faces: SyntheticFaces) -> None:
    assert faces.labels.dtype == np.int64
    assert faces.labels.tolist() == [person for person in range(6) for _ in range(4)]
    assert faces.num_classes == 6


def test_read_gives_what_was_rendered_and_may_be_changed(faces: SyntheticFaces) -> None:
    image = faces.read(9)
    assert np.array_equal(image, render_face(3, 2, 1, 32))
    image[:] = 0
    assert faces.read(9).any()


def test_location_names_file_person_and_photo(faces: SyntheticFaces) -> None:
    assert faces.location(9) == f"{faces.path}[9] (person 2, photo 1)"


def test_a_copy_in_another_process_maps_the_file_anew(faces: SyntheticFaces) -> None:
    faces.read(0)
    packed = pickle.dumps(faces)
    assert len(packed) < 5000
    assert np.array_equal(pickle.loads(packed).read(5), faces.read(5))


def test_splits_and_ranges_share_no_person(cache: Path) -> None:
    def shown(source: SyntheticFaces) -> set[bytes]:
        return {source.read(row).tobytes() for row in range(len(source))}

    train = shown(SyntheticFaces(3, 2, size=16, cache=cache))
    later = shown(SyntheticFaces(3, 2, size=16, first_identity=3, cache=cache))
    test = shown(SyntheticFaces(3, 2, size=16, split="test", cache=cache))
    assert len(train | later | test) == len(train) + len(later) + len(test)
    assert np.array_equal(
        SyntheticFaces(3, 2, size=16, first_identity=1, cache=cache).read(0), render_face(0, 1, 0, 16)
    )
    assert np.array_equal(
        SyntheticFaces(3, 2, size=16, split="test", cache=cache).read(0), render_face(0, FIRST_PERSON["test"], 0, 16)
    )


def test_fingerprint_changes_with_every_number_and_not_with_the_cache(cache: Path, tmp_path: Path) -> None:
    base = {"identities": 2, "per_identity": 2, "size": 16, "seed": 0, "split": "train", "first_identity": 0}
    others = [
        {"identities": 3},
        {"per_identity": 3},
        {"size": 17},
        {"seed": 1},
        {"split": "test"},
        {"first_identity": 1},
    ]
    prints = [SyntheticFaces(**{**base, **other}, cache=cache).fingerprint() for other in [{}, *others]]
    assert len(set(prints)) == len(prints)
    assert SyntheticFaces(**base, cache=tmp_path).fingerprint() == prints[0]


def test_it_is_built_by_name(cache: Path) -> None:
    source = SOURCES.build("SyntheticFaces", {"identities": 2, "per_identity": 1, "size": 16, "cache": str(cache)})
    assert len(source) == 2


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"identities": 0}, r"SyntheticFaces identities is 0, but must lie in \[1, 1e\+06\]"),
        ({"per_identity": 0}, "SyntheticFaces per_identity is 0"),
        ({"size": 8}, r"SyntheticFaces size is 8, but must lie in \[16, 1024\]"),
        ({"seed": -1}, "SyntheticFaces seed is -1"),
        ({"first_identity": 999_999}, "SyntheticFaces first_identity is 999999"),
        ({"split": "tset"}, "Did you mean 'test'"),
    ],
)
def test_refusals(options: dict[str, object], sentence: str, cache: Path) -> None:
    with pytest.raises(ConfigError, match=sentence):
        SyntheticFaces(**{"identities": 4, "cache": cache, **options})


def test_pairs_are_of_the_test_split(cache: Path) -> None:
    images, pairs, same, fold = synthetic_pairs(8, 4, folds=2, pairs=24, size=16, cache=cache)
    assert isinstance(images, SyntheticFaces)
    assert images.plan.first == FIRST_PERSON["test"]
    assert (pairs.shape, same.shape, fold.shape) == ((24, 2), (24,), (24,))
    assert np.array_equal(same, images.labels[pairs[:, 0]] == images.labels[pairs[:, 1]])


def test_pairs_need_two_persons_in_each_fold(cache: Path) -> None:
    with pytest.raises(ConfigError, match="10 folds need at least 20 identities, got 12"):
        synthetic_pairs(12, 4, cache=cache)


def test_low_resolution_loses_detail_step_by_step(faces: SyntheticFaces) -> None:
    sharp = faces.read(2).astype(int)
    lost = [np.abs(LowResolution(faces, size).read(2).astype(int) - sharp).mean() for size in (32, 24, 16, 8, 4)]
    assert lost[0] == 0.0
    assert lost == sorted(lost)
    assert LowResolution(faces, 8).read(2).shape == (32, 32, 3)


def test_low_resolution_says_where_and_what_it_is(faces: SyntheticFaces) -> None:
    low = LowResolution(faces, 8)
    assert len(low) == len(faces)
    assert low.location(1) == f"{faces.location(1)} at 8 pixels"
    assert len({low.fingerprint(), LowResolution(faces, 9).fingerprint(), faces.fingerprint()}) == 3
    with pytest.raises(ConfigError, match=r"resolution is 1, but must lie in \[2, 4096\]"):
        LowResolution(faces, 1)


@pytest.fixture(scope="module")
def drawn_pairs(cache: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    images, pairs, same, _ = synthetic_pairs(60, 4, folds=5, pairs=600, size=48, cache=cache)
    return np.stack([images.read(row) for row in range(len(images))]), pairs, same


def best_accuracy(features: np.ndarray, pairs: np.ndarray, same: np.ndarray) -> float:
    """Accuracy at the best threshold for cosine similarity of centred features, all pairs in one fold."""
    centred = features - features.mean(axis=1, keepdims=True)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    order = np.argsort(-(unit[pairs[:, 0]] * unit[pairs[:, 1]]).sum(axis=1))
    right = np.cumsum(same[order]) + (~same).sum() - np.cumsum(~same[order])
    return float(right.max() / len(same))


@pytest.mark.parametrize("size", [48, 12])
def test_comparing_pixels_is_poor(drawn_pairs: tuple[np.ndarray, np.ndarray, np.ndarray], size: int) -> None:
    images, pairs, same = drawn_pairs
    small = np.stack([reduce_resolution(image, size) for image in images]).reshape(len(images), -1).astype(np.float64)
    assert best_accuracy(small, pairs, same) < 0.68


def test_an_untrained_network_is_near_chance(drawn_pairs: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    images, pairs, same = drawn_pairs
    generator = torch.Generator().manual_seed(0)
    features = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1.0
    for inputs, outputs in ((3, 16), (16, 32), (32, 64)):
        weight = torch.randn(outputs, inputs, 3, 3, generator=generator) / (3.0 * inputs**0.5)
        features = torch.relu(torch.nn.functional.conv2d(features, weight, stride=2, padding=1))
    assert best_accuracy(features.flatten(1).numpy(), pairs, same) < 0.68


def test_traits_carry_more_than_conditions() -> None:
    """The mean over many photos tells persons apart, so there is something to learn behind the changing conditions."""
    first, second = (
        np.stack([[render_face(0, person, photo, 24) for photo in photos] for person in range(8)]).mean(axis=1)
        for photos in (range(25), range(25, 50))
    )
    distance = np.abs(first[:, None] - second[None]).mean(axis=(2, 3, 4))
    assert (distance.argmin(axis=1) == np.arange(8)).mean() >= 0.85
