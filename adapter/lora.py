"""LoRA: one low-rank update beside each chosen layer."""

from typing import ClassVar

from torch import nn

from facelab.adapter.base import ADAPTERS, Adapter
from facelab.adapter.low_rank import DropoutOn, Experts, Initial, LowRankConv2d, LowRankLinear, LowRankOptions
from facelab.adapter.targets import Kind, choose, replace
from facelab.backbone.base import Backbone
from facelab.citation import Citation


@ADAPTERS.register("LoRA")
class LoRA(Adapter):
    """Low-rank adaptation (Hu et al., ICLR 2022, arXiv:2106.09685): ``y = W x + b + s U D x`` with frozen W and b.

    The scale multiplies the update as it is; the paper's ``alpha / r`` is ``scale`` here.

    Args:
        rank: r.
        targets: Names of layers, with ``*`` for any text; by default every layer of the given kinds.
        kinds: Which kinds of layers: ``linear``, ``conv``, and ``dense_conv`` for convolutions without groups alone.
        scale: s.
        dropout: Probability of dropping a value of the update during training.
        dropout_on: Dropout on the ``input`` of the update (the paper), or on its ``output`` (PETALface's code).
        initial: ``zero`` leaves the network as it is at first; ``trunc_normal`` draws both factors (PETALface's code).
        moving_statistics: Let the BatchNorm layers of the base follow the training images.

    Raises:
        ConfigError: If an argument is out of range, a pattern matches nothing, or the rank is larger than a layer.
    """

    citation: ClassVar[Citation | None] = Citation(
        key="hu2022lora",
        title="LoRA: Low-Rank Adaptation of Large Language Models",
        authors="Hu, Edward J. and Shen, Yelong and Wallis, Phillip and Allen-Zhu, Zeyuan and Li, Yuanzhi and "
        "Wang, Shean and Wang, Lu and Chen, Weizhu",
        venue="ICLR",
        year=2022,
        arxiv="2106.09685",
    )

    def __init__(
        self,
        rank: int = 8,
        targets: tuple[str, ...] = ("*",),
        kinds: tuple[Kind, ...] = ("linear",),
        scale: float = 1.0,
        dropout: float = 0.1,
        dropout_on: DropoutOn = "input",
        initial: Initial = "zero",
        moving_statistics: bool = False,
    ) -> None:
        self.options = LowRankOptions(rank, scale, dropout, dropout_on, initial)
        self.targets = targets
        self.kinds = kinds
        self.moving_statistics = moving_statistics

    def inject(self, network: Backbone) -> None:
        """Give each chosen layer one update."""
        add_updates(network, choose(network, self.targets, self.kinds), "single", self.options)


def add_updates(network: Backbone, layers: dict[str, nn.Module], experts: Experts, options: LowRankOptions) -> None:
    """Replace layers by the same with low-rank updates.

    Raises:
        ConfigError: If the rank does not fit a layer; the message names it, and nothing is changed.
    """
    # All are made before the first is put in: where one rank does not fit, the network stays as it was.
    adapted: dict[str, nn.Module] = {}
    for name, layer in layers.items():
        make = LowRankLinear if isinstance(layer, nn.Linear) else LowRankConv2d
        adapted[name] = make(layer, experts, options, name)  # type: ignore[arg-type]
    for name, layer in adapted.items():
        replace(network, name, layer)
