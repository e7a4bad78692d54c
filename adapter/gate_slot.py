"""Where adapted layers find the gate values of the forward pass that they are part of."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor

from facelab.errors import DataError

# A context variable, not an attribute of the network: forward passes in several threads do not see each other's values,
# two passes may precede one backward pass, and recomputing restores it (facelab.backbone.recompute).
_GATE: ContextVar[Tensor | None] = ContextVar("gate of the running forward pass", default=None)


@contextmanager
def gate_of_forward(gate: Tensor | None) -> Iterator[None]:
    """Context of one forward pass: its layers find ``gate``, one value for each image, (B,)."""
    token = _GATE.set(gate)
    try:
        yield
    finally:
        _GATE.reset(token)


_SILENT: ContextVar[bool] = ContextVar("updates are left out", default=False)


@contextmanager
def without_updates() -> Iterator[None]:
    """Context of a forward pass of the base alone: adapted layers leave their updates out."""
    token = _SILENT.set(True)
    try:
        yield
    finally:
        _SILENT.reset(token)


def updates_are_left_out() -> bool:
    """Whether the running forward pass is that of the base."""
    return _SILENT.get()


def gate_of_rows(rows: int) -> Tensor:
    """The gate value of each row of a layer's input, (rows,).

    Windows and tokens of one image lie together, so that row i belongs to image ``i // (rows // B)``.

    Raises:
        DataError: If the layer runs outside a forward pass with a gate, or its rows are not those of whole images.
    """
    gate = _GATE.get()
    if gate is None:
        raise DataError(
            "a quality-weighted layer ran without a gate: call the adapted backbone itself, with the quality of each "
            "image, not a part of it."
        )
    images = gate.shape[0]
    if rows == images:
        return gate
    if rows % images:
        raise DataError(f"a quality-weighted layer got {rows} rows for {images} images; they must divide evenly.")
    return gate.unsqueeze(1).expand(images, rows // images).reshape(rows)
