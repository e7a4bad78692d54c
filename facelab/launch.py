"""``python -m facelab.launch``: torchrun, with its options, that leaves the last word to the process that failed."""

import logging
import sys

from torch.distributed import run
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError


def main() -> None:
    """Start the processes and wait for them; ends with the exit code of the first that failed.

    That process has said why. torchrun would add a traceback of its own and a table; only a process that was killed,
    and so could not speak for itself, is reported here.
    """
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    try:
        run.main()
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode < 0:
            sys.stderr.write(f"error: process {rank} was killed by {failure.signal_name()}.\n")
        sys.exit(failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode)


if __name__ == "__main__":
    main()
