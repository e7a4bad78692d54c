"""How `gpu.py` times a step and takes its memory, on a GPU or, as a trial, on a CPU.

A step is repeated to warm up, then measured in several blocks between two synchronisations; nothing inside a block
waits for the device. The time is that of the median block, the memory that of the whole row.
"""

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from gpu_table import Figures

from facelab.backbone.base import BACKBONES, Backbone
from facelab.catalogue import build

GIB = 2**30

# Options that make a network of the same family so small that a CPU runs it at once.
SMALL_INPUT = {"height": 32, "width": 32}
SMALL_IRESNET = {"depth": 18, "width": 0.125, "feat_dim": 8, "input_spec": SMALL_INPUT}
TINY: dict[str, dict[str, Any]] = {
    "r50": SMALL_IRESNET,
    "r100": SMALL_IRESNET,
    "vit_s": {"dim": 16, "depth": 1, "heads": 2, "feat_dim": 8},
    "MobileFaceNet": {"width": 0.25, "feat_dim": 8, "input_spec": SMALL_INPUT},
    "PETALSwin": {"dim": 16, "depths": [1, 1, 1], "heads": [1, 1, 1], "feat_dim": 8},
}


@dataclass(frozen=True)
class Bench:
    """Where rows are measured and how thoroughly.

    Attributes:
        device: A CUDA device, or the CPU in a trial.
        tiny: Small networks, two images, two blocks of one step.
    """

    device: torch.device
    tiny: bool = False

    @property
    def block_seconds(self) -> float:
        """Least duration of a block."""
        return 0.0 if self.tiny else 0.8

    def batch_size(self, wanted: int) -> int:
        """Images in a step."""
        return 2 if self.tiny else wanted

    def classes(self, wanted: int) -> int:
        """Classes of a head."""
        return 10 if self.tiny else wanted

    def backbone(self, entry: str) -> Backbone:
        """A network of the catalogue with random weights, laid out as a run does it."""
        network = build(BACKBONES, {entry: TINY[entry]} if self.tiny else entry)
        return network.to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]

    def pixels(self, network: Backbone, batch_size: int) -> torch.Tensor:
        """Random images as a loader gives them, uint8, (B, 3, H, W), on the device."""
        shape = (batch_size, 3, *network.input_spec.size)
        image = torch.randint(0, 256, shape, dtype=torch.uint8, device=self.device)
        return image.contiguous(memory_format=torch.channels_last)

    def synchronise(self) -> None:
        """Wait until the device has done all that it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


class Peak:
    """Device memory that a row takes at most, above what was there when it began."""

    def __init__(self, device: torch.device) -> None:
        self._device = device if device.type == "cuda" else None
        gc.collect()  # what a row before it left, above all one that failed
        if self._device is not None:
            torch.cuda.current_device()  # wakes the device; its memory cannot be asked for before
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self._device)
            self._held = torch.cuda.memory_allocated(self._device)

    def figures(self, known: int | None = None) -> Figures:
        """The peak, also without ``known`` bytes if given; nothing on a CPU."""
        if self._device is None:
            return {}
        peak = torch.cuda.max_memory_allocated(self._device) - self._held
        return {"peak GiB": peak / GIB} | ({} if known is None else {"beside rows, momentum GiB": (peak - known) / GIB})


def median_seconds(step: Callable[[], object], bench: Bench, *, warm_up: int = 5, blocks: int = 5) -> float:
    """Seconds of one step, by the median of the blocks."""
    for _ in range(1 if bench.tiny else warm_up):
        step()
    repeats = max(1, round(bench.block_seconds / _block(step, 1, bench)))
    return statistics.median(_block(step, repeats, bench) for _ in range(2 if bench.tiny else blocks))


def _block(step: Callable[[], object], repeats: int, bench: Bench) -> float:
    bench.synchronise()
    start = time.perf_counter()
    for _ in range(repeats):
        step()
    bench.synchronise()
    return (time.perf_counter() - start) / repeats
