"""SGD and AdamW that make the gradient of class rows chunk by chunk while they move them."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd

from facelab.head.chunked_gradient import ChunkedGradient
from facelab.head.classifier import UpdateRule
from facelab.head.compiled_loss import compiled
from facelab.head.rows.row_optimizers import RowOptimizer


class ChunkOptimizer(RowOptimizer):
    """torch's fused SGD or AdamW, called for some rows after the others, with the gradient that these rows have.

    Rows and state are those that torch's optimisers over the whole gradient give; so are the names in the state:
    ``momentum_buffer``, or ``exp_avg``, ``exp_avg_sq`` and ``step``. A ``grad`` that the rows have is added.

    Args:
        rows: (C, D) or (C, K, D).
        rule: How they move.
        gradient: What their gradient is made of; forgotten by `zero_grad`.
        at_once: Whether SGD's kernel is made by torch's compiler, one for all that is done to rows; equal to rounding.
    """

    makes_gradients = True
    grad_scale: Tensor | None = None

    def __init__(self, rows: nn.Parameter, rule: UpdateRule, gradient: ChunkedGradient, at_once: bool = False) -> None:
        names = ("betas", "eps") if rule.name == "adamw" else ("momentum", "nesterov")
        options = {name: getattr(rule, name) for name in names}
        super().__init__([rows], rule, options)
        self.gradient, self.at_once = gradient, at_once
        state = self.state[rows]
        if rule.name == "adamw":
            state |= {name: torch.zeros_like(rows, requires_grad=False) for name in ("exp_avg", "exp_avg_sq")}
            state["step"] = torch.zeros((), device=rows.device)
        elif rule.momentum:
            state["momentum_buffer"] = torch.zeros_like(rows, requires_grad=False)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients, those that are yet to be made too."""
        super().zero_grad(set_to_none)
        self.gradient.clear()

    def _update(self, parameter: nn.Parameter, group: Mapping[str, Any]) -> None:
        skip = getattr(self, "found_inf", None)
        if skip is not None and skip.device.type == "cpu" and bool(skip):
            return
        rows, state = parameter.detach().flatten(0, -2), self.state[parameter]
        beside = None if parameter.grad is None else parameter.grad.flatten(0, -2)
        unscale = None if self.grad_scale is None else self.grad_scale.reciprocal()
        step, momentum = state.get("step"), state.get("momentum_buffer")
        if self.at_once and momentum is not None and beside is None and self.gradient.is_of_one_pass:
            self._move_at_once(rows, momentum.flatten(0, -2), unscale, group, skip)
            return
        for place, gradient in self.gradient.chunks(rows, beside, unscale):
            here = {name: value.flatten(0, -2)[place] for name, value in state.items() if value is not step}
            if step is None:
                _sgd(rows[place], gradient, here.get("momentum_buffer"), group, skip)
            else:
                counted = step.clone()  # counted up for each chunk, and should be once
                _adamw(rows[place], gradient, here["exp_avg"], here["exp_avg_sq"], counted, group, skip)
        if step is not None:
            step.copy_(counted)

    def _move_at_once(
        self, rows: Tensor, momentum: Tensor, unscale: Tensor | None, group: Mapping[str, Any], skip: Tensor | None
    ) -> None:
        """SGD in one pass over each chunk."""
        # On the device, and not numbers: the kernel would be made anew for each of them.
        lr = rows.new_full((), group["lr"])
        keep = torch.zeros_like(lr) if skip is None else skip
        for place, gradient, radial in self.gradient.chunks_with_radial(unscale):
            rule = group["weight_decay"], group["momentum"], group["nesterov"]
            compiled(_move)(rows[place], momentum[place], gradient, radial, lr, keep, *rule)


def _move(
    rows: Tensor,
    momentum: Tensor,
    gradient: Tensor,
    radial: Tensor | None,
    lr: Tensor,
    skip: Tensor,
    weight_decay: float,
    mu: float,
    nesterov: bool,
) -> None:
    """SGD for some rows and their momenta, in place; ``radial`` is that of the rows' `Slopes`."""
    slope = gradient if radial is None else gradient - radial.unsqueeze(1) * rows
    slope = slope + weight_decay * rows
    average = mu * momentum + slope
    step = slope + mu * average if nesterov else average
    # Chosen and not multiplied: 0 times NaN is NaN.
    rows.copy_(torch.where(skip > 0, rows, rows - lr * step))
    momentum.copy_(torch.where(skip > 0, momentum, average))


def _sgd(
    rows: Tensor, gradient: Tensor, momentum: Tensor | None, group: Mapping[str, Any], skip: Tensor | None
) -> None:
    sgd(
        [rows],
        [gradient],
        [momentum],
        fused=True,
        found_inf=skip,
        weight_decay=group["weight_decay"],
        momentum=group["momentum"],
        lr=group["lr"],
        dampening=0.0,
        nesterov=group["nesterov"],
        maximize=False,
    )


def _adamw(
    rows: Tensor,
    gradient: Tensor,
    mean: Tensor,
    square: Tensor,
    step: Tensor,
    group: Mapping[str, Any],
    skip: Tensor | None,
) -> None:
    adamw(
        [rows],
        [gradient],
        [mean],
        [square],
        [],
        [step],
        fused=True,
        found_inf=skip,
        amsgrad=False,
        beta1=group["betas"][0],
        beta2=group["betas"][1],
        lr=group["lr"],
        weight_decay=group["weight_decay"],
        eps=group["eps"],
        maximize=False,
    )
