"""The product of a batch with many classes that is never stored: chunks of it come and go, forward and backward."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import Function, once_differentiable
from torch.nn.functional import normalize

from facelab.head.base import MarginHead, Terms
from facelab.head.candidates import Candidates, Nearest, Product, Visit
from facelab.head.chunked_gradient import BackwardPass, ChunkedGradient, Share
from facelab.head.class_precision import ClassPrecision, add_product_, factor
from facelab.head.class_walk import LEAST_NORM, ChunkLoss, Walk
from facelab.head.compiled_loss import CompiledChunkLoss, can_be_compiled
from facelab.head.reused_memory import ReusedMemory
from facelab.head.same_class import class_first, class_sums

CHUNK = {"cpu": 2**19}
"""Numbers in a chunk of the product: 2 MiB of fp32, which a core's cache holds while several passes go over them."""
CHUNK_ELSEWHERE = 2**25  # on a GPU, where each pass over a chunk must first be launched: 128 MiB
CHUNK_COMPILED = 2**26  # the same where there are few passes, each of which takes as long to be launched


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
        later: Takes up what that gradient is made of instead, and the rows get none.
        compiled: Whether passes over a chunk are compiled, where `can_be_compiled`.
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
        later: ChunkedGradient | None = None,
        compiled: bool = False,
    ) -> None:
        self.features = normalize(features, eps=LEAST_NORM) if normalised else features
        self.candidates = candidates
        self.normalised = normalised
        rows = candidates.rows.flatten(0, -2)  # of all centres
        centres = len(rows) // len(candidates.rows)
        index = candidates.column.unsqueeze(1) * centres + torch.arange(centres, device=rows.device)
        self.skip, self.compiled = skip, compiled
        self.destination = _Destination(memory or ReusedMemory(), later)
        self.own, self.rows = _Own.apply(rows, index, self.destination)  # type: ignore[no-untyped-call]
        if chunk is None:
            chunk = CHUNK.get(features.device.type, CHUNK_COMPILED if compiled else CHUNK_ELSEWHERE)
        size = max(1, chunk // (len(features) * centres))
        if compiled:  # for all chunks but the last, as large as they; each size is compiled for itself
            size = -(-len(candidates.rows) // -(-len(candidates.rows) // size))
        self.walk = Walk(candidates, normalised, centres, precision, size)

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
        batch = factor(self.features.detach(), self.walk.precision)
        with self.walk.factors():
            for number in range(self.walk.count):
                chunk = self.walk.chunk(number, batch)
                visit(chunk.products, chunk.part)

    def over_negatives(self, head: MarginHead, terms: Terms, nearest: Nearest) -> Tensor:
        """See `Product.over_negatives`."""
        compiled = self.compiled and can_be_compiled(head, self.candidates)
        loss = (CompiledChunkLoss if compiled else ChunkLoss)(head, terms)
        walk = replace(self.walk, compiled=compiled)
        inputs = (self.features, self.rows, self.candidates.bias, *loss.with_gradient())
        return _Negatives.apply(  # type: ignore[no-untyped-call,no-any-return]
            walk, loss, nearest, self.skip, self.destination, *inputs
        )


@dataclass
class _Destination:
    """Where the gradient of the rows goes.

    Attributes:
        memory: Where it is written.
        later: Or what takes up its parts.
        share: The part of the backward pass under way, if there is one.
    """

    memory: ReusedMemory
    later: ChunkedGradient | None
    share: Share | None = None


class _Negatives(Function):
    """The reduction of the logits of all negatives, (B,), of features, rows, biases and terms."""

    @staticmethod
    def forward(
        context: Any,
        walk: Walk,
        loss: ChunkLoss,
        nearest: Nearest,
        skip: float,
        destination: _Destination,
        features: Tensor,
        rows: Tensor,
        bias: Tensor | None,
        *shared: Tensor,
    ) -> Tensor:
        total: Tensor | None = None
        numbers: list[Tensor] = []
        batch = factor(features, walk.precision)
        with walk.factors():
            for place in range(walk.count):
                number = loss.number(walk.chunk(place, batch), nearest)
                if skip:
                    numbers.append(number)
                total = number if total is None else loss.reduction.add(total, number)
        assert total is not None, "there is at least one candidate"
        context.walk, context.loss, context.numbers = walk, loss, numbers
        context.skip, context.destination = skip, destination
        # Rows and biases too, which the chunks read: autograd then says so if they changed before the backward pass.
        context.save_for_backward(total, features, rows, bias, *shared)
        return total

    @staticmethod
    @once_differentiable
    def backward(context: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        total, features, rows, bias, *shared = context.saved_tensors
        walk, loss, destination = context.walk, context.loss, context.destination
        needs_features, needs_rows, needs_bias, *_ = context.needs_input_grad[5:]
        skipped: list[bool] = []
        if context.numbers:
            skipped = loss.negligible(torch.stack(context.numbers), total, slope, context.skip)
        # Detached: what is kept for later shall not keep the network's graph.
        back = BackwardPass(walk, loss, total, slope, features.detach(), tuple(one.detach() for one in shared), skipped)
        if needs_rows and destination.later is not None:
            destination.share = destination.later.new_share(back)
            needs_rows = False
        of_features = torch.zeros_like(features) if needs_features else None
        of_rows = destination.memory.empty(rows.shape, rows) if needs_rows else None
        of_bias = torch.empty_like(bias) if needs_bias else None
        for written in (of_rows, of_bias) if any(skipped) else ():  # all that is not skipped is written over
            if written is not None:
                written.zero_()
        of_shared: list[Tensor | None] = [None] * len(shared)
        with walk.factors():
            for number in range(walk.count):
                slopes = back.slopes(number)
                if slopes is None:
                    continue
                of_shared = [_sum(*pair) for pair in zip(of_shared, slopes.of_shared, strict=True)]
                if of_bias is not None and slopes.of_bias is not None:
                    of_bias[slopes.place] = slopes.of_bias
                if of_features is not None:
                    add_product_(of_features, slopes.of_rows, slopes.factor, walk.precision)
                if of_rows is not None:
                    back.of_rows(slopes, of_rows[slopes.place])
                del slopes  # of the size of a chunk, before the next one is made
        walk.buffers.clear()
        return *[None] * 5, of_features, of_rows, of_bias, *of_shared


def _sum(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    if one is None or other is None:
        return other if one is None else one
    return one + other


class _Own(Function):
    """The rows of the samples' own classes, (B, K, D), and all rows as they are, (N, D).

    The gradient of both is one matrix, where indexing would fill another one of all rows: that of all rows, which is
    new and belongs to nobody else, takes up the other. Or none at all, if somebody takes up its parts.
    """

    @staticmethod
    def forward(context: Any, rows: Tensor, index: Tensor, destination: _Destination) -> tuple[Tensor, Tensor]:
        context.set_materialize_grads(False)
        context.save_for_backward(index)
        context.shape, context.destination = rows.shape, destination
        return rows[index], rows.view_as(rows)

    @staticmethod
    @once_differentiable
    def backward(context: Any, of_own: Tensor | None, of_all: Tensor | None) -> tuple[Tensor | None, None, None]:
        destination = context.destination
        if of_own is None:
            return of_all, None, None
        (index,) = context.saved_tensors
        number, values = index.flatten(), of_own.flatten(0, 1)
        # Rows that several samples share are added up here, in a fixed order; GPUs would add in that of their arrival.
        first = class_first(number) == torch.arange(len(number), device=number.device)
        values = class_sums(values, number) * first.unsqueeze(1)
        if destination.later is not None:
            share = destination.share or destination.later.new_share()
            share.own, destination.share = (number, values), None
            return None, None, None
        total = values.new_zeros(context.shape) if of_all is None else of_all
        return total.index_add_(0, number, values), None, None
