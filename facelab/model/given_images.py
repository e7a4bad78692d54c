"""What `FaceModel.embed` takes for images, and which of another size may be resized."""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from facelab.data.base import ImageSet, Pixels
from facelab.errors import ConfigError, DataError
from facelab.inputs import InputSpec, check_aligned_shape, check_any_photo

if TYPE_CHECKING:
    from facelab.model.photo_faces import PhotoFaces

PLAIN_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")


class GivenImages(ImageSet):
    """Images that a user hands to a model one by one, in the size that its network takes.

    Args:
        images: Paths, RGB uint8 arrays (H, W, 3), images of PIL, an array (N, H, W, 3), or a uint8 tensor
            (N, 3, H, W); one of them or a sequence.
        spec: What the network takes.
        model: Names the network in messages.
        resize: Whether an aligned crop of another size is resized.
        any_photo: Whether whatever else is resized too.
        faces: Cuts a face out of each image that has another size than the network takes; None refuses such images.

    Raises:
        ConfigError: If ``any_photo`` comes without ``resize``, or ``resize`` with ``faces``.
        DataError: If the images are something else.
    """

    def __init__(
        self,
        images: Any,
        spec: InputSpec,
        model: str,
        *,
        resize: bool,
        any_photo: bool,
        faces: "PhotoFaces | None" = None,
    ) -> None:
        check_any_photo(any_photo, resize)
        if faces is not None and resize:
            raise ConfigError("detect finds the face in an image of another size, resize takes it for one; choose one.")
        self._images = _several(images)
        self._read = partial(image_pixels, spec=spec, model=model, resize=resize, any_photo=any_photo, faces=faces)

    @property
    def paths(self) -> list[str] | None:
        """Where the images lie; None if one is more than a path."""
        paths = [str(image) for image in self._images if isinstance(image, str | Path)]
        return paths if len(paths) == len(self) else None

    def __len__(self) -> int:
        """How many there are."""
        return len(self._images)

    def read(self, index: int) -> Pixels:
        """Image ``index``, uint8, (height, width, 3).

        Raises:
            DataError: If it cannot be read, is no image, or has another size and may not be resized.
        """
        return self._read(self._images[index], index)

    def location(self, index: int) -> str:
        """Its path, else its number."""
        return _location(self._images[index], index)

    def fingerprint(self) -> str:
        """None: nothing is kept of such images."""
        return ""


def _several(images: Any) -> Sequence[Any]:
    """One image or several as several."""
    if isinstance(images, Tensor):
        _check_tensor(images)
        return list(images.permute(0, 2, 3, 1).cpu().numpy())
    if isinstance(images, str | Path) or _is_pil(images):
        return [images]
    if isinstance(images, np.ndarray) and images.ndim in (3, 4):
        return [images] if images.ndim == 3 else list(images)
    if not isinstance(images, Sequence) or isinstance(images, bytes | bytearray):
        given = f"{images.dtype} {images.shape}" if isinstance(images, np.ndarray) else type(images).__name__
        raise DataError(
            f"images must be paths, RGB uint8 arrays, PIL images or a uint8 tensor, one or a sequence, got {given}."
        )
    return images


def image_pixels(
    image: Any,
    number: int,
    spec: InputSpec,
    model: str,
    *,
    resize: bool,
    any_photo: bool,
    faces: "PhotoFaces | None" = None,
) -> Pixels:
    """Pixels of one image in the size that a network takes.

    Args:
        image: A path, an RGB uint8 array (H, W, 3) or an image of PIL.
        number: Its number, for messages.
        spec: What the network takes.
        model: Names the network in messages.
        resize: Resize an aligned crop of another size.
        any_photo: Resize whatever it is.
        faces: Cuts a face out of an image of another size.

    Returns:
        uint8, (height, width, 3).

    Raises:
        DataError: If it cannot be read, is no image, or has another size and may not be resized.
    """
    from facelab.data.formats.images import decode_file, resize_image

    where = _location(image, number)
    if isinstance(image, str | Path):
        pixels = decode_file(image)
    else:
        pixels = _of_pil(image, where) if _is_pil(image) else _check_array(image, where)
    height, width = pixels.shape[:2]
    if (height, width) == spec.aligned:
        return pixels
    what = f"{where} is {height}x{width}, but '{model}' takes {spec.describe()}"
    if faces is not None:
        try:
            return faces.cut(pixels, where)
        except ConfigError as error:
            raise ConfigError(f"{what}, and no face can be looked for: {error}") from None
    if not resize:
        raise DataError(
            f"{what}; find the face in it (detect=True, --detect), align it first (facelab data align), or resize it "
            "if it is an aligned face of another size (resize=True, --resize)."
        )
    if not any_photo or not min(height, width):
        check_aligned_shape((height, width), spec.aligned, what)
    return resize_image(pixels, *spec.aligned)


def _location(image: Any, number: int) -> str:
    return f"'{image}'" if isinstance(image, str | Path) else f"image {number}"


def _is_pil(image: Any) -> bool:
    pil = sys.modules.get("PIL.Image")  # who has such an image has imported PIL
    return pil is not None and isinstance(image, pil.Image)


def _of_pil(image: Any, where: str) -> Pixels:
    """Pixels of an image of PIL, turned as its EXIF data say, as those of a file are."""
    from facelab.data.formats.image_header import MAX_PIXELS

    if image.mode not in PLAIN_MODES or image.width * image.height > MAX_PIXELS:
        raise DataError(
            f"{where} is a PIL image of mode {image.mode} and {image.height}x{image.width} pixels; taken are modes of "
            f"8 bits ({', '.join(PLAIN_MODES)}) and at most {MAX_PIXELS:,} pixels."
        )
    from PIL import ImageOps

    try:
        return np.array(ImageOps.exif_transpose(image).convert("RGB"), np.uint8)
    except (OSError, ValueError, SyntaxError) as error:  # PIL decodes late
        raise DataError(f"{where} is a PIL image that cannot be decoded ({error}).") from None


def _check_tensor(images: Tensor) -> None:
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
        raise DataError(
            f"a tensor of images must be RGB uint8 (N, 3, H, W), got {images.dtype} {tuple(images.shape)}; the value "
            "range and colour order of anything else cannot be known."
        )


def _check_array(image: Any, where: str) -> Pixels:
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        given = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise DataError(
            f"{where} must be a path, an RGB uint8 array (H, W, 3) or a PIL image, got {given}; the value range and "
            "colour order of anything else cannot be known."
        )
    return image
