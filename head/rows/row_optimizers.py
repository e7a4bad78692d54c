"""SGD and AdamW that read and write the rows that took part and no others, and what the others miss meanwhile."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from facelab.errors import CheckpointError
from facelab.head.classifier import UpdateRule

# Rows that are worked on at a time: on a CPU they stay in its cache, on a GPU there shall be few launches.
ROWS_AT_A_TIME = {"cpu": 256}
ROWS_AT_A_TIME_ELSEWHERE = 16384

# After so many updates all rows are caught up once, so that no history is longer. A pass over all rows divided by so
# many updates costs less than sampling does, and a row's clock fits into 16 bits.
HORIZON = 4096

PAST = ("now", "clock", "maps")  # of the updates that rows have missed, in the state of RowSGD

Rows = Tensor | slice
Zeros = Callable[[Tensor], Tensor]


def zeros_in_memory(parameter: Tensor) -> Tensor:
    """Zeros of a parameter's shape and type, without gradient."""
    return torch.zeros_like(parameter, requires_grad=False)


class RowOptimizer(Optimizer):
    """What the optimisers of rows share. A gradient is sparse, with a value for each row that took part, or dense.

    Where ``found_inf`` is 1, rows and state stay as they are.

    Args:
        parameters: Tensors with a row for each class.
        rule: How they move.
        options: Further entries of each group.
    """

    _step_supports_amp_scaling = True
    found_inf: Tensor

    def __init__(self, parameters: Iterable[nn.Parameter], rule: UpdateRule, options: Mapping[str, Any]) -> None:
        groups = [
            {"params": [one], "weight_decay": rule.weight_decay if one.ndim > 1 or rule.decay_biases else 0.0}
            for one in parameters
        ]
        super().__init__(groups, {"lr": rule.lr, **options})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move the rows that have a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                self._update(parameter, group)

    def check_state(self, parameter: nn.Parameter, stored: Mapping[str, Any]) -> None:
        """Refuse what cannot be the state of a parameter; nothing is changed.

        Raises:
            CheckpointError: If it is that of another kind of optimiser, or no state that can be reached.
        """
        names = self.state[parameter].keys()
        if not stored.keys() <= names:
            raise CheckpointError(
                f"the checkpoint's optimiser of class rows keeps {', '.join(sorted(stored))}, while that of the "
                f"settings keeps {', '.join(sorted(names))}; take optimizer.name and the classifier's options, such as "
                "unsampled, back, or begin anew."
            )

    @abstractmethod
    def _update(self, parameter: nn.Parameter, group: Mapping[str, Any]) -> None:
        """Move one parameter."""

    def _gradients(self, parameter: nn.Parameter) -> Iterator[tuple[Rows, Tensor]]:
        """Rows that shall move, some at a time, with their gradients."""
        gradient = parameter.grad
        skip = getattr(self, "found_inf", None)
        # On a CPU the answer is at hand; elsewhere nobody waits for it, and `_put` writes the former values.
        if gradient is None or (skip is not None and skip.device.type == "cpu" and bool(skip)):
            return
        rows, values = None, gradient
        if gradient.is_sparse:
            gradient = gradient.coalesce()
            rows, values = gradient.indices()[0], gradient.values()
        for part, place in parts(parameter, rows):
            yield place, values[part]

    def _put(self, tensor: Tensor, rows: Rows, new: Tensor) -> None:
        skip = getattr(self, "found_inf", None)
        if skip is not None and skip.device.type != "cpu":
            new = torch.where(skip > 0, _taken(tensor, rows), new)  # chosen and not multiplied: 0 times NaN is NaN
        _write(tensor, rows, new)


def parts(parameter: Tensor, rows: Tensor | None) -> Iterator[tuple[slice, Rows]]:
    """Some of the given rows at a time, of all if ``rows`` is None: where they stand among them, and the rows."""
    size = ROWS_AT_A_TIME.get(parameter.device.type, ROWS_AT_A_TIME_ELSEWHERE)
    for start in range(0, len(parameter if rows is None else rows), size):
        part = slice(start, start + size)
        yield part, (part if rows is None else rows[part])


class RowSGD(RowOptimizer):
    """Stochastic gradient descent with momentum, as `torch.optim.SGD`, for rows of which a part has a gradient.

    By default a row without gradient stands still, and so does its momentum. With ``exact`` it decays and goes on with
    its momentum, as a dense optimiser would move it, but only when it is asked for the next time. In update t all rows
    without gradient go through the same linear map ``(w, m) <- A_t (w, m)`` with
    ``A_t = [[1 - lr wd, -lr mu], [wd, mu]]``, so what rows have missed is multiplied once for all of them, and each is
    multiplied with the product that its clock names. The result is that of dense SGD, to rounding.

    State of each parameter: ``momentum_buffer``; with ``exact`` also ``now``, the updates since all rows were caught
    up, ``clock``, how many of these each row has seen, int16, (C,), and ``maps``, for each such number the product of
    those that came after it, float64, (horizon + 1, 2, 2).

    Args:
        parameters: Tensors with a row for each class.
        rule: How they move.
        zeros: Gives zeros of a parameter's shape and type, for its state.
        exact: Whether rows catch up; not with Nesterov's momentum.
        horizon: Updates after which all rows are caught up, 1 to 32767.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        rule: UpdateRule,
        zeros: Zeros = zeros_in_memory,
        *,
        exact: bool = False,
        horizon: int = HORIZON,
    ) -> None:
        super().__init__(parameters, rule, {"momentum": rule.momentum, "nesterov": rule.nesterov})
        self.exact = exact
        self.horizon = horizon
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                state["momentum_buffer"] = zeros(parameter)
                if exact:
                    state["clock"] = torch.zeros(len(parameter), dtype=torch.int16, device=parameter.device)
                    state["maps"] = torch.zeros(horizon + 1, 2, 2, dtype=torch.float64, device=parameter.device)
                    self._begin(state)

    def check_state(self, parameter: nn.Parameter, stored: Mapping[str, Any]) -> None:
        """As in `RowOptimizer`; with ``exact``, clocks and maps must tell of updates that there were.

        Raises:
            CheckpointError: As there.
        """
        super().check_state(parameter, stored)
        # Rows that were lazy so far have no past, and begin to have one now.
        if not stored.keys().isdisjoint(PAST) and not self._may_be_past(self.state[parameter], stored):
            raise CheckpointError(
                "the checkpoint is damaged: by its clock, maps and now, class rows have missed updates that cannot "
                "have been; go on from an earlier checkpoint by --resume."
            )

    def _may_be_past(self, present: Mapping[str, Any], stored: Mapping[str, Any]) -> bool:
        match {name: stored.get(name) for name in PAST}:
            case {"now": int(now), "clock": Tensor() as clock, "maps": Tensor() as maps}:
                return (
                    0 <= now < self.horizon
                    and (clock.shape, maps.shape) == (present["clock"].shape, present["maps"].shape)
                    and not clock.is_floating_point()
                    and 0 <= int(clock.min()) <= int(clock.max()) <= now
                    and bool(maps[: now + 1].isfinite().all())
                )
        return False

    @torch.no_grad()
    def catch_up(self, rows: Tensor | None = None) -> None:
        """Bring rows to where a dense optimiser would have them; to be called before they are read.

        Args:
            rows: Which, int64, (N,); None for all.
        """
        for group in self.param_groups if self.exact else ():
            for parameter in group["params"]:
                self._catch_up(parameter, rows)

    @torch.no_grad()
    def caught_up(self, parameter: nn.Parameter) -> Tensor:
        """All rows of a parameter as a dense optimiser would have them; the parameter itself stays as it is."""
        if not self.exact or not self.state[parameter]["now"]:
            return parameter.detach()
        return torch.cat([self._caught_up(parameter, place)[0] for _, place in parts(parameter, None)])

    def _catch_up(self, parameter: nn.Parameter, rows: Tensor | None) -> None:
        state = self.state[parameter]
        for _, place in parts(parameter, rows) if state["now"] else ():
            weight, momentum = self._caught_up(parameter, place)
            _write(parameter, place, weight)
            _write(state["momentum_buffer"], place, momentum)
            _fill(state["clock"], place, state["now"])

    def _caught_up(self, parameter: nn.Parameter, rows: Rows) -> tuple[Tensor, Tensor]:
        state = self.state[parameter]
        weight, momentum = _taken(parameter, rows), _taken(state["momentum_buffer"], rows)
        return caught_up(weight, momentum, state["clock"][rows], state["maps"])

    def _update(self, parameter: nn.Parameter, group: Mapping[str, Any]) -> None:
        state, lr, decay, mu = self.state[parameter], group["lr"], group["weight_decay"], group["momentum"]
        for rows, gradient in self._gradients(parameter):
            weight, momentum = _taken(parameter, rows), _taken(state["momentum_buffer"], rows)
            slope = torch.add(gradient, weight, alpha=decay)
            torch.add(slope, momentum, alpha=mu, out=momentum)
            direction = slope.add_(momentum, alpha=mu) if group["nesterov"] else momentum
            self._put(parameter, rows, weight.add_(direction, alpha=-lr))
            self._put(state["momentum_buffer"], rows, momentum)
            if self.exact:
                _fill(state["clock"], rows, state["now"] + 1)
        if self.exact:
            self._remember(state, lr, decay, mu)
            if state["now"] == self.horizon:
                self._catch_up(parameter, None)
            if state["now"] == self.horizon or (parameter.grad is not None and not parameter.grad.is_sparse):
                self._begin(state)  # all rows have seen all updates

    @staticmethod
    def _begin(state: dict[str, Any]) -> None:
        state["now"] = 0
        state["clock"].zero_()
        torch.eye(2, out=state["maps"][0])

    def _remember(self, state: dict[str, Any], lr: float, decay: float, mu: float) -> None:
        """Multiply the map of this update to what rows have missed."""
        maps, now = state["maps"], state["now"]
        weight, momentum = maps[: now + 1].unbind(1)
        # From numbers and not with a matrix, which would have to be copied to the device.
        after = torch.stack([(1.0 - lr * decay) * weight - lr * mu * momentum, decay * weight + mu * momentum], dim=1)
        skip = getattr(self, "found_inf", None)
        maps[: now + 1] = after if skip is None else torch.where(skip > 0, maps[: now + 1], after)
        state["now"] = now + 1
        torch.eye(2, out=maps[now + 1])


def caught_up(weight: Tensor, momentum: Tensor, clock: Tensor, maps: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and their momenta as a dense optimiser would have them by now.

    Args:
        weight: Rows as they were when they were last read, (C, ...).
        momentum: Of the same shape.
        clock: How many updates each row has seen, (C,).
        maps: See `RowSGD`.
    """
    taken = maps[clock.long()].to(weight.dtype).flatten(1).unbind(1)
    a, b, c, d = (entry.view(-1, *[1] * (weight.ndim - 1)) for entry in taken)
    return a * weight + b * momentum, c * weight + d * momentum


def _taken(tensor: Tensor, rows: Rows) -> Tensor:
    """A copy of some rows."""
    # Half as long as by brackets, which look for an index of several dimensions.
    return tensor[rows].clone() if isinstance(rows, slice) else tensor.index_select(0, rows)


def _write(tensor: Tensor, rows: Rows, values: Tensor) -> None:
    if isinstance(rows, slice):
        tensor[rows] = values
    else:
        tensor.index_copy_(0, rows, values)


def _fill(clock: Tensor, rows: Rows, number: int) -> None:
    # By index a number would be copied to the device, and the host wait for it.
    if isinstance(rows, slice):
        clock[rows] = number
    else:
        clock.index_fill_(0, rows, number)


class RowAdamW(RowOptimizer):
    """AdamW, as `torch.optim.AdamW`, for rows of which a part has a gradient; the others stand still with their state.

    As in PLSC's (PaddlePaddle), the correction for averages that start from zero counts all updates, not a row's own.

    State of each parameter: ``exp_avg``, ``exp_avg_sq``, and ``step``, the number of updates, ().

    Args:
        parameters: Tensors with a row for each class.
        rule: How they move.
        zeros: Gives zeros of a parameter's shape and type, for its state.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], rule: UpdateRule, zeros: Zeros = zeros_in_memory) -> None:
        super().__init__(parameters, rule, {"betas": rule.betas, "eps": rule.eps})
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter] |= {
                    "exp_avg": zeros(parameter),
                    "exp_avg_sq": zeros(parameter),
                    "step": torch.zeros((), dtype=torch.float64, device=parameter.device),
                }

    def _update(self, parameter: nn.Parameter, group: Mapping[str, Any]) -> None:
        state, lr, (beta1, beta2) = self.state[parameter], group["lr"], group["betas"]
        skip = getattr(self, "found_inf", None)
        state["step"] += 1.0 if skip is None else 1.0 - skip
        step = state["step"].clamp_min(1.0)  # of a first update that is skipped nothing is written
        rate, root = lr / (1.0 - beta1**step), (1.0 - beta2**step).sqrt()
        for rows, gradient in self._gradients(parameter):
            weight, mean, square = (_taken(one, rows) for one in (parameter, state["exp_avg"], state["exp_avg_sq"]))
            mean.lerp_(gradient, 1.0 - beta1)
            square.mul_(beta2).addcmul_(gradient, gradient, value=1.0 - beta2)
            denominator = square.sqrt().div_(root).add_(group["eps"])
            weight.mul_(1.0 - lr * group["weight_decay"]).sub_((rate * mean).div_(denominator))
            self._put(parameter, rows, weight)
            self._put(state["exp_avg"], rows, mean)
            self._put(state["exp_avg_sq"], rows, square)
