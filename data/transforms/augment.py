"""The random changes of a run: which transforms, in which order, with which random numbers."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from facelab.data.base import Batch
from facelab.data.loading.keyed_random import Words
from facelab.data.transforms.base import TRANSFORMS, Transform
from facelab.data.transforms.draws import Draws, draws_of_batch
from facelab.errors import ConfigError, DataError

Change = float | dict[str, Any] | None
"""What ``data.augment`` says of a transform: its options, or null, or a number where ``probability`` is all."""

View = Literal["same", "clean", "stored"]
"""What another network sees of the images: the same changes, only those that leave quality as it is, or none."""

DEFAULT: dict[str, Change] = {"flip": 0.5}
"""What is changed unless the settings say otherwise."""

PLAIN = (bool, int, float, str)
"""What settings can write down of a constructor's defaults."""


class Augment:
    """Changes batches on their device.

    Transforms come in the order of their `Stage`, those of one stage by name; in which order they are written does not
    matter. An image's change depends only on (seed, epoch, step, row of the global batch), so it is the same for any
    number of processes and after a restart; each transform draws from its own numbers, so switching one on leaves the
    others as they were.

    Args:
        changes: Options by the transform's name; see `Change`. The defaults are not added.
        seed: Chooses the random numbers.

    Raises:
        ConfigError: If a name is unknown, or an option cannot work.
    """

    def __init__(self, changes: Mapping[str, Change], seed: int) -> None:
        wanted = {name: _options(name, change) for name, change in changes.items() if change is not None}
        built = {TRANSFORMS.present_name(name): TRANSFORMS.build(name, options) for name, options in wanted.items()}
        order = sorted(built, key=lambda name: (built[name].stage, name))
        self.transforms: dict[str, Transform] = {name: built[name] for name in order}
        self._seed = seed

    def __call__(
        self,
        batch: Batch,
        epoch: int,
        step: int,
        first_row: int = 0,
        view: View = "same",
        *,
        occluded: bool = False,
    ) -> Batch:
        """The batch with changed images and its `Batch.draws`, on the same device; the given one stays as it is.

        Args:
            batch: Images uint8, (B, 3, H, W).
            epoch: Epoch of the batch.
            step: Its number in the epoch.
            first_row: Row of its first image in the global batch (`Loader.first_row`).
            view: What ``Batch.reference`` shows; ``same`` leaves it out.
            occluded: Whether to fill in ``Batch.occluded``.

        Raises:
            DataError: If a transform gives images of another shape, type or device.
        """
        image = reference = batch.image
        hidden = torch.zeros_like(image[:, :1], dtype=torch.bool) if occluded else None
        state = self._state(batch.size, epoch, step, first_row)
        for name, draw in self._draws(state).items():
            changed = self._changed(name, image, draw)
            if hidden is not None:
                hidden = self._hidden(name, hidden, image, draw)
            if view == "clean" and not self.transforms[name].changes_quality:
                reference = changed if reference is image else self._changed(name, reference, draw)
            image = changed
        seen = None if view == "same" else reference
        return replace(batch, image=image, reference=seen, occluded=hidden, draws=state)

    def _hidden(self, name: str, hidden: Tensor, image: Tensor, draw: Draws) -> Tensor:
        """What is hidden after a transform of ``image``: what was before, moved along, and what it covers."""
        transform = self.transforms[name]
        if transform.occludes:
            hidden = hidden | transform.occluded(image, draw)
        if not transform.moves_keypoints:
            return hidden
        # Moved as a picture of it is, so that a transform need not say twice where pixels go.
        picture = (255 * hidden.to(torch.uint8)).expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)
        return transform.image(picture, draw)[:, :1] >= 128

    def _changed(self, name: str, image: Tensor, draw: Draws) -> Tensor:
        changed = self.transforms[name].image(image, draw)
        _require_alike(name, changed, image)
        return changed

    def keypoints(self, keypoints: Tensor, size: tuple[int, int], epoch: int, step: int, first_row: int = 0) -> Tensor:
        """Where the landmarks of a batch lie after it was changed.

        Args:
            keypoints: See `Transform.keypoints`, (B, 5, 2).
            size: Height and width of the images.
            epoch: Epoch of the batch.
            step: Its number in the epoch.
            first_row: Row of its first image in the global batch.
        """
        for name, draw in self._draws(self._state(len(keypoints), epoch, step, first_row)).items():
            moved = self.transforms[name].keypoints(keypoints, size, draw)
            _require_alike(name, moved, keypoints)
            keypoints = moved
        return keypoints

    def _state(self, size: int, epoch: int, step: int, first_row: int) -> Words:
        """What the keys of all transforms begin with, mixed once."""
        return draws_of_batch(self._seed, epoch, step, np.arange(first_row, first_row + size))

    def _draws(self, state: Words) -> dict[str, Draws]:
        return {name: Draws(state, name) for name in self.transforms}


def _require_alike(name: str, changed: Tensor, given: Tensor) -> None:
    """Refuse at the transform that did it what would otherwise be found far behind it, or never."""
    if (changed.shape, changed.dtype, changed.device) != (given.shape, given.dtype, given.device):
        raise DataError(
            f"the transform '{name}' made {_described(changed)} of {_described(given)}; a transform keeps shape, type "
            "and device."
        )


def _described(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)} on {tensor.device}"


def with_defaults(changes: Mapping[str, Change]) -> dict[str, Change]:
    """Changes as a run writes them down: checked, with the options that were left out, so that they can be repeated.

    Names that are not known stay as they are: a plugin may bring them before they are built.

    Raises:
        ConfigError: If an option cannot work.
    """
    return {name: _with_defaults(name, change) for name, change in {**DEFAULT, **changes}.items()}


def _with_defaults(name: str, change: Change) -> Change:
    if change is None or name not in TRANSFORMS:
        return change
    options = _options(name, change)
    TRANSFORMS.check(name, options)
    parameters = TRANSFORMS.parameters(name)
    defaults = {key: one.default for key, one in parameters.items() if isinstance(one.default, PLAIN)}
    options = defaults | options
    return options["probability"] if parameters.keys() == {"probability"} == options.keys() else options


def _options(name: str, change: float | dict[str, Any]) -> dict[str, Any]:
    """The options that a change means; a number is refused where it would not say all, as merged settings lose it."""
    if isinstance(change, dict):
        return change
    if TRANSFORMS.parameters(name).keys() != {"probability"}:
        raise ConfigError(
            f"transform '{name}' is {change:g}, but has options: write {name}: {{probability: {change:g}}}."
        )
    return {"probability": change}


def quality_changes(changes: Mapping[str, Change]) -> list[str]:
    """Those of the known changes after which an image is better or worse than it was stored."""
    wanted = [name for name, change in changes.items() if change is not None and name in TRANSFORMS]
    return [name for name in wanted if TRANSFORMS.get(name).changes_quality]
