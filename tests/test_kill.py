"""A run that is killed again and again and resumed ends with the same bits as one that was not."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from facelab.run.run import RunResult
from facelab.weights.checkpoint import CheckpointStore
from facelab.weights.manifest import verify
from facelab.weights.snapshot import read_rows
from facelab.weights.tensor_files import read_tree

CONFIG = Path(__file__).parent / "tiny_run.yaml"
SETTINGS = ("training.epochs=15", "checkpoint.every_updates=1", "mode.conventional.ema=0.9")


LAUNCH = ("-m", "facelab.launch", "--standalone", "--nproc-per-node", "2")


def start(run: Path, resume: bool, processes: int = 1) -> "subprocess.Popen[str]":
    launch = LAUNCH if processes == 2 else ()
    command = [sys.executable, *launch, "-m", "facelab", "train", str(CONFIG), *SETTINGS, "--run", str(run)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, "--resume"] if resume else command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def kill_somewhere(run: Path, dice: random.Random) -> bool:
    """Start or resume, wait until training moves, kill after a moment; whether it was killed before it was done."""
    before = CheckpointStore(run / "checkpoints").index().last
    process = start(run, resume=True)
    while process.poll() is None and CheckpointStore(run / "checkpoints").index().last == before:
        time.sleep(0.005)
    time.sleep(dice.uniform(0.0, 0.4))
    process.kill()
    process.communicate()
    return process.returncode == -signal.SIGKILL


def final_state(run: Path) -> dict[str, torch.Tensor]:
    checkpoint = CheckpointStore(run / "checkpoints").find("last")
    verify(checkpoint)
    training = read_tree(checkpoint / "training.pt")
    assert training["update"] == 15 * 4
    return {**training["mode"]["network"], **training["mode"]["ema"], **read_rows(checkpoint, 0, 8)}


@pytest.mark.walkthrough
@pytest.mark.parametrize("kills", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_a_killed_run_ends_with_the_same_bits(tmp_path: Path, run_tiny: Callable[..., RunResult], kills: int) -> None:
    assert run_tiny(tmp_path / "whole", *SETTINGS).progress.complete
    dice, killed = random.Random(kills), 0
    run = tmp_path / "killed"
    for _ in range(kills):
        killed += kill_somewhere(run, dice)
    output, _ = (last := start(run, resume=True)).communicate(timeout=600)
    assert last.returncode == 0, output
    assert killed > 0.7 * kills, "the run was over too soon to be killed"

    expected, found = final_state(tmp_path / "whole"), final_state(run)
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        assert torch.equal(tensor, found[name]), name
    lines = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("whole", "killed")]
    assert lines[0] == lines[1]


def test_sigterm_writes_a_checkpoint_and_exits(tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start(run, resume=False)
    while process.poll() is None and CheckpointStore(run / "checkpoints").index().last is None:
        time.sleep(0.01)
    process.terminate()
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM
    store = CheckpointStore(run / "checkpoints")
    update = read_tree(store.find("last") / "training.pt")["update"]
    assert f"stopped at update {update} of 60; go on with: facelab train --run {run} --resume" in output


def processes_of(run: Path) -> dict[str, int]:
    """Numbers of the living processes of a run: of the ``launcher`` and of the ranks."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            if str(run).encode() not in words:
                continue
            settings = dict(word.partition(b"=")[::2] for word in (folder / "environ").read_bytes().split(b"\0"))
        except OSError:  # it has just ended
            continue
        name = "launcher" if b"facelab.launch" in words else settings[b"RANK"].decode()
        found[name] = int(folder.name)
    return found


def stop_one(run: Path, victim: str, number: signal.Signals, dice: random.Random) -> int:
    """Resume on two processes, stop one after a moment, wait until nothing lives; the launcher's exit code."""
    before = CheckpointStore(run / "checkpoints").index().last
    launcher = start(run, resume=True, processes=2)
    while launcher.poll() is None and CheckpointStore(run / "checkpoints").index().last == before:
        time.sleep(0.005)
    time.sleep(dice.uniform(0.0, 0.2))
    if (process := processes_of(run).get(victim)) is not None:
        os.kill(process, number)
    output, _ = launcher.communicate(timeout=120)  # also waits for the ranks, which have the same output
    assert "Traceback" not in output, output
    deadline = time.monotonic() + 60
    while living := processes_of(run):
        assert time.monotonic() < deadline, f"{victim} got {number.name}, and {living} live on"
        time.sleep(0.05)
    return launcher.returncode


STOPS = [(who, number) for who in ("launcher", "0", "1") for number in (signal.SIGKILL, signal.SIGTERM)] * 3


@pytest.mark.skipif(not Path("/proc/self/environ").is_file(), reason="looks for processes in /proc")
@pytest.mark.slow
def test_launchers_and_ranks_that_are_stopped_leave_nothing_alive_and_lose_nothing(tmp_path: Path) -> None:
    output, _ = (whole := start(tmp_path / "whole", resume=False, processes=2)).communicate(timeout=600)
    assert whole.returncode == 0, output

    dice, run = random.Random(0), tmp_path / "stopped"
    for victim, number in STOPS:
        code = stop_one(run, victim, number, dice)
        assert code in (0, -number if victim == "launcher" else 128 + number, 128 + number), (victim, number)
    output, _ = (last := start(run, resume=True, processes=2)).communicate(timeout=600)
    assert last.returncode == 0, output
    assert not (run / ".lock").exists()

    expected, found = final_state(tmp_path / "whole"), final_state(run)
    assert expected.keys() == found.keys()
    assert [name for name, tensor in expected.items() if not torch.equal(tensor, found[name])] == []
    lines = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("whole", "stopped")]
    assert lines[0] == lines[1]
