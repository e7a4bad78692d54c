"""The number format that a run chooses by itself, and the line that says how it computes."""

import torch
from torch import nn

from facelab.backbone.base import Backbone
from facelab.engine.kernels import cudnn_tries
from facelab.engine.precision import AmpBackend, Precision
from facelab.run.settings import RunConfig


def faster_precision(network: nn.Module, device: torch.device) -> Precision:
    """The faster one of the formats that a network can be trained in on a device.

    On H100 and H200, networks with BatchNorm over maps are a quarter faster in fp16 than in bf16, for which cuDNN has
    no BatchNorm, and transformers are as fast in bf16, which needs no loss scale (docs/benchmarks.md). Other GPUs are
    taken to be alike; those before Ampere have no bf16. A processor computes in bf16 where it multiplies it.
    """
    if device.type != "cuda":
        return "bf16" if _multiplies_bf16() else "fp32"
    if any(isinstance(part, nn.BatchNorm2d) for part in network.modules()):
        return "fp16"
    return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp16"


def resolve_precision(config: RunConfig, network: Backbone, device: torch.device) -> RunConfig:
    """The settings with a format in the place of ``auto``; checkpoints and the run's folder keep that."""
    training = config.training
    if training.precision != "auto":
        return config
    chosen = _of_apex(training.amp) or faster_precision(network, device)
    return config.model_copy(update={"training": training.model_copy(update={"precision": chosen})})


def describe_arithmetic(config: RunConfig, device: torch.device, asked: str) -> str:
    """How a run computes; one line.

    Args:
        config: The settings, settled.
        device: Where it runs.
        asked: The precision that the settings named.
    """
    training = config.training
    words = [torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"]
    words.append(f"precision {training.precision}{' (auto)' if asked == 'auto' else ''}")
    if device.type == "cuda":
        on = {True: "on", False: "off"}
        words += [f"tf32 {on[training.tf32]}", f"cudnn_benchmark {on[cudnn_tries(training.cudnn_benchmark)]}"]
    words.append(f"compile {training.compile}")
    if training.cuda_graph:
        words.append("cuda_graph on")
    if training.fused_norm:
        words.append("fused_norm on")
    return ", ".join(words)


def _of_apex(amp: AmpBackend) -> Precision | None:
    return "fp16" if amp == "apex" else None


def _multiplies_bf16() -> bool:
    """Whether the processor has instructions that multiply bf16 (AVX-512 BF16, AMX)."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
