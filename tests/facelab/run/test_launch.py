import os
import shutil
import signal
from pathlib import Path

import pytest

from facelab.errors import CheckpointError, ConfigError
from facelab.run.launch import launch

TINY = str(Path(__file__).parents[2] / "tiny_run.yaml")
PAIRS = "evaluation.protocols={synthetic: {SyntheticPairs: {identities: 20, per_identity: 4, folds: 2, pairs: 40}}}"


def test_each_run_gets_a_folder_of_its_own(tmp_path: Path) -> None:
    for _ in range(2):
        assert launch(TINY, [f"output={tmp_path}", "training.epochs=1"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny", "tiny-2"]


def test_table_and_files_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    launch(TINY, ["training.epochs=1", PAIRS], run=tmp_path / "run")
    text = capsys.readouterr().out
    assert "synthetic accuracy [%]" in text
    for name in ("report.html", "report.md", "training.png"):
        assert str(tmp_path / "run" / name) in text
        assert (tmp_path / "run" / name).stat().st_size > 0


def test_a_run_without_protocols_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    launch(TINY, ["training.epochs=1"], run=tmp_path / "run")
    assert "nothing to test on: name protocols under evaluation.protocols" in capsys.readouterr().out


def test_a_finished_run_can_be_resumed_by_its_folder_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    launch(TINY, ["training.epochs=1", PAIRS], run=tmp_path / "run")
    assert launch(None, [], run=tmp_path / "run", resume=True) == 0
    assert "at update 4 of 4" in capsys.readouterr().out


def test_processes_that_may_be_started_again_go_on_with_their_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "3")
    with pytest.raises(ConfigError, match=r"\(--max-restarts\), and without a folder .* name one by --run FOLDER"):
        launch(TINY, [f"output={tmp_path}"])
    assert list(tmp_path.iterdir()) == []
    for said in ("it begins at update 0", "at update 4 of 4"):
        assert launch(TINY, ["training.epochs=1"], run=tmp_path / "run") == 0
        assert said in capsys.readouterr().out


def test_a_folder_that_is_no_run_cannot_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is not a run: it has no config.yaml"):
        launch(None, [], run=tmp_path, resume=True)


def test_a_run_that_is_not_there_begins_by_its_configuration_alone(tmp_path: Path) -> None:
    """Of a mistyped folder; a job that is always started by the same words names its configuration."""
    with pytest.raises(ConfigError, match=r"there is no run '.*/rnu' to go on with; to begin one there, name"):
        launch(None, [], run=tmp_path / "rnu", resume=True)
    assert list(tmp_path.iterdir()) == []
    assert launch(TINY, ["training.epochs=1"], run=tmp_path / "run", resume=True) == 0


@pytest.mark.parametrize("content", [None, "", "head: [", "- no mapping"])
def test_a_run_whose_settings_are_lost_goes_on_by_those_of_its_checkpoint(tmp_path: Path, content: str | None) -> None:
    launch(TINY, ["training.epochs=1"], run=tmp_path / "run")
    path = tmp_path / "run" / "config.yaml"
    before = path.read_text()
    path.unlink()
    if content is not None:
        path.write_text(content)
    assert launch(None, [], run=tmp_path / "run", resume=True) == 0
    assert path.read_text() == before
    path.unlink()
    with pytest.raises(ConfigError, match="seed: 0 -> 3"):
        launch(TINY, ["training.epochs=1", "seed=3"], run=tmp_path / "run", resume=True)


def test_damaged_settings_without_a_checkpoint_are_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").touch()
    with pytest.raises(ConfigError, match="config.yaml' is empty"):
        launch(None, [], run=tmp_path / "run", resume=True)


def test_resuming_needs_a_folder() -> None:
    with pytest.raises(ConfigError, match="--resume needs --run FOLDER"):
        launch(None, [], resume=True)


def test_a_signal_stops_after_the_update_and_says_how_to_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from facelab.run.tracking import MetricsLog

    written = MetricsLog.on_log

    def interrupt(log: MetricsLog, *arguments: object) -> None:
        written(log, *arguments)  # type: ignore[arg-type]
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(MetricsLog, "on_log", interrupt)
    assert launch(TINY, [], run=tmp_path / "run") == signal.SIGTERM
    assert "stopped at update 2 of 12; go on with: facelab train --run" in capsys.readouterr().out


def test_a_run_whose_checkpoints_are_gone_is_not_begun_again_unnoticed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    launch(TINY, ["training.epochs=2"], run=run)
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(
        ConfigError, match=r"has no checkpoint, although metrics.jsonl shows that it came to update 8; "
    ):
        launch(TINY, ["training.epochs=2"], run=run, resume=True)
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(lines[:2]))  # as if it had been killed before the first one
    capsys.readouterr()
    assert launch(TINY, ["training.epochs=2"], run=run, resume=True) == 0
    assert f"'{run}' has no checkpoint: it begins at update 0" in capsys.readouterr().out.splitlines()
