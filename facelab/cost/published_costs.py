"""Parameters and multiply-accumulates that projects print of their networks, and what their counts contain."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType

from facelab.cost.network_cost import Operations

# How often a count contains each kind of work. THOP took every number that goes through BatchNorm for 2 operations; its
# oldest versions took each weight of a linear layer for 2 as well.
EXACT = Operations(convolution=1, linear=1, attention=1, norm=0)
THOP = Operations(convolution=1, linear=1, attention=0, norm=2)
OLD_THOP = Operations(convolution=1, linear=2, attention=0, norm=2)
OLD_THOP_WITHOUT_CONVOLUTIONS = Operations(convolution=0, linear=2, attention=0, norm=2)


@dataclass(frozen=True)
class PublishedCost:
    """What a project prints of a network.

    Attributes:
        parameters: Number of parameters, None if it prints none.
        macs: Multiply-accumulates.
        source: Who prints it.
        counted: How often the count contains each kind of work; found by comparing it with ours.
        parameters_remark: Why its parameters are others than ours, or empty.
        macs_remark: What else its multiply-accumulates contain, or empty.
    """

    parameters: float | None
    macs: float
    source: str
    counted: Operations = EXACT
    parameters_remark: str = ""
    macs_remark: str = ""

    def explained(self, work: Operations) -> int:
        """What counting in that way gives for a network."""
        return sum(getattr(self.counted, kind.name) * getattr(work, kind.name) for kind in fields(Operations))


def _facexzoo(parameters: float, macs: float, counted: Operations = THOP, *remarks: str) -> PublishedCost:
    return PublishedCost(parameters, macs, "FaceX-Zoo", counted, *remarks)


NO_CONVOLUTION = "no convolution is in it: they were a subclass of Conv2d; 1.28M of a classifier that nothing reads are"
UNREAD = "with {} of projections that nothing reads; `published_extras: true` builds them"
INTERPOLATED = "11 for each interpolated number"

PUBLISHED: Mapping[str, PublishedCost] = MappingProxyType(
    {
        "MobileFaceNet": _facexzoo(1.19e6, 227.57e6),
        "ResNet50_ir": _facexzoo(43.57e6, 6.31e9),
        "ResNet152_ir_se": _facexzoo(71.14e6, 12.33e9),
        "EfficientNet-B0": _facexzoo(33.44e6, 77.83e6, OLD_THOP_WITHOUT_CONVOLUTIONS, NO_CONVOLUTION),
        "HRNet": _facexzoo(70.63e6, 4.35e9),
        "GhostNet": _facexzoo(26.76e6, 194.49e6, OLD_THOP),
        "AttentionNet-56": _facexzoo(98.96e6, 6.34e9, OLD_THOP, UNREAD.format("17.83M"), INTERPOLATED),
        "AttentionNet-92": _facexzoo(134.56e6, 10.62e9, OLD_THOP, UNREAD.format("32.77M"), INTERPOLATED),
        "TF-NAS-A": _facexzoo(39.59e6, 534.41e6, OLD_THOP),
        "LightCNN-29": _facexzoo(11.60e6, 2.84e9),
        "ResNeSt50": _facexzoo(76.79e6, 5.55e9, OLD_THOP),
        "ReXNet_1.0": _facexzoo(15.20e6, 429.64e6, OLD_THOP),
        "RepVGG_A0": _facexzoo(39.94e6, 1.55e9),
        "RepVGG_B0": _facexzoo(46.65e6, 3.44e9),
        "RepVGG_B1": _facexzoo(106.75e6, 13.21e9),
        "Swin-T": _facexzoo(46.74e6, 4.37e9),
        "Swin-S": _facexzoo(68.01e6, 8.53e9),
        "r50": PublishedCost(43.59e6, 6.33e9, "InsightFace", THOP),
        "EdgeFace-XXS": PublishedCost(1.24e6, 94.72e6 / 2, "EdgeFace"),
        "TransFace-S": PublishedCost(None, 5.8e9, "TransFace"),
        "TransFace-B": PublishedCost(None, 11.5e9, "TransFace"),
        "TransFace-L": PublishedCost(None, 25.4e9, "TransFace"),
    }
)
"""By catalogue entry. Two operations of EdgeFace's FLOPs are one multiply-accumulate."""
