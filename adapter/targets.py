"""Which layers of a network an adapter changes."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Literal

from torch import nn

from facelab.errors import ConfigError

Kind = Literal["linear", "conv", "dense_conv"]
# Exactly these classes: a subclass, such as the output layer of nn.MultiheadAttention, may be used by its weight alone,
# and an update beside it would never run.
TYPES: dict[Kind, type[nn.Module]] = {"linear": nn.Linear, "conv": nn.Conv2d, "dense_conv": nn.Conv2d}
SHOWN = 12
LONGEST = 200  # characters of a pattern; files of strangers name some, and the time to compile one grows faster than it


def adaptable(network: nn.Module, kinds: Iterable[Kind] = ("linear", "conv")) -> dict[str, nn.Module]:
    """Every layer that could be adapted, by its name in the network."""
    wanted = tuple(kinds)
    return {name: layer for name, layer in network.named_modules() if any(_is(kind, layer) for kind in wanted)}


def _is(kind: Kind, layer: nn.Module) -> bool:
    grouped = isinstance(layer, nn.Conv2d) and layer.groups > 1
    return type(layer) is TYPES[kind] and not (grouped and kind == "dense_conv")


def choose(network: nn.Module, patterns: Sequence[str], kinds: Sequence[Kind]) -> dict[str, nn.Module]:
    """The layers whose names match one of the patterns, in the order of the network.

    Args:
        network: Where to look.
        patterns: Names with ``*`` for any text, for example ``*.qkv``; ``*`` is every layer.
        kinds: Kinds of layers to consider.

    Raises:
        ConfigError: If a pattern matches nothing; the message lists what could match.
    """
    candidates = adaptable(network, kinds)
    check_length(patterns)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in candidates):
            raise ConfigError(_nothing(pattern, kinds, list(candidates)))
    return {
        name: layer for name, layer in candidates.items() if any(fnmatchcase(name, pattern) for pattern in patterns)
    }


def check_length(patterns: Sequence[str]) -> None:
    """Refuse patterns that would take long to match.

    Raises:
        ConfigError: If one has more than 200 characters.
    """
    longest = max(patterns, key=len, default="")
    if len(longest) > LONGEST:
        raise ConfigError(
            f"a pattern of the adapter has {len(longest)} characters, but at most {LONGEST} are matched: "
            f"'{longest[:SHOWN]}…'."
        )


def _nothing(pattern: str, kinds: Sequence[Kind], names: list[str]) -> str:
    layers = " and ".join(kinds)
    if not names:
        return f"the adapter's target '{pattern}' matches nothing: the network has no {layers} layer."
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return (
        f"the adapter's target '{pattern}' matches none of the {len(names)} {layers} layers. "
        f"Could match: {', '.join(names[:SHOWN])}{more}."
    )


def replace(network: nn.Module, name: str, layer: nn.Module) -> None:
    """Put a layer in the place of another one."""
    parent, _, last = name.rpartition(".")
    setattr(network.get_submodule(parent), last, layer)
