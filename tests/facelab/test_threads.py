"""The threads that an option means: so many, or one for each core."""

import pytest

from facelab.errors import ConfigError
from facelab.threads import cores, thread_count, worker_count


def test_zero_is_one_for_each_core_that_the_processes_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert thread_count(0) == cores() >= 1
    monkeypatch.setattr("facelab.threads.cores", lambda: 9)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert thread_count(0) == 2
    assert thread_count(3) == 3
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "16")
    assert thread_count(0) == 1


def test_cores_are_those_that_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 5, 9}, raising=False)
    assert cores() == 3
    monkeypatch.delattr("os.sched_getaffinity")  # as on macOS
    assert cores() == 64
    monkeypatch.setattr("os.cpu_count", lambda: None)
    assert cores() == 1


@pytest.mark.parametrize(
    ("machine", "processes", "auto"), [(1, 1, 1), (2, 1, 1), (16, 1, 15), (96, 1, 16), (96, 8, 11)]
)
def test_auto_leaves_a_core_to_each_training_loop(
    machine: int, processes: int, auto: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("facelab.threads.cores", lambda: machine)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    assert worker_count("auto") == auto
    assert worker_count(2) == 2
    assert worker_count(0) == thread_count(0)


@pytest.mark.parametrize("workers", [-1, 1025])
def test_a_number_that_makes_no_sense_is_refused(workers: int) -> None:
    with pytest.raises(ConfigError, match=rf"workers is {workers}, but must lie in \[0, 1024\]"):
        thread_count(workers)
