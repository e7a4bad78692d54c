"""Trackers of experiments: what they are told, that they go on, and that their failures lose no training."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from rich.console import Console

from facelab import distributed
from facelab.engine.loop import CALLBACKS, Progress
from facelab.errors import ConfigError
from facelab.run.run import RunResult, run_training
from facelab.run.settings import load_config
from facelab.run.tracker import Tracker

Run = Callable[..., RunResult]
TINY = str(Path(__file__).parents[2] / "tiny_run.yaml")
PROTOCOL = "evaluation.protocols={drawn: {SyntheticPairs: {identities: 8, per_identity: 3, folds: 2, pairs: 12}}}"


class Lost(Exception):
    """Of a package's private modules."""


Lost.__module__ = "made_tracker.private.modules"


class Made(Tracker):
    """Remembers what it is told, and fails when it is asked to."""

    title, package, extra = "Made", "made_tracker", "made"
    entries: "dict[str, list[tuple[int, dict[str, float]]]]" = {}  # noqa: RUF012
    ended: "list[bool]" = []  # noqa: RUF012

    def __init__(self, folder: Path, console: Console, fails_at: int = -1, error: str = "Lost") -> None:
        super().__init__(folder, console)
        self.fails_at = fails_at
        self.error = {"Lost": Lost, "OSError": OSError, "KeyError": KeyError}[error]

    def begin(self, settings: Mapping[str, Any]) -> None:
        if self.fails_at == 0:
            raise self.error("no route to host\nand more")
        assert settings["name"] == "tiny"
        self.run_id = self.run_id or f"entry-{len(self.entries)}"
        self.entries.setdefault(self.run_id, [])

    def write(self, update: int, values: Mapping[str, float]) -> None:
        if 0 < self.fails_at <= update:
            raise self.error("no space left")
        assert self.run_id is not None
        self.entries[self.run_id].append((update, dict(values)))

    def finish(self, complete: bool) -> None:
        self.ended.append(complete)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    package = ModuleType("made_tracker")
    package.__spec__ = sys.modules["json"].__spec__
    monkeypatch.setitem(sys.modules, "made_tracker", package)
    CALLBACKS.names()
    CALLBACKS.register("Made")(Made)
    Made.entries.clear()
    Made.ended.clear()
    yield
    del CALLBACKS._classes["Made"]


@pytest.fixture
def run_tiny() -> Run:
    """Trains the tiny run with overrides into a folder, and says aloud what it has to say."""

    def run(folder: Path, *overrides: str, **options: Any) -> RunResult:
        return run_training(load_config(TINY, list(overrides)), folder, Console(width=500), **options)

    return run


def logged(folder: Path) -> list[tuple[int, dict[str, float]]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(line.pop("update"), line) for line in lines]


def test_it_gets_every_line_of_the_log_in_one_entry_also_when_the_run_goes_on(tmp_path: Path, run_tiny: Run) -> None:
    words = ["callbacks=Made", PROTOCOL, "training.epochs=2", "checkpoint.keep_every_epochs=1"]
    run_tiny(tmp_path / "run", *words)
    whole = logged(tmp_path / "run")
    assert any("drawn/accuracy" in values for _, values in whole)
    assert Made.entries == {"entry-0": whole}
    run_tiny(tmp_path / "run", *words, resume=True, checkpoint="step-4")
    assert Made.entries == {"entry-0": whole + [line for line in whole if line[0] > 4]}
    assert Made.ended == [True, True]


@pytest.mark.parametrize("error", ["Lost", "OSError"])
def test_what_fails_in_between_is_told_once_and_loses_no_training(
    tmp_path: Path, run_tiny: Run, capsys: pytest.CaptureFixture[str], error: str
) -> None:
    result = run_tiny(tmp_path / "run", f"callbacks={{Made: {{fails_at: 3, error: {error}}}}}", "training.epochs=2")
    assert result.progress.complete
    assert [update for update, _ in logged(tmp_path / "run")] == [2, 4, 6, 8]
    assert [update for update, _ in Made.entries["entry-0"]] == [2]
    said = capsys.readouterr().out
    assert said.count("Made failed (no space left); the run goes on without it, and metrics.jsonl has every") == 1
    assert Made.ended == []


def test_what_fails_at_the_beginning_is_refused_but_a_run_that_goes_on_does_so(
    tmp_path: Path, run_tiny: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    failing = "callbacks={Made: {fails_at: 0}}"
    with pytest.raises(ConfigError, match=r"^callbacks: Made cannot begin \(no route to host\); mend that, or leave"):
        run_tiny(tmp_path / "run", failing, "training.epochs=1")
    run_tiny(tmp_path / "other", "callbacks=Made", "training.epochs=2", "checkpoint.keep_every_epochs=1")
    words = [failing, "training.epochs=2"]
    result = run_tiny(tmp_path / "other", *words, resume=True, checkpoint="step-4", allow_changes=True)
    assert result.progress.complete
    assert "Made failed (no route to host)" in capsys.readouterr().out


def test_an_error_that_is_not_the_tracker_s_is_not_hidden(tmp_path: Path, run_tiny: Run) -> None:
    with pytest.raises(KeyError):
        run_tiny(tmp_path / "run", "callbacks={Made: {fails_at: 1, error: KeyError}}", "training.epochs=1")


def test_only_the_main_process_has_an_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = Made(tmp_path, Console())
    progress = Progress(epochs=1, updates_per_epoch=4, batch_size=2)
    monkeypatch.setattr(distributed, "is_main", lambda: False)
    tracker.on_start(progress)
    tracker.on_written(2, {"loss": 1.0})
    tracker.on_end(progress)
    assert (Made.entries, Made.ended) == ({}, [])


@pytest.mark.parametrize("name", ["WandB", "MLflow"])
def test_a_missing_package_is_a_sentence_with_the_command(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("facelab.run.tracker.find_spec", lambda package: None)
    with pytest.raises(
        ConfigError, match=rf"^callbacks: {name} needs a package: pip install 'facelab\[{name.lower()}\]'\.$"
    ):
        CALLBACKS.build(name, {}, folder=tmp_path, console=Console())


@pytest.mark.extras
def test_both_for_real_without_a_network(tmp_path: Path, run_tiny: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two lives of one run are one entry of both services; neither changes what is trained."""
    mlflow = pytest.importorskip("mlflow", reason="pip install 'facelab[mlflow]'")
    pytest.importorskip("wandb", reason="pip install 'facelab[wandb]'")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    words = ["training.epochs=2", "checkpoint.keep_every_epochs=1", PROTOCOL]
    run_tiny(tmp_path / "plain", *words)
    both = "callbacks={WandB: {project: faces, tags: [a, b]}, MLflow: {tags: {kind: test}}}"
    run_tiny(tmp_path / "run", *words, both)
    assert logged(tmp_path / "run") == logged(tmp_path / "plain")
    run_tiny(tmp_path / "run", *words, both, resume=True, checkpoint="step-4")
    assert logged(tmp_path / "run") == logged(tmp_path / "plain")

    client = mlflow.MlflowClient(tracking_uri=(tmp_path / "run" / "mlruns").as_uri())
    (entry,) = client.search_runs([client.get_experiment_by_name("facelab").experiment_id])
    assert (entry.info.status, entry.info.run_name, entry.data.tags["kind"]) == ("FINISHED", "run", "test")
    assert entry.data.params["training.batch_size"] == "16"
    losses = [(point.step, point.value) for point in client.get_metric_history(entry.info.run_id, "loss")]
    expected = [(update, values["loss"]) for update, values in logged(tmp_path / "plain") if "loss" in values]
    assert sorted(set(losses)) == expected
    assert len(losses) == len(expected) + 2  # what came behind the checkpoint came twice, and equal
    assert [point.step for point in client.get_metric_history(entry.info.run_id, "drawn/accuracy")]

    files = sorted((tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(files) == 2
    assert len({file.stem for file in files}) == 1  # both lives have one name, so that they are synchronised into one
    assert all(b"drawn/accuracy" in file.read_bytes() and b"update" in file.read_bytes() for file in files)


@pytest.mark.extras
def test_a_store_that_is_gone_is_told_and_the_run_is_whole(
    tmp_path: Path, run_tiny: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mlflow = pytest.importorskip("mlflow", reason="pip install 'facelab[mlflow]'")
    wandb = pytest.importorskip("wandb", reason="pip install 'facelab[wandb]'")
    monkeypatch.setenv("WANDB_MODE", "offline")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    def closed(*_: object, **__: object) -> None:
        from wandb.sdk.mailbox.mailbox import MailboxClosedError

        raise MailboxClosedError("the service is gone")

    monkeypatch.setattr(
        mlflow.MlflowClient, "log_batch", lambda self, run, metrics=(), **more: full() if metrics else None
    )
    monkeypatch.setattr(wandb.Run, "log", closed)
    result = run_tiny(tmp_path / "run", "callbacks=[WandB, MLflow]", "training.epochs=1")
    assert result.progress.complete
    said = capsys.readouterr().out
    assert "WandB failed (the service is gone); the run goes on without it" in said
    assert "MLflow failed ([Errno 28] No space left on device); the run goes on" in said


@pytest.mark.extras
@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("{MLflow: {uri: 'nothing://here'}}", "MLflow cannot begin (.*nothing"),
        ("{MLflow: {experiment: ''}}", "MLflow cannot begin (.*xperiment"),
        ("{WandB: {project: 'a/b', offline: true}}", "WandB cannot begin (.*a/b"),
    ],
)
def test_settings_that_a_service_refuses_are_refused_before_training(
    tmp_path: Path, run_tiny: Run, given: str, sentence: str
) -> None:
    pytest.importorskip("mlflow", reason="pip install 'facelab[mlflow]'")
    pytest.importorskip("wandb", reason="pip install 'facelab[wandb]'")
    with pytest.raises(ConfigError, match=sentence.replace("(", r"\(", 1)):
        run_tiny(tmp_path / "run", f"callbacks={given}", "training.epochs=1")
