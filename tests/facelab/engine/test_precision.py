"""Number formats: autocast, the loss scale against torch's own, and apex by a stand-in."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from facelab.engine.optimization import Optimization, OptimizerConfig, parameter_groups
from facelab.engine.precision import Precision, ScaledArithmetic, make_arithmetic
from facelab.engine.schedules import ScheduleConfig
from facelab.errors import ConfigError, DivergenceError

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_autocast_runs_in_the_format(precision: Precision, dtype: torch.dtype) -> None:
    with make_arithmetic(precision, "native", CPU, [], []).autocast():
        assert nn.Linear(3, 2)(torch.ones(1, 3)).dtype == dtype


def test_scale_follows_the_rule_of_grad_scaler() -> None:
    parameter = nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.SGD([parameter], lr=0.0)
    reference = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=3)
    ours = ScaledArithmetic("fp16", CPU, initial_scale=8.0, growth_interval=3)
    overflows = [False, True, False, False, False, True, True, False, False, False, False, False, False, True]
    for overflow in overflows:
        optimizer.zero_grad()
        ours.backward(parameter * 2.0, last=True)
        assert ours.scale.item() * 2.0 == parameter.grad
        parameter.grad = torch.tensor(torch.inf if overflow else 1.0)
        reference.scale(torch.ones(()))
        reference.step(optimizer)
        reference.update()
        ours.advance(torch.tensor(overflow))
        assert ours.scale.item() == reference.get_scale()


def test_scale_survives_a_checkpoint() -> None:
    first = ScaledArithmetic("fp16", CPU, growth_interval=2)
    first.advance(torch.tensor(True))
    first.advance(torch.tensor(False))
    second = ScaledArithmetic("fp16", CPU, growth_interval=2)
    second.load_state_dict(first.state_dict())
    state = first.state_dict()
    third = ScaledArithmetic("fp16", CPU, growth_interval=2)
    third.load_state_dict(state)
    for arithmetic in (first, second, third):
        arithmetic.advance(torch.tensor(False))
    assert first.scale.item() == second.scale.item() == third.scale.item() == 2.0**16
    assert (state["scale"].item(), state["streak"].item()) == (2.0**15, 1), (
        "neither who gave it nor who took it moves it"
    )


@pytest.mark.cuda
def test_fp16_on_a_gpu_skips_overflows_and_goes_on(gpu: torch.device) -> None:
    torch.manual_seed(0)
    images, start = torch.randn(64, 8), nn.Linear(8, 4)
    ends = {}
    for precision in ("fp32", "fp16"):
        network = nn.Linear(8, 4).to(gpu)
        network.load_state_dict(start.state_dict())
        config = OptimizerConfig(lr=1e-6, momentum=0.0, weight_decay=0.0)
        groups = parameter_groups([network], config)
        schedule = ScheduleConfig(name="constant")
        given: Any = {"precision": precision, "device": gpu}
        optim = Optimization(groups, config, schedule, total_updates=99, updates_per_epoch=9, **given)
        moved = 0
        while moved < 5:
            before = network.weight.detach().clone()
            with optim.autocast():
                optim.update(1e4 * network(images.to(gpu)).square().mean())
            moved += not torch.equal(network.weight, before)
        optim.check()
        ends[precision] = (network.weight.detach().cpu(), optim.updates)
    # 1e4 times the first scale is far above what fp16 holds: the first updates only halved it.
    assert ends["fp16"][1] > ends["fp32"][1] == 5
    torch.testing.assert_close(ends["fp16"][0], ends["fp32"][0], rtol=1e-3, atol=1e-3)
    assert float((ends["fp32"][0] - start.weight.detach()).abs().max()) > 1e-2


class FakeApex(ModuleType):
    """Stands in for ``apex.amp``: scales by 4 and unscales at the end, unless told to delay."""

    def __init__(self) -> None:
        super().__init__("apex.amp")
        self.level = ""
        self.networks: list[nn.Module] = []
        self.delays: list[bool] = []

    def initialize(self, models: list[nn.Module], optimizers: list[Any], opt_level: str) -> None:
        self.level, self.networks = opt_level, models

    @contextmanager
    def scale_loss(self, loss: Tensor, optimizers: list[Any], delay_unscale: bool) -> Iterator[Tensor]:
        self.delays.append(delay_unscale)
        yield loss * 4.0
        if not delay_unscale:
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    torch._foreach_mul_([parameter.grad for parameter in group["params"]], 0.25)

    def state_dict(self) -> dict[str, Any]:
        return {"loss_scaler0": {"loss_scale": 4.0, "unskipped": 0}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.loaded = state


@pytest.fixture
def apex(monkeypatch: pytest.MonkeyPatch) -> FakeApex:
    fake = FakeApex()
    monkeypatch.setitem(sys.modules, "apex", ModuleType("apex"))
    monkeypatch.setitem(sys.modules, "apex.amp", fake)
    return fake


def train(network: nn.Linear, **options: Any) -> Optimization:
    config = OptimizerConfig(lr=0.5, momentum=0.0, weight_decay=0.0)
    groups = parameter_groups([network], config)
    schedule = ScheduleConfig(name="constant")
    return Optimization(groups, config, schedule, total_updates=9, updates_per_epoch=3, modules=[network], **options)


def test_apex_takes_the_same_steps(apex: FakeApex) -> None:
    torch.manual_seed(0)
    network, twin = nn.Linear(3, 1), nn.Linear(3, 1)
    twin.load_state_dict(network.state_dict())
    plain = train(twin, accumulate=2)
    optim = train(network, precision="fp16", amp="apex", accumulate=2)
    for data in torch.randn(4, 5, 3):
        plain.update(twin(data).square().mean())
        with optim.autocast():
            optim.update(network(data).square().mean())
    assert (apex.level, apex.networks, apex.delays) == ("O1", [network], [True, False, True, False])
    torch.testing.assert_close(network.weight, twin.weight)
    optim.load_state_dict(optim.state_dict())
    assert apex.loaded == apex.state_dict()


def test_apex_overflow_is_not_divergence_but_a_bad_loss_is(apex: FakeApex) -> None:
    network = nn.Linear(1, 1)
    optim = train(network, precision="fp16", amp="apex")
    before = network.weight.clone()
    optim.update(network(torch.tensor([[3e38]])).square().sum() * 0.0 + network.weight.sum() * torch.inf)
    assert torch.equal(network.weight, before)
    with pytest.raises(DivergenceError, match="the loss was not finite in update 1"):
        optim.check()


@pytest.mark.parametrize("toolkit", [None, SimpleNamespace()])
def test_missing_apex_is_refused(toolkit: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apex", ModuleType("apex"))  # the web toolkit has no amp
    if toolkit is not None:
        monkeypatch.setitem(sys.modules, "apex.amp", toolkit)
    with pytest.raises(
        ConfigError, match=r"amp: apex needs NVIDIA apex, which is not installed .* training.amp=native"
    ):
        train(nn.Linear(1, 1), precision="fp16", amp="apex")


def test_apex_in_another_format_is_refused(apex: FakeApex) -> None:
    with pytest.raises(ConfigError, match=r"apex trains in fp16, not bf16; set training.precision=fp16"):
        train(nn.Linear(1, 1), precision="bf16", amp="apex")
