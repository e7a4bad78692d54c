"""From a loss to new parameters: backward, accumulation, clipping, finite check, optimiser steps, schedule."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import reduce
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from facelab import distributed
from facelab.engine.optimizers import (
    OptimizerConfig,
    ParameterGroup,
    guarded_step,
    load_optimizer,
    make_optimizer,
    makes_gradients,
    parameter_groups,
)
from facelab.engine.phases import phase
from facelab.engine.precision import AmpBackend, Precision, make_arithmetic
from facelab.engine.replica import Replica
from facelab.engine.schedules import ScheduleConfig
from facelab.engine.watch import Watch
from facelab.errors import CheckpointError, ConfigError

__all__ = ["AmpBackend", "Clip", "Optimization", "OptimizerConfig", "ParameterGroup", "Precision", "parameter_groups"]

Clip = Literal["network", "all"]

# Keeps the factor finite where all gradients are 0; as large as in torch.nn.utils.clip_grad_norm_.
CLIP_EPS = 1e-6


class Optimization:
    """Optimisers under one schedule, one loss scale, one clipping norm and one decision whether to skip.

    Nothing here waits for the device. A loss or gradient that is not finite sets a flag on the device; from then on
    every update leaves the parameters and the optimisers as they are, until `check` reads the flag and raises. With
    fp16 a gradient that overflows skips one update and lowers the loss scale, which is normal.

    Args:
        groups: What is trained by the optimiser that ``optimizer`` describes.
        optimizer: Settings of that optimiser.
        schedule: How the learning rates move.
        total_updates: Updates in the whole run.
        updates_per_epoch: Updates in one epoch.
        precision: Format of the forward pass.
        amp: ``native`` or ``apex``.
        accumulate: Calls of `update` that make one update of the parameters.
        clip_norm: Largest norm of the gradients that ``clip`` names, all of them together, or None.
        clip: ``all`` gradients, or those of the ``network``, that is of the groups that are not sharded: class rows
            then move as their gradients say.
        device: Where the flags live; the parameters' device.
        others: Further optimisers under the same schedule and decisions, stepped after the first. Their groups carry
            the base ``lr`` and may carry ``sharded: True``. Their gradients may be sparse COO tensors.
        modules: The networks in training; only apex wants to see them.
        replicas: The same as their processes train them; each knows the norm of its gradients, wherever they lie.

    Raises:
        ConfigError: If nothing is trainable, a number is out of range, the schedule does not fit the run, apex is
            asked for and missing, or an optimiser that makes its gradients in its step does not go with the rest.
    """

    def __init__(
        self,
        groups: Sequence[ParameterGroup],
        optimizer: OptimizerConfig,
        schedule: ScheduleConfig,
        *,
        total_updates: int,
        updates_per_epoch: float,
        precision: Precision = "fp32",
        amp: AmpBackend = "native",
        accumulate: int = 1,
        clip_norm: float | None = None,
        clip: Clip = "all",
        device: torch.device | str = "cpu",
        others: Sequence[Optimizer] = (),
        modules: Sequence[nn.Module] = (),
        replicas: Sequence[Replica[Any]] = (),
    ) -> None:
        if accumulate < 1:
            raise ConfigError(f"training.accumulate is {accumulate}, but must be at least 1.")
        if clip_norm is not None and not clip_norm > 0:
            raise ConfigError(f"training.clip_norm is {clip_norm}, but must be above 0; leave it out to clip nothing.")
        self.device = torch.device(device)
        self.accumulate = accumulate
        self.clip_norm = clip_norm
        self.clip = clip
        self.updates = 0
        self.replicas = list(replicas)
        self._parts = {part: (one, whole) for one in replicas for whole, part in one.parts().items()}
        part_of = {whole: part for part, (_, whole) in self._parts.items()}
        self._of_replicas = {part_of.get(one, one) for replica in replicas for one in replica.network.parameters()}
        groups = [replace(one, parameters=tuple(part_of.get(p, p) for p in one.parameters)) for one in groups]
        first = [make_optimizer(groups, optimizer)] if groups or not others else []  # class rows alone may be trained
        self.optimizers = [*first, *others]
        if any(map(makes_gradients, others)):
            _refuse_hidden_gradients(amp, None if clip == "network" else clip_norm)
        self.arithmetic = make_arithmetic(precision, amp, self.device, modules, self.optimizers)
        bases = [group["lr"] for group in self._groups()]
        self.schedule = schedule.build(bases, total_updates=total_updates, updates_per_epoch=updates_per_epoch)
        self._calls = 0
        self.watch = Watch(self.device)
        self._set_rates()

    @property
    def at_boundary(self) -> bool:
        """Whether the last call of `update` moved the parameters, so that nothing is half accumulated."""
        return self._calls == 0

    @property
    def next_call_updates(self) -> bool:
        """Whether the next call of `update` will move the parameters; until then processes need not talk."""
        return self._calls == self.accumulate - 1

    @property
    def learning_rate(self) -> float:
        """Rate of the first group in the latest update, or in the first one if there was none yet."""
        return float(self._groups()[0]["lr"])

    def autocast(self) -> AbstractContextManager[object]:
        """Context for the forward pass and the loss."""
        return self.arithmetic.autocast()

    def update(self, loss: Tensor) -> Tensor | None:
        """Differentiate a loss; every ``accumulate``-th time move the parameters and advance the schedule.

        Args:
            loss: () mean loss of this call's samples; its share in the update is 1 / ``accumulate``.

        Returns:
            Norm () before clipping of the gradients that ``clip`` names, not finite if any gradient is not, on the
            device; None while accumulating.
        """
        last = self.next_call_updates
        self._calls = 0 if last else self._calls + 1
        if last:
            self.begin_update()
            return self.move_by(loss)
        self._differentiate(loss, last=False)
        return None

    def begin_update(self) -> None:
        """What the host does for an update: its number and its learning rates."""
        self._set_rates()
        self.updates += 1
        self.watch.begin(self.updates)

    def move_by(self, loss: Tensor) -> Tensor:
        """What the device does for an update behind `begin_update`, as it can be repeated by a CUDA graph.

        Args:
            loss: As in `update`.

        Returns:
            The norm that `update` gives.
        """
        self._differentiate(loss, last=True)
        with phase("optimizer"):
            return self._move()

    def _differentiate(self, loss: Tensor, *, last: bool) -> None:
        self.watch.see_loss(loss)
        with phase("backward"):
            # Divided, so that accumulating changes the size of the batch and not that of the step.
            self.arithmetic.backward(loss / self.accumulate, last=last)

    def check(self) -> None:
        """Read the flag; the only place that waits for the device.

        Raises:
            DivergenceError: If a loss or gradient was not finite; the message says in which update.
        """
        self.watch.check()

    def state_dict(self) -> dict[str, Any]:
        """What resuming needs, as plain types and the live tensors. The schedule follows from the number of updates.

        Raises:
            DivergenceError: As `check`, so that a broken state is never stored.
            RuntimeError: If gradients are half accumulated; only whole updates can be stored.
        """
        if not self.at_boundary:
            raise RuntimeError("gradients are half accumulated; store the state when at_boundary is true")
        self.check()
        return {
            "updates": self.updates,
            "optimizers": [self._spread(optimizer) for optimizer in self.optimizers],
            "arithmetic": self.arithmetic.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave. Learning rates, weight decay and the like stay as configured now.

        Raises:
            CheckpointError: If the state is of other optimisers or another precision.
        """
        if len(state["optimizers"]) != len(self.optimizers):
            raise CheckpointError(
                f"the checkpoint has {len(state['optimizers'])} optimisers, this run has {len(self.optimizers)}; take "
                "classifier and its options, such as sample_rate, back, or begin anew."
            )
        if state["arithmetic"].keys() != self.arithmetic.state_dict().keys():
            raise CheckpointError("the checkpoint was trained with another training.precision or training.amp.")
        for optimizer, stored in zip(self.optimizers, state["optimizers"], strict=True):
            load_optimizer(optimizer, self._cut(optimizer, stored))
        self.arithmetic.load_state_dict(state["arithmetic"])
        self.updates = state["updates"]
        self._calls = 0
        self.watch = Watch(self.device)
        self._set_rates()

    def _spread(self, optimizer: Optimizer) -> dict[int, dict[str, Any]]:
        """The state of an optimiser; what it keeps for a part of a parameter gets the shape of the parameter."""
        states = dict(optimizer.state_dict()["state"])
        for index, part in enumerate(_parameters(optimizer)):
            if part in self._parts and index in states:
                replica, whole = self._parts[part]
                kept = states[index].items()
                states[index] = {k: replica.spread(whole, v) if _is_like(v, part) else v for k, v in kept}
        return states

    def _cut(self, optimizer: Optimizer, stored: Mapping[int, Mapping[str, Any]]) -> dict[int, Mapping[str, Any]]:
        """Stored state as this process holds it; what does not fit stays as it is, to be refused."""
        states = dict(stored)
        for index, part in enumerate(_parameters(optimizer)):
            if part in self._parts and index in states:
                replica, whole = self._parts[part]
                kept = states[index].items()
                states[index] = {k: replica.cut(whole, v) if _is_like(v, whole) else v for k, v in kept}
        return states

    def _move(self) -> Tensor:
        for replica in self.replicas:
            replica.collect_gradients()
        norm, bad_loss = self._measure()
        unscale = self.arithmetic.unscale()
        scale = None if unscale is None else unscale.reciprocal()  # before an overflow lowers it
        # One number tells of all gradients: a norm is not finite if any of them is not.
        bad_gradient = ~torch.isfinite(norm)
        self.arithmetic.advance(bad_gradient)
        self.watch.close(bad_loss, *self.arithmetic.failures(bad_gradient))
        skip = (bad_gradient | self.watch.tripped).float()
        for optimizer in self.optimizers:
            guarded_step(optimizer, skip, scale)
            optimizer.zero_grad(set_to_none=True)
        return norm

    def _measure(self) -> tuple[Tensor, Tensor]:
        """Unscale and clip the gradients; the norm () that `update` returns, and whether any loss was bad () bool."""
        trained = [
            (parameter, _numbers(parameter), bool(group.get("sharded")))
            for group in self._groups()
            for parameter in group["params"]
            if parameter.grad is not None
        ]
        equal = [gradient for _, gradient, sharded in trained if not sharded]
        rows = [gradient for _, gradient, sharded in trained if sharded]
        others = [gradient for one, gradient, sharded in trained if not sharded and one not in self._of_replicas]
        norms = [replica.gradient_norm() for replica in self.replicas]
        network = reduce(torch.hypot, [*norms, self._norm(others)])
        norm, bad_loss = combined_norm(network, self._norm(rows), self.watch.bad_loss)
        # Published programs clip the backbone alone; clipped with it, class rows hardly turn. Their norm counts only
        # where it is not finite, because the update is skipped then.
        if self.clip == "network":
            norm = torch.where(torch.isfinite(norm), network, norm)
        unscale = self.arithmetic.unscale()
        if unscale is not None:
            norm = norm * unscale
        shrink = None if self.clip_norm is None else (self.clip_norm / (norm + CLIP_EPS)).clamp(max=1.0)
        _multiply(equal, unscale, shrink)
        _multiply(rows, unscale, shrink if self.clip == "all" else None)
        return norm, bad_loss

    def _norm(self, gradients: list[Tensor]) -> Tensor:
        return get_total_norm(gradients) if gradients else torch.zeros((), device=self.device)

    def _groups(self) -> list[dict[str, Any]]:
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def _set_rates(self) -> None:
        for group, rate in zip(self._groups(), self.schedule.rates(self.updates), strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)  # where it lies, for a CUDA graph
            else:
                group["lr"] = rate


def _refuse_hidden_gradients(amp: AmpBackend, clip_norm: float | None) -> None:
    """What cannot be where the gradient of class rows is made in the step of their optimiser."""
    if clip_norm is not None:
        raise ConfigError(
            f"training.clip_norm={clip_norm} with training.clip=all needs the norm of the class rows' gradient, which "
            "with classifier.FullSoftmax.gradient=chunks is never there as a whole; set training.clip=network, or "
            "gradient=whole."
        )
    if amp == "apex":
        raise ConfigError(
            "training.amp=apex keeps its loss scale to itself, which the class rows' optimiser must know with "
            "classifier.FullSoftmax.gradient=chunks; set training.amp=native, or gradient=whole."
        )


def _parameters(optimizer: Optimizer) -> list[nn.Parameter]:
    """In the order in which its state numbers them."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _is_like(value: Any, parameter: Tensor) -> bool:
    """Whether an optimiser keeps a number of a parameter's each in it."""
    return isinstance(value, Tensor) and value.ndim > 0 and value.shape == parameter.shape


def _numbers(parameter: Tensor) -> Tensor:
    """The gradient that a parameter has, to be changed in place; of a sparse one those rows that took part."""
    assert parameter.grad is not None
    if not parameter.grad.is_sparse:
        return parameter.grad
    # A row that took part twice has two entries; their norm would be that of neither. Costs nothing if there are none.
    parameter.grad = parameter.grad.coalesce()
    return parameter.grad.values()


def _multiply(gradients: list[Tensor], *factors: Tensor | None) -> None:
    """Multiply in place by the () factors that there are, in one pass."""
    given = [factor for factor in factors if factor is not None]
    if given and gradients:
        torch._foreach_mul_(gradients, torch.stack(given).prod())


def combined_norm(replicated: Tensor, sharded: Tensor, bad_loss: Tensor) -> tuple[Tensor, Tensor]:
    """Norm over all processes of gradients that are equal on them and of gradients that each has for itself.

    Args:
        replicated: () norm of the gradients that are equal on all processes.
        sharded: () norm of this process's own gradients.
        bad_loss: () bool, whether this process saw a loss that is not finite.

    Returns:
        The norm () and whether any process saw a bad loss () bool; the same on all processes in what is finite.
    """
    square = sharded.square()
    if distributed.world_size() > 1:
        broken = ~torch.isfinite(replicated)
        # In one message. What should be equal everywhere is asked for too: if one process alone skipped an update,
        # their parameters would part.
        votes = torch.stack([square, bad_loss.to(square.dtype), broken.to(square.dtype)])
        votes = distributed.all_reduce_sum(votes)
        square, bad_loss = votes[0], votes[1] > 0
        replicated = torch.where(votes[2] > 0, torch.inf, replicated)
    return torch.hypot(replicated, square.sqrt()), bad_loss
