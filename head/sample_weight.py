"""Weights of samples by their losses: which samples of a batch a step listens to, whatever the head."""

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from facelab.citation import Citation
from facelab.errors import ConfigError, in_range
from facelab.registry import Registry


class SampleWeight(ABC):
    """Weighs the samples of the global batch by their losses, alike on every process.

    The loss of a step is the mean over the batch of weight times loss: it is not divided by the sum of the weights. A
    weight may have a gradient.
    """

    citation: ClassVar[Citation | None] = None

    @abstractmethod
    def __call__(self, loss: Tensor) -> Tensor:
        """Weights, (B,), from the losses of all samples of all processes, (B,), which are not negative."""


SAMPLE_WEIGHTS: Registry[SampleWeight] = Registry("sample_weight", "facelab.head")


@SAMPLE_WEIGHTS.register("Focal")
class Focal(SampleWeight):
    """Focal loss (Lin et al., ICCV 2017, arXiv:1708.02002, Eq. 4): ``(1 - p)^gamma``, with its gradient.

    p is the probability of the sample's own class, ``exp(-loss)``; of heads that decide on each class, that of all
    decisions being right.

    Args:
        gamma: 0 (all weights 1) to 100; the larger, the less do easy samples count.

    Raises:
        ConfigError: If it is out of range.
    """

    citation: ClassVar[Citation | None] = Citation(
        key="lin2017focal",
        title="Focal Loss for Dense Object Detection",
        authors="Lin, Tsung-Yi and Goyal, Priya and Girshick, Ross and He, Kaiming and Dollar, Piotr",
        venue="ICCV",
        year=2017,
        arxiv="1708.02002",
    )

    def __init__(self, gamma: float = 2.0) -> None:
        self.gamma = in_range("Focal gamma", gamma, 0.0, 100.0)

    def __call__(self, loss: Tensor) -> Tensor:
        """See `SampleWeight`."""
        # Not 0, where the slope of a power below 1 is infinite; expm1, because 1 - p of a small loss has few digits.
        return (-torch.expm1(-loss)).clamp_min(torch.finfo(loss.dtype).tiny) ** self.gamma


@SAMPLE_WEIGHTS.register("OHEM")
class OHEM(SampleWeight):
    """Online hard example mining (Shrivastava et al., CVPR 2016, arXiv:1604.03540): a share of the batch is learned.

    The loss is the mean over that share. The paper chooses among the regions of an image; here it is among the samples
    of the batch of all processes.

    Args:
        share: How much of the batch, the samples with the largest losses; above 0, and 1 is all of it. Rounded up.

    Raises:
        ConfigError: If it is out of range.
    """

    citation: ClassVar[Citation | None] = Citation(
        key="shrivastava2016ohem",
        title="Training Region-based Object Detectors with Online Hard Example Mining",
        authors="Shrivastava, Abhinav and Gupta, Abhinav and Girshick, Ross",
        venue="CVPR",
        year=2016,
        arxiv="1604.03540",
    )

    def __init__(self, share: float = 0.5) -> None:
        self.share = in_range("OHEM share", share, 0.0, 1.0, low_open=True)

    def __call__(self, loss: Tensor) -> Tensor:
        """See `SampleWeight`."""
        return hardest(loss, math.ceil(self.share * len(loss)))


@SAMPLE_WEIGHTS.register("ATk")
class ATk(SampleWeight):
    """Average top-k loss (Fan et al., NeurIPS 2017, arXiv:1705.08826, Eq. 1): the mean of the k largest losses.

    `OHEM` is the same with k as a share of the batch.

    Args:
        k: Samples of the batch of all processes and of one forward pass, at least 1.

    Raises:
        ConfigError: If it is out of range; in the first step, if the batch has fewer samples.
    """

    citation: ClassVar[Citation | None] = Citation(
        key="fan2017topk",
        title="Learning with Average Top-k Loss",
        authors="Fan, Yanbo and Lyu, Siwei and Ying, Yiming and Hu, Bao-Gang",
        venue="NeurIPS",
        year=2017,
        arxiv="1705.08826",
    )

    def __init__(self, k: int = 64) -> None:
        in_range("ATk k", k, 1, math.inf)
        self.k = k

    def __call__(self, loss: Tensor) -> Tensor:
        """See `SampleWeight`."""
        if self.k > len(loss):
            raise ConfigError(f"ATk k is {self.k}, but the batch has {len(loss)} samples; lower it.")
        return hardest(loss, self.k)


def hardest(loss: Tensor, count: int) -> Tensor:
    """Weights (B,) that make the mean over a batch that over its ``count`` largest losses (B,)."""
    loss = loss.detach()
    return torch.zeros_like(loss).scatter(0, loss.topk(count, sorted=False).indices, len(loss) / count)
