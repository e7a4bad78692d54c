"""``python -m facelab.launch``: torchrun, with its options, that leaves the last word to the process that failed."""

import logging
import os
import signal
import sys
from types import FrameType
from typing import NoReturn


def main() -> None:
    """Start the processes and wait for them; ends with the exit code of the first that failed.

    That process has said why. torchrun would add a traceback of its own and a table; only a process that was killed,
    and so could not speak for itself, is reported here. A signal that asks this process to stop is passed on to the
    others, which write a checkpoint first; the exit code is 128 and its number then, as of a process of its own.
    """
    signal.signal(signal.SIGTERM, _stop)  # until torchrun listens itself
    os.environ["FACELAB_LAUNCHER"] = str(os.getpid())
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    for name in [*logging.root.manager.loggerDict]:
        if name.startswith("torch.distributed.elastic"):  # each has a level of its own
            logging.getLogger(name).setLevel(logging.CRITICAL)
    parser = run.get_args_parser()
    parser.allow_abbrev = False  # else it takes the --run of facelab train for one of its own
    options = parser.parse_args()
    if options.max_restarts:
        # A machine that is started again would wait for ever: the first one tells the others once where its store is.
        os.environ.setdefault("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    try:
        run.run(options)  # type: ignore[no-untyped-call]
    except SignalException as error:
        _stop(error.sigval)
    except KeyboardInterrupt:
        _stop(signal.SIGINT)
    except ChildFailedError as error:
        killed = [found for found in error.failures.items() if found[1].exitcode == -signal.SIGKILL]
        rank, failure = killed[0] if killed else error.get_first_failure()  # others end because of it
        if failure.exitcode < 0:
            sys.stderr.write(f"error: process {rank} was killed by {failure.signal_name()}.\n")
        sys.exit(failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode)


def _stop(number: int, _frame: FrameType | None = None) -> NoReturn:
    sys.stderr.write(f"stopped by {signal.Signals(number).name}\n")
    sys.exit(128 + number)


if __name__ == "__main__":
    main()
