"""Batches that other processes read, in order, a bounded distance ahead."""

import json
import os
import pickle
import select
import subprocess
import time
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterable
from contextlib import ExitStack, suppress
from dataclasses import asdict, replace
from itertools import islice

from facelab.data.loading.batch_reader import BatchReader, NotWantedError, ReadBatch, Task
from facelab.data.loading.shared_slots import SharedSlots, shared_memory
from facelab.data.loading.worker import DEATH, READY, RECORD, Plan, number_of, record
from facelab.errors import DataError, first_line
from facelab.own_python import module_command, module_environment

LENT = 3
"""Batches whose pixels may lie where they were read while their consumer has them; of more it gets copies."""
MOST_WAITING = 1024
"""Numbers of places that a pipe holds for certain, so that neither side ever waits for the other to read."""
PATIENCE = 2.0
"""Seconds in which processes must leave what they read, or end."""


class NoProcessesError(DataError):
    """Other processes cannot read a source, or not here; the message gives the reason alone."""


class WorkerPool:
    """Processes that read batches into shared memory. For one iteration at a time.

    No thread stands between them and the consumer: places with a task wait in a pipe for whichever process is free,
    and come back through another one. A batch is handed over where it lies, and its place is used again when the last
    array or tensor of it is gone.

    Args:
        reader: Pickled, and sent.
        workers: Number of processes.
        ahead: Batches that may wait to be taken beside the one that each process is reading.
        batch_size: Images of a batch.

    Raises:
        NoProcessesError: If the reader, with its source, cannot be sent, or the system refuses what processes need.
        DataError: If a process ends at once.
    """

    def __init__(self, reader: BatchReader, workers: int, ahead: int, batch_size: int) -> None:
        try:
            content = pickle.dumps(reader)
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            raise NoProcessesError(first_line(error)) from None
        self._most = min(workers + ahead, MOST_WAITING)
        self._owner = os.getpid()
        slots = self._most + LENT
        try:
            self._run(slots, batch_size, workers, len(content))
        except OSError as error:
            needs = f"they need {slots} GiB of addresses, see ulimit -n, -u and -v"
            raise NoProcessesError(f"{error.strerror}; {needs}") from None
        self._poll = select.poll()
        self._poll.register(self._results, select.POLLIN)
        self._free = list(range(slots))  # places that a task may be put into
        self._ready: set[int] = set()  # places with a result that is not wanted yet
        self._lent: set[int] = set()  # places whose pixels the consumer has
        self._send(content)

    def _run(self, slots: int, batch_size: int, workers: int, size: int) -> None:
        """Run the program that forks itself into the processes."""
        with ExitStack() as own, ExitStack() as passed:
            for _ in range(3):  # numbers of closed standard streams, which the program would take for its own
                passed.callback(os.close, os.open(os.devnull, os.O_RDONLY))
            handle = shared_memory()
            passed.callback(os.close, handle)
            tasks, self._tasks = _pipe(passed, own)
            self._results, results = _pipe(own, passed)
            self._slots = SharedSlots(handle, slots, batch_size)
            plan = Plan(handle, slots, batch_size, tasks, results, workers, size, self._owner)
            self._process = subprocess.Popen(
                module_command("facelab.data.loading.worker", json.dumps(asdict(plan))),
                stdin=subprocess.PIPE,
                pass_fds=(handle, tasks, results),
                env=module_environment(),
            )
            self.close = weakref.finalize(self, _end, self._process, own.pop_all(), self._owner)

    @property
    def is_usable(self) -> bool:
        """Whether it gives batches: not after `close`, and not to a fork of the process whose it is."""
        return self.close.alive and os.getpid() == self._owner

    def _send(self, content: bytes) -> None:
        """Send the reader, and wait until all processes are there."""
        assert self._process.stdin is not None
        try:
            with suppress(BrokenPipeError):  # that it has ended is seen below
                self._process.stdin.write(content)
                self._process.stdin.flush()
            number = self._next_number()
        except BaseException:
            self.close()
            raise
        if number != READY:
            self.close()
            raise NoProcessesError(_why_not(self._slots.error(number)))

    def batches(self, steps: Iterable[int], task_of: Callable[[int], Task]) -> Generator[ReadBatch, None, None]:
        """The batch of each step, in order; an error is raised where its batch would have been.

        Args:
            steps: Consumed no further than the batches that may wait.
            task_of: What is to be read in a step.

        Raises:
            DataError: If a process has ended, or a fork asks for the batches of the process that it comes from.
        """
        remaining, waiting = iter(steps), deque[int | Exception]()
        try:
            waiting.extend(self._submit(task_of, step) for step in islice(remaining, self._most))
            while waiting:
                batch = self._take(waiting.popleft())
                # Before the batch is handed over: the processes go on while the consumer works with it.
                waiting.extend(self._submit(task_of, step) for step in islice(remaining, 1))
                yield batch
                del batch  # or its place were still in use while the next one is waited for
        finally:
            self._withdraw({one for one in waiting if isinstance(one, int)})

    def _submit(self, task_of: Callable[[int], Task], step: int) -> int | Exception:
        """The place that a batch will be read into, or what its sampler raised."""
        self._require_owner()
        try:
            task = task_of(step)
        except Exception as error:  # noqa: BLE001 (it is raised where the batch is wanted; an interrupt at once)
            return error
        slot = self._free.pop()
        self._slots.put_task(slot, task)
        with suppress(BrokenPipeError):  # that all have ended is seen, and why, where the batch is wanted
            os.write(self._tasks, record(slot))
        return slot

    def _take(self, slot: int | Exception) -> ReadBatch:
        self._require_owner()
        if isinstance(slot, Exception):
            raise slot
        while slot not in self._ready:
            self._ready.add(self._next_number())
        self._ready.discard(slot)
        error = self._slots.error(slot)
        if error is not None:
            self._free.append(slot)
            raise self._death(self._process.wait()) if isinstance(error, NotWantedError) else error
        batch = self._slots.batch(slot)
        if len(self._lent) == LENT:
            self._free.append(slot)
            return replace(batch, pixels=batch.pixels.copy())
        self._lent.add(slot)
        weakref.finalize(batch.pixels, _give_back, slot, self._lent, self._free).atexit = False
        return batch

    def _next_number(self) -> int:
        """The next place with a result.

        Raises:
            DataError: If a process has ended.
        """
        while not self._poll.poll(1000):
            if self._process.poll() is not None:  # of the rest, nobody would see whether one ends
                raise self._death(self._process.wait())
        message = os.read(self._results, RECORD)
        if not message:
            raise self._death(self._process.wait())
        number = number_of(message)
        if number < READY:
            raise self._death(number - DEATH)
        return number

    def _require_owner(self) -> None:
        """Refuse a fork of the process whose pool it is: what one of them takes, the other would wait for in vain."""
        if os.getpid() != self._owner:
            raise DataError(
                "this process is a fork of the one that began to read this epoch; let it begin to read one of its own."
            )

    def _death(self, status: int) -> DataError:
        """End the other processes, and say why."""
        self.close()
        how = f"ended with status {status}" if status >= 0 else f"was ended by signal {-status}"
        why = ", perhaps for lack of memory: lower data.workers, data.prefetch or training.batch_size" * (status == -9)
        return DataError(f"a process that reads images {how}{why}.")

    def _withdraw(self, slots: set[int]) -> None:
        """Let the processes leave what is not wanted any more; end those that do not."""
        if not self.is_usable:
            return
        self._slots.stop()
        deadline = time.monotonic() + PATIENCE
        with suppress(DataError):
            while not slots <= self._ready:
                if not self._poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                    self.close()
                    return
                self._ready.add(self._next_number())
        self._slots.stop(False)
        self._ready -= slots
        self._free += slots


def _give_back(slot: int, lent: set[int], free: list[int]) -> None:
    lent.discard(slot)
    free.append(slot)


def _pipe(read_end: ExitStack, write_end: ExitStack) -> tuple[int, int]:
    """A pipe: the end to read from and that to write to, each closed with the block that it belongs to."""
    ends = os.pipe()
    for block, end in zip((read_end, write_end), ends, strict=True):
        block.callback(os.close, end)
    return ends


def _why_not(error: BaseException | None) -> str:
    """Why the program that got a reader cannot use it."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    reason = first_line(error or DataError(""))
    # Of the user's own program, which is `__main__` here and not there.
    known = "other processes find a class only in a module that can be imported"
    return f"{reason}; {known}" if isinstance(error, AttributeError) else reason


def _end(process: "subprocess.Popen[bytes]", descriptors: ExitStack, owner: int) -> None:
    if os.getpid() != owner:  # a fork of the process whose pool it is
        return
    descriptors.close()
    assert process.stdin is not None
    with suppress(BrokenPipeError):
        process.stdin.close()
    process.terminate()  # a fork of this process may hold the pipe open
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
