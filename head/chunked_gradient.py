"""A gradient of class rows that is never there as a whole: whoever moves the rows asks for it chunk by chunk."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from facelab.head.class_precision import factor, multiply
from facelab.head.class_walk import ChunkLoss, Slopes, Walk


@dataclass
class BackwardPass:
    """What a walk back over the chunks needs, as the backward pass of a loss finds it.

    Attributes:
        walk: Makes the chunks.
        loss: Gives the derivatives of each.
        total: The reduction over all chunks, (B,).
        slope: Derivative of the loss by it, (B,).
        features: (B, D), of norm 1 if cosines are wanted.
        shared: Values of ``loss.with_gradient()``.
        skipped: Which chunks are left out; none if it is empty.
        batch: The features as a factor of products.
    """

    walk: Walk
    loss: ChunkLoss
    total: Tensor
    slope: Tensor
    features: Tensor
    shared: tuple[Tensor, ...]
    skipped: list[bool]
    batch: Tensor = field(init=False)

    def __post_init__(self) -> None:
        """The factor is the same for all chunks."""
        self.batch = factor(self.features, self.walk.precision)

    def slopes(self, number: int) -> Slopes | None:
        """Derivatives by what a chunk was made of, or None if it is skipped; they overwrite those of the last one."""
        if self.skipped and self.skipped[number]:
            return None
        chunk = self.walk.chunk(number, self.batch)
        buffer = self.walk.buffer("logits", chunk.products.shape[1], self.batch)
        return self.loss.slopes(chunk, self.total, self.slope, self.shared, buffer, self.walk.precision)

    def of_rows(self, slopes: Slopes, out: Tensor | None = None) -> Tensor:
        """The gradient of a chunk's rows, (C_chunk K, D), written to ``out`` if that is given."""
        return without_radial_(self.product(slopes, out), slopes.rows, slopes.radial)

    def product(self, slopes: Slopes, out: Tensor | None = None) -> Tensor:
        """The same with what `Slopes.radial` says is too much."""
        return multiply(slopes.of_rows.T, self.batch, self.walk.precision, out=out)


def without_radial_(gradient: Tensor, rows: Tensor, radial: Tensor | None) -> Tensor:
    """A gradient of rows, (N, D), without what `Slopes.radial` says is too much in it."""
    return gradient if radial is None else gradient.addcmul_(rows, radial.unsqueeze(1), value=-1.0)


@dataclass
class Share:
    """What the backward pass of one product adds to the gradient.

    Attributes:
        back: What comes by the negatives, or None.
        own: Rows, int64, (N,), and what they get as samples' own classes, (N, D), 0 but for the first of equal ones; or
            None.
    """

    back: BackwardPass | None = None
    own: tuple[Tensor, Tensor] | None = None


class ChunkedGradient:
    """What the gradient of rows is made of, until it is asked for: nothing of the size of the rows.

    The rows must stay as they are meanwhile.
    """

    def __init__(self) -> None:
        self._shares: list[Share] = []

    def new_share(self, back: BackwardPass | None = None) -> Share:
        """That of a backward pass, to be filled in further."""
        self._shares.append(Share(back))
        return self._shares[-1]

    def clear(self) -> None:
        """As if nothing had been differentiated."""
        self._shares.clear()

    @torch.no_grad()
    def chunks(
        self, rows: Tensor, beside: Tensor | None = None, unscale: Tensor | None = None
    ) -> Iterator[tuple[slice, Tensor]]:
        """Which rows, and their gradient, which the next chunk overwrites; nothing if nothing was differentiated.

        Args:
            rows: All of them, (N, D).
            beside: What is added to their gradient, (N, D), or None.
            unscale: () factor of all but that, or None for 1.
        """
        shares = [_scaled(share, unscale) for share in self._shares]
        if not shares:
            yield from [] if beside is None else [(slice(0, len(rows)), beside)]
            return
        size = _in_step([share.back for share in shares if share.back is not None], len(rows))
        own = [None if share.own is None else _OwnRows(*share.own, size) for share in shares]
        first, later = (_memory(rows, size) for _ in range(2))
        for number, start in enumerate(range(0, len(rows), size)):
            place = slice(start, min(start + size, len(rows)))
            total = _gradient(shares[0], own[0], number, rows[place], first)
            for share, its_own in zip(shares[1:], own[1:], strict=True):
                total.add_(_gradient(share, its_own, number, rows[place], later))
            yield place, total if beside is None else total.add_(beside[place])

    @torch.no_grad()
    def chunks_with_radial(self, unscale: Tensor | None = None) -> Iterator[tuple[slice, Tensor, Tensor | None]]:
        """As `chunks` of one pass, for somebody who takes the radial part out in the same breath as he moves the rows.

        Args:
            unscale: As there.

        Returns:
            Which rows, their gradient with what is too much in it, and `Slopes.radial`.
        """
        (share,) = (_scaled(share, unscale) for share in self._shares)
        back = share.back
        assert back is not None
        own = None if share.own is None else _OwnRows(*share.own, back.walk.size)
        for number in range(back.walk.count):
            with back.walk.factors():
                slopes = back.slopes(number)
                assert slopes is not None
                place, radial, gradient = slopes.place, slopes.radial, back.product(slopes)
            del slopes  # of the size of a chunk, before the next one is made
            if own is not None:
                own.add_(gradient, number)
            yield place, gradient, radial
            del gradient

    @property
    def is_of_one_pass(self) -> bool:
        """Whether `chunks_with_radial` can be asked for."""
        backs = [share.back for share in self._shares]
        return len(backs) == 1 and backs[0] is not None and not backs[0].skipped


def _memory(rows: Tensor, size: int) -> Tensor | None:
    """For a chunk of the gradient, on a CPU alone, as `Walk.buffer`."""
    return rows.new_empty((min(size, len(rows)), rows.shape[1])) if rows.device.type == "cpu" else None


def _scaled(share: Share, unscale: Tensor | None) -> Share:
    """The same times a factor: the gradient is linear in what the loss passes back."""
    if unscale is None:
        return share
    back, own = share.back, share.own
    return Share(
        None if back is None else replace(back, slope=back.slope * unscale),
        None if own is None else (own[0], own[1] * unscale),
    )


def _in_step(backs: list[BackwardPass], rows: int) -> int:
    """Bring all passes to chunks of the same rows, in the same memory; how many rows these are."""
    if not backs:
        return rows
    classes = min(back.walk.size for back in backs)
    buffers = backs[0].walk.buffers
    for back in backs:
        back.walk.buffers = buffers
        if back.walk.size != classes:  # of a smaller batch there are larger chunks
            back.walk.size = classes
            back.skipped = []  # which were other chunks; what may be left out need not be
    return classes * backs[0].walk.centres


def _gradient(share: Share, own: "_OwnRows | None", number: int, rows: Tensor, memory: Tensor | None) -> Tensor:
    """What a pass adds to the gradient of the rows of a chunk, (N, D)."""
    gradient, out = None, None if memory is None else memory[: len(rows)]
    if share.back is not None:
        with share.back.walk.factors():
            slopes = share.back.slopes(number)
            if slopes is not None:
                gradient = share.back.of_rows(slopes, out)
    if gradient is None:
        gradient = torch.zeros_like(rows) if out is None else out.zero_()
    return gradient if own is None else own.add_(gradient, number)


class _OwnRows:
    """What rows get as samples' own classes, to be added chunk by chunk.

    Args:
        number: As `Share.own`.
        values: Likewise.
        size: Rows in a chunk.
    """

    def __init__(self, number: Tensor, values: Tensor, size: int) -> None:
        self._values = values
        self._chunk = torch.div(number, size, rounding_mode="floor")
        self._place = number - self._chunk * size

    def add_(self, gradient: Tensor, number: int) -> Tensor:
        """Add to the gradient of a chunk's rows, (N, D)."""
        place, inside = self._place, self._chunk == number
        if gradient.device.type == "cpu":
            return gradient.index_add_(0, place[inside], self._values[inside])
        # Without a shape that depends on where they are, for which the device would be waited for.
        return gradient.index_add_(0, place.clamp_max(len(gradient) - 1), self._values * inside.unsqueeze(1))
