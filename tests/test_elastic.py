"""Two machines of two processes lose a process, then a machine, and end with the bits of a run that lost nothing."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor

from facelab.weights.checkpoint import CheckpointStore
from facelab.weights.snapshot import read_rows
from facelab.weights.tensor_files import read_tree

CONFIG, SCRIPT = Path(__file__).parent / "tiny_run.yaml", Path(__file__).parents[1] / "train.sh"
SETTINGS = (
    "backbone={ViT: {patch: 8, dim: 12, depth: 2, heads: 2, feat_dim: 9}}",
    "training.parallel=fsdp",
    "training.epochs=10",
    "checkpoint.every_updates=1",
)
UPDATES = 10 * 4
SECONDS = 600


def train(run: Path, **environment: int) -> "subprocess.Popen[str]":
    """What a user starts on a machine."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.Popen(
        ["bash", str(SCRIPT), "--config", str(CONFIG), *SETTINGS, "--run", str(run)],
        env=os.environ
        | {"OMP_NUM_THREADS": "1", "PATH": path}
        | {key: str(value) for key, value in environment.items()},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def machine(number: int, port: int, run: Path) -> "subprocess.Popen[str]":
    """One of two machines with two processes each."""
    return train(run, NODES=2, NODE_RANK=number, PROCESSES=2, RESTARTS=3, MASTER_PORT=port)


def children(agent: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{agent}/task/{agent}/children").read_text().split()]


def last_update(run: Path) -> int:
    name = CheckpointStore(run / "checkpoints").index().last
    return 0 if name is None else int(name.removeprefix("step-"))


def wait_for_update(run: Path, update: int, agents: "list[subprocess.Popen[str]]") -> None:
    deadline = time.monotonic() + SECONDS
    while last_update(run) < update:
        assert time.monotonic() < deadline, f"the run stands at update {last_update(run)}"
        assert all(agent.poll() is None for agent in agents), [agent.communicate()[0] for agent in agents]
        time.sleep(0.02)


def final_state(run: Path) -> dict[str, Tensor]:
    checkpoint = CheckpointStore(run / "checkpoints").find("last")
    training = read_tree(checkpoint / "training.pt")
    assert training["update"] == UPDATES
    return {**training["mode"]["network"], **read_rows(checkpoint, 0, 8)}


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="looks for processes in /proc")
@pytest.mark.slow
def test_a_lost_process_and_a_lost_machine_change_nothing(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole", PROCESSES=4)
    output, _ = whole.communicate(timeout=SECONDS)
    assert whole.returncode == 0, output

    run = tmp_path / "lossy"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    agents = [machine(number, port, run) for number in range(2)]
    try:
        wait_for_update(run, 4, agents)
        os.kill(children(agents[1].pid)[0], signal.SIGKILL)
        wait_for_update(run, last_update(run) + 4, agents)

        agents[1].kill()
        agents[1].wait()
        stood = last_update(run)
        assert 8 <= stood < UPDATES - 4, "there was something to lose"
        agents[1] = machine(1, port, run)
        outputs = [agent.communicate(timeout=SECONDS)[0] for agent in agents]
    finally:
        for agent in agents:
            agent.kill()
    assert [agent.returncode for agent in agents] == [0, 0], outputs
    assert sum(output.count("resumed '") for output in outputs) >= 1
    expected, found = final_state(tmp_path / "whole"), final_state(run)
    assert expected.keys() == found.keys()
    assert [name for name, tensor in expected.items() if not torch.equal(tensor, found[name])] == []
    lines = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("whole", "lossy")]
    assert lines[0] == lines[1]
