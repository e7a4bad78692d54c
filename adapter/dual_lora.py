"""Dual LoRA: a low-rank expert for low quality and one for high quality, weighted by the quality of each image."""

from typing import ClassVar, Literal, get_args

from facelab.adapter.base import ADAPTERS, Adapter
from facelab.adapter.lora import add_updates
from facelab.adapter.low_rank import DropoutOn, Initial, LowRankOptions
from facelab.adapter.targets import Kind, choose
from facelab.backbone.base import Backbone
from facelab.citation import Citation
from facelab.errors import ConfigError, in_range, one_of

Which = Literal["dual", "low"]


@ADAPTERS.register("DualLoRA")
class DualLoRA(Adapter):
    """Two low-rank experts blended per image (PETALface, Narayan et al., WACV 2025, arXiv:2412.07771).

    ``y = W x + b + s [(1 - a) U1 D1 x + a U2 D2 x]``, a from 0 (low quality) to 1 (high quality), the same for all
    tokens, windows or pixels of an image.

    Where the published code differs from this default: both factors are drawn, so the start is not the base
    (``initial: trunc_normal``); dropout acts on the output of each expert (``dropout_on: output``); BatchNorm
    statistics move (``moving_statistics: true``); only ``*.qkv`` is adapted by two experts, and the last projection by
    one that every image uses (``targets``, ``single``).

    Args:
        rank: r of each expert.
        targets: Names of layers that get two experts, with ``*`` for any text; by default every layer of the kinds.
        single: Names of layers that get one update which is not weighted.
        kinds: Which kinds of layers: ``linear``, ``conv``, and ``dense_conv`` for convolutions without groups alone.
        experts: ``dual``, or ``low`` for the low-quality expert alone, which is silent at high quality (a = 1): the
            base then stays as it is for good images.
        crossing: Probability that a training image goes through the low-quality expert alone, whatever its quality, so
            that this expert's space holds both sides of a search.
        joined: Share of the high-quality space, 0 to 1, in the joined embedding of a perfect image; see
            `facelab.adapter.two_spaces.join_spaces`. Embedding costs twice as much and the embedding is twice as long.
            At 0 each image is embedded once, by its own gate.
        added: Add the two halves of the joined embedding, which then is as long as the base's; see
            `facelab.adapter.two_spaces.add_spaces`.
        scale: s.
        dropout: Probability of dropping a value of the update during training.
        dropout_on: Dropout on the ``input`` of the update, or on its ``output``.
        initial: ``zero`` leaves the network as it is at first; ``trunc_normal`` draws both factors.
        moving_statistics: Let the BatchNorm layers of the base follow the training images.

    Raises:
        ConfigError: If an argument is out of range, a pattern matches nothing, a layer is meant twice, or the rank is
            larger than a layer.
    """

    citation: ClassVar[Citation | None] = Citation(
        key="narayan2025petalface",
        title="PETALface: Parameter Efficient Transfer Learning for Low-resolution Face Recognition",
        authors="Narayan, Kartik and Nair, Nithin Gopalakrishnan and Xu, Jennifer and Chellappa, Rama and "
        "Patel, Vishal M.",
        venue="WACV",
        year=2025,
        arxiv="2412.07771",
    )
    needs_gate = True

    def __init__(
        self,
        rank: int = 8,
        targets: tuple[str, ...] = ("*",),
        single: tuple[str, ...] = (),
        kinds: tuple[Kind, ...] = ("linear",),
        experts: Which = "dual",
        crossing: float = 0.0,
        joined: float = 0.0,
        added: bool = False,
        scale: float = 1.0,
        dropout: float = 0.1,
        dropout_on: DropoutOn = "input",
        initial: Initial = "zero",
        moving_statistics: bool = False,
    ) -> None:
        self.options = LowRankOptions(rank, scale, dropout, dropout_on, initial)
        self.targets = targets
        self.single = single
        self.kinds = kinds
        one_of("DualLoRA experts", experts, get_args(Which))
        self.experts: Which = experts
        self.crossing = in_range("DualLoRA crossing", crossing, 0.0, 1.0)
        self.joined = in_range("DualLoRA joined", joined, 0.0, 1.0)
        if added and not joined:
            raise ConfigError("DualLoRA adds the spaces of a joined embedding, but joined is 0; set joined: 0.7.")
        self.added = added
        self.moving_statistics = moving_statistics

    def inject(self, network: Backbone) -> None:
        """Give each chosen layer its experts."""
        single = choose(network, self.single, self.kinds)
        weighted = choose(network, self.targets, self.kinds)
        if "*" in self.targets:  # everything else
            weighted = {name: layer for name, layer in weighted.items() if name not in single}
        twice = weighted.keys() & single.keys()
        if twice:
            raise ConfigError(f"the layer '{min(twice)}' is among the targets and the single ones; it can be in one.")
        add_updates(network, weighted, self.experts, self.options)
        add_updates(network, single, "single", self.options)
