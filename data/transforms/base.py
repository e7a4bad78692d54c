"""What a transform is, and the registry of transforms."""

from abc import ABC, abstractmethod
from enum import IntEnum, auto
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from facelab.citation import Citation
from facelab.data.transforms.draws import Draws
from facelab.errors import ConfigError
from facelab.registry import Registry

Probability = Annotated[float, Field(ge=0.0, le=1.0)]


class Stage(IntEnum):
    """When a transform comes, from the face to the finished picture; those of one stage go by their names."""

    FACE = auto()  # worn by the face itself, so before anything moves: masks, glasses
    GEOMETRY = auto()  # which part of the scene is seen, and from where: crop, shift
    LIGHT = auto()  # brightness, contrast, colour
    COVER = auto()  # what lies over the picture: erased rectangles, objects in front
    CAMERA = auto()  # what a distant or cheap camera does: blur, low resolution, noise, JPEG
    MIRROR = auto()  # left and right swapped


class Transform(ABC):
    """A random change to the images of a batch, on their device, without a loop over images.

    One constructor serves for the whole run; its arguments are the options in YAML. A bare number in YAML is the
    option ``probability``. What happens to an image follows from the numbers of ``draw`` alone, so that it is the same
    for any number of processes and after a restart.

    Attributes:
        stage: When it comes.
        changes_quality: Whether a changed image is better or worse than the stored one, so that quality scores of the
            latter no longer hold. Training with such scores is then refused, unless ``data.online_quality`` is on.
        moves_keypoints: Whether landmarks lie elsewhere afterwards; then it overrides `keypoints`.
        occludes: Whether it puts something in front of the face; then it overrides `occluded`. False unless declared.

    Raises:
        ConfigError: If a subclass leaves one of these undeclared, or declares what it cannot be.
    """

    citation: ClassVar[Citation | None] = None
    stage: ClassVar[Stage]
    changes_quality: ClassVar[bool]
    moves_keypoints: ClassVar[bool]
    occludes: ClassVar[bool] = False

    def __init_subclass__(cls, **options: Any) -> None:
        """Refuse a class that declares too little."""
        super().__init_subclass__(**options)
        for name, kind in (("stage", Stage), ("changes_quality", bool), ("moves_keypoints", bool), ("occludes", bool)):
            if not hasattr(cls, name):
                raise ConfigError(f"the transform {cls.__name__} must declare '{name}'; see docs/extending.md.")
            if not isinstance(getattr(cls, name), kind):
                raise ConfigError(
                    f"the transform {cls.__name__} declares '{name}' as {getattr(cls, name)!r}, which is not a "
                    f"{kind.__name__}; see docs/extending.md."
                )
        if cls.moves_keypoints and cls.keypoints is Transform.keypoints:
            raise ConfigError(
                f"the transform {cls.__name__} moves keypoints, so it must override the method keypoints."
            )
        if cls.occludes and cls.occluded is Transform.occluded:
            raise ConfigError(f"the transform {cls.__name__} occludes, so it must override the method occluded.")

    @abstractmethod
    def image(self, image: Tensor, draw: Draws) -> Tensor:
        """The changed images; what is given stays as it is.

        Args:
            image: RGB, uint8, (B, 3, H, W), channels_last in memory.
            draw: The random numbers of these images.

        Returns:
            Images of the same shape, type, device and memory format.
        """

    def keypoints(self, keypoints: Tensor, size: tuple[int, int], draw: Draws) -> Tensor:
        """Where landmarks lie after the change that `image` makes with the same ``draw``.

        Args:
            keypoints: (x, y) in pixels, 0 being the centre of the first; left eye, right eye, nose, left and right
                corner of the mouth as they stand in the picture, (B, 5, 2).
            size: Height and width of the images.
            draw: The random numbers of these images.

        Returns:
            (B, 5, 2); points may lie outside of the picture.
        """
        return keypoints

    def occluded(self, image: Tensor, draw: Draws) -> Tensor:
        """Which pixels `image` covers with the same ``draw``, for modes that learn where a face is hidden.

        Args:
            image: What `image` is given, uint8, (B, 3, H, W).
            draw: The random numbers of these images.

        Returns:
            bool, (B, 1, H, W).
        """
        return torch.zeros_like(image[:, :1], dtype=torch.bool)


TRANSFORMS: Registry[Transform] = Registry("transform", "facelab.data.transforms")
