"""Several processes that fail: the last line is the one that helps, and the exit code is the failed process's."""

import subprocess
import sys
from pathlib import Path

LAUNCH = (sys.executable, "-m", "facelab.launch", "--standalone", "--nproc-per-node", "2")


def launched(*command: str) -> tuple[int, list[str]]:
    """Exit code and the lines of both streams."""
    done = subprocess.run(
        [*LAUNCH, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300, check=False
    )
    return done.returncode, done.stdout.strip().splitlines()


def test_a_mistake_of_the_user_ends_with_its_sentence() -> None:
    code, lines = launched("-m", "facelab", "train", "head=Arcface")
    assert code == 1
    assert "ArcFace" in lines[-1]
    assert lines[-1].startswith("error")
    assert not any("Traceback" in line for line in lines)


def test_a_process_that_is_killed_is_reported(tmp_path: Path) -> None:
    script = tmp_path / "dies.py"
    script.write_text(
        "import os, signal, time\n"
        "if os.environ['RANK'] == '1':\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "time.sleep(60)\n"
    )
    code, lines = launched(str(script))
    assert code == 128 + 9
    assert lines[-1] == "error: process 1 was killed by SIGKILL."


def test_without_a_failure_nothing_is_added(tmp_path: Path) -> None:
    script = tmp_path / "works.py"
    whole_line = "import os\nos.write(1, b'rank %s\\n' % os.environ['RANK'].encode())\n"  # print may be torn apart
    script.write_text(whole_line)
    code, lines = launched(str(script))
    assert code == 0
    assert sorted(line for line in lines if not line.startswith("W")) == ["rank 0", "rank 1"]  # torch may warn
