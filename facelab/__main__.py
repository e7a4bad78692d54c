"""Where the ``facelab`` command and ``python -m facelab`` begin."""

import os
import sys
import warnings

# By default an OpenMP thread that waits keeps its core busy for milliseconds. Where other programs want the cores too,
# that makes training several times slower; a shorter wait costs an idle machine a few percent. Read when torch starts.
os.environ.setdefault("GOMP_SPINCOUNT", "20000")

# What libraries warn of is meant for those who program with them. `PYTHONWARNINGS=default` brings it back, and facelab
# says by itself what its users can mend. The variables reach the processes that load images.
if not sys.warnoptions:
    warnings.simplefilter("ignore")
    os.environ["PYTHONWARNINGS"] = "ignore"
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")

# Images are refused by the size in their header; this is for headers that OpenCV reads otherwise than we do.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(1 << 26))

try:
    from facelab.cli.main import main
except KeyboardInterrupt:  # Ctrl-C while it is still imported
    sys.exit(130)

if __name__ == "__main__":
    main()
