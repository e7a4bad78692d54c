"""The cache of rendered faces: complete or absent, one file for those who ask together, plain words when it fails."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from facelab.data.synthetic import cache as synthetic_cache
from facelab.data.synthetic.cache import Plan, cache_folder, cached_file, open_cached
from facelab.data.synthetic.worker import main as work
from facelab.errors import DataError

PLAN = Plan(seed=2, first=5, identities=3, per_identity=4, size=16)


def everything(plan: Plan) -> np.ndarray:
    return np.stack([plan.render(row) for row in range(len(plan))])


def test_the_cache_holds_what_the_generator_draws(tmp_path: Path) -> None:
    assert np.array_equal(open_cached(cached_file(PLAN, tmp_path), PLAN), everything(PLAN))


def test_several_processes_write_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic_cache, "ROWS_PER_WORKER", 4)
    monkeypatch.setattr(synthetic_cache, "cores", lambda: 3)
    told: list[tuple[int, int]] = []
    path = cached_file(PLAN, tmp_path, lambda done, total: told.append((done, total)))
    assert np.array_equal(open_cached(path, PLAN), everything(PLAN))
    assert [done for done, _ in told] == [4, 8, 12]
    assert {total for _, total in told} == {12}


def test_progress_is_told_in_a_single_process_too(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    cached_file(PLAN, tmp_path, lambda done, total: told.append((done, total)))
    assert told == [(12, 12)]


def test_a_second_request_renders_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = cached_file(PLAN, tmp_path)
    monkeypatch.setattr(synthetic_cache, "render_face", None)
    assert cached_file(PLAN, tmp_path) == path


def test_only_the_finished_file_and_its_lock_remain(tmp_path: Path) -> None:
    path = cached_file(PLAN, tmp_path)
    assert {item.name for item in tmp_path.iterdir()} == {path.name, path.with_suffix(".lock").name}


def test_an_interrupted_rendering_leaves_no_file(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached_file(PLAN, tmp_path, interrupt)
    assert [item.suffix for item in tmp_path.iterdir()] == [".lock"]
    assert np.array_equal(open_cached(cached_file(PLAN, tmp_path), PLAN), everything(PLAN))


def test_processes_that_ask_together_get_one_complete_file(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from facelab.data.synthetic.cache import *; "
        f"plan = Plan(0, 0, 10, 10, 32); seen = []; path = cached_file(plan, Path({str(tmp_path)!r}), "
        "lambda done, total: seen.append(done)); sys.stdout.write(f'{len(seen)} {open_cached(path, plan).sum()}')"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", code]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(2)]
    answers = [process.communicate()[0].split() for process in both]
    assert sorted(answer[0] for answer in answers) == ["0", "1"]  # one rendered, the other waited
    assert answers[0][1] == answers[1][1]


def test_the_key_changes_with_the_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    before = PLAN.file_name
    monkeypatch.setattr(synthetic_cache, "GENERATOR_VERSION", -1)
    assert PLAN.file_name != before
    assert before.startswith("synthetic-3x4-16px-seed2-")


def test_the_folder_can_be_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACELAB_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("FACELAB_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "facelab"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "facelab"


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = cached_file(PLAN, tmp_path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=r"the cache file '.*' is damaged .*; delete it and it is rendered again\."):
        open_cached(path, PLAN)


def test_a_file_of_other_faces_is_refused(tmp_path: Path) -> None:
    path = cached_file(PLAN, tmp_path)
    np.save(path, np.zeros((2, 16, 16, 3), np.uint8))
    with pytest.raises(DataError, match=r"holds uint8 \(2, 16, 16, 3\), not \(12, 16, 16, 3\); delete it"):
        open_cached(path, PLAN)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(DataError, match=r"cannot write synthetic faces to '.*file/below'.*set FACELAB_CACHE"):
        cached_file(PLAN, blocked / "below")


def test_a_full_disk_is_reported_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(synthetic_cache, "write_rows", full)
    with pytest.raises(DataError, match=r"\(0 MB\): No space left on device; set FACELAB_CACHE"):
        cached_file(PLAN, tmp_path)
    assert [item.suffix for item in tmp_path.iterdir()] == [".lock"]


def test_a_worker_that_fails_gives_its_last_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic_cache, "ROWS_PER_WORKER", 4)
    monkeypatch.setattr(synthetic_cache, "cores", lambda: 2)
    broken = Plan(seed=-1, first=0, identities=4, per_identity=2, size=16)
    with pytest.raises(DataError, match=r"rendering synthetic faces into '.*' failed: ValueError"):
        cached_file(broken, tmp_path)


def test_the_worker_writes_only_its_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rows"
    path.write_bytes(b"")
    plan = '{"seed": 2, "first": 5, "identities": 3, "per_identity": 4, "size": 16}'
    work(f'{{"plan": {plan}, "path": "{path}", "offset": 10, "start": 2, "stop": 5}}')
    assert capsys.readouterr().out == "3\n"
    written = path.read_bytes()
    assert written[: 10 + 2 * 768] == bytes(10 + 2 * 768)
    assert written[10 + 2 * 768 :] == everything(PLAN)[2:5].tobytes()
