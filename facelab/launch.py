"""``python -m facelab.launch``: torchrun, with its options, that leaves the last word to the process that failed."""

import logging
import os
import signal
import socket
import struct
import sys
from typing import NoReturn

SIOCGIFADDR = 0x8915  # of <linux/sockios.h>: which IPv4 address an interface has


def main() -> None:
    """Start the processes and wait for them; ends with the exit code of the first that failed.

    That process has said why. torchrun would add a traceback of its own and a table; only a process that was killed,
    and so could not speak for itself, is reported here. A signal that asks this process to stop is passed on to the
    others, which write a checkpoint first; the exit code is 128 and its number then, as of a process of its own.

    With ``--max-restarts`` processes are started again, but not after a mistake of the user, which would come again:
    the process that has told it sends SIGUSR1, and this one ends with exit code 1. Other machines then end, too.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        # Until torchrun listens itself: while it waits for machine 0 it calls no handler of Python's for minutes.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGUSR1, lambda *_: sys.exit(1))
    os.environ["FACELAB_LAUNCHER"] = str(os.getpid())
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # else the stack of each message that did not arrive
    from torch.distributed import DistError, run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousClosedError, RendezvousError

    for name in [*logging.root.manager.loggerDict]:
        if name.startswith("torch.distributed.elastic"):  # each has a level of its own
            logging.getLogger(name).setLevel(logging.CRITICAL)
    parser = run.get_args_parser()
    parser.allow_abbrev = False  # else it takes the --run of facelab train for one of its own
    options = parser.parse_args()
    if options.max_restarts:
        # A machine that is started again would wait for ever: the first one tells the others once where its store is.
        os.environ.setdefault("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    meeting_point = options.rdzv_endpoint or f"{options.master_addr}:{options.master_port}"
    if options.nnodes not in ("1", "1:1") and (address := own_address(meeting_point.rpartition(":")[0])):
        # Other machines would be told this one's name, which often means 127.0.1.1 here and nothing there.
        options.local_addr = options.local_addr or address
        if interface := interface_of(address):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
    try:
        run.run(options)  # type: ignore[no-untyped-call]
    except SignalException as error:
        _stop(error.sigval)
    except KeyboardInterrupt:
        _stop(signal.SIGINT)
    except RendezvousClosedError:
        sys.exit("error: another machine has ended the run, and has said why.")
    except (RendezvousError, DistError) as error:
        reason = str(error.__cause__ or error).strip().partition("\n")[0]
        sys.exit(
            f"error: the machines do not meet at {meeting_point}, or no longer ({reason}); start the same command on "
            "all of them, each with its NODE_RANK, and give the address of machine 0 and a free port that all reach."
        )
    except ChildFailedError as error:
        killed = [found for found in error.failures.items() if found[1].exitcode == -signal.SIGKILL]
        rank, failure = killed[0] if killed else error.get_first_failure()  # others end because of it
        if failure.exitcode < 0:
            spent = ", and no restart is left" if options.max_restarts else ""
            sys.stderr.write(f"error: process {rank} was killed by {failure.signal_name()}{spent}.\n")
        sys.exit(failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode)


def own_address(other: str) -> str | None:
    """IPv4 address by which this machine reaches another one; None where that is this very host, or unknown."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((other, 1))  # sends nothing
        except OSError:
            return None
        address: str = probe.getsockname()[0]
    return None if address.startswith("127.") else address


def interface_of(address: str) -> str | None:
    """Network interface that has an IPv4 address; None if none has, or this is not Linux."""
    if sys.platform != "linux":
        return None
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(asking.fileno(), SIOCGIFADDR, struct.pack("256s", name.encode()))
            except OSError:  # it has none
                continue
            if socket.inet_ntoa(answer[20:24]) == address:
                return name
    return None


def _stop(number: int) -> NoReturn:
    sys.stderr.write(f"stopped by {signal.Signals(number).name}\n")
    sys.exit(128 + number)


if __name__ == "__main__":
    main()
