"""OpenCV's log is off while any thread asks for it, and as before afterwards."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import cv2

from facelab.quiet_opencv import quiet_opencv

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
