"""Tensor names of FaceX-Zoo's HRNet -> ours."""

from facelab.backbone.layers.output_layer import FACEXZOO_LINEAR_OUTPUT

ENDS = {"conv1": "stem.0.conv", "bn1": "stem.0.norm", "conv2": "stem.1.conv", "bn2": "stem.1.norm"}
BLOCK = {
    f"{theirs}{number}": f"layers.{number - 1}.{ours}"
    for number in (1, 2, 3)
    for theirs, ours in (("conv", "conv"), ("bn", "norm"))
}
LAYERS = {"0": "conv", "1": "norm"}


def hrnet_name(name: str) -> str:
    """Our name of a published tensor.

    Raises:
        KeyError: If no HRNet has such a tensor.
    """
    match name.split("."):
        case [end, tensor]:
            return f"{ENDS[end]}.{tensor}"
        case ["layer1", place, *rest]:
            return f"first.{place}.{_block_name(rest)}"
        case ["transition1", "0", layer, tensor]:
            return f"finest.{LAYERS[layer]}.{tensor}"
        case [("transition1" | "transition2" | "transition3") as step, _, "0", layer, tensor]:
            return f"coarser.{int(step[-1]) - 1}.{LAYERS[layer]}.{tensor}"
        case [("stage2" | "stage3" | "stage4") as stage, module, *rest]:
            return f"stages.{int(stage[-1]) - 2}.{module}.{_module_name(rest)}"
        case ["incre_modules", branch, "0", *rest]:
            return f"head.widen.{branch}.{_block_name(rest)}"
        case ["downsamp_modules", step, layer, tensor]:
            return f"head.halve.{step}.{layer}.{tensor}"
        case ["final_layer", layer, tensor]:
            return f"head.last.{layer}.{tensor}"
        case ["output_layer", layer, tensor]:
            return f"output.{FACEXZOO_LINEAR_OUTPUT[layer]}.{tensor}"
    raise KeyError(name)


def _module_name(parts: list[str]) -> str:
    match parts:
        case ["branches", branch, place, *rest]:
            return f"branches.{branch}.{place}.{_block_name(rest)}"
        case ["fuse_layers", target, source, step, layer, tensor]:
            return f"fuse.{target}.{source}.layers.{step}.{LAYERS[layer]}.{tensor}"
        case ["fuse_layers", target, source, layer, tensor]:
            return f"fuse.{target}.{source}.layers.0.{LAYERS[layer]}.{tensor}"
    raise KeyError(".".join(parts))


def _block_name(parts: list[str]) -> str:
    match parts:
        case ["downsample", layer, tensor]:
            return f"shortcut.{LAYERS[layer]}.{tensor}"
        case [layer, tensor]:
            return f"{BLOCK[layer]}.{tensor}"
    raise KeyError(".".join(parts))
