"""The network that a run trains: built anew or taken from a base model, with adapters in it where the settings ask."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from facelab.adapter.base import ADAPTERS, AdaptedBackbone
from facelab.adapter.gate import GATES, Gate
from facelab.backbone.base import BACKBONES, Backbone, takes_quality
from facelab.backbone.layers.fused_norm import fuse_norms
from facelab.catalogue import resolve
from facelab.config import merge
from facelab.engine.replica import N, Replica, Replicate, replicate
from facelab.errors import ConfigError
from facelab.iqa.base import SCORERS
from facelab.model.face_model import load_model
from facelab.quality.table import QualityScores
from facelab.run.settings import RunConfig
from facelab.training_mode.base import MODES
from facelab.weights.card import adapter_card, model_card


@dataclass(frozen=True)
class Network:
    """What `open_network` gives.

    Attributes:
        backbone: The network on its device.
        card: Its description for checkpoints.
        gate: The calibrated gate, or None without one in the settings; it is the backbone's own where its adapter
            weighs experts.
    """

    backbone: Backbone
    card: dict[str, Any]
    gate: Gate | None


def open_base(config: RunConfig) -> tuple[Backbone, dict[str, Any]]:
    """The network of a run without adapters, built anew or loaded, on the CPU; and its description.

    Raises:
        FacelabError: If it cannot be built, or takes images of another size.
    """
    return _base_model(config) if config.base is not None else _new_backbone(config)


def refuse_unread_scores(config: RunConfig, base: Backbone) -> None:
    """Refuse scores and gates that nothing would look at, before every image is scored.

    A table costs nothing: it may stand in settings that runs with and without a gate share.

    Args:
        config: The settings.
        base: The network without adapters.

    Raises:
        ConfigError: If neither network, adapter nor mode reads what the settings give.
    """
    name, options = resolve(MODES, config.mode)
    mode, gated = MODES.get(name), "gate" in MODES.parameters(name)
    adapter = None if config.adapter is None else resolve(ADAPTERS, config.adapter)[0]
    experts = adapter is not None and ADAPTERS.get(adapter).needs_gate
    if experts or mode.reads_scores(options) or (gated and adapter is None):  # the last is refused by the mode
        return
    readers = f"the mode '{name}' as it is set" + (" and its network" if adapter is None else f" and {adapter}")
    advice = "choose an adapter with experts, such as DualLoRA, or the mode 'adaptation' with distillation or alignment"
    if config.gate is not None:
        gate, settings = resolve(GATES, config.gate)
        if adapter is not None and any(True for _ in GATES.build(gate, settings).parameters()):
            raise ConfigError(
                f"the gate '{gate}' is trained with experts, and the adapter {adapter} has none; {advice}."
            )
        raise ConfigError(
            f"there is a gate, but neither of {readers} reads it; take it back by gate: null, or {advice}."
        )
    read = takes_quality(base) or isinstance(config.data.quality, Path)
    if isinstance(config.data.quality, dict):
        resolve(SCORERS, config.data.quality)  # a mistyped name comes first
    if config.data.quality is not None and not read:
        raise ConfigError(
            f"data.quality scores the training images, but neither of {readers} reads scores; take it back by "
            f"data.quality: null, or name a gate and {advice}."
        )


def open_network(
    config: RunConfig, base: tuple[Backbone, dict[str, Any]], device: torch.device, scores: QualityScores | None
) -> Network:
    """Put adapters and gate of a run into its base.

    Args:
        config: The settings.
        base: What `open_base` gave.
        device: Where it goes.
        scores: Quality scores of the training images; gates are calibrated on them.

    Raises:
        FacelabError: If base, backbone, adapter, gate and scores do not go together.
    """
    backbone, card = base
    gate, gate_spec = _calibrated_gate(config, scores)
    if config.adapter is not None:
        name, options = resolve(ADAPTERS, config.adapter)
        adapter = ADAPTERS.build(name, options)
        if gate is not None and not adapter.needs_gate and any(True for _ in gate.parameters()):
            raise ConfigError(
                f"the gate '{next(iter(gate_spec or {}))}' is trained with experts, and the adapter {name} has none; "
                "choose 'sigmoid'."
            )
        backbone = AdaptedBackbone(backbone, adapter, gate if adapter.needs_gate else None)
        card |= adapter_card(backbone, {name: options}, gate_spec if adapter.needs_gate else None)
        if adapter.needs_gate and isinstance(config.data.quality, dict):
            card["scorer"] |= {"spec": config.data.quality, "base": str(config.base)}
    memory_format = torch.channels_last if config.training.channels_last else torch.contiguous_format
    backbone = backbone.to(device=device, memory_format=memory_format)  # type: ignore[call-overload]
    if config.training.fused_norm:
        fuse_norms(backbone, device)
    return Network(backbone, card, None if gate is None else gate.to(device))


def replicate_of(config: RunConfig, backbone: Backbone) -> Replicate:
    """How this process trains the networks of a mode: the backbone as the settings say, small ones beside it whole.

    Raises:
        ConfigError: If the settings do not go together; the function itself raises it where the backbone does not fit.
    """
    training = config.training
    if training.parallel == "fsdp" and training.amp == "apex":
        raise ConfigError(
            "training.amp=apex changes whole parameters, which training.parallel=fsdp does not keep; set "
            "training.amp=native, or training.parallel=ddp."
        )
    if training.parallel == "fsdp" and training.compile != "off":
        raise ConfigError(
            f"training.compile={training.compile} makes one graph of a network, which training.parallel=fsdp gathers "
            "block by block; set training.compile=off, or training.parallel=ddp."
        )

    def replica(network: N) -> Replica[N]:
        if network is not backbone:  # a loss that learns something, whose steps may follow from numbers: not compiled
            return replicate(network, training.gradient_compression)
        if training.parallel == "ddp":
            return replicate(network, training.gradient_compression, training.compile)
        from facelab.engine.sharded import Sharded  # takes seconds to import

        return Sharded(network, backbone.fsdp_units, training.gradient_compression)

    return replica


def _new_backbone(config: RunConfig) -> tuple[Backbone, dict[str, Any]]:
    """A network of the registry; its input size is that of the data, or of the part of the face that it sees."""
    if config.backbone is None:
        raise ConfigError("the settings name neither a backbone nor a base model.")
    name, options = resolve(BACKBONES, config.backbone)
    face, width = config.data.height_width
    seen = config.rows_seen
    size = {"height": seen, "width": width} | ({"face_height": face} if seen < face else {})
    options = merge(options, {"input_spec": {**options.get("input_spec", {}), **size}})
    backbone = BACKBONES.build(name, options)
    return backbone, model_card(name, options, backbone, config.plugins)


def _base_model(config: RunConfig) -> tuple[Backbone, dict[str, Any]]:
    """The network of a trained run or checkpoint."""
    if config.backbone is not None:
        raise ConfigError("the settings name a base model and a backbone; the base brings its own, so leave it out.")
    model = load_model(str(config.base), device="cpu")
    if config.input != "face" and config.rows_seen != model.input_spec.height:
        raise ConfigError(
            f"input is {config.input!r}, but the base model '{config.base}' sees {model.input_spec.describe()}; leave "
            "input out, as a base brings its own."
        )
    if model.input_spec.aligned != config.data.height_width:
        height, width = model.input_spec.aligned
        raise ConfigError(
            f"the base model '{config.base}' takes {height}x{width} images, but data.size is {config.data.size}; "
            f"set data.size: {height if height == width else [height, width]}."
        )
    if isinstance(model.network, AdaptedBackbone):
        raise ConfigError(f"the base model '{config.base}' has adapters already; merge them first (facelab merge).")
    return model.network, dict(model.card)


def _calibrated_gate(config: RunConfig, scores: QualityScores | None) -> tuple[Gate | None, dict[str, Any] | None]:
    if config.gate is None:
        return None, None
    if scores is None:
        raise ConfigError(
            "a gate maps quality scores, but data.quality names no table; make one with `facelab iqa score DATA`, or "
            "name a scorer there, for example {Sharpness: {}}."
        )
    name, options = resolve(GATES, config.gate)
    gate = GATES.build(name, options)
    gate.calibrate(scores.values, scores.scorer)
    return gate, {name: options}
