"""PETALface's released files: which adapters one holds, and the network with them, ready to use or to train on."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from facelab.adapter.base import ADAPTERS, AdaptedBackbone
from facelab.adapter.gate import CompatGate
from facelab.adapter.import_names import FACTOR, our_name, petalface_names
from facelab.backbone.base import BACKBONES, Backbone
from facelab.catalogue import Spec, resolve
from facelab.errors import CheckpointError, ConfigError
from facelab.quality.card import ScorerCard
from facelab.weights.card import adapter_card, model_card
from facelab.weights.state_fit import load_weights

AS_PUBLISHED = {"dropout_on": "output", "initial": "trunc_normal", "moving_statistics": True}
PUBLISHED_SCORES = ScorerCard(name="CNNIQA", low=0.0, high=1.0)


def import_petalface(
    spec: Spec,
    state: Mapping[str, Tensor],
    where: str,
    *,
    rank: int | None = None,
    scale: float = 1.0,
    tau: float = 0.5,
) -> tuple[Backbone, dict[str, Any]]:
    """The network of a released file, and its card.

    The file tells what it holds: the plain network (343 tensors), one low-rank update a layer, or two experts with a
    single update on the last projection (433 tensors).

    Args:
        spec: The network that the adapters are in.
        state: Tensors under PETALface's names.
        where: Names the file in messages.
        rank: Rank that the adapters should have; by default whatever they have.
        scale: Factor of the updates (``--lora_scale``), of which a file says nothing; 1 in the released ones.
        tau: Threshold of the published gate ``a = 0.5 + q - tau``; the values behind the released files are unknown.

    Raises:
        CheckpointError: If tensors are missing, unknown or of another shape; the message names them.
        ConfigError: If the adapters have another rank.
    """
    name, options = resolve(BACKBONES, spec)
    network = BACKBONES.build(name, options)
    tensors = petalface_names(state)
    # The base first, because an adapted network keeps the hash of what its base was.
    load_weights(network, {key: value for key, value in tensors.items() if ".low_rank_" not in key}, where)
    card = model_card(name, options, network)
    adapter = _adapter_of(state, where, rank, scale)
    if adapter is None:
        return network, card
    ((adapter_name, adapter_options),) = adapter.items()
    gate = CompatGate(tau) if adapter_name == "DualLoRA" else None
    if gate is not None:
        gate.calibrate([], PUBLISHED_SCORES)
    adapted = AdaptedBackbone(network, ADAPTERS.build(adapter_name, adapter_options), gate)
    load_weights(adapted.network, tensors, where)
    return adapted.eval(), card | adapter_card(adapted, adapter, None if gate is None else {"compat": {"tau": tau}})


def _adapter_of(
    state: Mapping[str, Tensor], where: str, rank: int | None, scale: float
) -> dict[str, dict[str, Any]] | None:
    """The adapter as ``{name: options}``, told from the names and shapes of its factors."""
    found = [(match, state[name].shape[0]) for name in state if (match := FACTOR.fullmatch(name))]
    ranks = {height for match, height in found if match["side"] == "down"}
    dual = {match["layer"] for match, _ in found if match["second"]}
    single = {match["layer"] for match, _ in found} - dual
    if not ranks:
        return None
    if len(ranks) > 1:
        raise CheckpointError(f"the adapters in '{where}' have different ranks: {', '.join(map(str, sorted(ranks)))}.")
    if rank is not None and ranks != {rank}:
        raise ConfigError(f"the adapters in '{where}' have rank {ranks.pop()}, not {rank}; leave --rank out.")
    options: dict[str, Any] = {"rank": ranks.pop(), "scale": scale, **AS_PUBLISHED}
    if not dual:
        return {"LoRA": {**options, "targets": sorted(map(our_name, single))}}
    return {"DualLoRA": {**options, "targets": sorted(map(our_name, dual)), "single": sorted(map(our_name, single))}}
