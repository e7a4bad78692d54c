"""What an owner of class rows hands to the loss: the classes that take part, and the product of a batch with them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn.functional import linear, normalize

T = TypeVar("T")


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
    """

    rows: Tensor
    column: Tensor
    owned: Tensor
    bias: Tensor | None = None
    class_parameters: Mapping[str, Tensor] = field(default_factory=dict)
    weight: Tensor | None = None
    excluded: Tensor | None = None

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
        )

    def split(self, size: int) -> list["Candidates"]:
        """The same in consecutive chunks of at most ``size`` classes, without class parameters."""
        chunks = []
        # split, and no slices: their backward passes would each fill a gradient of all rows with zeros
        for number, rows in enumerate(torch.split(self.rows, size)):
            part = slice(number * size, number * size + len(rows))
            place = self.column - part.start
            chunks.append(
                Candidates(
                    rows,
                    place.clamp(0, len(rows) - 1),
                    self.owned & (place >= 0) & (place < len(rows)),
                    bias=None if self.bias is None else self.bias[part],
                    weight=None if self.weight is None else self.weight[part],
                    excluded=None if self.excluded is None else self.excluded[:, part],
                )
            )
        return chunks


class Product(ABC):
    """The cosines, or inner products, of a batch to the candidates, as the loss asks for them."""

    @abstractmethod
    def target(self) -> Tensor:
        """To each sample's own class, (B,), with gradient; 0 where the class is on another process."""

    @abstractmethod
    def over_chunks(self, function: Callable[[Tensor, Candidates], T]) -> list[T]:
        """Call a function with each chunk of the classes, and list what it gives.

        Args:
            function: Depends on nothing that moves, and may be called again for the backward pass. Takes the product
                with the classes of a chunk, (B, C_chunk), and these classes.
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

    def over_chunks(self, function: Callable[[Tensor, Candidates], T]) -> list[T]:
        """See `Product.over_chunks`."""
        return [function(self.matrix, self.candidates)]


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
