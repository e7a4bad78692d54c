"""Change brightness and contrast."""

import numpy as np
from torch import Tensor

from facelab.data.transforms.base import TRANSFORMS, Probability, Stage, Transform
from facelab.data.transforms.draws import Draws
from facelab.data.transforms.rows import as_pixels, on_device, put_rows, take_rows


@TRANSFORMS.register("light")
class Light(Transform):
    """Change brightness and contrast.

    Args:
        probability: Part of the images that are changed.
        brightness: Largest addition to all pixels, either way, as a part of 255.
        contrast: Differences from the image's mean are multiplied by ``1 - contrast`` to ``1 + contrast``.
    """

    stage = Stage.LIGHT
    changes_quality = True  # less contrast leaves more of the noise
    moves_keypoints = False

    def __init__(
        self, probability: Probability = 0.2, brightness: Probability = 0.2, contrast: Probability = 0.2
    ) -> None:
        self.probability = probability
        self.brightness = brightness
        self.contrast = contrast

    def image(self, image: Tensor, draw: Draws) -> Tensor:
        """Change the grey levels of some images."""
        rows = draw.chosen(self.probability)
        both = 2.0 * np.stack([draw("brightness"), draw("contrast")], axis=1)[rows] - 1.0
        both = both * [255.0 * self.brightness, self.contrast] + [0.0, 1.0]
        change = on_device(both.astype(np.float32), image)
        added, factor = change[:, 0, None, None, None], change[:, 1, None, None, None]
        part = take_rows(image, rows).float()
        # Contrast turns about the image's own mean, so that it changes no brightness.
        mean = part.mean(dim=(1, 2, 3), keepdim=True)
        return put_rows(image, rows, as_pixels((part - mean) * factor + mean + added))
