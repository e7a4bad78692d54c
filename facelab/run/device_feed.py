"""Batches as training wants them: on the device, changed at random, and scored as they are then."""

from collections.abc import Iterator
from dataclasses import replace

import torch

from facelab.data.base import Batch
from facelab.data.loading.loader import Loader
from facelab.data.transforms.augment import Augment, View
from facelab.engine.phases import phase
from facelab.iqa.base import PixelScorer
from facelab.run.unread_scores import UnreadScores


class DeviceFeed:
    """The loader's batches, moved to the device and augmented there.

    Args:
        loader: Gives this process's part of each batch.
        augment: Changes the images at random.
        accumulate: Batches that make one update.
        device: Where to move them.
        scorer: Scores the augmented images; None leaves the scores that the loader gives.
        view: What other networks see of the images, see `Augment`.
        occluded: Whether batches say where something hides the face.
    """

    def __init__(
        self,
        loader: Loader,
        augment: Augment,
        accumulate: int,
        device: torch.device,
        scorer: PixelScorer | None = None,
        view: View = "same",
        occluded: bool = False,
    ) -> None:
        self.loader = loader
        self.augment = augment
        self.accumulate = accumulate
        self.device = device
        self.scorer = scorer
        self.view = view
        self.occluded = occluded
        self._unread = None if scorer is None else UnreadScores(scorer.require_allowed)

    def batches(self, epoch: int, update: int) -> Iterator[Batch]:
        """Batches of an epoch from an update on; passes that do not fill a last update are left out."""
        first = update * self.accumulate
        whole = self.loader.steps_per_epoch // self.accumulate * self.accumulate
        batches = self.loader.batches(epoch, first)
        for step in range(first, whole):  # the loader may have a rest of the epoch that fills no update
            with phase("loader"):
                batch = next(batches).to(self.device)
            yield self._changed(batch, epoch, step)
        if self._unread is not None:
            self._unread.read(wait=True)

    def _changed(self, batch: Batch, epoch: int, step: int) -> Batch:
        """A batch on the device, augmented, and scored as it is then."""
        with phase("augmentation"):
            first_row = self.loader.first_row
            changed = self.augment(batch, epoch, step, first_row, self.view, occluded=self.occluded)
            if self.scorer is None or self._unread is None:
                return changed
            scores = self.scorer.score_unread(changed.image)
            self._unread.add(scores)
            return replace(changed, quality=scores)
