"""PETALface's adapted state dicts into ours: two factors for each expert become one matrix for all."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from facelab.adapter.base import AdaptedBackbone
from facelab.weights.state_fit import load_weights

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
    load_weights(adapted.network, petalface_names(state), where)


def petalface_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A released state dict under the names of an adapted `Swin` or `ViT`; index and mask buffers are left out."""
    result: dict[str, Tensor] = {}
    for name, tensor in state.items():
        found = FACTOR.fullmatch(name)
        if name.endswith(COMPUTED) or (found and found["second"]):
            continue
        if found is None:
            result[our_name(name)] = tensor
            continue
        second = state.get(name.replace(".weight", "2.weight"))
        down = found["side"] == "down"
        # D of one expert below that of the other, U beside it: U D of these is U1 D1 + U2 D2.
        both = tensor if second is None else torch.cat((tensor, second), dim=0 if down else 1)
        result[f"{our_name(found['layer'])}.low_rank_{found['side']}"] = both
    return result


def our_name(name: str) -> str:
    """The name of a layer or tensor of a released model in ours."""
    for theirs, ours in BASE.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name
