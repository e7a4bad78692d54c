import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from facelab import distributed
from facelab.engine.loop import Callback, MetricWindow, Progress, StepOutput, StopSignal, restore_rng, rng_state, train
from facelab.engine.optimization import Optimization, OptimizerConfig, parameter_groups
from facelab.engine.precision import Precision
from facelab.engine.schedules import ScheduleConfig
from facelab.errors import CheckpointError, DivergenceError

UPDATES, EPOCHS = 4, 3


class Regression:
    """Fits a line; the smallest mode there is."""

    def __init__(self) -> None:
        self.network = nn.Linear(2, 1).double()
        with torch.no_grad():
            self.network.weight.fill_(0.5)
            self.network.bias.zero_()
        self.updates = 0

    def step(self, batch: Tensor) -> StepOutput:
        loss = (self.network(batch).squeeze(1) - batch.sum(1)).square().mean()
        return StepOutput(loss, {"double": 2 * loss.detach()})

    def after_update(self) -> None:
        self.updates += 1

    def between_updates(self) -> AbstractContextManager[None]:
        return nullcontext()


class Rows:
    """Batches that follow from epoch and step, as those of the loader do."""

    def __init__(self, accumulate: int = 1, poison: int | None = None) -> None:
        self.accumulate = accumulate
        self.poison = poison
        self.asked: list[tuple[int, int]] = []

    def batches(self, epoch: int, update: int) -> Iterator[Tensor]:
        self.asked.append((epoch, update))
        for step in range(update * self.accumulate, UPDATES * self.accumulate):
            batch = torch.randn(8, 2, generator=torch.Generator().manual_seed(100 * epoch + step), dtype=torch.float64)
            yield batch * float("nan") if (epoch, step) == (0, self.poison) else batch


class Recorder(Callback):
    def __init__(self, stop_at: int | None = None) -> None:
        self.events: list[str] = []
        self.values: list[Mapping[str, float]] = []
        self.stop_at = stop_at

    def on_start(self, progress: Progress) -> None:
        self.events.append("start")

    def on_log(self, progress: Progress, values: Mapping[str, float]) -> None:
        self.events.append(f"log {progress.update}")
        self.values.append(values)

    def on_update(self, progress: Progress) -> None:
        self.events.append(f"update {progress.update}")
        if progress.update == self.stop_at:
            os.kill(os.getpid(), signal.SIGTERM)

    def on_end(self, progress: Progress) -> None:
        self.events.append("end")


def optimization(mode: Regression, accumulate: int = 1, **options: Any) -> Optimization:
    config = OptimizerConfig(lr=0.05, momentum=0.9, weight_decay=0.0)
    return Optimization(
        parameter_groups([mode.network], config),
        config,
        ScheduleConfig(name="cosine"),
        total_updates=UPDATES * EPOCHS,
        updates_per_epoch=UPDATES,
        accumulate=accumulate,
        **options,
    )


def test_the_loop_learns_and_calls_back_in_order() -> None:
    mode, recorder, progress = Regression(), Recorder(), Progress(UPDATES, EPOCHS, 8)
    train(mode, Rows(), optimization(mode), [recorder], progress=progress, log_every=3)
    assert progress.complete
    assert mode.updates == UPDATES * EPOCHS
    assert recorder.events[:6] == ["start", "update 1", "update 2", "log 3", "update 3", "log 4"]
    assert recorder.events[-1] == "end"
    assert recorder.values[-1]["loss"] < 0.2 * recorder.values[0]["loss"]
    assert recorder.values[0]["double"] == pytest.approx(2 * recorder.values[0]["loss"])
    assert {"lr", "grad_norm"} <= recorder.values[0].keys()


class Listener(Regression):
    """Notes of each pass whether processes need not exchange its gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.alone = False
        self.heard: list[bool] = []

    @contextmanager
    def between_updates(self) -> Iterator[None]:
        self.alone = True
        yield
        self.alone = False

    def step(self, batch: Tensor) -> StepOutput:
        self.heard.append(self.alone)
        return super().step(batch)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_processes_exchange_gradients_in_the_last_pass_of_each_update(accumulate: int) -> None:
    mode = Listener()
    train(mode, Rows(accumulate), optimization(mode, accumulate), [], progress=Progress(UPDATES, EPOCHS, 8))
    assert mode.heard == ([True] * (accumulate - 1) + [False]) * UPDATES * EPOCHS


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_the_forward_pass_computes_in_the_runs_precision(precision: Precision) -> None:
    computed: set[torch.dtype] = set()

    class Single(Regression):
        def __init__(self) -> None:
            super().__init__()
            self.network = self.network.float()

        def step(self, batch: Tensor) -> StepOutput:
            found = self.network(batch.float())
            computed.add(found.dtype)
            return StepOutput(found.float().square().mean(), {})

    mode = Single()
    optim = optimization(mode, precision=precision)
    train(mode, Rows(), optim, [], progress=Progress(UPDATES, 1, 8))
    assert computed == {torch.bfloat16 if precision == "bf16" else torch.float32}
    assert {parameter.grad.dtype for parameter in mode.network.parameters() if parameter.grad is not None} <= {
        torch.float32
    }


def test_training_goes_on_from_any_update() -> None:
    whole, halves = Regression(), Regression()
    train(whole, Rows(), optimization(whole), [], progress=Progress(UPDATES, EPOCHS, 8))

    first = optimization(halves)
    progress = Progress(UPDATES, EPOCHS, 8)
    stop = StopSignal()
    with stop.installed():
        train(halves, Rows(), first, [Recorder(stop_at=6)], progress=progress, stop=stop)
    assert (progress.update, progress.stopped_by) == (6, signal.SIGTERM)

    second, rows = optimization(halves), Rows()
    second.load_state_dict(first.state_dict())
    train(halves, rows, second, [], progress=Progress(UPDATES, EPOCHS, 8, update=6))
    assert rows.asked[0] == (1, 2)
    assert torch.equal(whole.network.weight, halves.network.weight)


def test_accumulation_is_one_update() -> None:
    mode, recorder = Regression(), Recorder()
    progress = Progress(UPDATES, EPOCHS, 16)
    train(mode, Rows(accumulate=2), optimization(mode, accumulate=2), [recorder], progress=progress)
    assert mode.updates == progress.update == UPDATES * EPOCHS


def test_a_loss_that_is_not_finite_stops_and_names_the_update() -> None:
    mode, recorder = Regression(), Recorder()
    with pytest.raises(DivergenceError, match="loss was not finite in update 2"):
        train(mode, Rows(poison=1), optimization(mode), [recorder], progress=Progress(UPDATES, EPOCHS, 8), log_every=4)
    assert "log 4" not in recorder.events


def test_nothing_happens_when_everything_is_done() -> None:
    mode, recorder = Regression(), Recorder()
    train(mode, Rows(), optimization(mode), [recorder], progress=Progress(UPDATES, EPOCHS, 8, update=UPDATES * EPOCHS))
    assert recorder.events == ["start", "end"]


def test_the_previous_signal_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopSignal().installed():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_window_reads_means_and_starts_anew() -> None:
    window = MetricWindow()
    for value in (1.0, 2.0, 6.0):
        window.add({"loss": torch.tensor(value)})
    assert window.read() == {"loss": 3.0}
    assert window.read() == {}


def test_random_state_is_put_back() -> None:
    state = rng_state()
    drawn = torch.rand(3)
    restore_rng(state)
    assert_close(torch.rand(3), drawn)


def stops_agreed_on(seconds: float) -> list[int]:
    """Runs in each of two processes, of which the second is slower and gets a signal in update 4."""
    times = iter(range(1000))
    stop = StopSignal(clock=lambda: next(times) * seconds * (1 + distributed.rank()))
    agreed = []
    for update in range(1, 121):
        if update == 4 and distributed.rank():
            stop.received = signal.SIGTERM
        agreed.append(stop.agreed())
    return [number + 1 for number, found in enumerate(agreed) if found][:1]


@pytest.mark.parametrize(("seconds", "update"), [(10.0, 4), (0.0, 51)])
def test_several_processes_stop_after_the_same_update_soon(seconds: float, update: int) -> None:
    """At once where updates are slow; where they take no time, after as many as processes may run without a word."""
    assert distributed.run_processes(stops_agreed_on, 2, seconds) == [[update], [update]]


@pytest.mark.parametrize("state", ["text", {}, {"cpu": "text"}, {"cpu": torch.zeros(3, dtype=torch.uint8)}])
def test_a_random_state_that_is_none_is_refused(state: Mapping[str, Tensor]) -> None:
    before = torch.get_rng_state()
    with pytest.raises(CheckpointError, match="its rng is no state of random generators; go on from an earlier"):
        restore_rng(state)
    assert torch.get_rng_state().equal(before)
