"""Processes that read batches, in a program of its own: it gets a reader, forks itself, and sees to the forks.

A fork of this program shares the source with the others, has neither threads nor a CUDA device that a fork would break,
and starts in a millisecond. It is not the training process that forks, and not `multiprocessing`, which would run the
user's script once more.
"""

import gc
import json
import os
import pickle
import select
import signal
import sys
import traceback
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import cv2

from facelab.data.loading.batch_reader import BatchReader
from facelab.data.loading.shared_slots import SharedSlots

RECORD = 4
"""Bytes of a message: the number of a place, or one of those below. Pipes keep such short ones whole."""
READY = -1
"""The reader has come through, and the processes read."""
DEATH = -1000
"""A process has ended; its exit status, negative for a signal, is added."""
LOOK = 0.25
"""Seconds between two looks at whether a process has ended."""


@dataclass(frozen=True)
class Plan:
    """What the program is told.

    Attributes:
        memory: Descriptor of the places, see `SharedSlots`.
        slots: Their number.
        batch_size: Images of a batch.
        tasks: Descriptor of the pipe that numbers of places with a task come from.
        results: Descriptor of the pipe that they go to once the batch is there.
        workers: Number of processes that read.
        size: Bytes of the pickled reader on standard input; what follows is its end, when nobody wants batches.
        parent: The process that wants them.
    """

    memory: int
    slots: int
    batch_size: int
    tasks: int
    results: int
    workers: int
    size: int
    parent: int


def record(number: int) -> bytes:
    """A message."""
    return number.to_bytes(RECORD, "little", signed=True)


def number_of(message: bytes) -> int:
    """What a message says."""
    return int.from_bytes(message, "little", signed=True)


def main(argument: str) -> None:
    """Run until standard input ends, a process that reads does, or a signal says so."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal it comes to all processes; the first one ends the rest
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # who ignores it, as daemons do, is not told how a child has ended
    cv2.setNumThreads(1)
    plan = Plan(**json.loads(argument))
    slots = SharedSlots(plan.memory, plan.slots, plan.batch_size)
    try:
        reader = pickle.loads(sys.stdin.buffer.read(plan.size))
    except BaseException as error:  # noqa: BLE001 (it is raised where the reader comes from)
        slots.put_error(0, error)
        _tell(plan, 0)
        return
    gc.freeze()  # else the first collection in each fork copies the source's objects
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # by way of `finally`
    workers = set[int]()
    try:
        for _ in range(plan.workers):
            workers.add(_fork(reader, slots, plan))
    except OSError as error:  # the system allows no more processes
        slots.put_error(0, error)
        _tell(plan, 0)
    else:
        _tell(plan, READY)
        _watch(workers, plan)
    finally:
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
        for pid in workers:
            os.waitpid(pid, 0)  # in a container, nobody else may do it


def _fork(reader: BatchReader, slots: SharedSlots, plan: Plan) -> int:
    """Process number of a fork that reads batches."""
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    status = 1
    try:
        _serve(reader, slots, plan, parent)
        status = 0
    except BrokenPipeError:
        status = 0  # nobody is there any more to take a result
    except BaseException:  # noqa: BLE001 (the process ends, and the watching one tells)
        traceback.print_exc()
    finally:
        os._exit(status)


def _serve(reader: BatchReader, slots: SharedSlots, plan: Plan, parent: int) -> None:
    """Read batch after batch, until no more can be asked for."""

    def is_unwanted() -> bool:
        return slots.is_stopped or os.getppid() != parent

    while message := os.read(plan.tasks, RECORD):
        slot = number_of(message)
        try:
            batch = reader.read(slots.task(slot), is_unwanted, partial(slots.memory, slot))
        except BaseException as error:  # noqa: BLE001 (it is raised where the batch is wanted)
            slots.put_error(slot, error)
        else:
            slots.put_batch(slot, batch)
        os.write(plan.results, message)


def _watch(workers: set[int], plan: Plan) -> None:
    """Return once standard input ends, or the process that wrote it, whose forks may hold it open."""
    while os.getppid() == plan.parent and not select.select([sys.stdin.buffer], [], [], LOOK)[0]:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid:
            workers.discard(pid)
            _tell(plan, DEATH + os.waitstatus_to_exitcode(status))
            return


def _tell(plan: Plan, number: int) -> None:
    """Send a message to the process that wants batches, if it is still there."""
    with suppress(BrokenPipeError):
        os.write(plan.results, record(number))


if __name__ == "__main__":
    main(sys.argv[1])
