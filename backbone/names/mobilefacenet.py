"""Tensor names of FaceX-Zoo's and InsightFace's MobileFaceNets -> ours."""

BLOCKS = {
    "conv1": "stages.0.0",
    "conv2_dw": "stages.0.1",
    "conv_23": "stages.1.0",
    "conv_34": "stages.2.0",
    "conv_45": "stages.3.0",
    "conv_6_dw": "global_depthwise",
}
REPEATS = {"conv_3": 1, "conv_4": 2, "conv_5": 3}  # stages, after their first bottleneck
PARTS = {"conv": "expand", "conv_dw": "depthwise", "project": "project"}
LAYERS = {"conv": "conv", "bn": "norm", "prelu": "act"}
ENDS = {"linear": "fc", "bn": "last_norm"}

INSIGHTFACE_PARTS = ("expand", "depthwise", "project")
INSIGHTFACE_LAYERS = ("conv", "norm", "act")
INSIGHTFACE_ENDS = {"2": "fc", "3": "last_norm"}


def mobilefacenet_name(name: str, last_unit: int) -> str:
    """Our name of a published tensor.

    Args:
        name: Theirs; InsightFace's begin with ``layers``, ``conv_sep`` or ``features``.
        last_unit: Place of the last stage's 1x1 convolution.

    Raises:
        KeyError: If it is of neither project.
    """
    parts = name.split(".")
    if parts[0] in ("layers", "conv_sep", "features"):
        return _insightface_name([part for part in parts if part != "layers"], last_unit)
    return _facexzoo_name(parts, last_unit)


def _facexzoo_name(parts: list[str], last_unit: int) -> str:
    blocks = BLOCKS | {"conv_6_sep": f"stages.3.{last_unit}"}
    match parts:
        case [stage, "model", index, part, layer, tensor]:
            return f"stages.{REPEATS[stage]}.{int(index) + 1}.{PARTS[part]}.{LAYERS[layer]}.{tensor}"
        case [block, part, layer, tensor]:
            return f"{blocks[block]}.{PARTS[part]}.{LAYERS[layer]}.{tensor}"
        case [unit, layer, tensor]:
            return f"{blocks[unit]}.{LAYERS[layer]}.{tensor}"
        case [layer, tensor]:
            return f"{ENDS[layer]}.{tensor}"
    raise KeyError(".".join(parts))


def _insightface_name(parts: list[str], last_unit: int) -> str:
    """Blocks are numbered through: 0 and 1 are the stem, then each stage has its first bottleneck and the others."""
    match parts:
        case ["conv_sep", layer, tensor]:
            return f"stages.3.{last_unit}.{INSIGHTFACE_LAYERS[int(layer)]}.{tensor}"
        case ["features", "0", layer, tensor]:
            return f"global_depthwise.{INSIGHTFACE_LAYERS[int(layer)]}.{tensor}"
        case ["features", end, tensor]:
            return f"{INSIGHTFACE_ENDS[end]}.{tensor}"
        case [("0" | "1") as unit, layer, tensor]:
            return f"stages.0.{unit}.{INSIGHTFACE_LAYERS[int(layer)]}.{tensor}"
        case [block, part, layer, tensor]:
            place = f"stages.{int(block) // 2}.0"
        case [block, unit, part, layer, tensor]:
            place = f"stages.{int(block) // 2}.{int(unit) + 1}"
        case _:
            raise KeyError(".".join(parts))
    return f"{place}.{INSIGHTFACE_PARTS[int(part)]}.{INSIGHTFACE_LAYERS[int(layer)]}.{tensor}"
