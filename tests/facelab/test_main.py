"""What the command's process says: nothing of what libraries warn programmers of, unless it is asked to."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WARNING = "import facelab.__main__, warnings; warnings.warn('for programmers')"
IN_A_CHILD = """
import facelab.__main__, subprocess, sys
subprocess.run([sys.executable, "-c", "import warnings; warnings.warn('for programmers')"])
"""


@pytest.mark.parametrize("code", [WARNING, IN_A_CHILD])
def test_warnings_of_libraries_are_shown_on_demand(code: str) -> None:
    said = {}
    for wish in ("", "default"):
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": wish}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
        said[wish] = done.stderr
    assert said[""] == ""
    assert "UserWarning" in said["default"]


INTERRUPTED = """
import runpy, sys

class Interrupt:
    def find_spec(self, name, *_):
        if name == "facelab.cli.commands":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupt())
runpy.run_module("facelab", run_name="__main__")
"""


def test_control_c_during_the_imports_is_no_traceback() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, env=environment, check=False
    )
    assert (done.returncode, done.stderr) == (130, "")
