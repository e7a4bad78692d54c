"""Rewrites a checkpoint for another number of processes: each then finds its class rows in one file of its own."""

import mmap
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from torch.serialization import set_default_mmap_options

from facelab import distributed
from facelab.errors import CheckpointError, ConfigError, first_line
from facelab.weights.class_rows import StoredRows, count_rows, open_rows, process_files, read_process
from facelab.weights.manifest import exchange_files
from facelab.weights.synced_files import write_tree
from facelab.weights.tensor_files import Tree, read_tree


def reshard(checkpoint: Path, processes: int) -> None:
    """Share the class rows of a checkpoint out to ``processes`` files, with all that its optimisers keep row by row.

    Rows are copied from file to file, never gathered in memory. Random states stay with the processes that drew from
    them; one that joins draws its own when the run goes on. All processes get the buffers of the first one, as they
    do where a run goes on with other processes without this.

    Until the last moment the checkpoint is what it was: the new files lie beside the former ones, and count from when
    the manifest, which is replaced in one step, names them.

    Args:
        checkpoint: Its folder, unharmed.
        processes: N, from 1 to the rows of each owner.

    Raises:
        ConfigError: If the number of processes is out of range, or the system is Windows.
        CheckpointError: If a file cannot be read or written; the checkpoint is as it was then.
    """
    if sys.platform == "win32":
        raise ConfigError("files cannot be rewritten in place on Windows; runs go on with other processes without.")
    former = process_files(checkpoint)
    if len(former) == processes:
        return
    counts = count_rows(checkpoint)
    _check_number(checkpoint, processes, counts)
    names = [f"process-{rank:05d}-of-{processes:05d}.pt" for rank in range(processes)]
    try:
        for rank, name in enumerate(names):
            rows = {}
            for owner, count in counts.items():
                start, stop = distributed.class_range(count, rank, processes)
                rows[owner] = start, stop, open_rows(checkpoint, start, stop, owner)
            _write(checkpoint / name, _local(former, rank), rows)
        exchange_files(checkpoint, [path.name for path in former], names)
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or first_line(error)
        raise CheckpointError(f"'{checkpoint}' cannot be rewritten: {reason}. Its rows are unharmed.") from None
    finally:
        listed = process_files(checkpoint)  # the former ones or the new ones, whatever came to an end
        for path in checkpoint.glob("process-*.pt"):
            if path not in listed:
                path.unlink(missing_ok=True)


def _check_number(checkpoint: Path, processes: int, counts: Mapping[str, int]) -> None:
    if processes < 1:
        raise ConfigError(f"there must be at least 1 process, not {processes}.")
    for owner, count in counts.items():
        if count < processes:
            raise ConfigError(
                f"'{checkpoint}' has {count} class rows of its {owner} for {processes} processes, and each owns at "
                f"least one; choose at most {min(counts.values())}."
            )


def _local(former: list[Path], rank: int) -> Tree:
    """What the new process of a rank keeps beside class rows."""
    first = read_process(former[0]).local
    own = read_process(former[rank]).local if rank < len(former) else {**first}
    if rank >= len(former):
        own.pop("rng", None)
    return {**own, "mode": first["mode"]} if "mode" in first else own


def _write(path: Path, local: Tree, rows: Mapping[str, tuple[int, int, Mapping[str, StoredRows]]]) -> None:
    """Write the file of a process: first with whatever lies in memory that was never touched, then row by row."""
    empty = {
        owner: {"range": [start, stop], "tensors": {name: stored.empty() for name, stored in tensors.items()}}
        for owner, (start, stop, tensors) in rows.items()
    }
    # In full length, so that a full disk is an error here: found while a mapped file is filled, it ends the process.
    write_tree(path, {"local": local, "rows": empty})
    del empty
    with set_default_mmap_options(mmap.MAP_SHARED):
        written = read_tree(path, lazily=True)["rows"]
    for owner, (_, _, tensors) in rows.items():
        for name, stored in tensors.items():
            stored.copy_into(written[owner]["tensors"][name])
    with path.open("rb") as file:
        os.fsync(file.fileno())
