"""What holds for every registered transform, so that a run can be resumed, repeated and shared by several processes."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from facelab.data.base import Batch
from facelab.data.transforms.augment import Augment, quality_changes, with_defaults
from facelab.data.transforms.base import TRANSFORMS

SIZE, HEIGHT, WIDTH = 64, 40, 32
POINTS = torch.tensor([[10.0, 14.0], [20.0, 13.0], [15.0, 20.0], [11.0, 27.0], [19.0, 26.0]])

every_transform = pytest.mark.parametrize("name", TRANSFORMS.names())
every_moving_one = pytest.mark.parametrize(
    "name", [name for name in TRANSFORMS.names() if TRANSFORMS.get(name).moves_keypoints]
)


def options(name: str) -> dict[str, Any]:
    """Such that most images are changed, if it can be said."""
    return {"probability": 0.9} if "probability" in TRANSFORMS.parameters(name) else {}


def alone(name: str, seed: int = 0) -> Augment:
    return Augment({name: options(name)}, seed)


def batch_of(image: Tensor | None = None) -> Batch:
    pixels = np.random.default_rng(0).integers(0, 256, (SIZE, HEIGHT, WIDTH, 3), dtype=np.uint8)
    number = torch.arange(SIZE)
    given = torch.from_numpy(pixels).permute(0, 3, 1, 2) if image is None else image
    return Batch(given, number, number)


def part(batch: Batch, rows: slice) -> Batch:
    return Batch(batch.image[rows], batch.label[rows], batch.index[rows])


@every_transform
def test_some_images_change_and_nothing_else_does(name: str) -> None:
    batch = batch_of()
    given = batch.image.clone()
    found = alone(name)(batch, 0, 0)
    assert not torch.equal(found.image, given)
    assert torch.equal(batch.image, given)
    assert found.label is batch.label
    assert found.index is batch.index
    assert (found.image.shape, found.image.dtype) == (given.shape, torch.uint8)
    assert found.image.is_contiguous(memory_format=torch.channels_last)


@every_transform
def test_any_division_of_the_batch_gives_the_same_images(name: str) -> None:
    batch, change = batch_of(), alone(name, seed=5)
    whole = change(batch, 3, 7).image
    cuts = [slice(0, 1), slice(1, 40), slice(40, SIZE)]
    parts = [change(part(batch, cut), 3, 7, first_row=cut.start).image for cut in cuts]
    assert torch.equal(torch.cat(parts), whole)
    assert torch.equal(alone(name, seed=5)(batch, 3, 7).image, whole)


@every_transform
def test_seed_epoch_and_step_matter(name: str) -> None:
    batch = batch_of()
    found = [
        alone(name, s)(batch, epoch, step).image for s, epoch, step in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    ]
    assert all(not torch.equal(found[i], found[j]) for i in range(4) for j in range(i))


@every_transform
def test_a_probability_of_zero_changes_nothing(name: str) -> None:
    if "probability" in TRANSFORMS.parameters(name):
        assert torch.equal(Augment({name: {"probability": 0.0}}, 0)(batch_of(), 0, 0).image, batch_of().image)


@every_transform
@pytest.mark.cuda
def test_a_gpu_gives_the_same(name: str, gpu: torch.device) -> None:
    """But for sums in another order, which may round a pixel to its neighbour, or a coefficient of JPEG to its next."""
    batch, change = batch_of(), alone(name)
    found = change(batch.to(gpu), 1, 2).image
    assert found.is_contiguous(memory_format=torch.channels_last)
    apart = (found.cpu().int() - change(batch, 1, 2).image.int()).abs()
    assert (apart <= 1).float().mean() > 0.999


@every_transform
def test_what_a_run_writes_down_builds_the_same(name: str) -> None:
    written = {key: change for key, change in with_defaults({name: options(name)}).items() if key == name}
    assert torch.equal(Augment(written, 0)(batch_of(), 0, 0).image, alone(name)(batch_of(), 0, 0).image)
    assert quality_changes(written) == ([name] if TRANSFORMS.get(name).changes_quality else [])


@every_transform
def test_keypoints_have_any_division_too_and_move_only_if_it_is_declared(name: str) -> None:
    points, change = POINTS.expand(SIZE, 5, 2), alone(name)
    whole = change.keypoints(points, (HEIGHT, WIDTH), 3, 7)
    parts = [
        change.keypoints(points[rows], (HEIGHT, WIDTH), 3, 7, rows.start) for rows in (slice(0, 9), slice(9, SIZE))
    ]
    assert torch.equal(torch.cat(parts), whole)
    assert torch.equal(whole, points) != TRANSFORMS.get(name).moves_keypoints
    assert torch.equal(points, POINTS.expand(SIZE, 5, 2))


@every_moving_one
@pytest.mark.parametrize("point", range(5))
def test_keypoints_go_where_the_pixels_go(name: str, point: int) -> None:
    """A bright spot at a landmark is found at one of the landmarks afterwards."""
    row, column = torch.arange(HEIGHT)[:, None], torch.arange(WIDTH)
    distance = (row - POINTS[point, 1]) ** 2 + (column - POINTS[point, 0]) ** 2
    spot = (255 * torch.exp(-distance / 8)).round().to(torch.uint8).expand(SIZE, 3, HEIGHT, WIDTH)
    change = alone(name)
    pixels = change(batch_of(spot.contiguous(memory_format=torch.channels_last)), 1, 2).image[:, 0].float()
    pixels = pixels * (pixels > pixels.amax(dim=(1, 2), keepdim=True) / 2)
    total = pixels.sum(dim=(1, 2))
    centre = torch.stack([(pixels * column).sum(dim=(1, 2)), (pixels * row).sum(dim=(1, 2))], dim=1) / total[:, None]
    moved = change.keypoints(POINTS.expand(SIZE, 5, 2), (HEIGHT, WIDTH), 1, 2)
    border = torch.minimum(centre, torch.tensor([WIDTH - 1.0, HEIGHT - 1.0]) - centre).amin(dim=1)
    inside = (border > 5) & (total > 0)
    assert inside.sum() > SIZE / 4
    assert torch.linalg.vector_norm(moved - centre[:, None], dim=2).amin(dim=1)[inside].max() < 0.75
