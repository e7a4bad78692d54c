"""Weights & Biases as a tracker of runs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from facelab.engine.loop import CALLBACKS
from facelab.run.tracker import Tracker


@CALLBACKS.register("WandB")
class WandB(Tracker):
    """Copies the log of a run to Weights & Biases, with ``update`` as the axis of all curves.

    Without a network set ``offline: true`` or ``WANDB_MODE=offline``: files then lie in the run's folder, and ``wandb
    sync RUN/wandb/offline-*`` brings them to the server, those of a resumed run into the same entry.

    Args:
        folder: The run's folder; supplied.
        console: Where a failure is told; supplied.
        project: Of the service.
        name: Of the entry; that of the run's folder by default.
        entity: User or team; the service's default without one.
        group: Of entries that belong together, such as seeds.
        tags: To find entries by.
        offline: Write files alone; otherwise ``WANDB_MODE`` decides.

    Raises:
        ConfigError: If the package is missing.
    """

    title, package, extra = "WandB", "wandb", "wandb"

    def __init__(
        self,
        folder: Path,
        console: Console,
        project: str = "facelab",
        name: str | None = None,
        entity: str | None = None,
        group: str | None = None,
        tags: tuple[str, ...] = (),
        offline: bool = False,
    ) -> None:
        super().__init__(folder, console)
        self.options: dict[str, Any] = {"project": project, "entity": entity, "group": group, "tags": tags or None}
        self.options |= {"name": name or folder.name, "mode": "offline" if offline else None}
        self._run: Any = None

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Begin an entry, or go on with the one of this run's earlier life."""
        import wandb

        self._run = wandb.init(
            **self.options,
            dir=str(self.folder),
            config=dict(settings),
            id=self.run_id,
            resume=None if self.run_id is None else "allow",
            # The console stays the user's; and a study has several runs in one process.
            settings=wandb.Settings(console="off", silent=True),
            reinit="finish_previous",
        )
        self.run_id = self._run.id
        # An axis of our own: its steps must rise, and those after a checkpoint come again when a killed run goes on.
        self._run.define_metric("*", step_metric="update")

    def write(self, update: int, values: Mapping[str, float]) -> None:
        """Add numbers of one update."""
        self._run.log({"update": update, **values})

    def finish(self, complete: bool) -> None:
        """Close the entry; one that was stopped is marked as not finished."""
        self._run.finish(exit_code=0 if complete else 1)
