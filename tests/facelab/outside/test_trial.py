"""A trial imports the facelab that runs it, installed or not, and brings back what it said."""

import sys
from pathlib import Path

import pytest

from facelab.outside.trial import run_trial


def test_a_trial_finds_facelab_where_this_process_found_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As in a checkout that is not installed: its folder is in no variable, and '' in the path of an interpreter.
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.setattr(sys, "path", [""])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "json.py").write_text("raise RuntimeError('a file of the user')")
    done = run_trial("facelab.plugins", b"", seconds=60)
    assert done.returncode == 0, done.stderr.decode()
