import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from facelab.distributed import run_processes
from facelab.errors import ConfigError
from facelab.run import run_folder as module
from facelab.run.run_folder import claimed


def ignore(_: str) -> None:
    """Nothing is to be said."""


def test_a_new_folder_gets_a_number_if_the_name_is_taken(tmp_path: Path) -> None:
    for name in ("mine", "mine-2", "mine-3"):
        with claimed(None, tmp_path / "runs" / "mine", ignore) as folder:
            assert folder == tmp_path / "runs" / name
            (folder / "config.yaml").touch()
        assert [path.name for path in folder.iterdir()] == ["config.yaml"], "the lock is gone"


def test_two_new_runs_at_once_get_two_folders(tmp_path: Path) -> None:
    with claimed(None, tmp_path / "mine", ignore) as first, claimed(None, tmp_path / "mine", ignore) as second:
        assert (first.name, second.name) == ("mine", "mine-2")


def test_a_folder_in_use_is_refused_with_the_process_that_uses_it(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with claimed(run, run, ignore):
        sentence = f"'{run}' is in use by process {os.getpid()} on {socket.gethostname()}; wait for its end or stop it"
        with pytest.raises(ConfigError, match=sentence), claimed(run, run, ignore):
            pass
        with pytest.raises(ConfigError, match="in use"), claimed(run, run, ignore):
            pass
    with claimed(run, run, ignore):
        pass


def test_a_process_of_another_machine_is_named(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with claimed(run, run, ignore):
        nobody = 2**22 + 1  # more than Linux gives
        (run / ".lock").write_text(f"{nobody} {socket.gethostname()}\n{nobody} elsewhere\n")
        with pytest.raises(ConfigError, match=f"in use by process {nobody} on elsewhere;"), claimed(run, run, ignore):
            pass
        (run / ".lock").write_text(f"{nobody} {socket.gethostname()}\n")
        with pytest.raises(ConfigError, match="in use by another run;"), claimed(run, run, ignore):
            pass


def test_a_process_that_was_killed_leaves_no_lock(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from facelab.run.run_folder import claimed\n"
        "with claimed(Path(sys.argv[1]), Path(), print):\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path / "run")], timeout=120, check=False)
    assert killed.returncode == -9
    assert (tmp_path / "run" / ".lock").is_file()
    with claimed(tmp_path / "run", tmp_path, ignore):
        assert (tmp_path / "run" / ".lock").read_text().split()[0] == str(os.getpid())


@pytest.mark.parametrize("error", [ConfigError, KeyboardInterrupt, SystemExit])
def test_nothing_is_left_of_a_run_that_was_refused(tmp_path: Path, error: type[BaseException]) -> None:
    for folder in (None, tmp_path / "runs" / "deep" / "mine"):
        with pytest.raises(error), claimed(folder, tmp_path / "runs" / "mine", ignore):
            raise error
        assert list(tmp_path.iterdir()) == []


def test_what_was_there_before_stays(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with pytest.raises(ConfigError), claimed(tmp_path / "run", tmp_path, ignore):
        raise ConfigError("refused")
    assert list((tmp_path / "run").iterdir()) == []


def test_a_place_that_cannot_be_written_to_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(
            ConfigError, match="cannot be written to .*: Not a directory; choose another place by --run"
        ):
            claimed(folder, tmp_path, ignore).__enter__()
        with pytest.raises(ConfigError, match="cannot be written to '.*file'"):
            claimed(None, tmp_path / "file" / "run", ignore).__enter__()

    def read_only(*_: Any, **__: Any) -> int:
        raise OSError(30, os.strerror(30))

    monkeypatch.setattr(module.os, "open", read_only)
    with pytest.raises(ConfigError, match="Read-only file system"), claimed(tmp_path / "run", tmp_path, ignore):
        pass
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="no locks")
def test_a_file_system_without_locks_is_said_and_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without(*_: Any) -> None:
        raise OSError(37, os.strerror(37))

    monkeypatch.setattr(module.fcntl, "flock", without)
    said: list[str] = []
    with claimed(tmp_path / "run", tmp_path, said.append):
        pass
    assert said == [f"the file system of '{tmp_path / 'run'}' cannot lock: take care that no other run writes there."]


def claim_together(name: str, refuse: bool) -> tuple[str, str]:
    """Runs in each of several processes; the second one tries to get in as a run of its own too."""
    folder, found = Path(name), ""
    try:
        with claimed(None, folder, ignore) as place:
            found = place.name
            signed = {line.split()[0] for line in (place / ".lock").read_text().splitlines()}
            assert str(os.getpid()) in signed
            if refuse:
                raise ConfigError("refused")
            (place / "config.yaml").touch()
    except ConfigError as error:
        return found, str(error)
    return found, ""


def test_several_processes_share_a_folder(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    assert run_processes(claim_together, 2, str(tmp_path / "mine"), False) == [("mine-2", "")] * 2
    assert [path.name for path in (tmp_path / "mine-2").iterdir()] == ["config.yaml"]
    assert run_processes(claim_together, 2, str(tmp_path / "other"), True) == [("other", "refused")] * 2
    assert not (tmp_path / "other").exists()


def test_a_folder_stays_closed_while_any_process_of_its_run_lives(tmp_path: Path) -> None:
    first, second = module._Lock(), module._Lock()  # of two processes of one run
    first.take(tmp_path)
    second.join(tmp_path)
    first.leave()
    with pytest.raises(ConfigError, match="is in use by"), claimed(tmp_path, tmp_path, ignore):
        pass
    second.leave()
    with claimed(tmp_path, tmp_path, ignore):
        pass
