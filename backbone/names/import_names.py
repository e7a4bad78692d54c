"""Tensor names of the published checkpoints -> ours, so that their state dicts load strictly."""

from collections.abc import Mapping
from typing import Any, TypeVar

from torch import Tensor

from facelab.backbone.base import BACKBONES, Backbone
from facelab.backbone.iresnet import IResNet
from facelab.backbone.layers.output_layer import FACEXZOO_OUTPUT
from facelab.backbone.swin import Swin
from facelab.backbone.vit import ViT
from facelab.catalogue import Spec, resolve
from facelab.errors import CheckpointError
from facelab.weights.card import model_card
from facelab.weights.state_fit import load_weights

T = TypeVar("T")

INSIGHTFACE_ENDS = {
    "conv1": "stem.0",
    "bn1": "stem.1",
    "prelu": "stem.2",
    "bn2": "output.norm",
    "fc": "output.fc",
    "features": "output.last_norm",
}
INSIGHTFACE_UNIT = {
    "bn1": "norm1",
    "conv1": "conv1",
    "bn2": "norm2",
    "prelu": "act",
    "conv2": "conv2",
    "bn3": "norm3",
    "downsample": "shortcut",
}

VIT_PARTS = {"senet.0.": "gate.squeeze.", "senet.2.": "gate.excite."}
SWIN_PARTS = {"layers.": "stages.", "feature_layer.": "feature."} | {  # PETALface's, then FaceX-Zoo's
    "output_layer.0.": "norm.",
    "output_layer.2.": "feature.0.",
    "output_layer.3.": "feature.1.",
}
COMPUTED = ("relative_position_index", "attn_mask")  # buffers of others that ours computes itself

ADAFACE_UNIT = ("norm1", "conv1", "norm2", "act", "conv2", "norm3")
FACEXZOO_UNIT = ("norm1", "conv1", "act", "conv2", "norm3", "squeeze")
FLAT_SIGN = "input_layer.0.weight"  # of the two forms of IResNet, the one whose units are numbered through
COUNTER = "num_batches_tracked"  # files of old PyTorch lack it, and only training looks at it


def our_names(backbone: Backbone, state: Mapping[str, T], *, keep_unknown: bool = False) -> dict[str, T]:
    """A published state dict under the names of ``backbone``.

    Knows for `IResNet` the names of InsightFace and MagFace (``layer1.0.conv1``) and of FaceX-Zoo and AdaFace
    (``body.0.res_layer.1``), for `ViT` those of InsightFace, PETALface and TransFace, for `Swin` those of PETALface and
    FaceX-Zoo; the other families know their own (`Backbone.published_name`). Values are passed through as they are;
    index and mask buffers are left out.

    Args:
        backbone: The network that the tensors are for.
        state: Values by the names of their project.
        keep_unknown: Leave a name that belongs to none of these as it is, for a list of all that does not fit.

    Raises:
        CheckpointError: If a name belongs to none of these, or two mean the same tensor.
    """
    flat = FLAT_SIGN in state
    result: dict[str, T] = {}
    for name, tensor in state.items():
        try:
            ours = _our_name(backbone, name, flat=flat)
        except (KeyError, ValueError, IndexError) as error:  # the latter two where a number should be
            if not keep_unknown:
                raise CheckpointError(
                    f"the state dict belongs to no known form of {type(backbone).__name__}, which has no part {error}."
                ) from None
            ours = name
        if ours in result:
            raise CheckpointError(f"the state dict has '{ours}' of {type(backbone).__name__} twice, once as '{name}'.")
        if ours is not None:
            result[ours] = tensor
    return result


def unused_names(backbone: Backbone, state: Mapping[str, object]) -> list[str]:
    """Names of published tensors that ``backbone`` has no use for; buffers that it computes apart."""
    used = set(our_names(backbone, {name: name for name in state}, keep_unknown=True).values())
    return [name for name in state if name not in used and not name.endswith(COMPUTED)]


def import_backbone(spec: Spec, state: Mapping[str, Tensor], where: str) -> tuple[Backbone, dict[str, Any]]:
    """A network of the registry or catalogue with published weights, and its card.

    Args:
        spec: The network that the weights are of.
        state: Tensors under the names of their project.
        where: Names the file in messages.

    Raises:
        CheckpointError: If tensors are missing, unknown or of another shape; the message names them.
        ConfigError: If the network is unknown.
    """
    name, options = resolve(BACKBONES, spec)
    backbone = BACKBONES.build(name, options)
    own = backbone.state_dict()
    weights = state if own.keys() == state.keys() else our_names(backbone, state, keep_unknown=True)
    counters = {key: value for key, value in own.items() if key.endswith(COUNTER)}
    load_weights(backbone, {**counters, **weights}, where)
    return backbone, model_card(name, options, backbone)


def _our_name(backbone: Backbone, name: str, *, flat: bool) -> str | None:
    if name.endswith(COMPUTED):
        return None
    parts = name.split(".")
    if isinstance(backbone, IResNet):
        return _flat_name(parts, backbone) if flat else _insightface_name(parts)
    if isinstance(backbone, ViT):
        return _renamed(name, VIT_PARTS)
    if isinstance(backbone, Swin):
        return _renamed(name, SWIN_PARTS)
    return backbone.published_name(name)


def _renamed(name: str, parts: Mapping[str, str]) -> str:
    """The name with another beginning, or as it is."""
    for theirs, ours in parts.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name


def _insightface_name(parts: list[str]) -> str:
    match parts:
        case ["layer1" | "layer2" | "layer3" | "layer4" as stage, index, layer, *tensor]:
            return ".".join(["stages", str(int(stage[-1]) - 1), index, INSIGHTFACE_UNIT[layer], *tensor])
        case [layer, tensor]:
            return f"{INSIGHTFACE_ENDS[layer]}.{tensor}"
    raise KeyError(".".join(parts))


def _flat_name(parts: list[str], backbone: IResNet) -> str:
    layers = ADAFACE_UNIT if backbone.inner_norm else FACEXZOO_UNIT
    names = {"se_block": "squeeze"} | {str(index): layer for index, layer in enumerate(layers)}
    match parts:
        case ["input_layer", index, tensor]:
            return f"stem.{index}.{tensor}"
        case ["output_layer", index, tensor]:
            return f"output.{FACEXZOO_OUTPUT[index]}.{tensor}"
        case ["body", index, "shortcut_layer", *tensor]:
            return ".".join([_unit_place(int(index), backbone), "shortcut", *tensor])
        case ["body", index, "res_layer", layer, *tensor]:
            return ".".join([_unit_place(int(index), backbone), names[layer], *tensor])
    raise KeyError(".".join(parts))


def _unit_place(index: int, backbone: IResNet) -> str:
    """The stage and place of the unit that the flat forms number through."""
    for stage, units in enumerate(backbone.units):
        if index < units:
            return f"stages.{stage}.{index}"
        index -= units
    raise KeyError(f"body with {index + 1} units more")
