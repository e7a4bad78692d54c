"""What a run leaves beside its checkpoints: settings, environment, metrics (JSON lines, TensorBoard), the console."""

import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console
from rich.progress import (
    BarColumn,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import (
    Progress as Bar,
)
from rich.text import Text

import facelab
from facelab.distributed import world_size
from facelab.engine.loop import Callback, Progress
from facelab.errors import FacelabError
from facelab.version import __version__
from facelab.weights.whole_file import write_whole

if sys.platform != "win32":
    import resource

CONFIG, ENVIRONMENT, METRICS = "config.yaml", "environment.json", "metrics.jsonl"


def environment() -> dict[str, Any]:
    """Versions and machine that a run's numbers depend on."""
    return {
        "facelab": __version__,
        "git_commit": git_commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "device": torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else platform.processor() or platform.machine(),
        "platform": platform.platform(),
        "processes": world_size(),
        "threads": torch.get_num_threads(),
    }


def model_files(source: Path | None) -> dict[str, Path]:
    """What to look at behind a number: the ``model``, and the ``log`` of the run that it came from, if any.

    Args:
        source: Folder of a checkpoint, or a file of weights.
    """
    if source is None:
        return {}
    log = source.parent.parent / METRICS
    return {"model": source, "log": log} if log.is_file() else {"model": source}


def git_commit() -> str | None:
    """Commit of the checkout that the package runs from, with ``+changes`` if files differ; None outside of one."""
    root = Path(facelab.__file__).resolve().parent.parent
    if not (root / "pyproject.toml").is_file():
        return None
    try:
        head = _git(root, "rev-parse", "HEAD")
        return head + ("+changes" if _git(root, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()


def write_settings(folder: Path, config: Mapping[str, Any]) -> None:
    """Write the resolved configuration and the environment into a run's folder, in place of older ones.

    Raises:
        DataError: If one cannot be written; an older one is left as it was.
    """
    write_whole(folder / CONFIG, yaml.safe_dump(dict(config), sort_keys=False))
    write_whole(folder / ENVIRONMENT, json.dumps(environment(), indent=1))


class MetricsLog(Callback):
    """Appends the means of every log to ``metrics.jsonl`` and to TensorBoard. Only the main process should have one.

    A resumed run first drops the lines that its killed predecessor wrote after the checkpoint; the file is replaced by
    a shorter one that is whole, so that a run killed just then loses nothing.

    Args:
        folder: The run's folder.
        tensorboard: Whether to write TensorBoard files too.

    Attributes:
        followers: Told of every line that was written.
    """

    def __init__(self, folder: Path, *, tensorboard: bool = True) -> None:
        self.path = folder / METRICS
        self.followers: Sequence[Callback] = ()
        self._board: Any = None
        self._board_folder = folder / "tensorboard" if tensorboard else None

    def on_start(self, progress: Progress) -> None:
        """Open the files at the right place.

        Raises:
            FacelabError: If they cannot be read or written.
        """
        try:
            self._cut(progress.update)
            if self._board_folder is not None:
                from torch.utils.tensorboard import SummaryWriter

                # TensorBoard then hides what a killed predecessor wrote after the checkpoint.
                self._board = SummaryWriter(str(self._board_folder), purge_step=progress.update + 1)
        except OSError as error:
            raise FacelabError(f"cannot write '{error.filename or self.path}': {error.strerror}.") from None

    def _cut(self, update: int) -> None:
        """Drop what was logged after an update, and lines that were not written to their end."""
        if not self.path.exists():
            return
        content = self.path.read_bytes()
        lines = [line + b"\n" for line in content.splitlines() if _update_of(line) <= update]
        if (kept := b"".join(lines)) != content:
            write_whole(self.path, kept)

    def on_log(self, progress: Progress, values: Mapping[str, float]) -> None:
        """Write one line."""
        self.write(progress.update, {"epoch": progress.update / progress.updates_per_epoch, **values})

    def write(self, update: int, values: Mapping[str, float]) -> None:
        """Append values of one update.

        Raises:
            FacelabError: If the disk is full or the file cannot be written.
        """
        try:
            with self.path.open("a") as file:
                file.write(json.dumps({"update": update, **values}) + "\n")
            if self._board is not None:
                for name, value in values.items():
                    self._board.add_scalar(name, value, update)
        except OSError as error:
            raise FacelabError(f"cannot write '{self.path}': {error.strerror}.") from None
        for follower in self.followers:
            follower.on_written(update, values)

    def on_end(self, progress: Progress) -> None:
        """Close the files."""
        if self._board is not None:
            self._board.close()


def _update_of(line: bytes) -> float:
    try:
        return float(json.loads(line)["update"])
    except (ValueError, LookupError, TypeError, OverflowError, RecursionError):
        return float("inf")  # the last line of a killed run may be half written


def last_logged(folder: Path) -> tuple[int, float]:
    """Update and epoch of the last whole line in a run's log; zeros without one."""
    path = folder / METRICS
    lines = path.read_bytes().splitlines() if path.is_file() else []
    whole = (json.loads(line) for line in reversed(lines) if _update_of(line) < float("inf"))
    last: dict[str, float] = next(whole, {})
    return int(last.get("update", 0)), float(last.get("epoch", 0))


def peak_memory() -> float | None:
    """Most memory of this process so far, in GB (10^9 bytes): that of its GPU if it uses one, else of the process.

    None where the system does not tell.
    """
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return torch.cuda.max_memory_allocated() / 1e9
    if sys.platform == "win32":
        return None
    # macOS counts bytes, Linux kibibytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


class _ImagesPerSecond(ProgressColumn):
    """Images a second since the start of this process, over all processes of the run."""

    def __init__(self, batch_size: int) -> None:
        super().__init__()
        self.batch_size = batch_size

    def render(self, task: Task) -> Text:
        """The rate as text."""
        speed = task.speed
        return Text("… images/s" if speed is None else f"{speed * self.batch_size:,.0f} images/s")


class ConsoleProgress(Callback):
    """A bar with rate, time left, loss, accuracy and memory on a terminal; a line at every log where there is none.

    The rate of a line is that since the one before, all processes together; the memory is the most of this process.

    Args:
        console: Where to print.
        clock: Seconds since any moment.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self.console = console
        self._clock = clock
        self._since = (0, 0.0)  # update and time of the last log
        self._bar: Bar | None = None
        self._task = TaskID(0)
        self._text = ""

    def on_start(self, progress: Progress) -> None:
        """Show the bar."""
        self._since = (progress.update, self._clock())
        if not self.console.is_terminal:
            return
        self._bar = Bar(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            _ImagesPerSecond(progress.batch_size),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[text]}"),
            console=self.console,
            speed_estimate_period=20,
        )
        self._task = self._bar.add_task("train", total=progress.total, completed=progress.update, epoch="", text="")
        self._bar.start()

    def on_log(self, progress: Progress, values: Mapping[str, float]) -> None:
        """Show the latest means."""
        names = ("loss", "accuracy", "sample_rate", "lr")
        memory = peak_memory()
        shown = [f"{name} {values[name]:.4g}" for name in names if name in values]
        self._text = "  ".join([*shown, *([] if memory is None else [f"{memory:.1f} GB"])])
        if self._bar is None:
            epoch = progress.update / progress.updates_per_epoch
            where = f"epoch {epoch:6.2f}/{progress.epochs}  update {progress.update}/{progress.total}"
            self.console.print(f"{where}  {self._rate(progress)}  {self._text}")

    def _rate(self, progress: Progress) -> str:
        """Images a second since the last log."""
        (update, then), now = self._since, self._clock()
        self._since = (progress.update, now)
        images = (progress.update - update) * progress.batch_size
        return f"{images / max(now - then, 1e-9):,.0f} images/s"

    def on_update(self, progress: Progress) -> None:
        """Move the bar."""
        if self._bar is not None:
            epoch = f"{min(progress.epoch + 1, progress.epochs)}/{progress.epochs}"
            self._bar.update(self._task, completed=progress.update, epoch=epoch, text=self._text)

    def on_end(self, progress: Progress) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
