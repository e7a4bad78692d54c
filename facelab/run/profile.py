"""Where a training step goes: a trace to look at, and a table."""

import os
from pathlib import Path

import torch
from rich.console import Console
from torch.profiler import ProfilerActivity, profile

from facelab import distributed
from facelab.engine.loop import CALLBACKS, Callback, Progress
from facelab.errors import DataError, in_range
from facelab.run.profile_table import operator_shares, phase_shares, profile_table, total
from facelab.weights.whole_file import write_whole

TRACE, TABLE = "profile.json.gz", "profile.txt"
MOST_UPDATES = 1000  # each leaves some thousand events in memory
TOP = 15  # operators and kernels in the table
SILENT = "99"  # above all levels; else PyTorch 2.13's recorder writes its own start and end into the progress


@CALLBACKS.register("Profile")
class Profile(Callback):
    """Records some updates of the main process with torch's profiler, and goes on training.

    The run's folder gets ``profile.json.gz``, a trace for https://ui.perfetto.dev or ``chrome://tracing``, and
    ``profile.txt``, the table that the console shows too: which share of a step the phases have (waiting for the
    loader, augmentation, forward, backward, optimiser), and which operators and, on a GPU, kernels take most. Steps
    that are recorded are a little slower.

    Args:
        folder: The run's folder; supplied.
        console: Where the table is shown; supplied.
        updates: How many to record, 1 to 1000.
        skip: Updates before them, counted from where this life of the run begins: the first ones prepare much.

    Raises:
        ConfigError: If a number is out of range.
    """

    def __init__(self, folder: Path, console: Console, updates: int = 10, skip: int = 10) -> None:
        self.folder, self.console = folder, console
        self.updates = int(in_range("callbacks Profile updates", updates, 1, MOST_UPDATES))
        self.skip = int(in_range("callbacks Profile skip", skip, 0, float("inf"), high_open=True))
        self._left = 0
        self._profiler: profile | None = None

    def on_start(self, progress: Progress) -> None:
        """Count from here."""
        self._left = self.skip + self.updates
        self._begin_or_end(progress)

    def on_update(self, progress: Progress) -> None:
        """Begin or end to record if it is time."""
        if self._left:
            self._left -= 1
            self._begin_or_end(progress)

    def on_end(self, progress: Progress) -> None:
        """Write what there is, if the run ends before; nothing may have been recorded yet."""
        if self._profiler is not None:
            self._write(progress, self.updates - self._left)
        elif self._left and distributed.is_main():
            self.console.print(f"Profile recorded nothing: the run ended within the first {self.skip} updates")
        self._left = 0

    def _begin_or_end(self, progress: Progress) -> None:
        if not distributed.is_main():
            return
        if self._left == self.updates:
            activities = [ProfilerActivity.CPU]
            if torch.cuda.is_available():
                activities.append(ProfilerActivity.CUDA)
            os.environ.setdefault("KINETO_LOG_LEVEL", SILENT)
            self._profiler = profile(activities=activities)
            self._profiler.start()
        elif not self._left:
            self._write(progress, self.updates)

    def _write(self, progress: Progress, updates: int) -> None:
        profiler, self._profiler = self._profiler, None
        if profiler is None or not updates:
            return
        profiler.stop()
        events, averages = list(profiler.events() or ()), profiler.key_averages()  # type: ignore[no-untyped-call]
        phases = phase_shares(events)
        whole = total(phases)
        tables = [profile_table("a step", [*phases, whole], updates, whole)]
        for title, on_device in (("operator", False), ("kernel", True)):
            if shares := operator_shares(averages, on_device=on_device):
                tables.append(profile_table(title, shares[:TOP], updates, total(shares)))
        said = "\n\n".join([f"{updates} updates up to update {progress.update}", *tables])
        try:
            profiler.export_chrome_trace(str(self.folder / TRACE))
        except OSError as error:
            raise DataError(f"cannot write '{self.folder / TRACE}': {error.strerror}.") from None
        write_whole(self.folder / TABLE, said + "\n")
        self.console.print(said, highlight=False)
        self.console.print(f"trace for https://ui.perfetto.dev: {self.folder / TRACE}", highlight=False)
