"""A walk over the classes in chunks, each with its product with the batch, and what it brings to loss and gradients.

`FusedProduct` walks forward and back; `ChunkedGradient` walks once more where the gradient of the rows is wanted later.
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from facelab.head.base import MarginHead, Terms
from facelab.head.candidates import CandidateChunks, Candidates, Nearest
from facelab.head.class_precision import ClassPrecision, factor, factors_in, multiply
from facelab.head.reductions import REDUCTIONS, Reduction

LEAST_NORM = 1e-12  # as in torch.nn.functional.normalize, so that a row of zeros has a finite gradient


@dataclass(frozen=True)
class Chunk:
    """Some classes with the batch.

    Attributes:
        part: The classes.
        place: Where their rows stand among all of all centres.
        rows: These rows, (C_chunk K, D).
        factor: The same for products.
        inverse: One over their norms, (C_chunk K,), or None for inner products.
        all_products: With each of the rows, (B, C_chunk K).
        products: With the nearest row of each class, (B, C_chunk).
        centre: Which one that is, int64, (B, C_chunk), or None if each class has one.
    """

    part: Candidates
    place: slice
    rows: Tensor
    factor: Tensor
    inverse: Tensor | None
    all_products: Tensor
    products: Tensor
    centre: Tensor | None

    def slopes_of_all(self, slopes: Tensor) -> Tensor:
        """Derivatives by ``all_products`` from those by ``products``, (B, C_chunk) -> (B, C_chunk K)."""
        if self.centre is None:
            return slopes
        spread = torch.zeros_like(self.all_products).view(*slopes.shape, -1)
        return spread.scatter_(2, self.centre.unsqueeze(2), slopes.unsqueeze(2)).flatten(1)


@dataclass
class Walk:
    """How the chunks are made, and what the first walk over them leaves for the next.

    Attributes:
        candidates: The classes.
        normalised: Whether cosines are wanted.
        centres: K, rows of each class.
        precision: Format of the factors.
        size: Classes in a chunk.
        compiled: Whether products stay those with rows as they are, for a compiled loss to divide by the norms.
        inverse: One over the norm of each row, (C K,), as far as a walk has come.
        known: How far that is.
        parts: The classes of all chunks, once somebody has walked.
        buffers: Memory that each chunk overwrites, by what for and for which batch size.
    """

    candidates: Candidates
    normalised: bool
    centres: int
    precision: ClassPrecision
    size: int
    compiled: bool = False
    inverse: Tensor | None = None
    known: int = 0
    parts: CandidateChunks | None = None
    buffers: dict[tuple[str, int], Tensor] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """Number of chunks."""
        return len(self._parts())

    def chunk(self, number: int, batch: Tensor) -> Chunk:
        """One of the chunks; it overwrites the last one. The first walk must take them in their order.

        Args:
            number: Which.
            batch: The features as a factor of products, normalised if cosines are wanted, (B, D).
        """
        part = self._parts()[number]
        rows = part.rows.flatten(0, -2)
        start = number * self.size * self.centres
        inverse = self._inverse(start, rows) if self.normalised else None
        row_factor = factor(rows, self.precision)
        # Classes first in memory: so all three matrix products of a chunk find their factors as they lie fastest.
        products = multiply(row_factor, batch.T, self.precision, out=self.buffer("products", len(rows), batch))
        if inverse is not None and not self.compiled:
            products.mul_(inverse.unsqueeze(1))
        if part.bias is not None:
            products.add_(part.bias.unsqueeze(1))
        nearest, centre = self._nearest(products.T)
        place = slice(start, start + len(rows))
        return Chunk(part, place, rows, row_factor, inverse, products.T, nearest, centre)

    def factors(self) -> AbstractContextManager[None]:
        """Context for everything that multiplies matrices of a walk."""
        return factors_in(self.precision, self.candidates.rows.device)

    def buffer(self, name: str, classes: int, batch: Tensor) -> Tensor | None:
        """Memory for a number of each sample and class, (classes, B); each chunk that asks for it overwrites it.

        On a CPU alone, where the system would have to clear what is taken anew for each chunk; else None.
        """
        if batch.device.type != "cpu":
            return None
        key = (name, len(batch))
        if key not in self.buffers:
            size = min(self.size, len(self.candidates.rows)) * self.centres
            self.buffers[key] = self.candidates.rows.new_empty((size, len(batch)), requires_grad=False)
        return self.buffers[key][:classes]

    def _parts(self) -> CandidateChunks:
        if self.parts is None or self.parts.size != self.size:
            self.parts = self.candidates.parts(self.size)
        return self.parts

    def _nearest(self, products: Tensor) -> tuple[Tensor, Tensor | None]:
        if self.centres == 1:
            return products, None
        nearest = products.view(len(products), -1, self.centres).max(dim=2)
        return nearest.values, nearest.indices

    def _inverse(self, start: int, rows: Tensor) -> Tensor:
        if self.inverse is None:
            # In one piece: many that stay, between chunks that go, would keep their memory from being used again.
            self.inverse = rows.new_empty(len(self.candidates.rows) * self.centres)
        here = self.inverse[start : start + len(rows)]
        # Here and not for all rows before the walk: the matrix product then reads them from the cache.
        if start == self.known:
            torch.linalg.vector_norm(rows, dim=1, out=here).clamp_min_(LEAST_NORM).reciprocal_()
            self.known += len(rows)
        return here


@dataclass(frozen=True)
class Slopes:
    """Derivatives of the loss by what a chunk was made of, and what of the chunk they are multiplied with.

    Attributes:
        place: As in `Chunk`.
        rows: As in `Chunk`.
        factor: As in `Chunk`.
        of_rows: By the products of unit features with rows as they are, (B, C_chunk K), as a factor of products.
        radial: How much of each row is too much in the gradient that these give it, (C_chunk K,), or None. A unit
            vector does not change along itself.
        of_bias: By the biases, (C_chunk,), or None.
        of_shared: By the terms with gradient.
    """

    place: slice
    rows: Tensor
    factor: Tensor
    of_rows: Tensor
    radial: Tensor | None
    of_bias: Tensor | None
    of_shared: list[Tensor | None]


@dataclass(frozen=True)
class ChunkLoss:
    """What chunks bring to the loss, and derivatives of the loss by what they were made of.

    Attributes:
        head: Its `negatives` and `scale` make the logits.
        terms: Of the step; of what has a gradient, the values come with each call.
    """

    head: MarginHead
    terms: Terms

    @property
    def reduction(self) -> Reduction:
        """That of the head's objective."""
        return REDUCTIONS[self.head.objective]

    def with_gradient(self) -> list[Tensor]:
        """The tensors of the terms that have a gradient."""
        found: list[Tensor] = []

        def find(tensor: Tensor) -> Tensor:
            found.append(tensor)
            return tensor

        self.terms.mapped(find)
        return found

    def number(self, chunk: Chunk, nearest: Nearest) -> Tensor:
        """The reduction over a chunk, (B,); nobody may look at its products afterwards.

        Args:
            chunk: The chunk.
            nearest: Is shown the products.
        """
        nearest(chunk.products, chunk.part)
        values = self.head.negatives(chunk.products, self.terms)
        # Most heads leave negatives as they are.
        logits = values.mul_(self.head.scale) if values is chunk.products else self.head.scale * values
        return self.reduction.of_(chunk.part.silence_(logits), chunk.part.weight)

    def negligible(self, numbers: Tensor, total: Tensor, slope: Tensor, share: float) -> list[bool]:
        """Which chunks have derivatives that are together at most this share of the largest of a sample.

        Args:
            numbers: The reduction over each chunk, (chunks, B).
            total: That over all, (B,).
            slope: Derivative of the loss by it, (B,).
            share: Of the gradient that may be left out.
        """
        most = self.reduction.most_slope(numbers, total).mul_(slope.abs()).amax(dim=1)
        small: list[bool] = (most <= share * slope.abs().amax() / len(numbers)).tolist()
        return small

    def slopes(
        self,
        chunk: Chunk,
        total: Tensor,
        slope: Tensor,
        shared: tuple[Tensor, ...],
        buffer: Tensor | None,
        precision: ClassPrecision,
    ) -> Slopes:
        """Derivatives of the loss; the products of the chunk are overwritten.

        Args:
            chunk: The chunk.
            total: The reduction over all chunks, (B,).
            slope: Derivative of the loss by it, (B,).
            shared: Values of `with_gradient`.
            buffer: Memory that may be written to, (C_chunk, B), or None for new memory.
            precision: Of the factors.
        """
        of_products, of_shared = self._of_products(chunk, total, slope, shared, buffer)
        slopes = chunk.slopes_of_all(of_products)
        of_bias = None if chunk.part.bias is None else slopes.sum(dim=0)
        radial = None if chunk.inverse is None else _divide_by_norms_(slopes, chunk, chunk.inverse)
        return Slopes(chunk.place, chunk.rows, chunk.factor, factor(slopes, precision), radial, of_bias, of_shared)

    def _of_products(
        self, chunk: Chunk, total: Tensor, slope: Tensor, shared: tuple[Tensor, ...], buffer: Tensor | None
    ) -> tuple[Tensor, list[Tensor | None]]:
        """Derivatives by the products of a chunk, (B, C_chunk), and by the terms with gradient."""
        leaves = [tensor.detach().requires_grad_() for tensor in (chunk.products, *shared)]
        given = iter(leaves[1:])
        with torch.enable_grad():
            values = self.head.negatives(leaves[0], self.terms.mapped(lambda tensor: next(given)))
        logits = torch.mul(values.detach(), self.head.scale, out=None if buffer is None else buffer.T)
        chunk.part.silence_(logits)
        slopes = self.reduction.slope_(logits, chunk.part.weight, total).mul_((self.head.scale * slope).unsqueeze(1))
        if values is leaves[0]:
            return slopes, [None] * len(shared)
        of_products, *of_shared = torch.autograd.grad(
            values, leaves, slopes, allow_unused=True, materialize_grads=False
        )
        return of_products, list(of_shared)


def _divide_by_norms_(slopes: Tensor, chunk: Chunk, inverse: Tensor) -> Tensor:
    """Turn derivatives by cosines into those by products of unit features with rows, (B, C_chunk K).

    Returns:
        ``radial`` of `Slopes`.
    """
    along = chunk.all_products.mul_(slopes).sum(dim=0).mul_(inverse).mul_(inverse)
    slopes.mul_(inverse)
    # A row that is as good as zero was divided by a constant.
    return along.masked_fill_(inverse >= 1.0 / LEAST_NORM, 0.0)
