"""What an owner of class rows hands to the loss: the classes that take part, and the product of a batch with them."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn.functional import linear, normalize

from facelab.head.base import MarginHead, Terms
from facelab.head.reductions import REDUCTIONS


@dataclass(frozen=True)
class Candidates:
    """The classes that take part in a step on this process, C of them, at least one.

    Attributes:
        rows: Their rows, (C, D), or (C, K, D) if a class has several.
        column: Where each sample's own class stands among them, int64, (B,); any valid place where it is elsewhere.
        owned: Whether it is here, bool, (B,). It must be here on exactly one process.
        bias: Their learned biases, (C,), if the head wants some.
        class_parameters: What the head learns of each of them, (C,) each.
        weight: How many classes each stands for where it is a negative, (C,), so that sums over the negatives that
            take part estimate those over all; None if each stands for itself.
        excluded: Which candidates are no negatives of a sample although they are not its target either, bool, (B, C),
            such as older features of the same person; None if there are none.
        taken: Which of the classes of this process they are, int64, (C,); None if they are all of them.
    """

    rows: Tensor
    column: Tensor
    owned: Tensor
    bias: Tensor | None = None
    class_parameters: Mapping[str, Tensor] = field(default_factory=dict)
    weight: Tensor | None = None
    excluded: Tensor | None = None
    taken: Tensor | None = None

    def at_target(self, values: Tensor) -> Tensor:
        """Of a number for each class, (C,), that of each sample's own class, (B,); 0 where the class is elsewhere."""
        return values[self.column] * self.owned

    def negatives(self) -> Tensor:
        """How many classes each candidate stands for as a negative of each sample, (B, C); 0 if it is none.

        Returns:
            The weights, or bool if each class stands for itself: a quarter of the memory, and to multiply by it is
            the same.
        """
        positive = self.owned.new_zeros((len(self.column), len(self.rows)))
        positive.scatter_(1, self.column.unsqueeze(1), self.owned.unsqueeze(1))
        if self.excluded is not None:
            positive |= self.excluded
        return ~positive if self.weight is None else ~positive * self.weight

    def take(self, taken: Tensor, rows: Tensor, weight: Tensor | None = None) -> "Candidates":
        """Some of them, the targets among them.

        Args:
            taken: Which, int64, ascending, (C_taken,).
            rows: Their rows, however they were read, (C_taken, D) or (C_taken, K, D).
            weight: See `Candidates`, (C_taken,).
        """
        return Candidates(
            rows,
            # A column that was not taken, which is nobody's target here, may be looked for behind the last one.
            torch.searchsorted(taken, self.column).clamp_max(len(taken) - 1),
            self.owned,
            bias=None if self.bias is None else self.bias[taken],
            class_parameters={name: values[taken] for name, values in self.class_parameters.items()},
            weight=weight,
            excluded=None if self.excluded is None else self.excluded[:, taken],
            taken=taken if self.taken is None else self.taken[taken],
        )

    def from_bank(self, bank: Tensor) -> "Candidates":
        """The same classes with the rows of another bank, which has one for each class of this process, (C_own, D)."""
        return replace(self, rows=self.of_taken(bank))

    def of_taken(self, values: Tensor) -> Tensor:
        """Of something for each class of this process, (C_own, ...), that of the candidates, (C, ...)."""
        return values if self.taken is None else values[self.taken]

    def parts(self, size: int) -> "CandidateChunks":
        """The same in consecutive chunks of at most ``size`` classes, without gradients and class parameters."""
        return CandidateChunks(self, size)

    def silence_(self, logits: Tensor) -> Tensor:
        """Overwrite logits, (B, C), where a class is no negative, with the least number: its exponential is 0."""
        # A finite stand-in for minus infinity: where a chunk holds nothing but the target, its gradient is 0, not NaN.
        nothing = torch.finfo(logits.dtype).min
        # Each sample writes one column, so that no shape depends on where targets are; others write what was there.
        kept = torch.where(self.owned, nothing, entry(logits, self.column))
        logits.scatter_(1, self.column.unsqueeze(1), kept.unsqueeze(1))
        return logits if self.excluded is None else logits.masked_fill_(self.excluded, nothing)


class CandidateChunks:
    """Consecutive chunks of candidates.

    Args:
        whole: Their classes together.
        size: Classes in each but the last.
    """

    def __init__(self, whole: Candidates, size: int) -> None:
        self.whole = whole
        self.size = size
        # For all chunks at once: on a GPU each of these operations takes longer to be launched than to be done.
        number = torch.div(whole.column, size, rounding_mode="floor")
        self._number = torch.where(whole.owned, number, -1)
        self._place = whole.column - number * size

    def __len__(self) -> int:
        """Number of chunks."""
        return -(-len(self.whole.rows) // self.size)

    def __getitem__(self, number: int) -> Candidates:
        """One of them, from 0 on."""
        whole, part = self.whole, slice(number * self.size, min((number + 1) * self.size, len(self.whole.rows)))
        small = part.stop - part.start < self.size  # a place that is none of its own would lie behind its end
        return Candidates(
            whole.rows.detach()[part],
            self._place.clamp_max(part.stop - part.start - 1) if small else self._place,
            self._number == number,
            bias=None if whole.bias is None else whole.bias.detach()[part],
            weight=None if whole.weight is None else whole.weight[part],
            excluded=None if whole.excluded is None else whole.excluded[:, part],
        )


Visit = Callable[[Tensor, Candidates], None]
"""Looks at the product with the classes of a chunk, (B, C_chunk), and at these; it must keep neither."""


class Nearest:
    """Largest product of each sample with a class that counts, and that with its own class.

    Both from one matrix: computed in another way, as `Product.target` may be, its last digits differ.

    Attributes:
        seen: In the chunks so far, (2, B).
    """

    seen: Tensor

    def __call__(self, cosine: Tensor, part: Candidates) -> None:
        """Look at a chunk, as a `Visit`."""
        own = torch.where(part.owned, entry(cosine, part.column), -math.inf)
        if part.excluded is not None:
            cosine = cosine.masked_fill(part.excluded, -math.inf)
        self.add(torch.stack([cosine.amax(dim=1), own]))

    def add(self, here: Tensor) -> None:
        """Add what somebody else has seen in a chunk, (2, B)."""
        self.seen = torch.maximum(self.seen, here) if hasattr(self, "seen") else here


class Product(ABC):
    """The cosines, or inner products, of a batch to the candidates, as the loss asks for them."""

    @abstractmethod
    def target(self) -> Tensor:
        """To each sample's own class, (B,), with gradient; 0 where the class is on another process."""

    @abstractmethod
    def over_chunks(self, visit: Visit) -> None:
        """Show each chunk of the classes, one after the other, without gradient."""

    @abstractmethod
    def over_negatives(self, head: MarginHead, terms: Terms, nearest: Nearest) -> Tensor:
        """What the head's objective wants of the logits of all negatives that are here, in one walk over the chunks.

        Args:
            head: Its `negatives` and `scale` make the logits; it may be asked again for the backward pass.
            terms: Of this step. What of it has a gradient gets one.
            nearest: Is shown each chunk once.

        Returns:
            The head's reduction of the logits (`REDUCTIONS`), (B,), with gradient.
        """


class WholeProduct(Product):
    """All logits at once: the one chunk is everything.

    Args:
        matrix: (B, C).
        candidates: What its columns are.
    """

    def __init__(self, matrix: Tensor, candidates: Candidates) -> None:
        self.matrix = matrix
        self.candidates = candidates

    def target(self) -> Tensor:
        """See `Product.target`."""
        return entry(self.matrix, self.candidates.column) * self.candidates.owned

    @torch.no_grad()
    def over_chunks(self, visit: Visit) -> None:
        """See `Product.over_chunks`."""
        visit(self.matrix, self.candidates)

    def over_negatives(self, head: MarginHead, terms: Terms, nearest: Nearest) -> Tensor:
        """See `Product.over_negatives`."""
        self.over_chunks(nearest)
        logits = self.candidates.silence_(head.scale * head.negatives(self.matrix, terms))
        return REDUCTIONS[head.objective].of(logits, self.candidates.weight)


def cosines(features: Tensor, rows: Tensor) -> Tensor:
    """Cosine of each feature, (B, D), to each class, (B, C); of rows (C, K, D) that to the nearest of the class."""
    cosine = linear(normalize(features), normalize(rows, dim=-1).flatten(0, -2))
    # .max and not .amax: of equal cosines one centre gets the gradient
    return cosine if rows.ndim == 2 else cosine.view(-1, *rows.shape[:2]).max(dim=2).values


def entry(matrix: Tensor, column: Tensor) -> Tensor:
    """The entry in ``column`` (B,) of each row of a (B, C) matrix, (B,).

    For the backward pass indexing keeps the places alone, where gather would keep the matrix.
    """
    return matrix[torch.arange(len(column), device=column.device), column]
