"""Opens and runs a network in a process of its own, before ours does: ``-m facelab.data.detection.network_trial``.

It reads the file from its input. What OpenCV refuses ends well here, and is said by the detector; what ends OpenCV
itself ends this process alone.
"""

import sys
from contextlib import suppress

import numpy as np

from facelab.data.detection.network import Network
from facelab.errors import DataError
from facelab.outside.trial import limit_memory
from facelab.quiet_opencv import quiet_opencv

IMAGE = (1, 3, 32, 64)


def main() -> None:
    """Open what comes in, and run it on a black image."""
    data = sys.stdin.buffer.read()
    limit_memory(len(data))
    with suppress(DataError), quiet_opencv():
        Network(data, "").run(np.zeros(IMAGE, np.float32))


if __name__ == "__main__":
    main()
