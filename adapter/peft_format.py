"""Plain LoRA in the file format of Hugging Face PEFT: ``adapter_model.safetensors`` and ``adapter_config.json``."""

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors.torch import save
from torch import Tensor

from facelab.adapter.base import AdaptedBackbone
from facelab.adapter.low_rank import LowRankLayer
from facelab.errors import CheckpointError, ConfigError
from facelab.outside.json import read_json
from facelab.weights.model_folder import PEFT_FILES
from facelab.weights.tensor_files import read_safetensors
from facelab.weights.whole_file import write_whole

PREFIX = "base_model.model."
CONFIGURATION, TENSORS = PEFT_FILES
SIDES = {".lora_A.weight": "low_rank_down", ".lora_B.weight": "low_rank_up"}


class _Configuration(BaseModel):
    """What `save_peft` writes; any other key of PEFT's must be absent, or off."""

    model_config = ConfigDict(strict=True)

    peft_type: str = Field(pattern="^LORA$")
    base_model_name_or_path: str
    r: int = Field(ge=1)
    lora_alpha: float = Field(gt=0, allow_inf_nan=False)
    lora_dropout: float = Field(ge=0, lt=1)
    target_modules: list[str] = Field(min_length=1)


PLAIN: dict[str, Any] = {"bias": "none", "task_type": None, "inference_mode": True}  # what else `save_peft` writes


def save_peft(folder: Path, adapted: AdaptedBackbone) -> None:
    """Write single low-rank updates so that ``peft.PeftModel.from_pretrained(backbone, folder)`` loads them.

    PEFT scales an update by ``lora_alpha / r``, so ``lora_alpha`` is written as scale times rank.

    Args:
        folder: Where both files go.
        adapted: A backbone with `LoRA`; tensors of its base must not have moved.

    Raises:
        CheckpointError: If the base changed, so that the updates alone cannot bring the network back.
        ConfigError: If there is nothing but single low-rank updates of one rank and scale to write, or PEFT would
            compute one of them in another way.
        DataError: If a file cannot be written.
    """
    layers = adapted.low_rank_layers()
    updates = {f"network.{name}.{side}" for name in layers for side in SIDES.values()}
    if not layers or adapted.own_state().keys() != updates or any(one.experts != "single" for one in layers.values()):
        raise ConfigError("PEFT's format holds plain LoRA alone; this backbone has other adapters, or none.")
    if len({(layer.rank, layer.scale) for layer in layers.values()}) > 1:
        raise ConfigError("PEFT's format as written here has one rank and scale, but the layers differ in them.")
    for name, layer in layers.items():
        _refuse_other_convolution(name, layer)
    adapted.require_unmoved_base()
    first = next(iter(layers.values()))
    configuration = {
        "peft_type": "LORA",
        "base_model_name_or_path": adapted.base_hash,
        "r": first.rank,
        "lora_alpha": first.scale * first.rank,
        "lora_dropout": first.dropout,
        "target_modules": sorted(layers),
        "fan_in_fan_out": False,
        **PLAIN,
    }
    tensors = {}
    for name, layer in layers.items():
        up = layer.low_rank_up
        # PEFT has the U of a convolution as one of 1x1.
        matrix = up if layer.weight.ndim == 2 else up[:, :, None, None]
        tensors[f"{PREFIX}{name}.lora_A.weight"] = layer.low_rank_down.detach().cpu().contiguous()
        tensors[f"{PREFIX}{name}.lora_B.weight"] = matrix.detach().cpu().contiguous()
    write_whole(folder / TENSORS, save(tensors, {"format": "pt"}))
    write_whole(folder / CONFIGURATION, json.dumps(configuration, indent=2) + "\n")


def _refuse_other_convolution(name: str, layer: LowRankLayer) -> None:
    """PEFT gives D neither groups nor dilation, and U groups where the layer has some: another update than ours."""
    place = getattr(layer, "geometry", {})
    for what, plain in (("groups", 1), ("dilation", (1, 1))):
        if place.get(what, plain) != plain:
            raise ConfigError(
                f"PEFT computes an update of a convolution with {what} {place[what]} in another way, and '{name}' is "
                "one; leave it out of the adapter's targets, or export without --peft."
            )


def read_peft(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor], str]:
    """What `save_peft` wrote: the adapter as ``{name: options}``, its tensors by our names, and the hash of the base.

    Raises:
        CheckpointError: If a file is missing or damaged, or the folder holds what `save_peft` does not write.
    """
    path = folder / CONFIGURATION
    try:
        given = read_json(path, "an adapter's description", not_finite=True, error=CheckpointError)
        stored = _Configuration.model_validate(given)
    except ValidationError:
        raise CheckpointError(f"'{path}' does not describe plain LoRA as `export-adapter --peft` writes it.") from None
    if more := [key for key, value in given.items() if value != PLAIN.get(key) and _asks_for_more(key, value)]:
        raise CheckpointError(f"'{path}' asks for '{more[0]}', which is more than plain LoRA.")
    tensors: dict[str, Tensor] = {}
    for name, tensor in read_safetensors(folder / TENSORS).items():
        layer, side = name.removeprefix(PREFIX), name[-len(".lora_A.weight") :]
        if side not in SIDES or not name.startswith(PREFIX):
            raise CheckpointError(f"'{folder / TENSORS}' holds '{name}', which is no update of plain LoRA.")
        flat = tensor.flatten(1) if side == ".lora_B.weight" and tensor.ndim == 4 else tensor
        tensors[f"network.{layer.removesuffix(side)}.{SIDES[side]}"] = flat
    four = any(tensor.ndim == 4 for tensor in tensors.values())
    options = {
        "rank": stored.r,
        "scale": stored.lora_alpha / stored.r,
        "dropout": stored.lora_dropout,
        "targets": stored.target_modules,
        "kinds": ["linear", "conv"] if four else ["linear"],
    }
    return {"LoRA": options}, tensors, stored.base_model_name_or_path


def _asks_for_more(key: str, value: object) -> bool:
    """Whether a key of PEFT's configuration changes what plain LoRA computes; what is off or only informs does not."""
    informs = ("peft_version", "auto_mapping", "revision", "init_lora_weights")
    return key not in _Configuration.model_fields and key not in informs and bool(value)
