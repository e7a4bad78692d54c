"""Callbacks that the settings name: what they are given, what they remember, what is refused."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from facelab.backbone.base import Backbone
from facelab.cli.main import app
from facelab.engine.loop import CALLBACKS, Callback, Progress
from facelab.errors import ConfigError, DataError
from facelab.run.run import RunResult
from facelab.run.settings import load_config
from facelab.training_mode.base import TrainingMode
from facelab.weights.checkpoint import CheckpointStore
from facelab.weights.snapshot import TRAINING
from facelab.weights.tensor_files import read_tree

Run = Callable[..., RunResult]
TINY = str(Path(__file__).parents[2] / "tiny_run.yaml")


class Counter(Callback):
    """Counts updates over all lives of a run, and says so in the log."""

    made: "list[Counter]" = []  # noqa: RUF012

    def __init__(
        self,
        mode: TrainingMode,
        folder: Path,
        console: Console,
        log: Callable[[int, Mapping[str, float]], None],
        every: int = 2,
    ) -> None:
        self.mode, self.folder, self.console, self.log, self.every = mode, folder, console, log, every
        self.started_at = self.count = 0
        self.total = torch.zeros(())
        self.made.append(self)

    def on_start(self, progress: Progress) -> None:
        self.started_at = progress.update

    def on_update(self, progress: Progress) -> None:
        self.count += 1
        self.total += progress.update
        if progress.update % self.every == 0:
            self.log(progress.update, {"counted": float(self.count)})

    def state(self) -> dict[str, Any]:
        return {"count": self.count, "total": self.total}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.count, self.total = state["count"], state["total"].clone()


class Refusing(Callback):
    def on_update(self, progress: Progress) -> None:
        raise DataError(f"the disk of update {progress.update} is gone; mount it.")


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    CALLBACKS.names()
    CALLBACKS.register("Counter")(Counter)
    CALLBACKS.register("Refusing")(Refusing)
    Counter.made.clear()
    yield
    for name in ("Counter", "Refusing"):
        del CALLBACKS._classes[name]


def counted(run: Path) -> list[tuple[int, float]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(line["update"], line["counted"]) for line in lines if "counted" in line]


def test_it_is_called_with_what_the_program_supplies(tmp_path: Path, run_tiny: Run) -> None:
    run_tiny(tmp_path / "run", "callbacks={Counter: {every: 3}}", "training.epochs=1")
    (callback,) = Counter.made
    assert (callback.count, callback.folder, callback.every) == (4, tmp_path / "run", 3)
    assert isinstance(callback.console, Console)
    assert isinstance(callback.mode.inference_network(), Backbone)
    assert counted(tmp_path / "run") == [(3, 3.0)]


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("callbacks=Counter", {"Counter": {}}),
        ("callbacks=[Refusing, {Counter: {every: 3}}]", {"Refusing": {}, "Counter": {"every": 3}}),
        ("callbacks={Counter: }", {"Counter": {}}),
        ("callbacks.Counter.every=5", {"Counter": {"every": 5}}),
        ("callbacks=null", {}),
    ],
)
def test_it_is_named_alone_in_a_list_or_with_options(given: str, meant: dict[str, Any]) -> None:
    found = load_config(TINY, [given])
    assert found.callbacks == meant
    assert list(found.callbacks) == list(meant)


def test_one_that_is_resumed_remembers(tmp_path: Path, run_tiny: Run) -> None:
    words = ["callbacks=Counter", "training.epochs=2"]
    run_tiny(tmp_path / "whole", *words, "checkpoint.keep_every_epochs=1")
    store = CheckpointStore(tmp_path / "whole" / "checkpoints")
    assert read_tree(store.find("step-4") / TRAINING)["callbacks"]["Counter"]["count"] == 4
    run_tiny(tmp_path / "whole", *words, resume=True, checkpoint="step-4")
    whole, resumed = Counter.made
    assert (resumed.started_at, resumed.count, float(resumed.total)) == (4, 8, float(whole.total))
    assert counted(tmp_path / "whole") == [(2, 2.0), (4, 4.0), (6, 6.0), (8, 8.0)]


def test_one_that_is_added_on_resuming_begins_anew(tmp_path: Path, run_tiny: Run) -> None:
    """It changes nothing of training, so it may come and go; checkpoints of before may know of no callbacks."""
    words = ["training.epochs=2", "checkpoint.keep_every_epochs=1"]
    run_tiny(tmp_path / "run", *words)
    run_tiny(tmp_path / "run", *words, "callbacks=Counter", resume=True, checkpoint="step-4")
    assert Counter.made[0].count == 4


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("callbacks=Countr", "unknown callback 'Countr'. Did you mean 'Counter'"),
        ("callbacks={Counter: {evry: 2}}", "callback 'Counter' has no option 'evry'. Did you mean 'every'"),
        ("callbacks={Counter: {every: often}}", "callback 'Counter' option 'every' is 'often'"),
        ("callbacks=3", "'callbacks' is 3"),
        ("callbacks=[Counter, Counter]", "a callback is named twice"),
        ("callbacks={Counter: 3}", r"'callbacks\.Counter' is 3"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_made(
    tmp_path: Path, run_tiny: Run, given: str, sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        run_tiny(tmp_path / "run", given)
    assert not (tmp_path / "run").exists()


def test_its_own_sentence_is_the_error(tmp_path: Path) -> None:
    words = ["train", TINY, "callbacks=Refusing", "--run", str(tmp_path / "run")]
    error = CliRunner().invoke(app, words).exception
    assert isinstance(error, DataError)
    assert str(error) == "the disk of update 1 is gone; mount it."


@pytest.mark.parametrize(
    ("value", "named"),
    [(Path("x"), "PosixPath"), (np.float32(1), "float32"), ([{"a": {1}}], "set"), ({Path("x"): 1}, "PosixPath")],
)
def test_a_state_that_no_checkpoint_keeps_is_refused(
    value: Any, named: str, tmp_path: Path, run_tiny: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the first update, because it could not be read again."""
    monkeypatch.setattr(Counter, "state", lambda self: {"deep": value})
    monkeypatch.setattr(Counter, "on_update", lambda *_: pytest.fail("it trains"))
    with pytest.raises(ConfigError, match=f"'Counter' wants to remember, .* is of the type {named}, which no check"):
        run_tiny(tmp_path / "run", "callbacks=Counter", "training.epochs=1")
