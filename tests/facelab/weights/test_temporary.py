"""What killed processes left beside their targets goes with the next run; nothing else does."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from facelab.data.formats.writing import written_files, written_folder
from facelab.weights import temporary
from facelab.weights.model_folder import write_model


@pytest.fixture(scope="module")
def ended() -> int:
    """The number of a process that is no more."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def by_folder(target: Path) -> None:
    with written_folder(target):
        pass


def by_files(target: Path) -> None:
    with written_files(target) as (part,):
        part.write_text("new")


def by_model(target: Path) -> None:
    write_model(target, {}, {})


@pytest.mark.parametrize("write", [by_folder, by_files, by_model])
def test_leftovers_of_ended_processes_go(write: Callable[[Path], None], tmp_path: Path, ended: int) -> None:
    target = tmp_path / "new[1]"
    left = tmp_path / f".new[1].{temporary.HOST}-{ended}.part"
    (left / "deep").mkdir(parents=True)
    kept = [
        f".new[1].{temporary.HOST}-{os.getppid()}.part",  # somebody is at work
        f".new[1].00000000-{ended}.part",  # on another machine
        f".other.{temporary.HOST}-{ended}.part",
        ".new[1].part",
    ]
    for name in kept:
        (tmp_path / name).mkdir()
    write(target)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*kept, "new[1]"])


def test_links_are_not_followed(tmp_path: Path, ended: int) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    link = tmp_path / f".x.{temporary.HOST}-{ended}.part"
    link.symlink_to(tmp_path / "mine")
    temporary.remove_leftovers([link])
    assert not link.is_symlink()
    assert (tmp_path / "mine" / "file").is_file()
