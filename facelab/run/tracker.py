"""Base of callbacks that copy the numbers of a run into a service that tracks experiments."""

from abc import abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar

from rich.console import Console

from facelab import distributed
from facelab.engine.loop import Callback, Progress
from facelab.errors import ConfigError, first_line
from facelab.outside.yaml import read_yaml
from facelab.run.tracking import CONFIG, METRICS


class Tracker(Callback):
    """Writes what `metrics.jsonl` gets into another place too; the main process does it, the others only wait.

    A run is worth more than its copy. What fails when a run begins is refused, because nothing is lost yet. What fails
    later, or when a run goes on, is told once; the tracker is then left alone for as long as this process lives, since
    a service that does not answer could hold up every log, and ``metrics.jsonl`` has every number.

    A resumed run goes on in the same entry of the service: its name there is kept in checkpoints.

    Args:
        folder: The run's folder.
        console: Where a failure is told.

    Attributes:
        title: What messages call the service.
        package: What is imported.
        extra: The extra of facelab that installs it.
        run_id: Name of the entry, given by the service when it begins.

    Raises:
        ConfigError: If the package is missing.
    """

    title: ClassVar[str]
    package: ClassVar[str]
    extra: ClassVar[str]

    def __init__(self, folder: Path, console: Console) -> None:
        if find_spec(self.package) is None:
            raise ConfigError(f"callbacks: {self.title} needs a package: pip install 'facelab[{self.extra}]'.")
        self.folder, self.console = folder, console
        self.run_id: str | None = None
        self._open = False

    @abstractmethod
    def begin(self, settings: Mapping[str, Any]) -> None:
        """Begin an entry and set `run_id`, or go on with the one of that name.

        Args:
            settings: Those of the run, as a tree.
        """

    @abstractmethod
    def write(self, update: int, values: Mapping[str, float]) -> None:
        """Add numbers of one update."""

    @abstractmethod
    def finish(self, complete: bool) -> None:
        """Close the entry; ``complete`` unless the run was stopped before its last update."""

    def on_start(self, progress: Progress) -> None:
        """Begin, or go on.

        Raises:
            ConfigError: On every process, if a run cannot begin its entry.
        """
        fresh = progress.update == 0
        distributed.together(lambda: self._begin(fresh) if distributed.is_main() else None)

    def _begin(self, fresh: bool) -> None:
        kept = self._kept()
        with kept:
            self.begin(read_yaml(self.folder / CONFIG))
        self._open = kept.error is None
        if kept.error is not None:
            if fresh:
                raise ConfigError(
                    f"callbacks: {self.title} cannot begin ({first_line(kept.error)}); mend that, or leave it out."
                )
            self._tell(kept.error)

    def on_written(self, update: int, values: Mapping[str, float]) -> None:
        """Copy what was written into the log."""
        if self._open:
            with (kept := self._kept()):
                self.write(update, values)
            if kept.error is not None:
                self._open = False
                self._tell(kept.error)

    def on_end(self, progress: Progress) -> None:
        """Close the entry."""
        if self._open:
            with (kept := self._kept()):
                self.finish(progress.complete)
            if kept.error is not None:
                self._tell(kept.error)

    def state(self) -> dict[str, Any]:
        """The name of the entry."""
        return {"run_id": self.run_id}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on with the entry of a run's earlier life."""
        self.run_id = state["run_id"]

    def _tell(self, error: BaseException) -> None:
        self.console.print(
            f"{self.title} failed ({first_line(error)}); the run goes on without it, and {METRICS} has every number.",
            style="yellow",
        )

    def _kept(self) -> "_Kept":
        return _Kept(self.package)


class _Kept(AbstractContextManager["_Kept"]):
    """Keeps an error of a package or of the system, so that it does not leave the block; all others do.

    By the package of the error's class and not by a list: some of these packages raise a dozen classes of their own,
    from private modules; and what they cannot take they say by a `ValueError`.
    """

    def __init__(self, package: str) -> None:
        self.error: BaseException | None = None
        self._package = package

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        own = error is not None and any(of.__module__.partition(".")[0] == self._package for of in type(error).__mro__)
        if own or isinstance(error, OSError | ValueError):  # of network and disk
            self.error = error
        return self.error is not None
