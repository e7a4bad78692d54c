"""What a forward pass knows is known in it alone: not in other threads, not in passes inside it, not afterwards."""

import threading

import pytest

from facelab.forward_pass import forward_pass, known_in_pass


def test_the_innermost_pass_counts() -> None:
    assert known_in_pass() is None
    with forward_pass("outer"):
        with forward_pass("inner"):
            assert known_in_pass() == "inner"
        assert known_in_pass() == "outer"
    assert known_in_pass() is None


def test_a_pass_that_fails_leaves_nothing() -> None:
    with pytest.raises(ZeroDivisionError), forward_pass("failing"):
        _ = 1 / 0
    assert known_in_pass() is None


def test_other_threads_know_nothing_of_it() -> None:
    found: list[object] = []
    with forward_pass("here"):
        thread = threading.Thread(target=lambda: found.append(known_in_pass()))
        thread.start()
        thread.join()
    assert found == [None]
