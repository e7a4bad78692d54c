"""What happens beside the updates: evaluation on protocols, checkpoints, and callbacks that the settings name."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from facelab.engine.loop import CALLBACKS, Callback, Progress
from facelab.run.settings import CheckpointSettings, EvaluationSettings
from facelab.run.tracking import MetricsLog
from facelab.test_protocol.base import Report
from facelab.weights.checkpoint import CheckpointStore
from facelab.weights.plain_values import require_plain
from facelab.weights.snapshot import TRAINING, Snapshot
from facelab.weights.tensor_files import read_tree

KEY = "callbacks"  # of a checkpoint's training state


class NamedCallbacks:
    """The callbacks that the settings name, in that order.

    Args:
        callbacks: Options by the callback's registered name.
        supplied: What a constructor gets if it has a parameter of that name.

    Raises:
        ConfigError: If a name or an option is unknown, or an option is missing or wrong.
    """

    def __init__(self, callbacks: Mapping[str, Mapping[str, Any]], **supplied: Any) -> None:
        self.by_name = {name: CALLBACKS.build(name, options, **supplied) for name, options in callbacks.items()}

    def added_to(self, snapshot: Snapshot) -> Snapshot:
        """A snapshot with their states.

        Raises:
            ConfigError: If a state holds what a checkpoint cannot.
        """
        states = {name: callback.state() for name, callback in self.by_name.items()}
        for name, state in states.items():
            require_plain(state, f"what the callback '{name}' wants to remember")
        return replace(snapshot, training={**snapshot.training, KEY: states})

    def restore(self, checkpoint: Path) -> None:
        """Give each its state back; those that are new since the checkpoint begin anew."""
        states = read_tree(checkpoint / TRAINING).get(KEY, {})
        for name, callback in self.by_name.items():
            if name in states:
                callback.load_state(states[name])


def check_callbacks(callbacks: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse unknown names and options before a run is put together.

    Raises:
        ConfigError: If one is unknown, or has a wrong type.
    """
    for name, options in callbacks.items():
        CALLBACKS.check(name, options)


class Evaluation(Callback):
    """Tests the network every so often, on all processes.

    Args:
        settings: When.
        test: Gives the reports of the network as it stands.
        log: Where the headlines are written, on the main process.
    """

    def __init__(
        self, settings: EvaluationSettings, test: Callable[[], Sequence[Report]], log: MetricsLog | None
    ) -> None:
        self.settings = settings
        self.test = test
        self.log = log
        self.reports: Sequence[Report] = ()

    def on_update(self, progress: Progress) -> None:
        """Evaluate if it is time."""
        if self._due(progress):
            self.evaluate(progress)

    def evaluate(self, progress: Progress) -> None:
        """Evaluate now; the first headline becomes the score that decides which checkpoint is the best."""
        self.reports = self.test()
        headlines = {f"{report.protocol}/{report.headline.name}": report.headline.value for report in self.reports}
        measured = {name: value for name, value in headlines.items() if value is not None}
        if measured:
            first = next(report.headline for report in self.reports if report.headline.value is not None)
            # The best checkpoint is that of the highest score.
            sign = -1.0 if first.better == "low" else 1.0
            progress.score = (progress.update, sign * next(iter(measured.values())))
        if self.log is not None and measured:
            self.log.write(progress.update, {"epoch": progress.update / progress.updates_per_epoch, **measured})

    def _due(self, progress: Progress) -> bool:
        if not self.settings.wanted:
            return False
        every = self.settings.every_epochs
        by_epoch = progress.epoch_ended and bool(every) and progress.epoch % every == 0
        return progress.complete or by_epoch or _every(self.settings.every_updates, progress)


class Checkpointing(Callback):
    """Writes checkpoints every so often, when training ends, and when a signal asks to stop.

    Args:
        settings: When.
        store: Where.
        take: Gives the state as it stands.
        check: Raises if an update so far was not finite, so that no broken state is stored.
    """

    def __init__(
        self,
        settings: CheckpointSettings,
        store: CheckpointStore,
        take: Callable[[Progress], Snapshot],
        check: Callable[[], None],
    ) -> None:
        self.settings = settings
        self.store = store
        self.take = take
        self.check = check
        self._written = -1

    def on_start(self, progress: Progress) -> None:
        """What was resumed from is already written."""
        self.take(progress)  # so that a state that no checkpoint keeps is refused now, and not after hours
        self._written = progress.update

    def on_update(self, progress: Progress) -> None:
        """Write if it is time."""
        by_epoch = progress.epoch_ended and progress.epoch % self.settings.every_epochs == 0
        # Whatever was scored is written, else the best state could be gone by the next checkpoint.
        scored = progress.score is not None and progress.score[0] == progress.update
        if by_epoch or scored or _every(self.settings.every_updates, progress):
            self.write(progress)

    def on_end(self, progress: Progress) -> None:
        """Write the last state."""
        self.write(progress)

    def write(self, progress: Progress) -> None:
        """Write now, unless this update is written already."""
        if self._written == progress.update:
            return
        self.check()
        score = progress.score[1] if progress.score and progress.score[0] == progress.update else None
        keep = self.settings.keep_every_epochs
        kept = keep is not None and progress.epoch_ended and progress.epoch % keep == 0
        self.store.save(progress.update, self.take(progress), score=score, keep=kept)
        self._written = progress.update


def _every(updates: int | None, progress: Progress) -> bool:
    return updates is not None and progress.update % updates == 0
