"""Where the ``facelab`` command and ``python -m facelab`` begin."""

import os

# By default an OpenMP thread that waits keeps its core busy for milliseconds. Where other programs want the cores too,
# that makes training several times slower; a shorter wait costs an idle machine a few percent. Read when torch starts.
os.environ.setdefault("GOMP_SPINCOUNT", "20000")

from facelab.cli import main

if __name__ == "__main__":
    main()
