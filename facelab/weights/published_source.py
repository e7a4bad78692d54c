"""The projects whose released weights are read: their networks by their own names, and how they save them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from facelab.catalogue import Spec
from facelab.errors import CheckpointError, ConfigError, did_you_mean
from facelab.weights.state_fit import named

T = TypeVar("T")

# What may stand before every tensor of a network: DistributedDataParallel and torch.compile put the first two there,
# training programs the others, in any order; those of PARTS are also parts of some networks.
PARTS = ("features.", "network.", "net.", "encoder.")
WRAPPERS = ("module.", "_orig_mod.", "model.", "backbone.", *PARTS)
HEADS = ("head.", "fc.", "classifier.", "margin.", "loss.", "criterion.")


@dataclass(frozen=True)
class PublishedSource:
    """How one project names and saves its networks.

    Attributes:
        networks: The project's name of a network -> the entry of our catalogue, which knows colour order, value range
            and size, with the options that only released weights need. None: any backbone of ours.
        adapters: Whether a file may hold adapters.
    """

    networks: Mapping[str, Spec] | None
    adapters: bool = field(default=False, kw_only=True)

    def separate(self, state: Mapping[str, T], where: str) -> tuple[dict[str, T], list[str]]:
        """The tensors of the network under its own names, and the names of the head's tensors.

        Args:
            state: Tensors by their names in the file.
            where: Names the file in messages.

        Raises:
            CheckpointError: If there are tensors beside both; the message names them.
        """
        network, head = dict(state), []
        while (word := _wrapper(network)) and not (word in PARTS and _unknown(network, word)):
            outside = [name for name in network if not name.startswith(word)]
            if unknown := _unknown(network, word):
                raise CheckpointError(f"'{where}' holds, beside network and head, {named('unknown', unknown)}.")
            head += outside
            network = {name.removeprefix(word): value for name, value in network.items() if name.startswith(word)}
        return network, head


def _wrapper(state: Mapping[str, object]) -> str | None:
    """What stands before most tensors; a network has parts with such names itself, but not most of them."""
    return next((word for word in WRAPPERS if 2 * sum(name.startswith(word) for name in state) > len(state)), None)


def _unknown(state: Mapping[str, object], word: str) -> list[str]:
    """Names that belong neither to the wrapped network nor to a head beside it."""
    return [name for name in state if not name.startswith((word, *HEADS))]


def _same(names: Iterable[str]) -> dict[str, Spec]:
    """Networks whose names are those of our catalogue."""
    return {name: name for name in names}


FACEXZOO = _same(
    (
        "MobileFaceNet",
        *(f"ResNet{depth}_{unit}" for unit in ("ir", "ir_se") for depth in (50, 100, 152)),
        *("RepVGG", "RepVGG_A0", "RepVGG_B0", "RepVGG_B1"),
        *("GhostNet", "GhostNet-1.3", "LightCNN-9", "LightCNN-29"),
        *("ReXNet_1.0", "ReXNet_1.3", "ReXNet_1.5", "ReXNet_2.0"),
        *(f"EfficientNet-B{number}" for number in range(8)),
        "TF-NAS-A",
        *(f"ResNeSt{depth}" for depth in (50, 101, 200, 269)),
        *("AttentionNet-56", "AttentionNet-92", "HRNet", "SwinTransformer", "Swin-T", "Swin-B"),
    )
)
INSIGHTFACE: dict[str, Spec] = {
    **_same(("r18", "r34", "r50", "r100", "r200", "mbf", "mbf_large", "vit_t", "vit_s", "vit_b", "vit_h")),
    "vit_t_dp005_mask0": {"vit_t": {"drop_path_rate": 0.05, "mask_ratio": 0.0}},
    "vit_s_dp005_mask_0": {"vit_s": {"drop_path_rate": 0.05, "mask_ratio": 0.0}},
    "vit_b_dp005_mask_005": {"vit_b": {"drop_path_rate": 0.05, "mask_ratio": 0.05}},
    "vit_l_dp005_mask_005": "vit_l",
}
ADAFACE: dict[str, Spec] = {
    "ir_18": "AdaFace-IR18",
    "ir_34": "AdaFace-IR34",
    "ir_50": "AdaFace-IR50",
    "ir_101": "AdaFace-IR101",
    "ir_se_50": "AdaFace-IR-SE50",
}
MAGFACE: dict[str, Spec] = {f"iresnet{depth}": f"MagFace-iResNet{depth}" for depth in (18, 50, 100)}
TRANSFACE: dict[str, Spec] = {
    "vit_s_dp005_mask_0": "TransFace-S",
    "vit_b_dp005_mask_005": "TransFace-B",
    "vit_l_dp005_mask_005": "TransFace-L",
}
PETAL_SWIN: Spec = {"PETALSwin": {"shift_mask": False}}  # the published program computes the mask and does not use it
PETALFACE: dict[str, Spec] = {
    "swin_256new": PETAL_SWIN,
    "swin_256new_iqa": PETAL_SWIN,
    "vit_b": "vit_b",
    "vit_b_iqa": "vit_b",
}

SOURCES = {
    "facexzoo": PublishedSource(FACEXZOO),
    "insightface": PublishedSource(INSIGHTFACE),
    "adaface": PublishedSource(ADAFACE),
    "magface": PublishedSource(MAGFACE),
    "transface": PublishedSource(TRANSFACE),
    "petalface": PublishedSource(PETALFACE, adapters=True),
    "facelab": PublishedSource(None),
}


def published_network(address: str) -> tuple[PublishedSource, Spec]:
    """The project and the network of ``SOURCE:NAME``.

    Raises:
        ConfigError: If there is no such source, or it has no such network; the message lists what there is.
    """
    project, colon, name = address.partition(":")
    if project not in SOURCES:
        forms = ", ".join(f"{source}:NAME" for source in SOURCES)
        raise ConfigError(f"'{address}' names no source.{did_you_mean(project, SOURCES)} Known: {forms}.")
    networks = SOURCES[project].networks
    if networks is None:
        if name:
            return SOURCES[project], name
        raise ConfigError(f"'{address}' names no network; write {project}:NAME with one of `facelab list backbones`.")
    if name not in networks:
        hint = did_you_mean(name, networks) if colon else ""
        raise ConfigError(f"'{address}' is no network of {project}.{hint} Known: {', '.join(networks)}.")
    return SOURCES[project], networks[name]
