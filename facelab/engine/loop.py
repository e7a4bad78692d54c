"""The one training loop. It knows modes and callbacks by their protocols, and waits for the device only at logs."""

import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Protocol

import torch
from torch import Tensor

from facelab import distributed
from facelab.engine.optimization import Optimization
from facelab.engine.phases import phase
from facelab.errors import CheckpointError
from facelab.registry import Registry

TALK_SECONDS, MOST_APART = 3.0, 50  # between two moments at which processes tell each other of signals, in updates too


@dataclass(frozen=True)
class StepOutput:
    """What one forward pass gives.

    Attributes:
        loss: () scalar to minimise, equal on all processes that share it.
        metrics: Detached () scalars by name; they stay on the device until the next log.
    """

    loss: Tensor
    metrics: Mapping[str, Tensor] = field(default_factory=dict)


class MetricWindow:
    """Sums scalars on the device, to be read as means once in a while."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Add () scalars; nothing is copied to the host."""
        for name, value in values.items():
            # A sum in bf16 stands still as soon as it is 256 times what is added.
            value = value.detach().float()
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._counts[name] = self._counts.get(name, 0) + 1

    def read(self) -> dict[str, float]:
        """Means since the last reading; waits for the device."""
        means = {name: float(total) / self._counts[name] for name, total in self._sums.items()}
        self._sums.clear()
        self._counts.clear()
        return means

    def state(self) -> dict[str, Any]:
        """What was added since the last reading, so that a resumed run reads the same means."""
        return {"sums": dict(self._sums), "counts": dict(self._counts)}

    def load_state(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Put back what `state` gave."""
        self._sums = {name: total.to(device) for name, total in state["sums"].items()}
        self._counts = dict(state["counts"])


@dataclass
class Progress:
    """Where training stands, in updates of the optimiser.

    Attributes:
        updates_per_epoch: Updates in one epoch.
        epochs: Epochs in the whole run.
        batch_size: Images in one update, over all processes.
        update: Updates completed.
        score: (update, value) of the latest evaluation's headline, if there was one.
        stopped_by: The signal that asked training to stop early, or 0.
        window: Losses and metrics since the last log.
    """

    updates_per_epoch: int
    epochs: int
    batch_size: int
    update: int = 0
    score: tuple[int, float] | None = None
    stopped_by: int = 0
    window: MetricWindow = field(default_factory=MetricWindow)

    @property
    def total(self) -> int:
        """Updates in the whole run."""
        return self.updates_per_epoch * self.epochs

    @property
    def complete(self) -> bool:
        """Whether every update was made."""
        return self.update >= self.total

    @property
    def epoch(self) -> int:
        """Epoch that the next update belongs to, from 0."""
        return self.update // self.updates_per_epoch

    @property
    def epoch_ended(self) -> bool:
        """Whether the update just made was the last of its epoch."""
        return self.update % self.updates_per_epoch == 0


class Mode(Protocol):
    """A way of training: owns its networks and its loss."""

    def step(self, batch: Any) -> StepOutput:
        """Forward pass of one batch."""

    def after_update(self) -> None:
        """Called once after each update of the optimiser: moving averages, queues."""

    def between_updates(self) -> AbstractContextManager[None]:
        """Context for a pass whose gradients are only accumulated: processes need not exchange them yet."""


class Feed(Protocol):
    """Batches of one epoch on the device, from any update on."""

    def batches(self, epoch: int, update: int) -> Iterator[Any]:
        """The batches from update number ``update`` of the epoch; ``accumulate`` of them to an update."""


class Callback:
    """Something that happens beside training, and changes nothing of it.

    Every method but `on_written` is called on every process.
    """

    def on_start(self, progress: Progress) -> None:
        """Before the first update of this process's life."""

    def on_log(self, progress: Progress, values: Mapping[str, float]) -> None:
        """Every ``log_every`` updates, with means since the last time; all updates so far are known to be finite."""

    def on_update(self, progress: Progress) -> None:
        """After each update."""

    def on_written(self, update: int, values: Mapping[str, float]) -> None:
        """With every line of the log, those of evaluations and callbacks too; on the main process alone."""

    def on_end(self, progress: Progress) -> None:
        """After the last update, or after a signal asked to stop."""

    def state(self) -> dict[str, Any]:
        """What a resumed run must know: tensors, numbers, texts, lists, mappings; that of the first process is kept."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Put back what `state` gave, before `on_start`; not called where the checkpoint has nothing of it."""


CALLBACKS: Registry[Callback] = Registry("callback", "facelab.run", supplied=("folder", "mode", "console", "log"))


class Step(Protocol):
    """One pass over a batch, and what follows of it."""

    def __call__(self, batch: Any, /) -> tuple[StepOutput, Tensor | None]:
        """What `Mode.step` gives, and the norm that `Optimization.update` does."""


def plain_step(mode: Mode, optim: Optimization) -> Step:
    """A step whose operations are launched one after the other."""

    def step(batch: Any) -> tuple[StepOutput, Tensor | None]:
        # Around the forward pass too, which is where DistributedDataParallel decides whether to exchange gradients.
        with nullcontext() if optim.next_call_updates else mode.between_updates():
            with phase("forward"), optim.autocast():
                output = mode.step(batch)
            return output, optim.update(output.loss)

    return step


class StopSignal:
    """Turns SIGTERM and Ctrl-C into a wish that all processes fulfil after the same update.

    Several processes compare notes every few seconds, because a launcher that is asked to stop waits half a minute for
    them; not after each update, because that costs time.

    Args:
        clock: Seconds since any moment.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.received = 0
        self._clock = clock
        self._updates = self._apart = 0
        self._since = clock()

    @contextmanager
    def installed(self) -> Iterator["StopSignal"]:
        """Handle the signals inside the block; a second Ctrl-C interrupts at once."""
        previous = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        for number in previous:
            signal.signal(number, self._receive)
        try:
            yield self
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    @staticmethod
    @contextmanager
    def cleaning_up() -> Iterator[None]:
        """Let SIGTERM end the block by an exception, as Ctrl-C does, so that what was begun is taken back."""

        def leave(number: int, _frame: FrameType | None) -> None:
            sys.exit(128 + number)

        previous = signal.signal(signal.SIGTERM, leave)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, previous)

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        if self.received and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = number

    def agreed(self) -> int:
        """The signal to stop for, or 0; the same on all processes. To be called after each update."""
        self._updates += 1
        if distributed.world_size() == 1:
            return self.received
        if self._updates < self._apart:
            return 0
        now = self._clock()
        told = distributed.gather_objects((self.received, (now - self._since) / self._updates))
        # From what all have told, so that all take the same number: who came to the next talk alone would wait there.
        self._apart = int(TALK_SECONDS / max(*(seconds for _, seconds in told), TALK_SECONDS / MOST_APART))
        self._updates, self._since = 0, now
        return max(number for number, _ in told)


def train(
    mode: Mode,
    feed: Feed,
    optim: Optimization,
    callbacks: Sequence[Callback],
    *,
    progress: Progress,
    log_every: int = 50,
    stop: StopSignal | None = None,
    step: Step | None = None,
) -> None:
    """Run ``mode`` over ``feed`` until ``progress`` is complete, from wherever ``progress`` stands.

    Args:
        mode: What is trained.
        feed: Its batches.
        optim: Its optimisers.
        callbacks: Called in this order.
        progress: Where training stands.
        log_every: Updates between two logs.
        stop: Watches for signals.
        step: Makes the updates; `plain_step` by default.

    Raises:
        DivergenceError: If a loss or a gradient was not finite; found at the next log, with the number of the update.
    """
    stop = stop or StopSignal()
    step = step or plain_step(mode, optim)
    window = progress.window
    for callback in callbacks:
        callback.on_start(progress)
    for batch in _batches(feed, progress):
        output, grad_norm = step(batch)
        window.add({"loss": output.loss, **output.metrics})
        if not optim.at_boundary:
            continue
        mode.after_update()
        progress.update += 1
        if grad_norm is not None:
            window.add({"grad_norm": grad_norm})
        log_now = progress.update % log_every == 0 or progress.epoch_ended
        if log_now:
            # Here, because it waits for the device, as the reading of the means does anyway.
            optim.check()
            values = {**window.read(), "lr": optim.learning_rate}
            for callback in callbacks:
                callback.on_log(progress, values)
        for callback in callbacks:
            callback.on_update(progress)
        progress.stopped_by = stop.agreed()
        if progress.stopped_by:
            break
    # The updates since the last log are not checked yet.
    optim.check()
    for callback in callbacks:
        callback.on_end(progress)


def _batches(feed: Feed, progress: Progress) -> Iterator[Any]:
    while not progress.complete:
        epoch = progress.epoch
        yield from feed.batches(epoch, progress.update % progress.updates_per_epoch)
        if progress.epoch == epoch:
            raise AssertionError(f"the feed ended epoch {epoch} before its {progress.updates_per_epoch} updates")


def rng_state() -> dict[str, Tensor]:
    """State of the random generators that dropout and the like draw from on this process."""
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def restore_rng(state: Mapping[str, Tensor]) -> None:
    """Put back what `rng_state` gave.

    Raises:
        CheckpointError: If it is none.
    """
    try:
        torch.set_rng_state(state["cpu"])
        if "cuda" in state and torch.cuda.is_available():
            torch.cuda.set_rng_state(state["cuda"])
    except (TypeError, KeyError, RuntimeError):
        raise CheckpointError(
            "the checkpoint is damaged: its rng is no state of random generators; go on from an earlier checkpoint by "
            "--resume."
        ) from None
