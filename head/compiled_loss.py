"""What chunks of classes bring to loss and gradients, in as few passes over them as a GPU's compiler finds.

Written plainly, without memory that is used again: `torch.compile` makes a kernel or two of each function.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from facelab.compiler import require_compiler
from facelab.errors import ConfigError
from facelab.head.base import MarginHead
from facelab.head.candidates import Candidates, Nearest
from facelab.head.class_precision import ClassPrecision, factor
from facelab.head.class_walk import LEAST_NORM, Chunk, ChunkLoss, Slopes
from facelab.head.reductions import Reduction


def check_class_compile(device: torch.device) -> None:
    """Refuse to compile where nothing is gained or a part is missing.

    Raises:
        ConfigError: If the device is no GPU, or Triton or a C compiler is missing.
    """
    if device.type != "cuda":
        raise ConfigError(
            f"training.class_compile is for GPUs, but the class rows are on the {device.type.upper()}, whose cache "
            "holds a chunk of classes as it is; set training.class_compile=false."
        )
    require_compiler("training.class_compile", device, "training.class_compile=false")


def can_be_compiled(head: MarginHead, candidates: Candidates) -> bool:
    """Whether a head leaves negatives as they are, and candidates have one row each and nothing beside."""
    plain = type(head).negatives is MarginHead.negatives
    return plain and candidates.rows.ndim == 2 and candidates.bias is None and candidates.excluded is None


@dataclass(frozen=True)
class CompiledChunkLoss(ChunkLoss):
    """`ChunkLoss` for what `can_be_compiled`, of products with rows as they are."""

    def number(self, chunk: Chunk, nearest: Nearest) -> Tensor:
        """See `ChunkLoss.number`."""
        number: Tensor
        number, seen = compiled(_number)(*self._given(chunk))
        nearest.add(seen)
        return number

    def slopes(
        self,
        chunk: Chunk,
        total: Tensor,
        slope: Tensor,
        shared: tuple[Tensor, ...],
        buffer: Tensor | None,
        precision: ClassPrecision,
    ) -> Slopes:
        """See `ChunkLoss.slopes`."""
        # In the format of the factors at once: the compiler does not store the other one.
        like = factor(total[:0], precision)
        slopes, radial = compiled(_slopes)(*self._given(chunk), total, slope, like)
        return Slopes(chunk.place, chunk.rows, chunk.factor, slopes.T, radial, None, [None] * len(shared))

    def _given(self, chunk: Chunk) -> tuple[Any, ...]:
        part = chunk.part
        products = chunk.products.T
        return products, chunk.inverse, part.column, part.owned, part.weight, self.head.scale, self.reduction


@cache
def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, compiled when it is first called; the last chunk, of another size, has it compiled once more."""
    made: Callable[..., Any] = torch.compile(function, fullgraph=True)
    return made


def _logits(
    products: Tensor, inverse: Tensor | None, column: Tensor, owned: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Cosines, (C, B), which of them are with the sample's own class, and logits of the others."""
    cosine = products if inverse is None else products * inverse.unsqueeze(1)
    own = (torch.arange(len(products), device=products.device).unsqueeze(1) == column) & owned
    return cosine, own, torch.where(own, torch.finfo(cosine.dtype).min, scale * cosine)


def _number(
    products: Tensor,
    inverse: Tensor | None,
    column: Tensor,
    owned: Tensor,
    weight: Tensor | None,
    scale: float,
    reduction: Reduction,
) -> tuple[Tensor, Tensor]:
    """The reduction, (B,), and the largest product with any class and with the own one, (2, B)."""
    cosine, own, logits = _logits(products, inverse, column, owned, scale)
    largest = cosine.amax(dim=0), torch.where(own, cosine, -torch.inf).amax(dim=0)
    return reduction.of(logits.T, weight), torch.stack(largest)


def _slopes(
    products: Tensor,
    inverse: Tensor | None,
    column: Tensor,
    owned: Tensor,
    weight: Tensor | None,
    scale: float,
    reduction: Reduction,
    total: Tensor,
    slope: Tensor,
    like: Tensor,
) -> tuple[Tensor, Tensor | None]:
    """Derivatives by products, (C, B) in the format of ``like``, and ``radial`` of `Slopes`."""
    cosine, _, logits = _logits(products, inverse, column, owned, scale)
    slopes = reduction.slope_(logits.T, weight, total).T * (scale * slope)
    if inverse is None:
        return slopes.to(like.dtype), None
    along = (cosine * slopes).sum(dim=1) * inverse * inverse
    radial = torch.where(inverse >= 1.0 / LEAST_NORM, 0.0, along)
    return (slopes * inverse.unsqueeze(1)).to(like.dtype), radial
