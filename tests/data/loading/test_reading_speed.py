"""Reading speed: what is read, and how many workers are enough."""

import threading
from pathlib import Path

import numpy as np
import pytest

from facelab.data.loading import reading_speed
from facelab.data.loading.reading_speed import Endless, Speed, busy_lock, one_core, recommended, speeds
from facelab.data.sources.image_folder import ImageFolder
from facelab.errors import CorruptImage


def test_images_are_spread_over_the_source_and_each_is_read_once_in_a_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    passes = [Endless(5).rows(3, 5 * turn, 5 * turn + 5).tolist() for turn in range(4)]
    assert all(sorted(one) == [0, 1, 2, 3, 4] for one in passes)
    assert len(set(map(tuple, passes))) > 1
    monkeypatch.setattr(reading_speed, "IMAGES", 4)
    few = Endless(301)
    assert sorted(few.rows(0, 0, few.once)) == [0, 100, 200, 300]
    assert np.concatenate([few.rows(1, 0, 3), few.rows(1, 3, 9)]).tolist() == few.rows(1, 0, 9).tolist()


def test_the_fewest_workers_are_recommended_that_read_nearly_as_fast_as_the_fastest() -> None:
    found = [
        Speed("threads", 1, 50.0, 0.5),
        Speed("processes", 1, 80.0, 0.8),
        Speed("threads", 4, 40.0, 0.4),
        Speed("processes", 4, 290.0, 2.9),
        Speed("processes", 8, 310.0, 3.1),
    ]
    assert recommended(found) == found[3]
    assert recommended([Speed("processes", 2, 99.0, 1.0), Speed("threads", 2, 98.0, 1.0)]).reader == "threads"


def test_every_number_of_workers_is_measured_by_threads_and_by_processes(faces: Path) -> None:
    before = threading.active_count()
    found = list(speeds(ImageFolder(faces), [1], batch_size=128, seconds=0.02, is_busy=True))
    assert [(speed.reader, speed.workers) for speed in found] == [("threads", 1), ("processes", 1)]
    assert all(speed.rate > 0 for speed in found)
    assert found[0].rate / found[0].share == pytest.approx(found[1].rate / found[1].share)
    assert threading.active_count() == before
    (faces / "p2" / "1.png").write_bytes(b"x")
    with pytest.raises(CorruptImage, match="p2/1.png"):
        one_core(ImageFolder(faces), 6, 0.1)


def test_the_lock_is_left_alone_unless_wanted() -> None:
    before = threading.active_count()
    with busy_lock(False):
        assert threading.active_count() == before
    with busy_lock():
        assert threading.active_count() == before + 1
