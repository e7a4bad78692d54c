"""What leaves the command line when something goes wrong: one sentence, whatever the words and the terminal are."""

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from facelab.cli import main as cli


def failed(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *words: str) -> str:
    """What the command line says on stderr of words that cannot work."""
    monkeypatch.setattr("sys.argv", ["facelab", *words])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 1
    captured = capfd.readouterr()
    assert len(captured.err.splitlines()) == 1
    return captured.err


@pytest.mark.parametrize("command", [["show"], ["train"], ["verify", "a.png", "b.png", "--model"], ["compare"]])
def test_a_name_that_the_system_does_not_take_is_a_sentence(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    said = failed(monkeypatch, capfd, *command, "x" * 5000)
    assert said.startswith("error: 'xxx")
    assert len(said) < 2100


def test_signs_that_would_drive_the_terminal_are_written_out(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    said = failed(monkeypatch, capfd, "show", "a\x1b[31m\nb\udcff")
    assert said.startswith(r"error: 'a\x1b[31m\nb\udcff' is neither a file nor a shipped configuration")


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (OSError(28, "No space left on device"), "error: No space left on device.\n"),
        (PermissionError(13, "Permission denied", "runs/mine"), "error: 'runs/mine': Permission denied.\n"),
        (MemoryError(), "error: not enough memory (of the process).\n"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory\nmore"), "error: not enough memory (DefaultCPU"),
        (RuntimeError("Storage size calculation overflowed"), "error: not enough memory (Storage size"),
    ],
)
def test_what_the_system_refuses_is_a_sentence(
    error: BaseException, sentence: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def app() -> None:
        raise error

    monkeypatch.setattr(cli, "app", app)
    assert failed(monkeypatch, capfd).startswith(sentence)


def test_a_fault_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def app() -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr(cli, "app", app)
    with pytest.raises(RuntimeError, match="a fault"):
        cli.main()


def facelab(*words: str, **more: str) -> "subprocess.Popen[str]":
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **more}
    return subprocess.Popen(
        [sys.executable, "-m", "facelab", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        encoding=more.get("PYTHONIOENCODING", "utf-8"),
    )


def test_a_terminal_that_lacks_letters_is_no_error() -> None:
    out, err = facelab("list", "heads", PYTHONIOENCODING="ascii", COLUMNS="200").communicate()
    assert "ArcFace" in out
    assert err == ""
    assert facelab("cite", "é…", PYTHONIOENCODING="ascii").communicate()[1] == (
        "error: nothing is called '\\xe9\\u2026'.\n"
    )


def test_a_closed_pipe_says_nothing() -> None:
    process = facelab("list", "backbones")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    assert process.wait() in (0, 1)


def test_a_full_disk_is_a_sentence() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "facelab", "list", "configs"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, "error: No space left on device.\n")


def test_control_c_says_nothing(tmp_path: Path) -> None:
    words = [
        "train",
        str(Path(__file__).parents[2] / "tiny_run.yaml"),
        "training.epochs=10000",
        "training.log_every=1",
    ]
    process = facelab(*words, "--run", str(tmp_path / "run"))
    started = tmp_path / "run" / "metrics.jsonl"
    while not started.exists() and process.poll() is None:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in err


def test_streams_that_are_no_files_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr("sys.stdout", stream)
    monkeypatch.setattr(cli, "app", lambda: print("said"))
    cli.main()
    assert stream.getvalue() == "said\n"
