"""Whether tensors fit a network, said by name where they do not."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from facelab.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor, nn

SHOWN = 6
OTHER_CLASSIFIER = "take classifier and head with their options back, or begin anew"


def load_weights(network: "nn.Module", weights: "Mapping[str, Tensor]", where: str) -> None:
    """Fill a network, strictly.

    Raises:
        CheckpointError: If tensors are missing, unknown, of another shape, or whole numbers in place of real ones (a
            quantised network); the message names them, and nothing is changed.
    """
    require_fit(network.state_dict(), weights, where)
    network.load_state_dict(dict(weights))


def require_fit(
    own: Mapping[str, "Tensor"],
    weights: Mapping[str, "Tensor"],
    where: str,
    *,
    of: str = "network",
    remedy: str = "",
) -> None:
    """Refuse tensors that are not those of a network, by name, shape and kind.

    Args:
        own: The tensors of the network.
        weights: What should take their place.
        where: Names the file in the message.
        of: What the message calls the network.
        remedy: How the message ends, if there is something to do.

    Raises:
        CheckpointError: As of `load_weights`.
    """
    found = [
        named("missing", own.keys() - weights.keys()),
        named("unknown", weights.keys() - own.keys()),
        named("of another shape", _shapes(own, weights), quote=""),
        named("of another kind", _kinds(own, weights), quote=""),
    ]
    if any(found):
        ending = f"; {remedy}." if remedy else "."
        raise CheckpointError(f"the weights in '{where}' do not fit the {of}: {', '.join(filter(None, found))}{ending}")


def _shapes(own: "Mapping[str, Tensor]", weights: "Mapping[str, Tensor]") -> list[str]:
    """What has another shape than ours, for example ``'fc.bias' 10 instead of 512``."""
    return [
        f"'{key}' {_shape(weights[key])} instead of {_shape(own[key])}"
        for key in own.keys() & weights.keys()
        if own[key].shape != weights[key].shape
    ]


def _kinds(own: "Mapping[str, Tensor]", weights: "Mapping[str, Tensor]") -> list[str]:
    """What holds other numbers than ours, for example ``'fc.bias' int8 instead of float32``; precisions may differ."""
    return [
        f"'{key}' {_type(weights[key])} instead of {_type(own[key])}"
        for key in own.keys() & weights.keys()
        if own[key].is_floating_point() and not weights[key].is_floating_point()
    ]


def _type(tensor: "Tensor") -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _shape(tensor: "Tensor") -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"


def named(what: str, names: Sequence[str] | set[str], *, quote: str = "'") -> str:
    """For example ``2 missing ('fc.bias', 'fc.weight')``; an empty string without names."""
    if not names:
        return ""
    listed = ", ".join(f"{quote}{name}{quote}" for name in sorted(names)[:SHOWN])
    return f"{len(names)} {what} ({listed}{' …' if len(names) > SHOWN else ''})"
