"""Accumulation, clipping, skipping, resuming: one update of everything at once."""

from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from facelab import distributed
from facelab.engine.optimization import Optimization, OptimizerConfig, parameter_groups
from facelab.engine.replica import Replica
from facelab.engine.schedules import ScheduleConfig
from facelab.errors import CheckpointError, ConfigError, DivergenceError

PLAIN: dict[str, Any] = {"momentum": 0.0, "weight_decay": 0.0}


def optimization(
    *modules: nn.Module, optimizer: dict[str, Any] | None = None, schedule: ScheduleConfig | None = None, **options: Any
) -> Optimization:
    config = OptimizerConfig(**(optimizer or {}))
    groups = parameter_groups(modules, config)
    schedule = schedule or ScheduleConfig(name="constant")
    return Optimization(groups, config, schedule, total_updates=20, updates_per_epoch=10, **options)


def scalar(value: float = 1.0) -> nn.Module:
    """A module with one parameter, ``weight``, of one value."""
    module = nn.Linear(1, 1, bias=False)
    nn.init.constant_(module.weight, value)
    return module


def weight(module: nn.Module) -> float:
    return next(module.parameters()).item()


def test_sgd_by_hand() -> None:
    net = scalar(2.0)
    optim = optimization(net, optimizer={"lr": 0.1, "momentum": 0.5, "weight_decay": 0.1})
    for expected in (2.0 - 0.1 * 3.2, 1.68 - 0.1 * (0.5 * 3.2 + 3.168)):
        norm = optim.update(3.0 * next(net.parameters()).sum())
        assert norm is not None
        assert norm.item() == 3.0
        assert weight(net) == pytest.approx(expected)
    assert next(net.parameters()).grad is None


def test_rates_move_once_an_update() -> None:
    net = scalar()
    schedule = ScheduleConfig(name="polynomial", warmup_epochs=0.2)
    optim = optimization(net, optimizer=PLAIN | {"lr": 1.0}, schedule=schedule, accumulate=2)
    used, where = [], []
    for _ in range(6):
        before = weight(net)
        optim.update(next(net.parameters()).sum())
        used.append(before - weight(net))
        where.append(optim.at_boundary)
    assert used == pytest.approx([0, 0.5, 0, 1.0, 0, 1.0], abs=1e-6)
    assert where == [False, True] * 3
    assert (optim.updates, optim.learning_rate) == (3, 1.0)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
@pytest.mark.parametrize("clip_norm", [None, 0.05])
def test_accumulated_batches_equal_one_large_batch(name: str, clip_norm: float | None) -> None:
    torch.manual_seed(0)
    nets = [nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)).double() for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    whole = optimization(nets[0], optimizer={"name": name, "lr": 0.01}, clip_norm=clip_norm)
    parts = optimization(nets[1], optimizer={"name": name, "lr": 0.01}, clip_norm=clip_norm, accumulate=3)
    for data in torch.randn(4, 12, 4, dtype=torch.float64):
        norm = whole.update(nets[0](data).square().mean())
        partial = [parts.update(nets[1](part).square().mean()) for part in data.chunk(3)]
        assert partial[:2] == [None, None]
        torch.testing.assert_close(partial[2], norm, rtol=1e-12, atol=1e-12)
    for one, other in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_clipping_takes_all_parameters_as_one() -> None:
    first, second = scalar(), scalar()
    config = OptimizerConfig(lr=1.0, **PLAIN)
    groups = [*parameter_groups([first], config), *parameter_groups([second], config, lr=0.5)]
    schedule = ScheduleConfig(name="constant")
    optim = Optimization(groups, config, schedule, total_updates=2, updates_per_epoch=1, clip_norm=1.0)
    norm = optim.update(3.0 * next(first.parameters()).sum() + 4.0 * next(second.parameters()).sum())
    assert norm is not None
    assert norm.item() == 5.0
    assert weight(first) == pytest.approx(1 - 0.6)
    assert weight(second) == pytest.approx(1 - 0.5 * 0.8)
    optim.update(0.3 * next(first.parameters()).sum())  # below the limit: untouched
    assert weight(first) == pytest.approx(0.4 - 0.3)


def state_of(net: nn.Module, optim: Optimization) -> list[Tensor]:
    momenta = [value for state in optim.optimizers[0].state.values() for value in state.values()]
    return [value.detach().clone() for value in [*net.parameters(), *momenta]]


def same(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


@pytest.mark.parametrize("name", ["sgd", "adamw"])
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize(("bad", "cause"), [("loss", "the loss"), ("gradient", "a gradient")])
def test_divergence_keeps_the_state_and_names_the_update(name: str, fused: bool, bad: str, cause: str) -> None:
    net = nn.Linear(9, 9)
    optim = optimization(net, optimizer={"name": name, "fused": fused, "lr": 0.01}, clip_norm=1.0)
    data = torch.randn(3, 9)
    optim.update(net(data).square().mean())
    optim.check()
    before = state_of(net, optim)
    total = net(data).square().sum()
    optim.update(total * torch.nan if bad == "loss" else (total * 0.0).sqrt())  # the slope of the root at 0 is infinite
    optim.update(net(data).square().mean())  # comes too late to move anything
    assert same(before, state_of(net, optim))
    with pytest.raises(DivergenceError, match=f"{cause} was not finite in update 2; .* Lower optimizer.lr"):
        optim.check()
    with pytest.raises(DivergenceError, match="in update 2"):
        optim.state_dict()


def test_bad_loss_in_any_accumulated_part_counts() -> None:
    net = scalar()
    optim = optimization(net, accumulate=2)
    optim.update(next(net.parameters()).sum() * 0.0 + torch.inf)
    optim.update(next(net.parameters()).sum())
    assert weight(net) == 1.0
    with pytest.raises(DivergenceError, match="the loss was not finite in update 1"):
        optim.check()


def test_fp16_overflow_skips_one_update_and_halves_the_scale() -> None:
    net = nn.Linear(4, 4)
    optim = optimization(net, precision="fp16", optimizer={"lr": 0.01})
    before = state_of(net, optim)
    state = optim.state_dict()
    with optim.autocast():
        loss = net(torch.full((1, 4), 100.0)).float().square().mean() * 1e4
    optim.update(loss)  # finite, but its gradient times 65536 is not in fp16
    assert torch.isfinite(loss)
    assert same(before, state_of(net, optim))
    optim.check()
    assert optim.state_dict()["arithmetic"]["scale"].item() == state["arithmetic"]["scale"].item() / 2
    for _ in range(3):
        with optim.autocast():
            loss = net(torch.ones(1, 4)).square().mean()
        optim.update(loss)
    assert not same(before[:2], state_of(net, optim)[:2])
    optim.check()
    assert optim.updates == 4


def test_fp16_gives_up_when_the_scale_is_used_up() -> None:
    net = scalar()
    optim = optimization(net, precision="fp16")
    for _ in range(20):
        optim.update((next(net.parameters()).sum() * 0.0).sqrt())
    with pytest.raises(DivergenceError, match="overflowed fp16 at every loss scale down to 1 in update 17"):
        optim.check()
    assert weight(net) == 1.0


def test_fp16_takes_the_same_steps_as_fp32() -> None:
    nets = [scalar(), scalar()]
    for net, precision in zip(nets, ("fp32", "fp16"), strict=True):
        optim = optimization(net, precision=precision, clip_norm=2.0, accumulate=2)
        for factor in (1.0, 5.0, -3.0, 2.0):
            optim.update(factor * next(net.parameters()).square().sum())
    assert weight(nets[0]) == pytest.approx(weight(nets[1]), rel=1e-6)


def test_bf16_learns() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))
    data = torch.randn(64, 8)
    optim = optimization(net, precision="bf16", optimizer={"name": "adamw", "lr": 0.02})
    losses = []
    for _ in range(20):
        with optim.autocast():
            loss = (net(data).squeeze(1) - data[:, 0]).square().mean()
        optim.update(loss)
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
    assert net[0].weight.dtype == torch.float32


def test_second_optimiser_shares_schedule_clipping_and_skipping() -> None:
    net, rows = scalar(), scalar()
    other = torch.optim.SGD(rows.parameters(), lr=0.5)
    schedule = ScheduleConfig(name="multistep", milestones=(0.1,))
    optim = optimization(net, optimizer=PLAIN | {"lr": 1.0}, schedule=schedule, others=[other], clip_norm=1.0)
    optim.update(3.0 * next(net.parameters()).sum() + 4.0 * next(rows.parameters()).sum())
    assert weight(net) == pytest.approx(0.4)
    assert weight(rows) == pytest.approx(0.6)
    optim.update(0.1 * next(rows.parameters()).sum())
    assert other.param_groups[0]["lr"] == pytest.approx(0.05)
    before = weight(net), weight(rows)
    optim.update(next(net.parameters()).sum() + next(rows.parameters()).sum() * torch.nan)
    assert (weight(net), weight(rows)) == before


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize(
    ("clip", "norm", "moved"), [("all", 5.0, (2.0 * 3 / 5, 2.0 * 4 / 5)), ("network", 3.0, (2.0, 4.0))]
)
def test_class_rows_are_clipped_with_the_network_or_not_at_all(
    precision: str, clip: str, norm: float, moved: tuple[float, float]
) -> None:
    net, rows = scalar(), scalar()
    config = OptimizerConfig(lr=1.0, **PLAIN)
    groups = [*parameter_groups([net], config), *parameter_groups([rows], config, sharded=True)]
    options: dict[str, Any] = {"precision": precision, "clip_norm": 2.0, "clip": clip}
    optim = Optimization(groups, config, ScheduleConfig(), total_updates=9, updates_per_epoch=9, **options)
    given = optim.update(3.0 * next(net.parameters()).sum() + 4.0 * next(rows.parameters()).sum())
    assert given is not None
    assert given.item() == pytest.approx(norm)
    assert (1.0 - weight(net), 1.0 - weight(rows)) == pytest.approx(moved, rel=1e-5)
    before = weight(net), weight(rows)
    broken = optim.update(next(net.parameters()).sum() + next(rows.parameters()).sum() * torch.inf)
    assert broken is not None
    assert not broken.isfinite()
    assert (weight(net), weight(rows)) == before  # a row that breaks stops the network too


class Half(Replica[nn.Module]):
    """A network of which this process holds one half; the other half has gradients of the same norm."""

    def gradient_norm(self) -> Tensor:
        return super().gradient_norm() * 2.0**0.5


@pytest.mark.parametrize("clip", ["all", "network"])
def test_a_replica_knows_the_norm_of_its_network(clip: str) -> None:
    net, head, rows = scalar(), scalar(), scalar()
    config = OptimizerConfig(lr=1.0, **PLAIN)
    groups = [*parameter_groups([net, head], config), *parameter_groups([rows], config, sharded=True)]
    options: dict[str, Any] = {"clip_norm": 1.0, "clip": clip, "replicas": [Half(net)]}
    optim = Optimization(groups, config, ScheduleConfig(), total_updates=9, updates_per_epoch=9, **options)
    parameters = [next(module.parameters()).sum() for module in (net, head, rows)]
    given = optim.update(2.0 * parameters[0] + 1.0 * parameters[1] + 4.0 * parameters[2])
    assert given is not None
    assert given.item() == pytest.approx(5.0 if clip == "all" else 3.0)  # 9 = 2 * 2^2 + 1^2
    assert (1.0 - weight(net)) == pytest.approx(2.0 / given.item(), rel=1e-5)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_resumed_run_is_bit_equal(name: str, precision: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    data = torch.randn(6, 8, 5)
    first, second = nn.Linear(5, 3), nn.Linear(5, 3)

    def run(net: nn.Module, batches: Tensor, file: Path, resume: bool) -> Optimization:
        schedule = ScheduleConfig(name="cosine", warmup_epochs=0.3)
        optim = optimization(net, optimizer={"name": name}, schedule=schedule, precision=precision, clip_norm=1.0)
        if resume:
            stored = torch.load(file, weights_only=True)
            net.load_state_dict(stored["net"])
            optim.load_state_dict(stored["optim"])
        for number, batch in enumerate(batches):
            optim.update(net(batch).square().mean())
            if number == 2 and not resume:
                torch.save({"net": net.state_dict(), "optim": optim.state_dict()}, file)
        return optim

    whole = run(first, data, tmp_path / "state.pt", resume=False)
    resumed = run(second, data[3:], tmp_path / "state.pt", resume=True)
    assert same(state_of(first, whole), state_of(second, resumed))
    assert (whole.updates, whole.learning_rate) == (resumed.updates, resumed.learning_rate)


def test_half_accumulated_gradients_are_not_stored() -> None:
    net = scalar()
    optim = optimization(net, accumulate=2)
    closing = [optim.next_call_updates]
    optim.update(next(net.parameters()).sum())
    closing.append(optim.next_call_updates)
    assert closing == [False, True]
    with pytest.raises(RuntimeError, match="half accumulated"):
        optim.state_dict()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"accumulate": 0}, "training.accumulate is 0, but must be at least 1"),
        ({"clip_norm": 0.0}, "training.clip_norm is 0.0, but must be above 0"),
        ({"clip_norm": float("nan")}, "training.clip_norm is nan"),
    ],
)
def test_refused_options(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        optimization(scalar(), **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"clip_norm": 1.0}, r"clip_norm=1.0 with training.clip=all needs the norm .* set training.clip=network, or"),
        ({"amp": "apex", "precision": "fp16"}, "training.amp=apex keeps its loss scale to itself"),
    ],
)
def test_gradients_that_nobody_sees_are_refused_where_they_should_be_seen(options: dict[str, Any], words: str) -> None:
    rows = nn.Embedding(4, 1)
    own = SparseDescent(rows.weight, 1.0)
    own.makes_gradients = True  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match=words):
        optimization(scalar(), others=[own], **options)
    optimization(scalar(), others=[own], clip_norm=1.0, clip="network")


def test_state_of_another_run_is_refused() -> None:
    state = optimization(scalar(), precision="fp16").state_dict()
    with pytest.raises(CheckpointError, match=r"trained with another training.precision or training.amp"):
        optimization(scalar()).load_state_dict(state)
    with pytest.raises(CheckpointError, match="has 1 optimisers, this run has 2; take classifier and its options"):
        optimization(scalar(), others=[torch.optim.SGD(scalar().parameters(), lr=1.0)]).load_state_dict(state)


def two_ranks_clip_the_network() -> dict[str, Any]:
    return two_ranks("network")


def two_ranks(clip: Literal["network", "all"] = "all") -> dict[str, Any]:
    """Rows differ on the two processes: norms add up, and a bad loss on one stops both."""
    net, rows, rank = scalar(), scalar(), distributed.rank()
    config = OptimizerConfig(lr=1.0, **PLAIN)
    groups = [*parameter_groups([net], config), *parameter_groups([rows], config, sharded=True)]
    schedule = ScheduleConfig(name="constant")
    optim = Optimization(groups, config, schedule, total_updates=9, updates_per_epoch=9, clip_norm=6.5, clip=clip)
    norm = optim.update(5.0 * next(net.parameters()).sum() + (12.0 if rank else 0.0) * next(rows.parameters()).sum())
    assert norm is not None
    result: dict[str, Any] = {"norm": norm.item(), "net": weight(net), "rows": weight(rows)}
    optim.update(next(net.parameters()).sum() * (torch.nan if rank else 1.0))
    result["unmoved"] = weight(net) == result["net"]
    try:
        optim.check()
    except DivergenceError as error:
        result["error"] = str(error)
    return result


def test_two_processes_clip_and_skip_alike() -> None:
    for rank, result in enumerate(distributed.run_processes(two_ranks, 2)):
        assert result["norm"] == 13.0
        assert result["net"] == pytest.approx(1 - 2.5)
        assert result["rows"] == pytest.approx(1 - 6.0 * rank)
        assert result["unmoved"]
        assert "the loss was not finite in update 2" in result["error"]


def test_two_processes_clip_the_network_alike_whatever_their_rows() -> None:
    for rank, result in enumerate(distributed.run_processes(two_ranks_clip_the_network, 2)):
        assert result["norm"] == 5.0
        assert (result["net"], result["rows"]) == (1 - 5.0, 1 - 12.0 * rank)  # 5 is below 6.5; 13 would not be
        assert result["unmoved"]


def two_ranks_break_a_gradient() -> dict[str, bool | str]:
    """The losses are finite everywhere, but on the second process a gradient is not: d sqrt(x)/dx at 0."""
    result: dict[str, bool | str] = {}
    for kind in ("replicated", "sharded"):
        net, rows = scalar(0.0), scalar(0.0)
        config = OptimizerConfig(lr=1.0, **PLAIN)
        groups = [*parameter_groups([net], config), *parameter_groups([rows], config, sharded=True)]
        optim = Optimization(groups, config, ScheduleConfig(name="constant"), total_updates=9, updates_per_epoch=9)
        broken, whole = (net, rows) if kind == "replicated" else (rows, net)
        loss = next(broken.parameters()).sum()
        optim.update((loss.sqrt() if distributed.rank() else loss) + next(whole.parameters()).sum())
        result[f"{kind} unmoved"] = weight(net) == weight(rows) == 0.0
        try:
            optim.check()
        except DivergenceError as error:
            result[f"{kind} error"] = str(error)
    return result


def test_a_broken_gradient_on_one_process_stops_both() -> None:
    for result in distributed.run_processes(two_ranks_break_a_gradient, 2):
        for kind in ("replicated", "sharded"):
            assert result[f"{kind} unmoved"], kind
            assert "a gradient was not finite in update 1" in str(result[f"{kind} error"]), kind


class SparseDescent(Optimizer):
    """Descent of the rows that have a gradient; ``moves`` counts how often each did, as a whole number."""

    def __init__(self, rows: nn.Parameter, lr: float) -> None:
        super().__init__([{"params": [rows], "sharded": True}], {"lr": lr})
        self.state[rows]["moves"] = torch.zeros(len(rows), dtype=torch.int64)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        (group,) = self.param_groups
        (rows,) = group["params"]
        taken = rows.grad.indices()[0]
        rows.index_add_(0, taken, rows.grad.values(), alpha=-group["lr"])
        self.state[rows]["moves"][taken] += 1


def with_rows(rows: nn.Embedding, **options: Any) -> tuple[nn.Module, Optimization]:
    """A network beside rows of which a few take part in a step."""
    net = scalar()
    own = SparseDescent(rows.weight, 1.0)
    return net, optimization(net, optimizer=PLAIN | {"lr": 1.0}, others=[own], **options)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("clip", ["all", "network"])
def test_sparse_gradients_are_unscaled_and_clipped_like_others(precision: str, clip: str) -> None:
    rows = nn.Embedding.from_pretrained(torch.zeros(4, 1), freeze=False, sparse=True)
    net, optim = with_rows(rows, precision=precision, clip_norm=2.0, clip=clip)
    taken = torch.tensor([1, 1])  # twice, so that its gradients of 1 and 3 must be added before they are measured
    norm = optim.update(3.0 * next(net.parameters()).sum() + (rows(taken) * torch.tensor([[1.0], [3.0]])).sum())
    assert norm is not None
    assert norm.item() == pytest.approx(5.0 if clip == "all" else 3.0)
    assert rows.weight.flatten().tolist() == pytest.approx([0, -4.0 * (0.4 if clip == "all" else 1.0), 0, 0])


def test_a_sparse_gradient_that_is_not_finite_stops_everything() -> None:
    rows = nn.Embedding.from_pretrained(torch.zeros(4, 1), freeze=False, sparse=True)
    net, optim = with_rows(rows)
    optim.update(next(net.parameters()).sum() + rows(torch.tensor([2])).sqrt().sum())
    assert (weight(net), rows.weight.abs().sum().item()) == (1.0, 0.0)
    assert not optim.optimizers[1].state[rows.weight]["moves"].any()
    with pytest.raises(DivergenceError, match="a gradient was not finite in update 1"):
        optim.check()


def test_state_of_each_row_comes_back_as_it_was() -> None:
    rows = nn.Embedding.from_pretrained(torch.zeros(4, 1), freeze=False, sparse=True)
    net, optim = with_rows(rows)
    optim.update(next(net.parameters()).sum() + rows(torch.tensor([2])).sum())
    _, other = with_rows(rows)
    other.load_state_dict(optim.state_dict())
    moves = other.optimizers[1].state[rows.weight]["moves"]
    assert (moves.tolist(), moves.dtype) == ([0, 0, 1, 0], torch.int64)
    state = optim.state_dict()
    state["optimizers"][1][0]["moves"] = torch.zeros(3)
    with pytest.raises(CheckpointError, match="optimiser is of other parameters than this run trains"):
        other.load_state_dict(state)


def test_an_optimiser_of_class_rows_may_be_the_only_one() -> None:
    rows = scalar(2.0)
    own = torch.optim.SGD(rows.parameters(), lr=0.5)
    optim = optimization(others=[own])
    assert optim.optimizers == [own]
    assert optim.learning_rate == 0.5
    optim.update(next(rows.parameters()).sum())
    assert weight(rows) == 1.5
    with pytest.raises(ConfigError, match="nothing is trainable"):
        optimization()
