import errno
import io
import json
import os
import re
from pathlib import Path

import pytest
import torch
from rich.console import Console

from facelab.engine.loop import Progress
from facelab.errors import FacelabError
from facelab.run import tracking
from facelab.run.tracking import ConsoleProgress, MetricsLog, environment, peak_memory, write_settings


@pytest.fixture
def progress() -> Progress:
    return Progress(updates_per_epoch=10, epochs=2, batch_size=4, update=5)


def test_a_line_for_every_log(tmp_path: Path, progress: Progress) -> None:
    log = MetricsLog(tmp_path, tensorboard=False)
    log.on_start(progress)
    log.on_log(progress, {"loss": 2.0})
    log.on_end(progress)
    assert [json.loads(line) for line in log.path.read_text().splitlines()] == [
        {"update": 5, "epoch": 0.5, "loss": 2.0}
    ]


def test_a_resumed_run_drops_what_came_after_its_checkpoint(tmp_path: Path, progress: Progress) -> None:
    lines = ['{"update": 4, "loss": 1}', '{"update": 5, "loss": 1}', '{"update": 6, "loss": 1}', '{"update": 7, "lo']
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    MetricsLog(tmp_path, tensorboard=False).on_start(progress)
    assert (tmp_path / "metrics.jsonl").read_text().splitlines() == lines[:2]


def test_a_log_whose_shorter_copy_cannot_be_written_is_left_as_it_was(
    tmp_path: Path, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = '{"update": 4}\n{"update": 6}\n'
    (tmp_path / "metrics.jsonl").write_text(content)

    def full(self: Path, *_: object) -> None:
        self.touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(FacelabError, match="metrics.jsonl: cannot be written"):
        MetricsLog(tmp_path, tensorboard=False).on_start(progress)
    assert (tmp_path / "metrics.jsonl").read_text() == content
    (tmp_path / "config.yaml").write_text("old")
    with pytest.raises(FacelabError, match="config.yaml: cannot be written"):
        write_settings(tmp_path, {"head": "ArcFace"})
    assert (tmp_path / "config.yaml").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.yaml", "metrics.jsonl"]


@pytest.mark.parametrize("line", [b"\xff\xfe", b"[1]", b'{"update": null}', b"[" * 100_000, b'{"update": 1e999}'])
def test_lines_that_are_none_are_dropped(tmp_path: Path, progress: Progress, line: bytes) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(b'{"update": 4}\n' + line + b'\n{"update": 5}\n')
    MetricsLog(tmp_path, tensorboard=False).on_start(progress)
    assert (tmp_path / "metrics.jsonl").read_text() == '{"update": 4}\n{"update": 5}\n'


def test_tensorboard_files_are_written(tmp_path: Path, progress: Progress) -> None:
    log = MetricsLog(tmp_path)
    log.on_start(progress)
    log.on_log(progress, {"loss": 2.0})
    log.on_end(progress)
    assert list((tmp_path / "tensorboard").iterdir())


def test_a_log_that_cannot_be_written_is_one_sentence(tmp_path: Path, progress: Progress) -> None:
    log = MetricsLog(tmp_path / "missing", tensorboard=False)
    with pytest.raises(FacelabError, match=r"cannot write '.*metrics.jsonl': No such file or directory"):
        log.on_log(progress, {"loss": 2.0})


def test_settings_and_environment_stand_beside_the_run(tmp_path: Path) -> None:
    write_settings(tmp_path / "run", {"head": "ArcFace"})
    assert (tmp_path / "run" / "config.yaml").read_text() == "head: ArcFace\n"
    assert json.loads((tmp_path / "run" / "environment.json").read_text()) == environment()


def test_a_console_that_is_no_terminal_gets_a_line_a_log(progress: Progress, monkeypatch: pytest.MonkeyPatch) -> None:
    text = io.StringIO()
    times = iter([10.0, 12.0, 12.5])
    console = ConsoleProgress(Console(file=text, width=120), clock=lambda: next(times))
    monkeypatch.setattr(tracking, "peak_memory", lambda: 2.345)
    console.on_start(progress)
    for update in (10, 1010):
        progress.update = update
        console.on_log(progress, {"loss": 1.5, "accuracy": 0.25, "lr": 0.1, "norm": 3})
        console.on_update(progress)
    console.on_end(progress)
    rest = "loss 1.5  accuracy 0.25  lr 0.1  2.3 GB"
    assert text.getvalue().splitlines() == [
        f"epoch   1.00/2  update 10/20  10 images/s  {rest}",
        f"epoch 101.00/2  update 1010/20  8,000 images/s  {rest}",
    ]


def test_a_terminal_gets_a_bar_with_rate_and_time_left(progress: Progress) -> None:
    text = io.StringIO()
    console = ConsoleProgress(Console(file=text, width=160, force_terminal=True))
    console.on_start(progress)
    console.on_log(progress, {"loss": 1.5})
    for update in range(6, 12):
        progress.update = update
        console.on_update(progress)
    console.on_end(progress)
    assert "images/s" in text.getvalue()
    assert "left" in text.getvalue()
    assert "11/20" in text.getvalue()
    assert re.search(r"\d\.\d GB", text.getvalue())


def test_the_most_memory_is_that_of_the_process() -> None:
    before = peak_memory()
    block = torch.ones(50_000_000)  # 0.2 GB
    after = peak_memory()
    assert before is not None
    assert after is not None
    assert 0.05 < before <= after < 64
    assert after > 0.2
    del block
    assert (peak_memory() or 0.0) >= after
