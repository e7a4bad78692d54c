"""PETALface's adapted state dicts into ours: two factors for each expert become one matrix for all."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from facelab.adapter.base import AdaptedBackbone
from facelab.errors import CheckpointError

FACTOR = re.compile(r"(?P<layer>.+)\.trainable_lora_(?P<side>down|up)(?P<second>2?)\.weight")
BASE = {"layers.": "stages.", "feature_layer.": "feature."}
COMPUTED = ("relative_position_index", "attn_mask")


def load_petalface(adapted: AdaptedBackbone, state: Mapping[str, Tensor], where: str) -> None:
    """Fill an adapted Swin or ViT with the tensors of a released PETALface model.

    Args:
        adapted: The backbone with the adapters that the file has.
        state: Tensors under PETALface's names.
        where: Names the file in messages.

    Raises:
        CheckpointError: If tensors are missing, unknown or of another shape; nothing is changed then.
    """
    ours = petalface_names(state)
    own = adapted.network.state_dict()
    missing, unknown = sorted(own.keys() - ours.keys()), sorted(ours.keys() - own.keys())
    shaped = sorted(name for name in own.keys() & ours.keys() if own[name].shape != ours[name].shape)
    found = [
        f"{len(names)} {what} (first: '{names[0]}')"
        for names, what in ((missing, "missing"), (unknown, "unknown"), (shaped, "of another shape"))
        if names
    ]
    if found:
        raise CheckpointError(f"the tensors of '{where}' do not fit the adapted network: {', '.join(found)}.")
    adapted.network.load_state_dict(ours)


def petalface_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A released state dict under our names; index and mask buffers are left out."""
    result: dict[str, Tensor] = {}
    for name, tensor in state.items():
        found = FACTOR.fullmatch(name)
        if name.endswith(COMPUTED) or (found and found["second"]):
            continue
        if found is None:
            result[_base_name(name)] = tensor
            continue
        second = state.get(name.replace(".weight", "2.weight"))
        down = found["side"] == "down"
        both = tensor if second is None else torch.cat((tensor, second), dim=0 if down else 1)
        result[f"{_base_name(found['layer'])}.low_rank_{found['side']}"] = both
    return result


def _base_name(name: str) -> str:
    for theirs, ours in BASE.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name
