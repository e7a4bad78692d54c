"""Tensor names of the published checkpoints -> ours, so that their state dicts load strictly."""

import re
from collections.abc import Mapping
from typing import TypeVar

from facelab.backbone.base import Backbone
from facelab.backbone.iresnet import IResNet
from facelab.backbone.mobilefacenet import MobileFaceNet
from facelab.errors import CheckpointError

T = TypeVar("T")

MOBILEFACENET_STAGES = {
    "conv1": "stages.0.0",
    "conv2_dw": "stages.0.1",
    "conv_23": "stages.1.0",
    "conv_34": "stages.2.0",
    "conv_45": "stages.3.0",
    "conv_6_dw": "global_depthwise",
    "linear": "fc",
    "bn": "last_norm",
}
MOBILEFACENET_REPEATS = {"conv_3": 1, "conv_4": 2, "conv_5": 3}
MOBILEFACENET_PARTS = {"conv": "expand", "conv_dw": "depthwise", "project": "project"}
UNIT_TENSORS = {"bn": "norm", "prelu": "act"}

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
FLAT_OUTPUT = {"0": "norm", "3": "fc", "4": "last_norm"}
FLAT_UNIT = {
    True: ("norm1", "conv1", "norm2", "act", "conv2", "norm3"),  # AdaFace, with the inner norm
    False: ("norm1", "conv1", "act", "conv2", "norm3", "squeeze"),  # FaceX-Zoo
}


def our_names(backbone: Backbone, state: Mapping[str, T]) -> dict[str, T]:
    """A published state dict under the names of ``backbone``.

    Knows FaceX-Zoo's MobileFaceNet, and for `IResNet` the names of InsightFace and MagFace (``layer1.0.conv1``) and of
    FaceX-Zoo and AdaFace (``body.0.res_layer.1``). Values are passed through as they are.

    Raises:
        CheckpointError: If a name belongs to none of these.
    """
    try:
        if isinstance(backbone, MobileFaceNet):
            return {_mobilefacenet_name(name): value for name, value in state.items()}
        if isinstance(backbone, IResNet):
            flat = any(name.startswith("body.") for name in state)
            return {
                _flat_name(name, backbone) if flat else _insightface_name(name): value for name, value in state.items()
            }
    except KeyError as error:
        raise CheckpointError(
            f"a tensor of the state dict belongs to no known form of {type(backbone).__name__}: no part is called {error}."
        ) from None
    raise CheckpointError(f"no published tensor names are known for {type(backbone).__name__}.")


def _mobilefacenet_name(name: str) -> str:
    head, rest = name.split(".", 1)
    repeated = re.fullmatch(r"model\.(\d+)\.(.*)", rest)
    if repeated:
        start, part, tensor = f"stages.{MOBILEFACENET_REPEATS[head]}.{int(repeated[1]) + 1}", *repeated[2].split(".", 1)
        return f"{start}.{MOBILEFACENET_PARTS[part]}.{_unit_tensor(tensor)}"
    if head == "conv_6_sep":
        return f"stages.3.3.{_unit_tensor(rest)}"
    start = MOBILEFACENET_STAGES[head]
    if rest.count(".") == 2:
        part, tensor = rest.split(".", 1)
        return f"{start}.{MOBILEFACENET_PARTS[part]}.{_unit_tensor(tensor)}"
    return f"{start}.{_unit_tensor(rest)}"


def _unit_tensor(name: str) -> str:
    layer, _, tensor = name.rpartition(".")
    return f"{UNIT_TENSORS.get(layer, layer)}.{tensor}" if layer else tensor


def _insightface_name(name: str) -> str:
    unit = re.fullmatch(r"layer(\d)\.(\d+)\.(\w+)\.(.+)", name)
    if unit:
        return f"stages.{int(unit[1]) - 1}.{unit[2]}.{INSIGHTFACE_UNIT[unit[3]]}.{unit[4]}"
    layer, tensor = name.split(".", 1)
    return f"{INSIGHTFACE_ENDS[layer]}.{tensor}"


def _flat_name(name: str, backbone: IResNet) -> str:
    part, index, rest = name.split(".", 2)
    if part == "input_layer":
        return f"stem.{index}.{rest}"
    if part == "output_layer":
        return f"output.{FLAT_OUTPUT[index]}.{rest}"
    if part != "body":
        raise KeyError(part)
    branch, _, tensor = rest.partition(".")
    if branch == "shortcut_layer":
        return f"{_unit_place(int(index), backbone)}.shortcut.{tensor}"
    layer, _, tensor = tensor.partition(".")
    return f"{_unit_place(int(index), backbone)}.{_flat_layer(layer, backbone)}.{tensor}"


def _flat_layer(layer: str, backbone: IResNet) -> str:
    layers = FLAT_UNIT[backbone.inner_norm]
    if layer == "se_block":
        return "squeeze"
    if not layer.isdigit() or int(layer) >= len(layers):
        raise KeyError(layer)
    return layers[int(layer)]


def _unit_place(index: int, backbone: IResNet) -> str:
    """The stage and place of the unit that the flat forms number through."""
    for stage, units in enumerate(backbone.units):
        if index < units:
            return f"stages.{stage}.{index}"
        index -= units
    raise KeyError(f"unit {index} past the last")
