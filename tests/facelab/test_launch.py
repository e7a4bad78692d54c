"""Several processes that fail: the last line is the one that helps, and the exit code is the failed process's."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import facelab
from facelab.launch import interface_of, own_address

pytestmark = pytest.mark.walkthrough

LAUNCH = (sys.executable, "-m", "facelab.launch", "--standalone", "--nproc-per-node", "2")


def launched(*command: str) -> tuple[int, list[str]]:
    """Exit code and the lines of both streams."""
    done = subprocess.run(
        [*LAUNCH, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300, check=False
    )
    return done.returncode, done.stdout.strip().splitlines()


def test_a_mistake_of_the_user_ends_with_its_sentence_and_is_not_made_again(tmp_path: Path) -> None:
    code, lines = launched("--max-restarts", "3", "-m", "facelab", "train", "head=Arcface", "--run", str(tmp_path))
    assert code == 1
    assert "ArcFace" in lines[-1]
    assert lines[-1].startswith("error")
    assert not any("Traceback" in line for line in lines)
    assert sum(line.startswith("error") for line in lines) <= 2, "each of the two processes said it once"


def test_a_process_that_is_killed_is_reported(tmp_path: Path) -> None:
    script = tmp_path / "dies.py"
    script.write_text(
        "import os, signal, time\n"
        "if os.environ['RANK'] == '1':\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "time.sleep(60)\n"
    )
    code, lines = launched("--max-restarts", "1", str(script))
    assert code == 128 + 9
    assert lines[-1] == "error: process 1 was killed by SIGKILL, and no restart is left."


def test_without_a_failure_nothing_is_added(tmp_path: Path) -> None:
    script = tmp_path / "works.py"
    whole_line = "import os\nos.write(1, b'rank %s\\n' % os.environ['RANK'].encode())\n"  # print may be torn apart
    script.write_text(whole_line)
    code, lines = launched(str(script))
    assert code == 0
    assert sorted(line for line in lines if not line.startswith("W")) == ["rank 0", "rank 1"]  # torch may warn


def test_options_of_the_program_are_not_taken_for_those_of_torchrun(tmp_path: Path) -> None:
    script = tmp_path / "shows.py"
    script.write_text("import os, sys\nos.write(1, (' '.join(sys.argv[1:]) + '\\n').encode())\n")
    words = ("train", "--run", "runs/mine", "--resume", "step-8", "--n", "--log", "--r")
    code, lines = launched(str(script), *words)
    assert code == 0
    assert lines.count(" ".join(words)) == 2


def test_machines_that_do_not_meet_are_told_where_they_looked() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        words = ["--nnodes", "2", "--rdzv-backend", "c10d", "--rdzv-endpoint", place, "--rdzv-id", "facelab"]
        words += ["--rdzv-conf", "is_host=0,read_timeout=1", "-m", "facelab", "train"]
        done = subprocess.run([*LAUNCH[:3], *words], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1
    lines = done.stderr.strip().splitlines()
    assert lines[-1].startswith(f"error: the machines do not meet at {place}, or no longer (")
    assert lines[-1].endswith("give the address of machine 0 and a free port that all reach.")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.slow
def test_a_machine_that_waits_for_the_first_one_can_be_stopped(number: int) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        words = ["--nnodes", "2", "--node-rank", "1", "--master-addr", "127.0.0.1"]
        words += ["--master-port", str(taken.getsockname()[1]), "-m", "facelab", "train"]
        listening = lambda: signal.signal(signal.SIGINT, signal.default_int_handler)  # noqa: E731
        launcher = subprocess.Popen([*LAUNCH[:3], *words], stderr=subprocess.DEVNULL, preexec_fn=listening)
        with pytest.raises(subprocess.TimeoutExpired):  # it waits for long
            launcher.wait(timeout=25)
        launcher.send_signal(number)
        assert launcher.wait(timeout=10) == -number


def test_this_very_host_has_no_address_for_others() -> None:
    assert own_address("127.0.0.1") is None
    assert own_address("no such host.invalid") is None


@pytest.mark.skipif(sys.platform != "linux", reason="looks at Linux's interfaces")
def test_an_interface_is_found_by_its_address() -> None:
    names = [name for _, name in socket.if_nameindex()]
    assert interface_of("127.0.0.1") in names
    assert interface_of("192.0.2.77") is None, "an address for documentation"


RANK = """
import os, signal, sys, time
from pathlib import Path

signal.signal(signal.SIGTERM, lambda *_: ((Path(sys.argv[1]) / f"stopped-{{os.environ['RANK']}}").touch(), os._exit(0)))
{join}
(Path(sys.argv[1]) / f"ready-{{os.environ['RANK']}}").write_text(str(os.getpid()))
time.sleep(60)
"""
JOIN = "from facelab import distributed; distributed.initialise()"


def started(folder: Path, join: str) -> "subprocess.Popen[str]":
    """The launcher of two processes that are ready to be stopped."""
    (folder / "waits.py").write_text(RANK.format(join=join))
    ours = os.environ | {"PYTHONPATH": str(Path(facelab.__file__).parent.parent)}  # the script lies elsewhere
    words = [*LAUNCH, str(folder / "waits.py"), str(folder)]
    launcher = subprocess.Popen(words, env=ours, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while len(list(folder.glob("ready-*"))) < 2:
        assert launcher.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return launcher


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_launcher_that_is_asked_to_stop_passes_it_on(tmp_path: Path, number: int) -> None:
    launcher = started(tmp_path, "signal.signal(signal.SIGINT, signal.getsignal(signal.SIGTERM))")
    launcher.send_signal(number)
    _, errors = launcher.communicate(timeout=60)
    assert launcher.returncode == 128 + number
    assert errors.splitlines()[-1] == f"stopped by {signal.Signals(number).name}"
    assert "Traceback" not in errors
    assert len(list(tmp_path.glob("stopped-*"))) == 2


def test_processes_end_with_a_launcher_that_was_killed(tmp_path: Path) -> None:
    launcher = started(tmp_path, JOIN)
    ranks = [int(path.read_text()) for path in tmp_path.glob("ready-*")]
    launcher.kill()
    launcher.communicate(timeout=60)
    deadline = time.monotonic() + 60
    while any(is_running(rank) for rank in ranks):
        assert time.monotonic() < deadline, "a process lives on"
        time.sleep(0.1)
    assert len(list(tmp_path.glob("stopped-*"))) == 2, "they were asked first, so that they write a checkpoint"


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{process}/stat")
    return not stat.is_file() or stat.read_text().rpartition(") ")[2][0] != "Z"  # nobody may have waited for it
