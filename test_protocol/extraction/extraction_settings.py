"""How images are embedded: everything beside the model and the images that changes an embedding."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from facelab.data.base import ImageSet
from facelab.errors import ConfigError, one_of
from facelab.inputs import check_any_photo
from facelab.test_protocol.extraction.forward import AUTOCAST, TORCH, Precision, backend_of, input_spec_of

OnCorrupt = Literal["error", "zero", "skip"]
RESIZE_RULE = "area average where it shrinks, bilinear where it grows"


@dataclass(frozen=True)
class ExtractionSettings:
    """The checked settings of `facelab.test_protocol.extraction.embed.embed`, which explains them.

    Raises:
        ConfigError: If a value is unknown or out of range.
    """

    device: torch.device
    batch_size: int = 64
    flip: bool = False
    precision: Precision = "fp32"
    channels_last: bool = True
    resize: bool = False
    workers: int = 0
    on_corrupt: OnCorrupt = "error"
    any_photo: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.batch_size, int) or isinstance(self.batch_size, bool) or self.batch_size < 1:
            raise ConfigError(f"batch_size is {self.batch_size!r}, but must be a whole number of images, at least 1.")
        if self.workers < 0:
            raise ConfigError(f"workers is {self.workers}, but must be a number of threads, or 0 for one per core.")
        check_any_photo(self.any_photo, self.resize)
        one_of("on_corrupt", self.on_corrupt, ("error", "zero", "skip"))
        if self.precision not in ("fp32", *AUTOCAST):
            raise ConfigError(f"precision is '{self.precision}'. Known: fp32, {', '.join(AUTOCAST)}.")

    def preprocessing(self, network: nn.Module, images: ImageSet) -> str:
        """A hash (hex) of all that happens to an image before and inside the network, but not of the weights."""
        spec = input_spec_of(network)
        parts = {
            "alignment": images.alignment,
            "size": spec.size,
            **({} if spec.face_height is None else {"face_height": spec.face_height}),
            "colour": spec.colour,
            "range": (spec.mean, spec.std),
            "resize": RESIZE_RULE if self.resize else None,
            "precision": self.precision,
            "device": self.device.type,
            "flip": self.flip,
            **self._backend(network),
        }
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]

    def conditions(self, network: nn.Module, images: ImageSet) -> dict[str, Any]:
        """What a report says of them."""
        return {
            "precision": self.precision,
            "device": self.device.type,
            **self._backend(network),
            "input": input_spec_of(network).describe(),
            "resize": self.resize,
            "alignment": images.alignment,
            "preprocessing": self.preprocessing(network, images),
            "on_corrupt": self.on_corrupt,
            "images": len(images),
            "image_set": images.fingerprint(),
        }

    @staticmethod
    def _backend(network: nn.Module) -> dict[str, str]:
        """What computes the embeddings, where that is not PyTorch: older reports and kept embeddings do not name it."""
        backend = backend_of(network)
        return {} if backend == TORCH else {"backend": backend}
