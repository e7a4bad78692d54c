"""Number formats of training: fp32, bf16, fp16 with a loss scale, and NVIDIA apex where it is installed."""

import importlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from facelab.errors import ConfigError

Precision = Literal["fp32", "bf16", "fp16"]
AmpBackend = Literal["native", "apex"]

DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Arithmetic:
    """How losses become gradients. This one, for fp32 and bf16, differentiates the loss as it is.

    Args:
        precision: Format of the forward pass; parameters and gradients stay in their own.
        device: Where the training runs.
    """

    def __init__(self, precision: Precision, device: torch.device) -> None:
        self.precision = precision
        self.device = device

    def autocast(self) -> AbstractContextManager[object]:
        """Context for the forward pass and the loss."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, DTYPES[self.precision])

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """Add the gradient of a () loss to the parameters; ``last`` before the optimiser steps."""
        torch.autograd.backward(loss)

    def unscale(self) -> Tensor | None:
        """What gradients must be multiplied by, (); None for nothing."""
        return None

    def advance(self, overflow: Tensor) -> None:
        """Learn whether the gradients of an update overflowed, () bool."""

    def failures(self, overflow: Tensor) -> tuple[Tensor, Tensor]:
        """Whether the gradients of an update are broken, and whether the loss scale is used up, () bool each."""
        return overflow, torch.zeros_like(overflow)

    def state_dict(self) -> dict[str, Any]:
        """What resuming needs."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave."""


class ScaledArithmetic(Arithmetic):
    """fp16 with a dynamic loss scale, by the rule of `torch.amp.GradScaler`.

    Halves the scale after an overflow and doubles it after ``growth_interval`` updates without one. GradScaler lets
    each optimiser decide alone whether it skips, from its own gradients; here one decision holds for all optimisers
    and processes and comes from outside, so the rule is restated in a few operations on the device.

    Args:
        precision: ``fp16``.
        device: Where the training runs.
        initial_scale: First scale.
        growth_interval: Updates without overflow before the scale is doubled.
    """

    LOWEST = 1.0  # a gradient that overflows fp16 unscaled is broken, not merely scaled too high

    def __init__(
        self,
        precision: Precision,
        device: torch.device,
        *,
        initial_scale: float = 2.0**16,
        growth_interval: int = 2000,
    ) -> None:
        super().__init__(precision, device)
        self.growth_interval = growth_interval
        self.scale = torch.full((), initial_scale, device=device)
        self.streak = torch.zeros((), dtype=torch.int32, device=device)

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """Add the scaled gradient of a () loss to the parameters."""
        torch.autograd.backward(loss * self.scale)

    def unscale(self) -> Tensor | None:
        """One over the scale, ()."""
        # Scales are powers of two, so that neither scaling nor its reversal rounds.
        return self.scale.reciprocal()

    def advance(self, overflow: Tensor) -> None:
        """Halve the scale after an overflow, () bool; double it after a long streak without."""
        # In place, because a CUDA graph knows tensors by where they lie.
        self.streak.add_(1).masked_fill_(overflow, 0)
        grown = self.streak >= self.growth_interval
        doubled = torch.where(torch.isfinite(self.scale * 2), self.scale * 2, self.scale)
        self.scale.copy_(torch.where(overflow, self.scale * 0.5, torch.where(grown, doubled, self.scale)))
        self.streak.masked_fill_(grown, 0)

    def failures(self, overflow: Tensor) -> tuple[Tensor, Tensor]:
        """An overflow is normal while the scale, now and then, is too high; it is not when the scale is below 1."""
        return torch.zeros_like(overflow), self.scale < self.LOWEST

    def state_dict(self) -> dict[str, Any]:
        """Scale and streak, () each."""
        return {"scale": self.scale.clone(), "streak": self.streak.clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        self.scale = state["scale"].to(self.device, torch.float32, copy=True)
        self.streak = state["streak"].to(self.device, torch.int32, copy=True)


class ApexArithmetic(Arithmetic):
    """fp16 by NVIDIA apex at its level O1, which patches torch's functions instead of using autocast.

    Args:
        precision: ``fp16``.
        device: Where the training runs.
        modules: The networks in training.
        optimizers: Their optimisers.

    Raises:
        ConfigError: If NVIDIA apex is not installed, or ``precision`` is another.
    """

    def __init__(
        self,
        precision: Precision,
        device: torch.device,
        modules: Sequence[nn.Module],
        optimizers: Sequence[Optimizer],
    ) -> None:
        if precision != "fp16":
            raise ConfigError(f"training.amp: apex trains in fp16, not {precision}; set training.precision=fp16.")
        super().__init__(precision, device)
        self.apex = _import_apex()
        self.optimizers = list(optimizers)
        self.apex.initialize(list(modules), self.optimizers, opt_level="O1")

    def autocast(self) -> AbstractContextManager[object]:
        """Nothing: O1 has patched the functions themselves."""
        return nullcontext()

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """Add the gradient of a () loss to the parameters; apex unscales it before the optimiser steps."""
        # Gradients that more are added to must keep their scale.
        with self.apex.scale_loss(loss, self.optimizers, delay_unscale=not last) as scaled:
            scaled.backward()

    def failures(self, overflow: Tensor) -> tuple[Tensor, Tensor]:
        """Overflows are apex's to handle; it lowers its scale."""
        return torch.zeros_like(overflow), torch.zeros_like(overflow)

    def state_dict(self) -> dict[str, Any]:
        """Scales as apex keeps them."""
        return {"apex": self.apex.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        self.apex.load_state_dict(state["apex"])


def make_arithmetic(
    precision: Precision,
    amp: AmpBackend,
    device: torch.device,
    modules: Sequence[nn.Module],
    optimizers: Sequence[Optimizer],
) -> Arithmetic:
    """The arithmetic that the settings ask for.

    Raises:
        ConfigError: If ``amp`` is ``apex`` and NVIDIA apex is not installed, or ``precision`` is not ``fp16``.
    """
    if amp == "apex":
        return ApexArithmetic(precision, device, modules, optimizers)
    return (ScaledArithmetic if precision == "fp16" else Arithmetic)(precision, device)


def _import_apex() -> ModuleType:
    """NVIDIA's ``apex.amp``; the package index has an unrelated web toolkit under the name ``apex``."""
    try:
        amp = importlib.import_module("apex.amp")
    except ImportError:
        amp = None
    if amp is None or not hasattr(amp, "scale_loss"):
        raise ConfigError(
            "training.amp: apex needs NVIDIA apex, which is not installed (it is built from source; the package named "
            "'apex' on the package index is another project); set training.amp=native."
        )
    return amp
