"""The card that lies beside weights: which network they are of, and what it takes."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from facelab.version import __version__
from facelab.weights.card_check import CARD_FORMAT

if TYPE_CHECKING:
    from facelab.adapter.base import AdaptedBackbone
    from facelab.backbone.base import Backbone


def model_card(
    name: str, options: Mapping[str, Any], network: "Backbone", plugins: Sequence[str] = ()
) -> dict[str, Any]:
    """The description that a checkpoint keeps of its network.

    Args:
        name: Registered name of the backbone.
        options: Its options as resolved from configuration and catalogue.
        network: The network itself; its input and embedding size win.
        plugins: Modules that must be imported before it can be built.
    """
    kept = {key: value for key, value in options.items() if key not in ("input_spec", "feat_dim", "weights")}
    return {
        "format": CARD_FORMAT,
        "facelab": __version__,
        "backbone": {"name": name, "options": kept},
        "input": {key: value for key, value in asdict(network.input_spec).items() if value is not None},
        "feat_dim": network.feat_dim,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "plugins": list(plugins),
    }


def adapter_card(
    network: "AdaptedBackbone", adapter: Mapping[str, Any], gate: Mapping[str, Any] | None
) -> dict[str, Any]:
    """What a card says of adapters, beside the description of their base.

    Args:
        network: The adapted network.
        adapter: The adapter as ``{name: options}``.
        gate: Its gate likewise, or None.
    """
    scorer = network.quality_scorer
    return {
        "adapter": dict(adapter),
        "gate": None if gate is None else dict(gate),
        "base_hash": network.base_hash,
        "embedding_dim": network.embedding_dim,
        "adapter_parameters": network.count().added,
        "trained_parameters": network.count().trainable,
    } | ({} if scorer is None else {"scorer": {"card": scorer.model_dump()}})
