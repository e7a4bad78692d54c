"""What layers deep inside a network know of the forward pass that they are part of, beside their inputs.

Each thread has its own, so forward passes side by side do not meet. `torch.compile` follows attributes of
`threading.local`, context variables it does not (PyTorch 2.11 to 2.13).
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class _Thread(threading.local):
    known: object = None


_THREAD = _Thread()


def known_in_pass() -> object:
    """What the running forward pass was given by `forward_pass`; None outside one."""
    return _THREAD.known


@contextmanager
def forward_pass(known: object) -> Iterator[None]:
    """Context of one forward pass: its layers find ``known``. A pass inside another one hides that one's."""
    before = _THREAD.known
    _THREAD.known = known
    try:
        yield
    finally:
        _THREAD.known = before
