"""OpenCV's log is off while any thread asks for it, and as before afterwards."""

import ctypes
import platform
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import cv2
import numpy as np
import pytest

from facelab.quiet_opencv import _Stderr, quiet_opencv

get_level = cv2.getLogLevel if hasattr(cv2, "getLogLevel") else cv2.utils.logging.getLogLevel


def test_it_is_off_in_whatever_order_threads_enter_and_leave() -> None:
    before = get_level()
    turns = Barrier(2, timeout=60)

    def first() -> int:
        with quiet_opencv():
            turns.wait()  # both are inside
            turns.wait()  # the other has left
            return int(get_level())

    def second() -> None:
        with quiet_opencv():
            turns.wait()
        turns.wait()

    with ThreadPoolExecutor(2) as pool:
        pool.submit(second)
        assert pool.submit(first).result() == 0
    assert before > 0
    assert get_level() == before


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries keep their stderr")
def test_libjpeg_writes_nothing_and_others_do(capfd: pytest.CaptureFixture[str]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    data = bytes(cv2.imencode(".jpg", picture)[1])
    damaged = np.frombuffer(data[:-2] + bytes(range(1, 40)) + data[-2:], np.uint8)  # libjpeg warns, and decodes it
    libc = ctypes.CDLL(None)
    with quiet_opencv():
        assert cv2.imdecode(damaged, cv2.IMREAD_COLOR) is not None
        print("Python's", file=sys.stderr)
    libc.perror(b"C's")
    assert "extraneous" not in (found := capfd.readouterr().err)
    assert "C's" in found
    assert "Python's" in found
    cv2.imdecode(damaged, cv2.IMREAD_COLOR)
    assert "extraneous bytes" in capfd.readouterr().err


def test_the_stderr_of_other_c_libraries_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """That of musl lies in memory that may not be written to: it would end the process."""
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    _Stderr().leave_out()
    ctypes.CDLL(None).perror(b"C's")
    assert "C's" in capfd.readouterr().err
