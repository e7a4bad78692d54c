"""MLflow as a tracker of runs."""

import os
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from facelab.engine.loop import CALLBACKS
from facelab.run.tracker import Tracker

LONGEST = 500  # letters of a setting that every server takes
AT_ONCE = 100  # settings that it takes in one message
NOT_IN_NAMES = re.compile(r"[^\w\-./: ]")


@CALLBACKS.register("MLflow")
class MLflow(Tracker):
    """Copies the log of a run to MLflow, settings as parameters.

    Signs that MLflow does not take in names become ``_``: ``LFW/TAR@FAR=1e-3`` is ``LFW/TAR_FAR_1e-3`` there.

    Args:
        folder: The run's folder; supplied.
        console: Where a failure is told; supplied.
        experiment: Of the service.
        name: Of the entry; that of the run's folder by default.
        uri: Of the server, or a ``file:`` folder; by default what ``MLFLOW_TRACKING_URI`` says, else ``mlruns`` in the
            run's folder, for which no server is needed.
        tags: To find entries by.

    Raises:
        ConfigError: If the package is missing.
    """

    title, package, extra = "MLflow", "mlflow", "mlflow"

    def __init__(
        self,
        folder: Path,
        console: Console,
        experiment: str = "facelab",
        name: str | None = None,
        uri: str | None = None,
        tags: dict[str, str] | None = None,
    ) -> None:
        super().__init__(folder, console)
        self.experiment, self.name, self.tags = experiment, name or folder.name, tags or {}
        self.uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or (folder.resolve() / "mlruns").as_uri()
        self._client: Any = None

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Begin an entry, or go on with the one of this run's earlier life."""
        if self.uri.startswith("file:"):
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # refused by default since MLflow 3.7
        from mlflow import MlflowClient
        from mlflow.entities import Param

        self._client = MlflowClient(tracking_uri=self.uri)
        if self.run_id is not None:
            self._client.update_run(self.run_id, status="RUNNING")
            return
        found = self._client.get_experiment_by_name(self.experiment)
        number = found.experiment_id if found else self._client.create_experiment(self.experiment)
        self.run_id = self._client.create_run(number, tags=self.tags, run_name=self.name).info.run_id
        given = [Param(name, value[:LONGEST]) for name, value in _leaves(settings)]
        for start in range(0, len(given), AT_ONCE):
            self._client.log_batch(self.run_id, params=given[start : start + AT_ONCE])

    def write(self, update: int, values: Mapping[str, float]) -> None:
        """Add numbers of one update."""
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        named = {NOT_IN_NAMES.sub("_", name): value for name, value in values.items()}
        self._client.log_batch(self.run_id, metrics=[Metric(name, value, now, update) for name, value in named.items()])

    def finish(self, complete: bool) -> None:
        """Close the entry; one that was stopped is marked as killed."""
        self._client.set_terminated(self.run_id, status="FINISHED" if complete else "KILLED")


def _leaves(tree: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Settings by dotted names, as texts; lists are one text."""
    if isinstance(tree, Mapping) and tree:
        for key, value in tree.items():
            yield from _leaves(value, NOT_IN_NAMES.sub("_", f"{path}.{key}" if path else str(key)))
    elif path:
        yield path, str(tree)
