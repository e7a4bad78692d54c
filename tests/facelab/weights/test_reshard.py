"""Checkpoints rewritten for other numbers of processes: same bits, uneven shares, nothing half-written, refusals."""

import errno
import os
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from torch import Tensor

from facelab.errors import CheckpointError, ConfigError
from facelab.weights import synced_files
from facelab.weights.checkpoint import CheckpointStore
from facelab.weights.class_rows import ClassRows, open_rows, process_files, read_rows
from facelab.weights.manifest import verify
from facelab.weights.reshard import reshard
from facelab.weights.snapshot import Snapshot
from facelab.weights.tensor_files import read_tree

CLASSES = 7
ROWS = {
    "weight": torch.randn(CLASSES, 3, generator=torch.Generator().manual_seed(0)),
    "centres": torch.randn(CLASSES, 2, 3).bfloat16(),
    "optimizer.1.0.momentum_buffer": torch.randn(CLASSES, 3, dtype=torch.float64),
    "optimizer.1.0.last_touched": torch.arange(CLASSES) * 10**10,
    "seen": torch.arange(CLASSES) % 2 == 0,
}
QUEUE = {"features": torch.randn(5, 2)}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Of one process, with two owners of class rows."""
    local = {"rng": {"cpu": torch.arange(8)}, "mode": {"network": {"mean": torch.ones(4)}}}
    rows = {"classifier": ClassRows(0, CLASSES, ROWS), "queue": ClassRows(0, 5, QUEUE)}
    snapshot = Snapshot({"weight": torch.ones(2)}, {"format": 1}, {"update": 1}, local, rows)
    return CheckpointStore(tmp_path / "checkpoints").save(1, snapshot, score=0.5)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor], part: slice = slice(None)) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].equal(tensor[part]), name


def test_each_process_finds_its_rows_in_its_file(checkpoint: Path) -> None:
    before = content(checkpoint)
    reshard(checkpoint, 3)
    verify(checkpoint)
    files = [f"process-0000{rank}-of-00003.pt" for rank in range(3)]
    kept = ["manifest.json", "model.json", "model.safetensors", "training.pt"]
    assert sorted(path.name for path in checkpoint.iterdir()) == sorted(files + kept)
    assert all((checkpoint / name).read_bytes() == before[name] for name in kept[1:])
    for name, (start, stop), (first, last) in zip(
        files, [(0, 3), (3, 5), (5, 7)], [(0, 2), (2, 4), (4, 5)], strict=True
    ):
        # Not mapped into memory, as another program would read it.
        rows = torch.load(checkpoint / name, weights_only=True)["rows"]
        assert rows["classifier"]["range"] == [start, stop]
        assert_equal(rows["classifier"]["tensors"], ROWS, slice(start, stop))
        assert rows["queue"]["range"] == [first, last]
        assert_equal(rows["queue"]["tensors"], QUEUE, slice(first, last))


def test_any_way_round_gives_the_same_bits(checkpoint: Path) -> None:
    for processes in (2, 5, 3, 1):
        reshard(checkpoint, processes)
        assert len(process_files(checkpoint)) == processes
        assert_equal(read_rows(checkpoint, 0, CLASSES), ROWS)
        assert_equal(read_rows(checkpoint, 1, 6), ROWS, slice(1, 6))
        assert_equal(read_rows(checkpoint, 0, 5, "queue"), QUEUE)
    verify(checkpoint)


def test_who_drew_random_numbers_goes_on_and_who_joins_draws_others(checkpoint: Path) -> None:
    reshard(checkpoint, 2)
    first, second = (read_tree(path)["local"] for path in process_files(checkpoint))
    assert first["rng"]["cpu"].equal(torch.arange(8))
    assert "rng" not in second
    assert first["mode"]["network"]["mean"].equal(second["mode"]["network"]["mean"])


def test_as_many_processes_as_before_write_nothing(checkpoint: Path) -> None:
    before = content(checkpoint)
    reshard(checkpoint, 1)
    assert content(checkpoint) == before


def test_rows_are_never_gathered(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reshard(checkpoint, 3)
    made: list[torch.Size] = []
    copy = Tensor.copy_

    def watched(target: Tensor, source: Tensor) -> Tensor:
        made.append(source.shape)
        return copy(target, source)

    monkeypatch.setattr(Tensor, "copy_", watched)
    monkeypatch.setattr(torch, "cat", None)
    reshard(checkpoint, 2)
    assert max(shape[0] for shape in made) == 3, "no more than one of the former files at a time"
    assert len(open_rows(checkpoint, 0, CLASSES)["weight"].parts) == 2


@pytest.mark.parametrize("processes", [2, 4])
def test_what_an_interrupted_attempt_left_counts_for_nothing(checkpoint: Path, processes: int) -> None:
    for name in ("process-00000-of-00004.pt", "process-00003-of-00004.pt"):
        (checkpoint / name).write_bytes(b"half")
    verify(checkpoint)
    assert_equal(read_rows(checkpoint, 0, CLASSES), ROWS)
    reshard(checkpoint, processes)
    assert [path.name for path in sorted(checkpoint.glob("process-*"))] == [p.name for p in process_files(checkpoint)]
    assert_equal(read_rows(checkpoint, 0, CLASSES), ROWS)


@pytest.mark.parametrize("step", [1, 2, 3])
def test_a_full_disk_leaves_the_checkpoint_as_it_was(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    before, calls, sync = content(checkpoint), [], os.fsync

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == step:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    monkeypatch.setattr(synced_files.os, "fsync", full)
    with pytest.raises(CheckpointError, match=r"1' cannot be rewritten: No space left .* Its rows are unharmed\."):
        reshard(checkpoint, 2)
    assert content(checkpoint) == before


@pytest.mark.parametrize("step", range(4, 9))
def test_a_disk_that_fails_late_leaves_the_former_checkpoint_or_the_new_one(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    calls, sync = [], os.fsync

    def broken(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == step:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        sync(descriptor)

    monkeypatch.setattr(synced_files.os, "fsync", broken)
    with suppress(CheckpointError):
        reshard(checkpoint, 2)
    verify(checkpoint)
    assert_equal(read_rows(checkpoint, 0, CLASSES), ROWS)


@pytest.mark.parametrize(
    ("processes", "sentence"), [(6, "has 5 class rows of its queue for 6 .* at most 5"), (0, "at least 1")]
)
def test_too_many_and_too_few_processes_are_refused(checkpoint: Path, processes: int, sentence: str) -> None:
    before = content(checkpoint)
    with pytest.raises(ConfigError, match=sentence):
        reshard(checkpoint, processes)
    assert content(checkpoint) == before


def test_lost_rows_are_named(checkpoint: Path) -> None:
    reshard(checkpoint, 3)
    (checkpoint / "process-00001-of-00003.pt").unlink()
    with pytest.raises(CheckpointError, match="has no class rows 3 to 7 of its classifier"):
        reshard(checkpoint, 1)


WEIGHT = torch.zeros(2, 3)


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({"rows": {}}, "not what a process writes"),
        ({"local": [1], "rows": {}}, "not what a process writes"),
        ({"local": {}, "rows": [1]}, "not what a process writes"),
        ({"local": {}, "row_range": [5, 7], "rows": [1]}, "not what a process writes"),
        *(
            ({"local": {}, "rows": {"classifier": held}}, "damaged: it does not hold the class rows of its classifier")
            for held in (
                [1],
                {"range": [5, 7]},
                {"range": "57", "tensors": {"weight": WEIGHT}},
                {"range": [5], "tensors": {"weight": WEIGHT}},
                {"range": [5.0, 7.0], "tensors": {"weight": WEIGHT}},
                {"range": [7, 5], "tensors": {"weight": WEIGHT}},
                {"range": [-1, 1], "tensors": {"weight": WEIGHT}},
                {"range": [5, 10**15], "tensors": {"weight": WEIGHT}},
                {"range": [5, 7], "tensors": [WEIGHT]},
                {"range": [5, 7], "tensors": {"weight": "x"}},
                {"range": [5, 7], "tensors": {"weight": torch.tensor(1.0)}},
                {"range": [5, 7], "tensors": {"weight": WEIGHT.to_sparse()}},
                {"range": [5, 7], "tensors": {"weight": torch.zeros(1).expand(2, 10**12)}},
            )
        ),
        *(
            (
                {"local": {}, "rows": {"classifier": {"range": [5, 7], "tensors": held}}},
                "damaged: it keeps other tensors",
            )
            for held in ({"weight": WEIGHT}, {**{name: tensor[5:] for name, tensor in ROWS.items()}, "seen": WEIGHT})
        ),
    ],
)
def test_files_that_do_not_hold_what_they_say_are_refused(checkpoint: Path, tree: dict[str, object], said: str) -> None:
    reshard(checkpoint, 3)
    torch.save(tree, checkpoint / "process-00002-of-00003.pt")
    before = content(checkpoint)
    with pytest.raises(CheckpointError, match=f"process-00002-of-00003.pt' is {said}"):
        reshard(checkpoint, 1)
    assert content(checkpoint) == before
