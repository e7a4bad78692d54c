"""Plain LoRA in the file format of Hugging Face PEFT: ``adapter_model.safetensors`` and ``adapter_config.json``."""

import json
from pathlib import Path

from safetensors.torch import save

from facelab.adapter.base import AdaptedBackbone
from facelab.errors import ConfigError
from facelab.whole_file import write_whole

PREFIX = "base_model.model."


def save_peft(folder: Path, adapted: AdaptedBackbone) -> None:
    """Write single low-rank updates so that ``peft.PeftModel.from_pretrained(backbone, folder)`` loads them.

    PEFT scales an update by ``lora_alpha / r``, so ``lora_alpha`` is written as scale times rank.

    Args:
        folder: Where both files go.
        adapted: A backbone with `LoRA`.

    Raises:
        ConfigError: If there is nothing but single low-rank updates of one rank and scale to write.
        DataError: If a file cannot be written.
    """
    layers = adapted.low_rank_layers()
    if not layers or any(layer.experts != "single" for layer in layers.values()):
        raise ConfigError("PEFT's format holds plain LoRA alone; this backbone has other adapters, or none.")
    if len({(layer.rank, layer.scale) for layer in layers.values()}) > 1:
        raise ConfigError("PEFT's format as written here has one rank and scale, but the layers differ in them.")
    first = next(iter(layers.values()))
    configuration = {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": adapted.base_hash,
        "r": first.rank,
        "lora_alpha": first.scale * first.rank,
        "lora_dropout": first.dropout,
        "target_modules": sorted(layers),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }
    tensors = {}
    for name, layer in layers.items():
        up = layer.low_rank_up
        matrix = up if layer.weight.ndim == 2 else up[:, :, None, None]
        tensors[f"{PREFIX}{name}.lora_A.weight"] = layer.low_rank_down.detach().cpu().contiguous()
        tensors[f"{PREFIX}{name}.lora_B.weight"] = matrix.detach().cpu().contiguous()
    write_whole(folder / "adapter_model.safetensors", save(tensors, {"format": "pt"}))
    write_whole(folder / "adapter_config.json", json.dumps(configuration, indent=2) + "\n")
