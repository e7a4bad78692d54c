"""A step as a CUDA graph: what it needs, what is refused, and on a GPU that it equals the plain one."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from facelab.engine.cuda_graph import Captured, StateThatMoves, StepGraph, refuse_cuda_graph
from facelab.engine.loop import StepOutput, plain_step
from facelab.engine.optimization import Optimization, OptimizerConfig, Precision, parameter_groups
from facelab.engine.optimizers import step_by_tensors, why_not_captured
from facelab.engine.schedules import ScheduleConfig
from facelab.errors import ConfigError, DivergenceError
from facelab.run.assembly import assemble
from facelab.run.run import RunResult
from facelab.run.settings import load_config
from facelab.training_mode.base import MODES

Run = Callable[..., RunResult]
TINY = str(Path(__file__).parents[2] / "tiny_run.yaml")
OPTIMIZERS = {
    "sgd": OptimizerConfig(lr=0.1, momentum=0.9),
    "adamw": OptimizerConfig(name="adamw", lr=0.01, weight_decay=0.1),
}


@dataclass(frozen=True)
class Batch:
    image: Tensor
    label: Tensor
    quality: Tensor | None = None


class Small:
    """A mode in small. No bias in front of BatchNorm: its gradient is rounding alone, which AdamW makes steps of."""

    def __init__(self, device: str = "cpu") -> None:
        torch.manual_seed(0)
        layers = [nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.PReLU(8), nn.Flatten(), nn.Linear(288, 5)]
        self.network = nn.Sequential(*layers).to(device)
        self.loss_scale = torch.ones((), device=device)

    def step(self, batch: Batch) -> StepOutput:
        logits = self.network(batch.image)
        right = (logits.argmax(dim=1) == batch.label).float().mean()
        loss = nn.functional.cross_entropy(logits.float(), batch.label)
        return StepOutput(loss * self.loss_scale, {"accuracy": right})

    def between_updates(self) -> AbstractContextManager[None]:
        return nullcontext()

    def optimization(self, name: str, precision: Precision = "fp32", accumulate: int = 1) -> Optimization:
        config = OPTIMIZERS[name]
        return Optimization(
            parameter_groups([self.network], config),
            config,
            ScheduleConfig(name="cosine", warmup_epochs=1),
            total_updates=40,
            updates_per_epoch=10,
            precision=precision,
            accumulate=accumulate,
            clip_norm=1.0,
            device=next(self.network.parameters()).device,
        )


def batches(count: int, device: str = "cpu") -> list[Batch]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(count, 6, 3, 8, 8, generator=generator).to(device)
    return [Batch(image, torch.arange(6, device=device) % 5) for image in images]


@pytest.mark.parametrize(("name", "precision"), [("sgd", "fp16"), ("adamw", "bf16")])
def test_what_an_update_remembers_stays_where_it_is(name: str, precision: Precision) -> None:
    mode = Small()
    optim = mode.optimization(name, precision)
    owners = {"network": mode.network, "watch": optim.watch, "arithmetic": optim.arithmetic}
    state = StateThatMoves(owners, optim)
    for batch in batches(3):
        state.look()
        with optim.autocast():
            output = mode.step(batch)
        optim.update(output.loss * (1 if optim.updates else torch.inf))
    assert state.look() == ""
    with pytest.raises(Exception, match="the loss was not finite in update 1"):
        optim.check()


def test_what_moves_is_named() -> None:
    mode = Small()
    optim = mode.optimization("sgd")
    state = StateThatMoves({"mode": mode, "network": mode.network}, optim)
    state.look()
    mode.network[1].running_mean = torch.zeros(8)  # as a head does whose average is a new tensor each time
    assert state.look() == "network.1.running_mean"
    assert state.look() == ""
    mode.updates = 0  # type: ignore[attr-defined]
    assert state.look() == "", "it was not there before"
    mode.updates = 1  # type: ignore[attr-defined]
    assert state.look() == "mode.updates"


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_rates_may_be_tensors(name: str) -> None:
    weights = []
    for by_tensors in (False, True):
        mode = Small()
        optim = mode.optimization(name)
        for optimizer in optim.optimizers if by_tensors else ():
            step_by_tensors(optimizer)
        for batch in batches(12):
            optim.update(mode.step(batch).loss)
        weights.append(list(mode.network.parameters()))
        assert optim.learning_rate == pytest.approx(optim.schedule.rates(11)[0])
    torch.testing.assert_close(*weights, rtol=1e-5, atol=1e-6)


def test_optimisers_that_cannot_be_captured() -> None:
    class Rows(Optimizer):
        pass

    parameter = nn.Parameter(torch.zeros(3))
    assert why_not_captured(SGD([parameter], lr=0.1, fused=True)) == ""
    assert why_not_captured(AdamW([parameter], lr=0.1, fused=True)) == ""
    assert "optimizer.fused is false" in why_not_captured(SGD([parameter], lr=0.1))
    assert "Rows decides in each step which class rows to move" in why_not_captured(Rows([parameter], {}))


def test_it_is_refused_where_it_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        ConfigError, match=r"^training.cuda_graph is for GPUs.* on the CPU; set training.cuda_graph=fal"
    ):
        assemble(load_config(TINY, ["training.cuda_graph=true", "training.device=cpu"]))
    with pytest.raises(ConfigError, match="cuda_graph: true captures steps that need nothing of the host, and amp: ap"):
        load_config(TINY, ["training.cuda_graph=true", "training.amp=apex"])
    mode = Small()
    for accumulate, host_work, reason in (
        (2, "", "training.accumulate=2 passes make one"),
        (1, "pairs are counted there", "need nothing of the host, but pairs are counted there"),
    ):
        optim = mode.optimization("sgd", accumulate=accumulate)
        monkeypatch.setattr(optim, "device", torch.device("cuda"))
        with pytest.raises(ConfigError, match=reason):
            refuse_cuda_graph(optim, host_work)
    optim = mode.optimization("sgd")
    monkeypatch.setattr(optim, "device", torch.device("cuda"))
    refuse_cuda_graph(optim, "")


def test_a_mode_says_what_its_steps_need_of_the_host() -> None:
    assert all("host_work" in vars(MODES.get(name)) or name == "class_pool" for name in MODES.names())
    assert assemble(load_config(TINY, [])).mode.host_work() == ""
    words = ["mode=triplet", "data.sampler={ClassBalanced: {images_per_class: 4}}"]
    assert "counted" in assemble(load_config(TINY, words)).mode.host_work()


def test_a_batch_of_another_size_is_refused() -> None:
    (batch,) = batches(1)
    captured = Captured(None, batch, StepOutput(torch.zeros(())), torch.zeros(()))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"repeats steps of one size, but a batch has \(4, 3, 8, 8\) after \(6, 3, 8"):
        captured.take(Batch(batch.image[:4], batch.label[:4]))


def graph_of(mode: Small, optim: Optimization) -> StepGraph:
    return StepGraph(mode, optim, {"mode": mode, "network": mode.network})  # type: ignore[arg-type]


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_graph_does_what_the_step_does(name: str, precision: Precision, graph_device: str) -> None:
    """Losses, norms, weights, statistics and the loss scale after twelve updates of a changing rate."""
    found: list[list[Any]] = []
    for graph in (False, True):
        mode = Small(graph_device)
        optim = mode.optimization(name, precision)
        step = graph_of(mode, optim) if graph else plain_step(mode, optim)  # type: ignore[arg-type]
        given = []
        for batch in batches(12, graph_device):
            output, norm = step(batch)
            given.append((output.loss.detach(), output.metrics["accuracy"], norm))
        optim.check()
        state = [one["state"] for one in (optimizer.state_dict() for optimizer in optim.optimizers)]
        found.append([given, mode.network.state_dict(), state, optim.arithmetic.state_dict(), optim.updates])
    assert len({float(loss) for loss, *_ in found[1][0]}) == 12, "each batch has a loss of its own"
    torch.testing.assert_close(found[1], found[0], rtol=1e-3, atol=1e-4)


def test_a_graph_skips_what_is_not_finite_and_names_the_update(graph_device: str) -> None:
    mode = Small(graph_device)
    optim = mode.optimization("sgd", "fp16")
    step = graph_of(mode, optim)
    for number, batch in enumerate(batches(8, graph_device)):
        if number == 6:
            batch.image.fill_(torch.nan)
        step(batch)
    with pytest.raises(DivergenceError, match="the loss was not finite in update 7"):
        optim.check()
    assert all(bool(one.isfinite().all()) for one in mode.network.parameters())


def test_a_graph_lowers_the_loss_scale_after_an_overflow(graph_device: str) -> None:
    mode = Small(graph_device)
    optim = mode.optimization("sgd", "fp16")
    step = graph_of(mode, optim)
    scales = []
    for number, batch in enumerate(batches(8, graph_device)):
        if number == 5:
            before = [one.detach().clone() for one in mode.network.parameters()]
            mode.loss_scale.fill_(1e9)
        step(batch)
        mode.loss_scale.fill_(1.0)
        if number == 5:
            assert all(map(torch.equal, before, mode.network.parameters()))
        scales.append(float(optim.arithmetic.state_dict()["scale"]))
    assert scales[4] == 2 * scales[5] == 2 * scales[7]
    optim.check()


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        ("number", "each step makes 'mode.count' anew"),
        ("look", "cannot capture a step: .*(not permitted|capturing)"),
        ("replace", "each step makes 'network.1.running_mean' anew"),
    ],
)
def test_a_step_that_needs_the_host_is_refused(spoil: str, sentence: str, graph_device: str) -> None:
    class Spoiled(Small):
        count = 0

        def step(self, batch: Batch) -> StepOutput:
            output = super().step(batch)
            if spoil == "number":
                self.count += 1
            elif spoil == "look":
                float(output.loss.detach())
            else:
                self.network[1].running_mean = self.network[1].running_mean * 0.5
            return output

    mode = Spoiled(graph_device)
    step = graph_of(mode, mode.optimization("sgd"))
    with pytest.raises(ConfigError, match=sentence):
        list(map(step, batches(5, graph_device)))


@pytest.mark.cuda
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_run_by_a_graph_ends_near_the_plain_one_and_goes_on(
    optimizer: str, tmp_path: Path, run_tiny: Run, gpu: torch.device
) -> None:
    words = [f"optimizer={{name: {optimizer}, lr: 0.001}}", f"training.device={gpu.type}", "training.tf32=false"]
    losses = []
    for graph in ("false", "true"):
        run = run_tiny(tmp_path / graph, *words, f"training.cuda_graph={graph}", "checkpoint.keep_every_epochs=1")
        losses.append((run.folder / "metrics.jsonl").read_text().splitlines()[-1])
    assert run_tiny(
        tmp_path / "true", *words, "training.cuda_graph=true", resume=True, checkpoint="step-4"
    ).progress.complete
    first, second = (float(line.split('"loss": ')[1].split(",")[0]) for line in losses)
    assert second == pytest.approx(first, rel=0.02)
