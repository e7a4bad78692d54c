"""Random changes: exact where they can be, the same for any division of the batch, and uint8 throughout."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from facelab.data.base import Batch
from facelab.data.loading.keyed_random import uniform
from facelab.data.transforms.augment import DEFAULT, Augment, quality_changes, with_defaults
from facelab.data.transforms.base import TRANSFORMS, Stage, Transform
from facelab.data.transforms.draws import Draws
from facelab.errors import ConfigError, DataError

EVERYTHING: dict[str, Any] = {name: {"probability": 0.6} for name in ("crop", "shift", "light", "erase")}


def batch_of(size: int = 64, height: int = 10, width: int = 8, seed: int = 0) -> Batch:
    pixels = np.random.default_rng(seed).integers(0, 256, (size, height, width, 3), dtype=np.uint8)
    number = torch.arange(size)
    return Batch(torch.from_numpy(pixels).permute(0, 3, 1, 2), number, number)


def part(batch: Batch, rows: slice) -> Batch:
    return Batch(batch.image[rows], batch.label[rows], batch.index[rows])


def augment(seed: int = 0, **options: Any) -> Augment:
    return Augment(DEFAULT | options, seed)


def only(name: str, **options: Any) -> Augment:
    return Augment({name: {"probability": 1.0, **options}}, 0)


def flat(image: Tensor) -> Tensor:
    return image.flatten(1)


def test_flip_is_the_only_default_and_is_exact() -> None:
    batch = batch_of(1000)
    given = batch.image.clone()
    image = augment()(batch, 0, 0).image
    kept = (flat(image) == flat(given)).all(dim=1)
    flipped = (flat(image) == flat(given.flip(3))).all(dim=1)
    assert (kept ^ flipped).all()
    assert 430 < flipped.sum() < 570  # standard deviation 16
    assert torch.equal(batch.image, given)


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_flip_never_and_always(flip: float) -> None:
    batch = batch_of()
    expected = batch.image.flip(3) if flip else batch.image
    assert torch.equal(augment(flip=flip)(batch, 0, 0).image, expected)


def test_flip_mirrors_exactly_the_drawn_images_whatever_their_layout() -> None:
    batch = batch_of()
    numbers = uniform(0, 2, 3, np.arange(batch.size), 1)  # flip's choice was the first draw of version 0.1
    mirrored = torch.from_numpy(numbers < 0.5)[:, None, None, None]
    expected = torch.where(mirrored, batch.image.flip(3), batch.image)
    for image in (batch.image, batch.image.contiguous(), batch.image.flip(3).flip(3)):
        found = augment()(replace(batch, image=image), 2, 3).image
        assert torch.equal(found, expected)
        assert found.is_contiguous(memory_format=torch.channels_last)


def test_labels_are_kept() -> None:
    batch = batch_of()
    changed = augment(**EVERYTHING)(batch, 0, 0)
    assert changed.label is batch.label
    assert changed.index is batch.index


def test_dtype_and_memory_format_are_kept() -> None:
    image = augment(**EVERYTHING)(batch_of(), 0, 0).image
    assert image.dtype == torch.uint8
    assert image.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("options", [{}, EVERYTHING])
def test_any_division_of_the_batch_gives_the_same_images(options: dict[str, Any]) -> None:
    batch, change = batch_of(), augment(seed=5, **options)
    whole = change(batch, 3, 7).image
    cuts = [slice(0, 1), slice(1, 40), slice(40, 64)]
    parts = [change(part(batch, cut), 3, 7, first_row=cut.start).image for cut in cuts]
    assert torch.equal(torch.cat(parts), whole)


def test_seed_epoch_and_step_matter() -> None:
    batch = batch_of()
    images = [
        augment(seed)(batch, epoch, step).image for seed, epoch, step in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    ]
    assert all(not torch.equal(images[i], images[j]) for i in range(4) for j in range(i))


def test_other_changes_leave_the_flips_as_they_were() -> None:
    batch = batch_of()
    batch = Batch(batch.image[:1].expand(64, -1, -1, -1), batch.label, batch.index)
    plain = augment()(batch, 0, 0).image
    dimmed = augment(light={"probability": 1, "contrast": 0, "brightness": 0})(batch, 0, 0).image
    assert torch.equal(plain, dimmed)


def test_a_crop_of_the_whole_and_a_probability_of_zero_change_nothing() -> None:
    batch = batch_of(height=112, width=112, size=8)
    assert torch.equal(only("crop", smallest=1.0)(batch, 0, 0).image, batch.image)
    for name in EVERYTHING:
        assert torch.equal(augment(flip=0.0, **{name: {"probability": 0.0}})(batch, 0, 0).image, batch.image)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"flip": 1.5}, "transform 'flip' option 'probability' is 1.5: Input should be less than or equal to 1"),
        ({"flipp": 0.5}, "unknown transform 'flipp'. Did you mean 'flip'"),
        ({"crop": {"smalest": 0.5}}, "transform 'crop' has no option 'smalest'. Did you mean 'smallest'"),
        ({"crop": 0.5}, r"transform 'crop' is 0.5, but has options: write crop: {probability: 0.5}"),
        ({"erase": {"smallest": 0.5, "largest": 0.1}}, "erase smallest is 0.5, above largest, 0.1"),
        ({"crop": {"smallest": 0}}, "greater than 0"),
        ({"shift": {"pixels": 0}}, "greater than or equal to 1"),
    ],
)
def test_refusals(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Augment(changes, 0)


def test_null_is_off() -> None:
    batch = batch_of()
    assert torch.equal(Augment({"flip": None, "crop": None}, 0)(batch, 0, 0).image, batch.image)


def test_the_order_is_that_of_stages_then_names_and_not_the_one_written() -> None:
    written = [
        {name: {} for name in names} for names in (("flip", "erase", "light", "shift", "crop"), ("crop", "flip"))
    ]
    assert list(Augment(written[0], 0).transforms) == ["crop", "shift", "light", "erase", "flip"]
    assert list(Augment(written[1], 0).transforms) == ["crop", "flip"]


def test_what_a_run_writes_down_has_every_option_and_means_the_same() -> None:
    light = {"probability": 0.3, "brightness": 0.2, "contrast": 0.2}
    expected = {"flip": 0.5, "light": light, "crop": None}
    assert with_defaults({"light": {"probability": 0.3}, "crop": None}) == expected
    assert with_defaults(expected) == expected
    assert with_defaults({"flip": {"probability": 0.25}}) == {"flip": 0.25}
    assert with_defaults({"flip": None}) == {"flip": None}
    assert with_defaults({"of_a_plugin": {"strength": 2}}) == {"flip": 0.5, "of_a_plugin": {"strength": 2}}
    with pytest.raises(ConfigError, match="less than or equal to 1"):
        with_defaults({"erase": {"probability": 2}})


def test_changes_of_quality_are_those_that_are_on() -> None:
    assert quality_changes({"crop": None, "light": {}, "erase": {}, "of_a_plugin": {}}) == ["light"]


@pytest.fixture
def stranger() -> Iterator[str]:
    """A transform of somebody else, which adds a random grey level."""

    class Stranger(Transform):
        stage, changes_quality, moves_keypoints = Stage.FACE, True, False

        def image(self, image: Tensor, draw: Draws) -> Tensor:
            return image + torch.from_numpy((draw("level") * 40).astype(np.uint8))[:, None, None, None]

    TRANSFORMS.names()
    yield TRANSFORMS.register("stranger")(Stranger) and "stranger"
    del TRANSFORMS._classes["stranger"]


def test_a_transform_of_somebody_else_changes_nothing_of_the_others(stranger: str) -> None:
    """Where the five act, they act as without it: what they chose, and what they did to it."""
    batch = batch_of()
    batch = replace(batch, image=torch.full_like(batch.image, 100))
    alone = augment(erase={"probability": 0.5, "fill": 7})(batch, 1, 2).image
    both = augment(erase={"probability": 0.5, "fill": 7}, stranger={})(batch, 1, 2).image
    assert torch.equal(alone == 7, both == 7)
    levels = both.flatten(1).amax(dim=1)
    assert len(levels.unique()) > 10
    assert quality_changes({stranger: {}}) == [stranger]


class Spoiling(Transform):
    """Gives images, or landmarks, that do not fit those that it got."""

    stage, changes_quality, moves_keypoints = Stage.FACE, False, True

    def __init__(self, how: str) -> None:
        self.how = how

    def image(self, image: Tensor, draw: Draws) -> Tensor:
        return {"smaller": image[:, :, ::2], "fewer": image[1:], "float": image.float()}[self.how]

    def keypoints(self, keypoints: Tensor, size: tuple[int, int], draw: Draws) -> Tensor:
        return keypoints[0]


@pytest.mark.parametrize(
    ("how", "given"),
    [("smaller", r"uint8 \(4, 3, 5, 8\)"), ("fewer", r"uint8 \(3, 3, 10, 8\)"), ("float", r"float32 \(4, 3, 10, 8\)")],
)
def test_a_transform_that_changes_shape_or_type_is_named(how: str, given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    TRANSFORMS.names()
    monkeypatch.setitem(TRANSFORMS._classes, "spoiling", Spoiling)
    change = Augment({"spoiling": {"how": how}}, 0)
    sentence = rf"the transform 'spoiling' made {given} on cpu of uint8 \(4, 3, 10, 8\) on cpu; a transform keeps"
    with pytest.raises(DataError, match=sentence):
        change(batch_of(4), 0, 0)
    with pytest.raises(DataError, match=r"the transform 'spoiling' made float32 \(5, 2\) .* of float32 \(4, 5, 2\)"):
        change.keypoints(torch.zeros(4, 5, 2), (10, 8), 0, 0)


def test_keypoints_go_through_all_transforms() -> None:
    points = torch.tensor([[2.0, 3.0], [5.0, 3.0], [3.5, 5.0], [2.0, 7.0], [5.0, 7.0]]).expand(64, 5, 2)
    moving = {"crop": {"probability": 0.6}, "shift": {"probability": 0.6}}
    change, size = augment(**moving, light={}), (10, 8)
    moved = points
    for name in ("crop", "shift", "flip"):
        moved = Augment({name: moving.get(name, {})}, 0).keypoints(moved, size, 4, 5, 6)
    assert torch.equal(change.keypoints(points, size, 4, 5, 6), moved)
    assert not torch.equal(moved, points)


@pytest.mark.cuda
def test_a_gpu_gives_the_same(gpu: torch.device) -> None:
    batch, change = batch_of(), augment(**EVERYTHING)
    on_device = change(batch.to(gpu), 1, 2).image
    assert on_device.is_contiguous(memory_format=torch.channels_last)
    assert (on_device.cpu().int() - change(batch, 1, 2).image.int()).abs().max() <= 1
    flips = augment()
    assert torch.equal(flips(batch.to(gpu), 1, 2).image.cpu(), flips(batch, 1, 2).image)
