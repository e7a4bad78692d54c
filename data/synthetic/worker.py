"""Renders a range of synthetic faces in a process of its own and writes, line by line, how many are done."""

import json
import sys
from pathlib import Path

import cv2

from facelab.data.synthetic.cache import Plan, write_rows


def main(job: str) -> None:
    """Run one job: a JSON mapping of the plan and of the arguments of `write_rows`."""
    task = json.loads(job)
    cv2.setNumThreads(1)  # one worker a core
    write_rows(Plan(**task["plan"]), Path(task["path"]), task["offset"], task["start"], task["stop"], _tell)


def _tell(rows: int) -> None:
    sys.stdout.write(f"{rows}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])
