"""Any model of timm as a face network."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from facelab.backbone.base import BACKBONES, Backbone, Features
from facelab.backbone.layers.output_layer import LastNorm, OutputLayer
from facelab.citation import Citation
from facelab.errors import CheckpointError, ConfigError, did_you_mean, in_range, one_of
from facelab.inputs import InputSpec
from facelab.outside.file import require_regular
from facelab.vision import load_timm

Output = Literal["classifier", "norm_linear"]
OUTPUTS = ("classifier", "norm_linear")

OF_FILES = {"cache_dir", "checkpoint_path", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay"}

# What timm's models raise where an image size or an option does not suit them.
UNSUITABLE = (AssertionError, IndexError, RuntimeError, TypeError, ValueError)


@BACKBONES.register("Timm")
class Timm(Backbone):
    """A model of PyTorch Image Models (Wightman, 2019) that gives embeddings. Nothing is ever downloaded.

    Made for 224 pixels, most models end in a 4x4 map at 112; face networks want 7x7: ``stem_stride: 1`` instead of 2.
    EdgeFace-XXS is ``edgenext_xx_small`` with ``output: classifier``.

    Args:
        model: Name in timm, for example ``resnet50``.
        input_spec: Size, colour order and value range of the input.
        feat_dim: D, length of the embedding.
        output: ``classifier`` keeps timm's pooling and makes its linear layer give the embedding; ``norm_linear`` puts
            FaceX-Zoo's BatchNorm - dropout - linear - BatchNorm on the whole last map (B, C, H, W).
        last_norm: What the BatchNorm at the end of ``norm_linear`` learns: ``affine``, ``bias`` (scale fixed at 1) or
            ``plain`` (nothing).
        stem_stride: Stride of the first convolution, if not the model's own.
        drop_rate: Dropout before the embedding, from 0 up to but not including 1.
        drop_path_rate: Stochastic depth, from 0 up to but not including 1.
        options: Further arguments of the timm model, for example ``{patch_size: 8}``.
        weights: A safetensors file with timm's tensor names to start from; it must fit exactly. With ``norm_linear``
            the file's classifier is left out.

    Raises:
        ConfigError: If the model is unknown, does not take an option, or cannot work with this input.
        CheckpointError: If ``weights`` is missing, damaged or of another model.
    """

    citation: ClassVar[Citation | None] = Citation(
        key="wightman2019timm",
        title="PyTorch Image Models",
        authors="Wightman, Ross",
        venue="GitHub repository pytorch-image-models",
        year=2019,
    )

    def __init__(
        self,
        model: str,
        input_spec: InputSpec = InputSpec(),  # noqa: B008  (frozen)
        feat_dim: int = 512,
        output: Output = "norm_linear",
        last_norm: LastNorm = "affine",
        stem_stride: int | None = None,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        options: dict[str, Any] | None = None,
        weights: Path | None = None,
    ) -> None:
        super().__init__(input_spec, feat_dim)
        one_of("Timm output", output, OUTPUTS)
        in_range("Timm drop_rate", drop_rate, 0.0, 1.0, high_open=True)
        in_range("Timm drop_path_rate", drop_path_rate, 0.0, 1.0, high_open=True)
        arguments = dict(options or {})
        if drop_path_rate:
            arguments["drop_path_rate"] = drop_path_rate
        if output == "classifier":
            arguments |= {"num_classes": feat_dim, "drop_rate": drop_rate}
        else:
            # timm's words for the last map as it is.
            arguments |= {"num_classes": 0, "global_pool": ""}
        self.network = _create(model, input_spec, arguments)
        if stem_stride is not None:
            _set_stem_stride(model, self.network, stem_stride)
        self.channels_last_output = getattr(self.network, "output_fmt", "NCHW") == "NHWC"
        shape = _output_shape(model, self.network, input_spec)
        self.output: nn.Module = nn.Identity()
        if output == "norm_linear":
            channels, *map_size = self._map_shape(model, shape)
            self.output = OutputLayer(
                channels, (map_size[0], map_size[1]), feat_dim, drop_rate=drop_rate, last_norm=last_norm
            )
        if weights is not None:
            _load(self.network, weights, without_classifier=output == "norm_linear")

    def published_name(self, name: str) -> str:
        """Our name of a tensor of timm's."""
        return f"network.{name}"

    def features(self, image: Tensor) -> Features:
        """Embedding (B, D), and the maps and tokens that the model offers, of normalised images (B, 3, H, W)."""
        network: Any = self.network
        if not hasattr(network, "forward_intermediates"):
            return Features(self(image))
        last, maps = network.forward_intermediates(image)
        embedding = self.output(self._as_map(network.forward_head(last)))
        return Features(embedding, maps=tuple(maps), tokens=last if last.ndim == 3 else None)

    def forward(self, image: Tensor) -> Tensor:
        """Embeddings (B, D) of normalised images (B, 3, H, W)."""
        embedding: Tensor = self.output(self._as_map(self.network(image)))
        return embedding

    def _as_map(self, output: Tensor) -> Tensor:
        """What the network gives, with the channels second if it is a map."""
        return output.permute(0, 3, 1, 2) if self.channels_last_output and output.ndim == 4 else output

    def _map_shape(self, model: str, shape: torch.Size) -> tuple[int, int, int]:
        if len(shape) != 4:
            raise ConfigError(
                f"'{model}' of timm ends in {tuple(shape[1:])} instead of a map of (C, H, W), which the option "
                "'output: norm_linear' needs; use 'output: classifier'."
            )
        first, second, third = shape[1:]
        return (third, first, second) if self.channels_last_output else (first, second, third)


def _create(model: str, spec: InputSpec, arguments: dict[str, Any]) -> nn.Module:
    timm = load_timm()
    if files := sorted(OF_FILES & arguments.keys()):
        raise ConfigError(f"Timm options cannot have '{files[0]}': nothing is downloaded or unpickled; use 'weights'.")
    if not timm.is_model(model):
        raise ConfigError(f"timm has no model '{model}'.{did_you_mean(model, timm.list_models())}")
    configuration = timm.get_pretrained_cfg(model)
    if configuration is not None and configuration.fixed_input_size:  # position tables depend on the size
        arguments = {"img_size": spec.size, **arguments}
    try:
        network: nn.Module = timm.create_model(model, pretrained=False, **arguments)
    except UNSUITABLE as error:
        raise ConfigError(f"timm cannot build '{model}' with {arguments}: {_first_line(error)}.") from None
    return network


def _set_stem_stride(model: str, network: nn.Module, stride: int) -> None:
    """Change the convolutions that read the image, unless they cut patches: then the positions no longer fit."""
    in_range("Timm stem_stride", stride, 1, math.inf)
    stem = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d) and layer.in_channels == 3]
    if not stem or hasattr(network, "patch_embed"):
        raise ConfigError(
            f"'{model}' of timm has no convolution as its stem, so stem_stride cannot be set; "
            "give a patch size instead, for example options: {patch_size: 8}."
        )
    for layer in stem:  # RepVGG has two side by side
        layer.stride = (stride, stride)


def _output_shape(model: str, network: nn.Module, spec: InputSpec) -> torch.Size:
    """Shape of what the network gives for one image: the one way to know that holds for every model."""
    reference = next(network.parameters())
    image = torch.zeros(1, 3, *spec.size, dtype=reference.dtype, device=reference.device)
    training = network.training
    network.eval()  # the running statistics stay as they are
    try:
        with torch.no_grad():
            shape: torch.Size = network(image).shape
    except UNSUITABLE as error:
        raise ConfigError(
            f"'{model}' of timm cannot take images of {spec.height}x{spec.width}: {_first_line(error)}."
        ) from None
    network.train(training)
    return shape


def _load(network: nn.Module, path: Path, *, without_classifier: bool) -> None:
    try:
        require_regular(path)
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot read the weights '{path}': {_first_line(error)}.") from None
    if without_classifier:
        state = {name: value for name, value in state.items() if not name.startswith(_classifiers(network))}
    own = network.state_dict()
    differing = [name for name in sorted(own.keys() | state.keys()) if _shape(own, name) != _shape(state, name)]
    if differing:
        name = differing[0]
        raise CheckpointError(
            f"the weights '{path}' are not of this model: {len(differing)} of {len(own)} tensors differ, for example "
            f"'{name}', {_shape(state, name)} in the file and {_shape(own, name)} in the model."
        )
    network.load_state_dict(state)


def _shape(state: Mapping[str, Tensor], name: str) -> str:
    return str(tuple(state[name].shape)) if name in state else "missing"


def _classifiers(network: nn.Module) -> tuple[str, ...]:
    """How the tensors of timm's classifier begin, for example ``fc.``."""
    names = getattr(network, "default_cfg", {}).get("classifier") or ()
    return tuple(f"{name}." for name in ((names,) if isinstance(names, str) else names))


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
