"""``python -m facelab``: the command line, also for torchrun."""

from facelab.cli import main

if __name__ == "__main__":
    main()
