"""Several processes of one training: their group, their collectives, and which gradients those have.

Everything works unchanged in a single process, where the collectives return what they were given.

Class rows are spread over the processes, and every process computes the same loss of the same global batch. Three
kinds of tensors meet there, and autograd must not sum a gradient once too often or too seldom:

- a *share* is one process's part of a sum: `sum_shares` makes it *common*, and hands the gradient back as it is;
- a *common* tensor is equal on all processes: where it enters local work, `use_locally` sums the gradients of all
  processes;
- *gathered* rows carry partial gradients, which `gather_rows` sums: where they enter common work, `use_commonly`
  divides the gradient, because every process contributes all of it.
"""

import importlib
import importlib.util
import inspect
import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from threading import Thread
from types import ModuleType
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing.spawn import start_processes

from facelab.errors import ConfigError, FacelabError, first_line

T = TypeVar("T")

WATCH_SECONDS = 0.5
STOP_SECONDS = 30.0  # what torchrun gives a process that it asks to stop

# torch 2.13 renames these two and warns of the old names; earlier versions know only the old ones.
_all_gather_single = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_reduce_scatter_single = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


def initialise(timeout: timedelta = timedelta(minutes=30)) -> None:
    """Join the group that torchrun's environment describes: gloo on CPU, NCCL beside it on GPU; nothing in one process.

    Args:
        timeout: How long a process waits for the others, also in collectives on the CPU.

    Raises:
        ConfigError: If the environment is incomplete, or this machine has fewer GPUs than processes.
        FacelabError: If the processes cannot reach each other.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        return
    missing = [name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise ConfigError(f"WORLD_SIZE is set but {missing[0]} is not; start several processes through torchrun.")
    _end_with_launcher()
    try:
        dist.init_process_group(_backend(), timeout=timeout)
    except RuntimeError as error:
        if not _is_of_network(error):
            raise
        raise FacelabError(
            f"process {os.environ['RANK']} does not reach the others of its group, or one of them has ended "
            f"({first_line(error)}); where the address is not that of a machine, name the network interface between "
            "them in GLOO_SOCKET_IFNAME."
        ) from None


def _is_of_network(error: RuntimeError) -> bool:
    """Whether another process does not answer; gloo says so in a plain RuntimeError that names its own source file."""
    return isinstance(error, dist.DistError) or "gloo/" in str(error)


def _end_with_launcher() -> None:
    """Watch the process that started this one: killed, it can stop nobody, and the run would go on unseen.

    This process is asked to stop as by SIGTERM, so that training writes a checkpoint, and ended if it does not obey.
    """
    # Named by the launcher itself where it is ours: if it has died already, the parent is another process by now.
    launcher = int(os.environ.get("FACELAB_LAUNCHER", os.getppid()))

    def watch() -> None:
        while os.getppid() == launcher:
            time.sleep(WATCH_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(STOP_SECONDS)
        os._exit(1)

    Thread(target=watch, name="watch the launcher", daemon=True).start()


def shutdown() -> None:
    """Leave the group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def _backend() -> str:
    if not torch.cuda.is_available():
        return "gloo"
    if local_rank() >= torch.cuda.device_count():
        raise ConfigError(
            f"process {local_rank()} of this machine has no GPU: {torch.cuda.device_count()} are visible; "
            f"start at most that many (--nproc-per-node={torch.cuda.device_count()})."
        )
    torch.cuda.set_device(local_rank())
    # Objects, such as signals to stop, then travel from CPU to CPU and wait for no GPU.
    return "cpu:gloo,cuda:nccl"


@contextmanager
def joined() -> Iterator[None]:
    """Context in which this process is in the group that torchrun's environment describes, see `initialise`.

    Raises:
        FacelabError: If another process of the group is gone, which has said why itself.
    """
    initialise()
    try:
        yield
    except RuntimeError as error:
        if world_size() == 1 or not _is_of_network(error):
            raise
        raise FacelabError("another process has ended, so this one ends too.") from None
    finally:
        shutdown()


def rank() -> int:
    """Number of this process among all, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def local_rank() -> int:
    """Number of this process on its machine, from 0; also the number of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def is_main() -> bool:
    """Whether this is the process that prints and writes: rank 0."""
    return rank() == 0


def may_restart() -> bool:
    """Whether torchrun starts the processes again where one is lost (``--max-restarts``)."""
    return int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")) > 0


def barrier() -> None:
    """Wait until every process is here."""
    if world_size() > 1:
        dist.barrier()


def broadcast_object(value: T) -> T:
    """The value that rank 0 gave, on every process. It is pickled: for small things."""
    if world_size() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def gather_objects(value: T) -> list[T]:
    """The values of all processes by rank, on every process. They are pickled: for small things."""
    if world_size() == 1:
        return [value]
    boxes: list[Any] = [None] * world_size()
    dist.all_gather_object(boxes, value)
    return cast(list[T], boxes)


def broadcast_into(tensor: Tensor, source: int) -> None:
    """Overwrite ``tensor`` on every process with that of rank ``source``; shape and type must be equal everywhere."""
    if world_size() > 1:
        dist.broadcast(tensor, source)


def together(work: Callable[[], None]) -> None:
    """Do something on every process; if it fails on one, all of them raise its error instead of waiting for it.

    Raises:
        FacelabError: What ``work`` raised on the first process where it did.
    """
    failure: FacelabError | None = None
    try:
        work()
    except FacelabError as error:
        if world_size() == 1:
            raise
        failure = error
    for found in gather_objects(failure):
        if found is not None:
            raise found


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """Sum over all processes, a new tensor without gradient."""
    return _all_reduce(tensor, dist.ReduceOp.SUM)


def all_reduce_max(tensor: Tensor) -> Tensor:
    """Largest value over all processes, element by element; a new tensor without gradient."""
    return _all_reduce(tensor, dist.ReduceOp.MAX)


def _all_reduce(tensor: Tensor, operation: Any) -> Tensor:
    if world_size() == 1:
        return tensor.detach()
    # Collectives write in place, and take contiguous tensors only.
    reduced = tensor.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(reduced, operation)
    return reduced


def gather_labels(labels: Tensor) -> Tensor:
    """Rows of all processes by rank, (B, ...) -> (world * B, ...), without gradient. B must be equal everywhere."""
    return labels.detach() if world_size() == 1 else _all_gather(labels.detach())


def gather_rows(rows: Tensor) -> Tensor:
    """Rows of all processes by rank, (B, ...) -> (world * B, ...), with gradient. B must be equal everywhere.

    The gradient that a process gets for its own rows is the sum of what all processes computed for them, TIMES THE
    WORLD
    SIZE: the network that made the rows runs in DistributedDataParallel, which averages gradients over processes where
    the loss of the global batch wants their sum. This is the only place that knows of that.
    """
    return rows if world_size() == 1 else cast(Tensor, _GatherRows.apply(rows))  # type: ignore[no-untyped-call]


def sum_shares(share: Tensor) -> Tensor:
    """Sum over all processes with gradient: each share gets that of the sum, which is equal on all processes."""
    return share if world_size() == 1 else cast(Tensor, _SumShares.apply(share))  # type: ignore[no-untyped-call]


def use_locally(common: Tensor) -> Tensor:
    """The same values for work that differs between processes: their gradients are summed over processes."""
    return common if world_size() == 1 else cast(Tensor, _UseLocally.apply(common))  # type: ignore[no-untyped-call]


def use_commonly(gathered: Tensor) -> Tensor:
    """The same values of `gather_rows` for work that every process repeats: the gradient is divided by the world size.

    Without it, a regulariser that every process computes on all features would be counted once per process.
    """
    return gathered if world_size() == 1 else cast(Tensor, _UseCommonly.apply(gathered))  # type: ignore[no-untyped-call]


def _all_gather(rows: Tensor) -> Tensor:
    rows = rows.contiguous()
    gathered = rows.new_empty((world_size() * rows.shape[0], *rows.shape[1:]))
    _all_gather_single(gathered, rows)
    return gathered


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, rows: Tensor) -> Tensor:
        return _all_gather(rows)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        own = gradient.new_empty((gradient.shape[0] // world_size(), *gradient.shape[1:]))
        # Not an all-reduce: each process needs the sum for its own rows only.
        _reduce_scatter_single(own, gradient.contiguous())
        return own.mul_(world_size())


class _SumShares(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, share: Tensor) -> Tensor:
        return all_reduce_sum(share)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return gradient


class _UseLocally(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, common: Tensor) -> Tensor:
        return common.view_as(common)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return all_reduce_sum(gradient)


class _UseCommonly(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, gathered: Tensor) -> Tensor:
        return gathered.view_as(gathered)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return gradient / world_size()


def class_range(num_classes: int, rank: int, world: int) -> tuple[int, int]:
    """Classes ``[start, stop)`` of process ``rank`` of ``world``; the first ``num_classes % world`` own one more."""
    rows, longer = divmod(num_classes, world)
    start = rank * rows + min(rank, longer)
    return start, start + rows + (rank < longer)


def run_processes(function: Callable[..., T], count: int, *arguments: Any) -> list[T]:
    """Call ``function(*arguments)`` in ``count`` new processes that form a gloo group on this machine.

    For tests and for scripts that are not started by torchrun. Each process computes with one thread and sees the
    environment that torchrun would give it.

    Args:
        function: A function at the top of its module; the module need not be importable by name.
        count: Number of processes.
        arguments: Equal for all processes; pickled.

    Returns:
        What each process returned, by rank.

    Raises:
        torch.multiprocessing.ProcessRaisedException: If one failed, with its traceback.
    """
    # With its file, because a test or a script cannot be imported by its name in a new process.
    source = (function.__module__, inspect.getfile(function), function.__qualname__)
    # By files, because spawned processes hand no results back.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "arguments").write_bytes(pickle.dumps(arguments))
        given = (count, folder, source, dict(os.environ))
        start_processes(_process, given, count, start_method=_start_method())  # type: ignore[no-untyped-call]
        return [pickle.loads((folder / f"result-{number}").read_bytes()) for number in range(count)]


def _start_method() -> str:
    """Forks of a process that has imported what this one has, and done nothing else, where the system has them.

    Spawned processes would import it again each time, for seconds.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return "spawn"
    imported = [name for name in sys.modules if name.partition(".")[0] == "facelab"]
    multiprocessing.get_context("forkserver").set_forkserver_preload(imported)
    return "forkserver"


def _process(number: int, count: int, folder: Path, source: tuple[str, str, str], environment: dict[str, str]) -> None:
    # Forks have the environment of the first call.
    os.environ.clear()
    os.environ |= environment | {"RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": str(count)}
    torch.set_num_threads(1)
    # A file and not a port, which another group on this machine may have taken.
    meeting_point = (folder / "store").as_uri()
    dist.init_process_group(
        "gloo", init_method=meeting_point, rank=number, world_size=count, timeout=timedelta(minutes=30)
    )
    dist.barrier()  # another process may still be connecting to this one, which a short function would end meanwhile
    function = _load_function(*source)  # before the arguments, whose classes may be of the same module
    result = function(*pickle.loads((folder / "arguments").read_bytes()))
    (folder / f"result-{number}").write_bytes(pickle.dumps(result))
    shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # the end of the interpreter now and then aborts over threads of gloo that still run


def _load_function(module_name: str, path: str, qualified_name: str) -> Callable[..., Any]:
    if module_name == "__main__":
        # A new process has imported the script already, under another name. To run it as the main program once more
        # would start its processes again, and theirs, without end.
        return cast(Callable[..., Any], getattr(sys.modules["__main__"], qualified_name))
    if module_name.partition(".")[0] == "facelab":
        return cast(Callable[..., Any], getattr(importlib.import_module(module_name), qualified_name))
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None, "inspect.getfile gave the path"
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    parents = module_name.split(".")[:-1]
    for depth in range(1, len(parents) + 1):  # pickle imports by full name: the module and all that it lies in
        sys.modules.setdefault(".".join(parents[:depth]), ModuleType(parents[depth - 1]))
    sys.modules[module_name] = module
    spec.loader.exec_module(module)
    return cast(Callable[..., Any], getattr(module, qualified_name))
