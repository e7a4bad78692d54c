"""Batches as training gets them: which of an epoch, changed by what, scored as they are then."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from facelab.data.base import Batch
from facelab.errors import DataError
from facelab.run.device_feed import DeviceFeed

CPU = torch.device("cpu")


class Loader:
    """Seven batches an epoch, each of its number."""

    steps_per_epoch, first_row = 7, 16

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []
        self.read: list[int] = []

    def batches(self, epoch: int, first: int) -> Iterator[Batch]:
        self.asked.append((epoch, first))
        for step in range(first, self.steps_per_epoch):
            self.read.append(step)
            image = torch.full((2, 3, 4, 4), step, dtype=torch.uint8)
            yield Batch(image, torch.zeros(2, dtype=torch.int64), torch.arange(2), quality=torch.zeros(2))


class Augment:
    """Makes each image brighter by 100."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def __call__(self, batch: Batch, epoch: int, step: int, row: int, view: str, *, occluded: bool) -> Batch:
        self.told.append((int(batch.image[0, 0, 0, 0]), epoch, step, row, view, occluded))
        return Batch(batch.image + 100, batch.label, batch.index, quality=batch.quality)


def brightness(least: float = 0.0) -> Any:
    """A scorer that allows no score below a number."""

    def require(scores: Tensor) -> None:
        if float(scores.min()) < least:
            raise DataError(f"the score {float(scores.min()):g} is too low.")

    return SimpleNamespace(score_unread=lambda image: image.float().mean(dim=(1, 2, 3)), require_allowed=require)


def feed(accumulate: int = 3, **options: Any) -> tuple[DeviceFeed, Any, Any]:
    loader: Any = Loader()
    augment: Any = Augment()
    return DeviceFeed(loader, augment, accumulate, CPU, **options), loader, augment


@pytest.mark.parametrize(
    ("accumulate", "update", "steps"), [(3, 1, [3, 4, 5]), (3, 2, []), (1, 5, [5, 6]), (7, 0, [*range(7)])]
)
def test_batches_of_whole_updates_from_any_update_on(accumulate: int, update: int, steps: list[int]) -> None:
    given, loader, augment = feed(accumulate, view="clean", occluded=True)
    images = [int(batch.image[0, 0, 0, 0]) for batch in given.batches(2, update)]
    assert images == [100 + step for step in steps]
    assert loader.asked == [(2, update * accumulate)] * bool(steps)
    assert loader.read == steps, "nothing is read that fills no update"
    assert augment.told == [(step, 2, step, 16, "clean", True) for step in steps]


def test_scores_are_those_of_the_images_as_they_are_then() -> None:
    plain, _, augment = feed()
    assert all(batch.quality is not None and not batch.quality.any() for batch in plain.batches(0, 0))
    assert {told[-2:] for told in augment.told} == {("same", False)}, "unless a mode asks for more"
    scored, _, _ = feed(scorer=brightness())
    found = [batch.quality.tolist() for batch in scored.batches(0, 0) if batch.quality is not None]
    assert found == [[100.0 + step] * 2 for step in range(6)]


def test_scores_outside_of_what_is_declared_end_the_run() -> None:
    given, _, _ = feed(scorer=brightness(102.0))
    with pytest.raises(DataError, match="the score 100 is too low"):
        list(given.batches(0, 0))


def test_scores_that_are_still_on_their_way_are_looked_at_when_the_epoch_ends() -> None:
    given, _, _ = feed(scorer=brightness(50.0))
    assert given._unread is not None
    event: Any = SimpleNamespace(query=lambda: False, synchronize=lambda: None)
    given._unread._coming.append((torch.tensor([7.0]), event))
    batches = given.batches(0, 0)
    assert len([next(batches) for _ in range(6)]) == 6
    with pytest.raises(DataError, match="the score 7 is too low"):
        next(batches)
