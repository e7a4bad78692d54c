"""Parameter groups, and steps that are called off."""

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from facelab.engine.optimizers import (
    OptimizerConfig,
    ParameterGroup,
    guarded_step,
    load_optimizer,
    make_optimizer,
    parameter_groups,
)
from facelab.errors import CheckpointError, ConfigError

GO, SKIP = torch.tensor(0.0), torch.tensor(1.0)
KINDS = [(name, fused) for name in ("sgd", "adamw") for fused in (True, False)]


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.PReLU(4), nn.LayerNorm([2, 2]), nn.Linear(2, 5))


def names(module: nn.Module, group: ParameterGroup) -> set[str]:
    return {name for name, value in module.named_parameters() if any(value is mine for mine in group.parameters)}


def test_everything_decays_by_default() -> None:
    net = network()
    (group,) = parameter_groups([net], OptimizerConfig(weight_decay=0.1))
    assert names(net, group) == dict(net.named_parameters()).keys()
    assert (group.lr, group.weight_decay, group.sharded) == (0.1, 0.1, False)


def test_norms_biases_and_slopes_can_be_spared() -> None:
    net = network()
    decaying, spared = parameter_groups([net], OptimizerConfig(decay_norms_and_biases=False), lr=0.3, sharded=True)
    assert names(net, decaying) == {"0.weight", "4.weight"}
    assert names(net, spared) == dict(net.named_parameters()).keys() - {"0.weight", "4.weight"}
    assert (decaying.weight_decay, spared.weight_decay) == (5e-4, 0.0)
    assert decaying.sharded
    assert {decaying.lr, spared.lr} == {0.3}
    assert spared.name == "network without decay"


def test_frozen_and_shared_parameters() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    net[1].weight = net[0].weight
    net[1].bias.requires_grad_(False)
    (group,) = parameter_groups([net, net[0]], OptimizerConfig())
    assert names(net, group) == {"0.weight", "0.bias"}
    assert len(group.parameters) == 2


def test_nothing_trainable_is_refused() -> None:
    with pytest.raises(ConfigError, match="nothing is trainable"):
        make_optimizer(parameter_groups([nn.ReLU()], OptimizerConfig()), OptimizerConfig())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"nesterov": True, "momentum": 0.0}, "nesterov needs a momentum above 0"),
        ({"betas": (0.9, 1.0)}, r"betas must lie in \[0, 1\)"),
        ({"lr": 0.0}, "greater than 0"),
        ({"name": "adam"}, "'sgd' or 'adamw'"),
        ({"learning_rate": 1.0}, "learning_rate"),
    ],
)
def test_refused_settings(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        OptimizerConfig(**options)


class Run:
    """One parameter of 70 values (several vector registers and a rest) and its optimiser."""

    def __init__(self, name: Any, fused: bool, dtype: torch.dtype = torch.float32) -> None:
        start = torch.linspace(-1, 1, 70, dtype=dtype)
        self.parameter = nn.Parameter(start.clone())
        config = OptimizerConfig(name=name, fused=fused, weight_decay=0.01)
        self.optimizer = make_optimizer([ParameterGroup("all", (self.parameter,), 0.1, 0.01)], config)

    def step(self, gradient: float, skip: Tensor = GO) -> None:
        self.parameter.grad = torch.full_like(self.parameter, gradient)
        guarded_step(self.optimizer, skip)

    def everything(self) -> list[Tensor]:
        state = self.optimizer.state[self.parameter]
        return [self.parameter.detach().clone(), *(state[key].clone() for key in sorted(state))]


@pytest.mark.parametrize(("name", "fused"), KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_skipped_step_leaves_everything_bit_equal(name: str, fused: bool, dtype: torch.dtype) -> None:
    run = Run(name, fused, dtype)
    run.step(1.0)
    before = run.everything()
    run.step(float("nan"), SKIP)
    assert all(torch.equal(old, new) for old, new in zip(before, run.everything(), strict=True))
    run.step(0.5)
    assert not torch.equal(before[0], run.parameter)


@pytest.mark.parametrize(("name", "fused"), KINDS)
def test_run_whose_first_step_is_skipped_goes_on_as_if_nothing_was(name: str, fused: bool) -> None:
    run, undisturbed = Run(name, fused), Run(name, fused)
    run.step(float("inf"), SKIP)
    for gradient in (1.0, -0.5):
        run.step(gradient)
        undisturbed.step(gradient)
    assert all(torch.equal(old, new) for old, new in zip(run.everything(), undisturbed.everything(), strict=True))


@pytest.mark.parametrize(("name", "fused"), KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_steps_are_those_of_torch(name: str, fused: bool, dtype: torch.dtype) -> None:
    run = Run(name, fused, dtype)
    twin = nn.Parameter(run.parameter.detach().clone())
    plain: torch.optim.Optimizer = torch.optim.SGD([twin], lr=0.1, momentum=0.9, weight_decay=0.01, foreach=False)
    if name == "adamw":
        plain = torch.optim.AdamW([twin], lr=0.1, weight_decay=0.01, foreach=False)
    for gradient in (1.0, -0.5, 0.25):
        run.step(gradient)
        twin.grad = torch.full_like(twin, gradient)
        plain.step()
    torch.testing.assert_close(run.parameter, twin)


@pytest.mark.parametrize(("name", "fused"), KINDS)
def test_state_goes_on_from_where_it_was_with_the_settings_of_now(name: str, fused: bool) -> None:
    run, resumed = Run(name, fused), Run(name, fused)
    run.step(1.0)
    with torch.no_grad():
        resumed.parameter.copy_(run.parameter)
    resumed.optimizer.param_groups[0]["weight_decay"] = 0.5
    load_optimizer(resumed.optimizer, run.optimizer.state_dict()["state"])
    run.optimizer.param_groups[0]["weight_decay"] = 0.5
    run.step(-1.0)
    resumed.step(-1.0)
    assert all(torch.equal(old, new) for old, new in zip(run.everything(), resumed.everything(), strict=True))


@pytest.mark.parametrize(("name", "fused"), KINDS)
def test_state_of_another_memory_format_goes_on_number_by_number(name: str, fused: bool) -> None:
    values = torch.arange(24.0).view(1, 2, 3, 4)
    formats = (torch.channels_last, torch.contiguous_format)
    first, second = (nn.Parameter(values.clone(memory_format=one)) for one in formats)
    config = OptimizerConfig(name=name, lr=0.1, fused=fused)  # type: ignore[arg-type]
    before, after = (make_optimizer([ParameterGroup("all", (one,), 0.1, 0.0)], config) for one in (first, second))
    first.grad = torch.empty_like(first).copy_(torch.sin(values))
    before.step()
    with torch.no_grad():
        second.copy_(first)
    load_optimizer(after, before.state_dict()["state"])
    for parameter, optimizer in ((first, before), (second, after)):
        parameter.grad = torch.empty_like(parameter).copy_(torch.cos(values))
        optimizer.step()
    torch.testing.assert_close(second, first)


def test_momentum_switched_on_when_resuming_starts_from_zero() -> None:
    run = Run("sgd", True)
    load_optimizer(run.optimizer, {})
    run.step(float("nan"), SKIP)
    assert run.optimizer.state[run.parameter]["momentum_buffer"].abs().sum() == 0


@pytest.mark.parametrize("stored", [{1: {"momentum_buffer": torch.ones(70)}}, {0: {"momentum_buffer": torch.ones(3)}}])
def test_state_of_other_parameters_is_refused(stored: dict[int, dict[str, Tensor]]) -> None:
    with pytest.raises(CheckpointError, match="optimiser is of other parameters than this run trains"):
        load_optimizer(Run("sgd", True).optimizer, stored)


class Largest(TorchDispatchMode):
    """Numbers in the largest tensor that operations give back, but for those that they change in place."""

    numbers = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and not any(result is one for one in args):
            self.numbers = max(self.numbers, result.numel())
        return result


@pytest.mark.parametrize(("name", "fused"), KINDS)
def test_a_fused_step_copies_no_class_rows(name: Any, fused: bool) -> None:
    rows = nn.Parameter(torch.ones(100, 6))
    group = ParameterGroup("class rows", (rows,), 0.1, 5e-4, True)
    optimizer = make_optimizer([group], OptimizerConfig(name=name, fused=fused))
    for _ in range(2):  # the first step makes the state
        rows.grad = torch.ones_like(rows)
        with Largest() as largest:
            guarded_step(optimizer, GO)
    assert (largest.numbers < rows.numel()) == fused


@pytest.mark.parametrize(("former", "now"), [("sgd", "adamw"), ("adamw", "sgd")])
def test_the_state_of_another_kind_of_optimiser_is_refused(former: str, now: str) -> None:
    run = Run(former, True)
    run.step(1.0)
    with pytest.raises(CheckpointError, match="is of another kind, which keeps .*; take optimizer.name"):
        load_optimizer(Run(now, True).optimizer, run.optimizer.state_dict()["state"])
