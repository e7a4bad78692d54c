"""Optimisers: their settings, the groups of parameters, and a step that the device can call off."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from facelab.config import Strict
from facelab.errors import CheckpointError, ConfigError

STATE_NAMES: dict[type[Optimizer], tuple[str, ...]] = {
    SGD: ("momentum_buffer",),
    AdamW: ("step", "exp_avg", "exp_avg_sq"),
}
"""What torch's optimisers keep for each parameter."""

NORMS = (nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)  # those of one dimension, like BatchNorm, are known by that


class OptimizerConfig(Strict):
    """How parameters move; the ``optimizer`` section of a run.

    Attributes:
        name: ``sgd`` or ``adamw``.
        lr: Learning rate before the schedule.
        class_lr: The same for class rows, and for layers that a mode trains anew beside a network; ``lr`` if not given.
            To fine-tune, far above ``lr``: new rows have to find their people before they pull at a trained network.
        momentum: Of ``sgd``.
        nesterov: Nesterov's form of ``sgd``'s momentum.
        weight_decay: Per update and unit of learning rate.
        betas: Decay of ``adamw``'s two averages.
        eps: Added to ``adamw``'s denominator.
        fused: One kernel for all parameters. Without it the optimiser keeps a copy of itself during each update.
        decay_norms_and_biases: Whether weight decay also acts on biases, normalisation layers and PReLU slopes.
    """

    name: Literal["sgd", "adamw"] = "sgd"
    lr: float = Field(default=0.1, gt=0.0)
    class_lr: float | None = Field(default=None, gt=0.0)
    momentum: float = Field(default=0.9, ge=0.0, lt=1.0)
    nesterov: bool = False
    weight_decay: float = Field(default=5e-4, ge=0.0)
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = Field(default=1e-8, gt=0.0)
    fused: bool = True
    decay_norms_and_biases: bool = True

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum above 0")
        if not all(0.0 <= beta < 1.0 for beta in self.betas):
            raise ValueError(f"betas must lie in [0, 1), not {list(self.betas)}")
        return self


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that share learning rate and weight decay.

    Attributes:
        name: Names the group in logs.
        parameters: What is trained.
        lr: Learning rate before the schedule.
        weight_decay: Weight decay.
        sharded: Whether each process holds other parameters (class rows), so that norms add up over processes.
    """

    name: str
    parameters: tuple[nn.Parameter, ...]
    lr: float
    weight_decay: float
    sharded: bool = False


def parameter_groups(
    modules: Iterable[nn.Module],
    config: OptimizerConfig,
    *,
    name: str = "network",
    lr: float | None = None,
    sharded: bool = False,
    known: Iterable[nn.Parameter] = (),
) -> list[ParameterGroup]:
    """Split the trainable parameters of some modules into those that decay and those that do not.

    Args:
        modules: Their parameters are taken once each; frozen ones are left out.
        config: Gives learning rate and weight decay, and says what decays.
        name: Names the groups in logs.
        lr: Learning rate before the schedule; ``config.lr`` if not given.
        sharded: Whether each process holds other parameters, as with class rows.
        known: Parameters of other groups, left out here.

    Returns:
        One or two groups, none empty; an empty list if nothing is trainable.
    """
    elsewhere = set(known)
    decaying: dict[nn.Parameter, bool] = {}
    for module in modules:
        for owner in module.modules():
            for key, parameter in owner.named_parameters(recurse=False):
                if parameter.requires_grad and parameter not in decaying and parameter not in elsewhere:
                    decaying[parameter] = config.decay_norms_and_biases or _is_weight(owner, key, parameter)
    rate = config.lr if lr is None else lr
    with_decay = tuple(parameter for parameter, decays in decaying.items() if decays)
    without = tuple(parameter for parameter, decays in decaying.items() if not decays)
    groups = [
        ParameterGroup(name, with_decay, rate, config.weight_decay, sharded),
        ParameterGroup(f"{name} without decay", without, rate, 0.0, sharded),
    ]
    return [group for group in groups if group.parameters]


def _is_weight(owner: nn.Module, key: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim > 1 and not key.endswith("bias") and not isinstance(owner, NORMS)


def make_optimizer(groups: Sequence[ParameterGroup], config: OptimizerConfig) -> Optimizer:
    """The optimiser of the settings over some groups.

    Raises:
        ConfigError: If there is no parameter.
    """
    if not any(group.parameters for group in groups):
        raise ConfigError("nothing is trainable: every parameter is frozen.")
    options: list[dict[str, Any]] = [
        {
            "params": list(group.parameters),
            "name": group.name,
            "lr": group.lr,
            "weight_decay": group.weight_decay,
            "sharded": group.sharded,
        }
        for group in groups
    ]
    # torch's fused SGD for the CPU computes half-precision parameters but does not store all of them.
    whole = all(parameter.dtype in (torch.float32, torch.float64) for group in groups for parameter in group.parameters)
    fused = config.fused and whole
    if config.name == "adamw":
        return AdamW(options, lr=config.lr, betas=config.betas, eps=config.eps, fused=fused)
    sgd = SGD(options, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov, fused=fused)
    _start_momenta(sgd)
    return sgd


def guarded_step(optimizer: Optimizer, skip: Tensor, scale: Tensor | None = None) -> None:
    """Step, or leave parameters and state bit-equal, as the device decides.

    Args:
        optimizer: Any optimiser whose state starts from zeros. Fused ones look at ``skip`` themselves.
        skip: () float32, 1 to leave everything as it is, else 0.
        scale: () by which the loss was multiplied, for an optimiser that makes its gradients now; None for 1.
    """
    # torch's fused optimisers read `found_inf` on the device, as GradScaler gives it to them, so nobody waits for it.
    if getattr(optimizer, "_step_supports_amp_scaling", False):
        optimizer.grad_scale = scale if makes_gradients(optimizer) else None  # type: ignore[attr-defined]
        optimizer.found_inf = skip  # type: ignore[attr-defined]
        optimizer.step()
        del optimizer.grad_scale, optimizer.found_inf  # type: ignore[attr-defined]
        return
    before = {key: tensor.clone() for key, tensor in _tensors(optimizer).items()}
    optimizer.step()
    for key, tensor in _tensors(optimizer).items():
        old = before.get(key)
        # Chosen and not multiplied: 0 times NaN is NaN. State that this very step made starts from 0.
        tensor.copy_(torch.where(skip.to(tensor.device) > 0, torch.zeros_like(tensor) if old is None else old, tensor))


def why_not_captured(optimizer: Optimizer) -> str:
    """Why no CUDA graph can repeat the steps of an optimiser; empty if one can."""
    if type(optimizer) not in STATE_NAMES:
        return f"repeats fixed kernels, and {type(optimizer).__name__} decides in each step which class rows to move"
    if not all(group.get("fused") for group in optimizer.param_groups):
        return "needs the optimiser in one kernel, but optimizer.fused is false or parameters have half precision"
    return ""


def step_by_tensors(optimizer: Optimizer) -> None:
    """Give each group a learning rate on its device, which a CUDA graph reads anew in each step."""
    for group in optimizer.param_groups:
        if group["params"]:
            group["lr"] = torch.tensor(float(group["lr"]), device=group["params"][0].device)


def makes_gradients(optimizer: Optimizer) -> bool:
    """Whether an optimiser makes its gradients in its step, so that nobody else ever sees them."""
    return bool(getattr(optimizer, "makes_gradients", False))


def load_optimizer(optimizer: Optimizer, stored: Mapping[int, Mapping[str, Any]]) -> None:
    """Put back the state of an optimiser; its learning rates and other settings stay.

    Args:
        optimizer: Over the same parameters in the same order as when the state was taken.
        stored: The ``state`` of its ``state_dict``.

    Raises:
        CheckpointError: If the state is of another kind of optimiser, or of other parameters.
    """
    parameters = [
        (parameter, bool(group.get("sharded"))) for group in optimizer.param_groups for parameter in group["params"]
    ]
    for index, state in stored.items():
        _refuse_other_kind(optimizer, state)
        if index < len(parameters) and hasattr(optimizer, "check_state"):
            optimizer.check_state(parameters[index][0], state)
        if index >= len(parameters) or not all(
            _fits(value, optimizer.state.get(parameters[index][0], {}).get(key), *parameters[index])
            for key, value in state.items()
        ):
            raise CheckpointError(
                "the checkpoint's optimiser is of other parameters than this run trains; take backbone, head and "
                "classifier with their options back, or begin anew."
            )
    # State that is there already is written over: it may be of a type of its own, or lie on disk.
    there = {one: dict(optimizer.state[one]) for one, _ in parameters if one in optimizer.state}
    others: dict[int, dict[str, Any]] = {}
    for index, state in stored.items():
        for key, value in state.items():
            present = there.get(parameters[index][0], {}).get(key)
            if isinstance(present, Tensor) and isinstance(value, Tensor):
                present.copy_(value)
            else:  # torch takes a tensor itself where device and type fit; training would change the checkpoint
                others.setdefault(index, {})[key] = _copy(value, parameters[index][0])
    optimizer.load_state_dict({"state": others, "param_groups": optimizer.state_dict()["param_groups"]})
    for index, given in others.items():  # torch has made numbers of the parameter's type of them
        parameter = parameters[index][0]
        optimizer.state[parameter] |= {k: value.to(parameter.device) for k, value in given.items() if _is_whole(value)}
    for parameter, state in there.items():
        optimizer.state[parameter] = state | optimizer.state.get(parameter, {})
    _start_momenta(optimizer)


def _refuse_other_kind(optimizer: Optimizer, stored: Mapping[str, Any]) -> None:
    names = STATE_NAMES.get(type(optimizer))
    if names is not None and not stored.keys() <= set(names):
        raise CheckpointError(
            f"the checkpoint's optimiser is of another kind, which keeps {', '.join(stored)}, while that of the "
            f"settings keeps {', '.join(names)}; take optimizer.name and the classifier's options back, or begin anew."
        )


def is_rowwise(value: Any, parameter: Tensor) -> bool:
    """Whether a value of an optimiser's state has an entry for each row of the parameter, or one for each number."""
    return isinstance(value, Tensor) and value.ndim > 0 and value.shape in (parameter.shape, parameter.shape[:1])


def _fits(value: Any, present: Any, parameter: Tensor, sharded: bool) -> bool:
    """Whether a stored value of an optimiser's state may be that of a parameter."""
    if isinstance(present, Tensor):
        return isinstance(value, Tensor) and value.shape == present.shape
    if not isinstance(value, Tensor) or not value.ndim:
        return True
    return is_rowwise(value, parameter) if sharded else value.shape == parameter.shape


def _is_whole(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim > 0 and not value.is_floating_point()


def _tensors(optimizer: Optimizer) -> dict[tuple[int, str], Tensor]:
    """Every tensor that a step may change, by parameter and role."""
    found: dict[tuple[int, str], Tensor] = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            found[id(parameter), ""] = parameter.detach()
    for parameter, state in optimizer.state.items():
        found |= {(id(parameter), key): value for key, value in state.items() if isinstance(value, Tensor)}
    return found


def _start_momenta(optimizer: Optimizer) -> None:
    """Give every momentum a value; fused SGD allocates them empty, and leaves them so if its first step is skipped."""
    for group in optimizer.param_groups:
        for parameter in group["params"] if group.get("momentum") else ():
            if optimizer.state[parameter].get("momentum_buffer") is None:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def _copy(value: Any, parameter: Tensor) -> Any:
    if not isinstance(value, Tensor) or value.shape != parameter.shape:
        return value.clone() if isinstance(value, Tensor) else value
    # In the memory format of the parameter, which the checkpoint's may not have been: fused kernels go through both
    # number by number as they lie.
    return torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)
