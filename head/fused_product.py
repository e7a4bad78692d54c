"""The product of a batch with many classes that is never stored: chunks of it come and go, forward and backward."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import Function, once_differentiable
from torch.nn.functional import normalize

from facelab.head.base import MarginHead, Terms
from facelab.head.candidates import Candidates, Product, Visit
from facelab.head.class_precision import ClassPrecision, add_product_, factor, factors_in, multiply
from facelab.head.reductions import REDUCTIONS, Reduction
from facelab.head.reused_memory import ReusedMemory
from facelab.head.same_class import class_first, class_sums

CHUNK = {"cpu": 2**19}
"""Numbers in a chunk of the product: 2 MiB of fp32, which a core's cache holds while several passes go over them."""
CHUNK_ELSEWHERE = 2**25  # on a GPU, where each pass over a chunk must first be launched: 128 MiB

LEAST_NORM = 1e-12  # as in torch.nn.functional.normalize, so that a row of zeros has a finite gradient


class FusedProduct(Product):
    """Cosines or inner products in chunks, which are computed again in the backward pass.

    Nothing that is kept or allocated has a number for each pair of sample and class, nor a second copy of the rows:
    their gradient is written chunk by chunk where it stays, and their products are divided by their norms instead of
    normalised rows being made.

    Args:
        features: (B, D), with gradient.
        candidates: The classes.
        normalised: Whether to give cosines.
        precision: Format of the factors; products are added in fp32.
        chunk: Numbers in a chunk, (B, classes times rows of each); None for what suits the device.
        skip: Share of the gradient, 0 to 1, that may be left out to spare the backward pass chunks that hardly matter.
            Let u be the largest derivative of the loss by a sample's reduction (`REDUCTIONS`; for a softmax at most
            1 / B). Then the derivatives by a sample's logits that are left out are together at most ``skip * u``, so
            for a head that leaves negatives as they are the gradient of a normalised feature is wrong by at most
            ``skip * u * scale``. Rows of skipped chunks get 0. Each backward pass then waits for the device once.
        memory: Where the gradient of the rows is written.
    """

    def __init__(
        self,
        features: Tensor,
        candidates: Candidates,
        normalised: bool,
        precision: ClassPrecision = "fp32",
        chunk: int | None = None,
        skip: float = 0.0,
        memory: ReusedMemory | None = None,
    ) -> None:
        self.features = normalize(features, eps=LEAST_NORM) if normalised else features
        self.candidates = candidates
        self.normalised = normalised
        rows = candidates.rows.flatten(0, -2)  # of all centres
        centres = len(rows) // len(candidates.rows)
        index = candidates.column.unsqueeze(1) * centres + torch.arange(centres, device=rows.device)
        self.own, self.rows = _Own.apply(rows, index)  # type: ignore[no-untyped-call]
        if chunk is None:
            chunk = CHUNK.get(features.device.type, CHUNK_ELSEWHERE)
        size = max(1, chunk // (len(features) * centres))
        self.walk = _Walk(candidates, normalised, centres, precision, size, skip, memory or ReusedMemory())

    def target(self) -> Tensor:
        """See `Product.target`."""
        rows = normalize(self.own, dim=-1, eps=LEAST_NORM) if self.normalised else self.own
        # Not in fewer digits than fp32: these are B products alone, and each decides on the loss of its sample.
        # .max and not .amax: of equal cosines one centre gets the gradient
        products = (rows * self.features.unsqueeze(1)).sum(dim=2).max(dim=1).values
        bias = self.candidates.bias
        return (products if bias is None else products + bias[self.candidates.column]) * self.candidates.owned

    @torch.no_grad()
    def over_chunks(self, visit: Visit) -> None:
        """See `Product.over_chunks`."""
        with self.walk.factors():
            for chunk in self.walk.chunks(self.features.detach()):
                visit(chunk.products, chunk.part)

    def over_negatives(self, head: MarginHead, terms: Terms, visit: Visit) -> Tensor:
        """See `Product.over_negatives`."""
        logits = _Logits(head, terms)
        inputs = (self.features, self.rows, self.candidates.bias, *logits.with_gradient())
        return _Negatives.apply(self.walk, logits, visit, *inputs)  # type: ignore[no-untyped-call,no-any-return]


@dataclass(frozen=True)
class _Chunk:
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
class _Walk:
    """How the chunks are made, and what the first walk over them leaves for the next.

    Attributes:
        candidates: The classes.
        normalised: See `FusedProduct`.
        centres: K, rows of each class.
        precision: See `FusedProduct`.
        size: Classes in a chunk.
        skip: See `FusedProduct`.
        memory: See `FusedProduct`.
        inverse: One over the norm of each row, (C K,), as far as a walk has come.
        known: How far that is.
        buffers: Memory that each chunk overwrites.
    """

    candidates: Candidates
    normalised: bool
    centres: int
    precision: ClassPrecision
    size: int
    skip: float
    memory: ReusedMemory
    inverse: Tensor | None = None
    known: int = 0
    buffers: dict[str, Tensor] = field(default_factory=dict)

    def chunks(self, features: Tensor, skipped: Sequence[bool] = ()) -> Iterator[_Chunk]:
        """The chunks, one after the other, for features that are normalised if that is wanted, (B, D).

        Args:
            features: (B, D).
            skipped: Which chunks are left out; none if it is empty.
        """
        batch = factor(features, self.precision).T
        for number, part in enumerate(self.candidates.parts(self.size)):
            if skipped and skipped[number]:
                continue
            rows = part.rows.flatten(0, -2)
            start = number * self.size * self.centres
            inverse = self._inverse(start, rows) if self.normalised else None
            row_factor = factor(rows, self.precision)
            # Classes first in memory: so all three matrix products of a chunk find their factors as they lie fastest.
            products = multiply(row_factor, batch, self.precision, out=self.buffer("products", len(rows), features))
            if inverse is not None:
                products.mul_(inverse.unsqueeze(1))
            if part.bias is not None:
                products.add_(part.bias.unsqueeze(1))
            nearest, centre = self._nearest(products.T)
            place = slice(start, start + len(rows))
            yield _Chunk(part, place, rows, row_factor, inverse, products.T, nearest, centre)

    def factors(self) -> AbstractContextManager[None]:
        """Context for everything that multiplies matrices of a walk."""
        return factors_in(self.precision, self.candidates.rows.device)

    def buffer(self, name: str, classes: int, features: Tensor) -> Tensor:
        """Memory for a number of each sample and class, (classes, B); each chunk that asks for it overwrites it.

        Were it freed and taken anew, the system would have to clear it for each chunk.
        """
        if name not in self.buffers:
            self.buffers[name] = features.new_empty(
                min(self.size, len(self.candidates.rows)) * self.centres, len(features)
            )
        return self.buffers[name][:classes]

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
class _Logits:
    """Makes logits of negatives of products, and derivatives by what they were made of.

    Attributes:
        head: Whose logits.
        terms: Of the step; of what has a gradient, `_Negatives` holds the values.
    """

    head: MarginHead
    terms: Terms

    @property
    def reduction(self) -> Reduction:
        return REDUCTIONS[self.head.objective]

    def with_gradient(self) -> list[Tensor]:
        """The tensors of the terms that have a gradient."""
        found: list[Tensor] = []

        def find(tensor: Tensor) -> Tensor:
            found.append(tensor)
            return tensor

        self.terms.mapped(find)
        return found

    def number(self, chunk: _Chunk) -> Tensor:
        """The reduction over a chunk, (B,); nobody may look at its products afterwards."""
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
            share: See `FusedProduct`.
        """
        most = self.reduction.most_slope(numbers, total).mul_(slope.abs()).amax(dim=1)
        small: list[bool] = (most <= share * slope.abs().amax() / len(numbers)).tolist()
        return small

    def slopes(
        self, chunk: _Chunk, total: Tensor, slope: Tensor, shared: tuple[Tensor, ...], buffer: Tensor
    ) -> tuple[Tensor, list[Tensor | None]]:
        """Derivatives of the loss by the products of a chunk, (B, C_chunk), and by the terms with gradient.

        Args:
            chunk: The chunk.
            total: The reduction over all chunks, (B,).
            slope: Derivative of the loss by it, (B,).
            shared: Values of `with_gradient`.
            buffer: Memory that may be written to, (C_chunk, B).
        """
        leaves = [tensor.detach().requires_grad_() for tensor in (chunk.products, *shared)]
        given = iter(leaves[1:])
        with torch.enable_grad():
            values = self.head.negatives(leaves[0], self.terms.mapped(lambda tensor: next(given)))
        logits = torch.mul(values.detach(), self.head.scale, out=buffer.T)
        chunk.part.silence_(logits)
        slopes = self.reduction.slope_(logits, chunk.part.weight, total).mul_((self.head.scale * slope).unsqueeze(1))
        if values is leaves[0]:
            return slopes, [None] * len(shared)
        of_products, *of_shared = torch.autograd.grad(
            values, leaves, slopes, allow_unused=True, materialize_grads=False
        )
        return of_products, list(of_shared)


class _Negatives(Function):
    """The reduction of the logits of all negatives, (B,), of features, rows, biases and terms."""

    @staticmethod
    def forward(
        context: Any,
        walk: _Walk,
        logits: _Logits,
        visit: Visit,
        features: Tensor,
        rows: Tensor,
        bias: Tensor | None,
        *shared: Tensor,
    ) -> Tensor:
        total: Tensor | None = None
        numbers: list[Tensor] = []
        with walk.factors():
            for chunk in walk.chunks(features):
                visit(chunk.products, chunk.part)
                number = logits.number(chunk)
                if walk.skip:
                    numbers.append(number)
                total = number if total is None else logits.reduction.add(total, number)
        assert total is not None, "there is at least one candidate"
        context.walk, context.logits, context.numbers = walk, logits, numbers
        # Rows and biases too, which the chunks read: autograd then says so if they changed before the backward pass.
        context.save_for_backward(total, features, rows, bias, *shared)
        return total

    @staticmethod
    @once_differentiable
    def backward(context: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        total, features, rows, bias, *shared = context.saved_tensors
        walk, logits = context.walk, context.logits
        _, _, _, needs_features, needs_rows, needs_bias, *_ = context.needs_input_grad
        of_features = torch.zeros_like(features) if needs_features else None
        skipped: list[bool] = []
        if context.numbers:
            skipped = logits.negligible(torch.stack(context.numbers), total, slope, walk.skip)
        of_rows = walk.memory.empty(rows.shape, rows) if needs_rows else None
        of_bias = torch.empty_like(bias) if needs_bias else None
        for written in (of_rows, of_bias) if any(skipped) else ():  # all that is not skipped is written over
            if written is not None:
                written.zero_()
        of_shared: list[Tensor | None] = [None] * len(shared)
        batch = factor(features, walk.precision)
        with walk.factors():
            for chunk in walk.chunks(features, skipped):
                buffer = walk.buffer("logits", chunk.products.shape[1], features)
                of_products, of_terms = logits.slopes(chunk, total, slope, tuple(shared), buffer)
                slopes = chunk.slopes_of_all(of_products)
                of_shared = [_sum(*pair) for pair in zip(of_shared, of_terms, strict=True)]
                if of_bias is not None:
                    of_bias[chunk.place] = slopes.sum(dim=0)
                radial = None if chunk.inverse is None else _divide_by_norms_(slopes, chunk, chunk.inverse)
                slopes = factor(slopes, walk.precision)
                if of_features is not None:
                    add_product_(of_features, slopes, chunk.factor, walk.precision)
                if of_rows is not None:
                    written = multiply(slopes.T, batch, walk.precision, out=of_rows[chunk.place])
                    if radial is not None:
                        # A unit vector does not change along itself.
                        written.addcmul_(chunk.rows, radial.unsqueeze(1), value=-1.0)
        return None, None, None, of_features, of_rows, of_bias, *of_shared


def _divide_by_norms_(slopes: Tensor, chunk: _Chunk, inverse: Tensor) -> Tensor:
    """Turn derivatives by cosines into those by products of unit features with rows, (B, C_chunk K).

    The products of the chunk are overwritten.

    Returns:
        How much of each row is too much in the gradient that the latter give it, (C_chunk K,).
    """
    along = chunk.all_products.mul_(slopes).sum(dim=0).mul_(inverse).mul_(inverse)
    slopes.mul_(inverse)
    # A row that is as good as zero was divided by a constant.
    return along.masked_fill_(inverse >= 1.0 / LEAST_NORM, 0.0)


def _sum(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    if one is None or other is None:
        return other if one is None else one
    return one + other


class _Own(Function):
    """The rows of the samples' own classes, (B, K, D), and all rows as they are, (N, D).

    The gradient of both is one matrix, where indexing would fill another one of all rows: that of all rows, which is
    new and belongs to nobody else, takes up the other.
    """

    @staticmethod
    def forward(context: Any, rows: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        context.set_materialize_grads(False)
        context.save_for_backward(index)
        context.shape = rows.shape
        return rows[index], rows.view_as(rows)

    @staticmethod
    @once_differentiable
    def backward(context: Any, of_own: Tensor | None, of_all: Tensor | None) -> tuple[Tensor | None, None]:
        if of_own is None:
            return of_all, None
        (index,) = context.saved_tensors
        number, values = index.flatten(), of_own.flatten(0, 1)
        # Rows that several samples share are added up here, in a fixed order; GPUs would add in that of their arrival.
        first = class_first(number) == torch.arange(len(number), device=number.device)
        values = class_sums(values, number) * first.unsqueeze(1)
        total = values.new_zeros(context.shape) if of_all is None else of_all
        return total.index_add_(0, number, values), None
