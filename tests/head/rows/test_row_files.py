"""Class rows in files: the same bits as in memory, nothing left behind, resuming, refusals."""

import errno
import mmap
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from facelab.catalogue import build
from facelab.errors import ConfigError
from facelab.head.base import HEADS
from facelab.head.classifier import UpdateRule
from facelab.head.rows.partial_fc import PartialFC
from facelab.head.rows.progressive_clusters import PCO
from facelab.head.rows.row_files import RowFiles
from facelab.head.rows.variational_prototypes import VPL
from facelab.run.run import RunResult
from facelab.weights.checkpoint import CheckpointStore
from facelab.weights.class_rows import open_rows

CLASSES, DIM, BATCH = 3000, 8, 6


def partial_fc(folder: Path | None, kind: type[PartialFC] = PartialFC, **options: Any) -> PartialFC:
    return kind(CLASSES, DIM, build(HEADS, "CosFace"), sample_rate=0.05, folder=folder, **options)


def after_updates(folder: Path | None, name: Any, **options: Any) -> dict[str, Tensor]:
    """Rows, what is beside them, and their state after some updates."""
    rows = partial_fc(folder, **options)
    optimizer = rows.optimizer(UpdateRule(name, 0.1, 5e-4, 0.9, False, (0.9, 0.999), 1e-8))
    assert optimizer is not None
    generator = torch.Generator().manual_seed(0)
    for _ in range(4):
        features = torch.randn(BATCH, DIM, generator=generator)
        rows(features, torch.randint(CLASSES, (BATCH,), generator=generator)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        rows.after_update()
    state = {key: value for key, value in optimizer.state[rows.weight].items() if isinstance(value, Tensor)}
    return {**{key: value.detach() for key, value in rows.row_tensors().items()}, **state}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("sgd", {}),
        ("sgd", {"unsampled": "exact"}),
        ("adamw", {"rows_per_class": 2}),
        ("sgd", {"kind": VPL}),
        ("sgd", {"kind": PCO, "unsampled": "exact", "window": 1, "thresholds": (0.0, 0.0)}),  # all of its stages
    ],
)
def test_rows_in_files_are_those_in_memory_to_the_last_bit(name: str, options: Any, tmp_path: Path) -> None:
    expected, found = after_updates(None, name, **options), after_updates(tmp_path / "rows", name, **options)
    assert expected.keys() == found.keys()
    assert all(value.equal(found[key]) for key, value in expected.items())


@pytest.mark.parametrize(("kind", "bank"), [(VPL, "features"), (PCO, "means")])
def test_what_lies_beside_rows_lies_in_files_too(kind: type[PartialFC], bank: str, tmp_path: Path) -> None:
    rows = partial_fc(tmp_path / "rows", kind)
    assert rows._files is not None
    lengths = [len(memory) for memory, _ in rows._files._files]
    assert lengths == [4 * CLASSES * DIM] * 2
    rows.get_buffer(bank).fill_(1.0)
    assert rows._files._files[-1][0][:4] == b"\x00\x00\x80\x3f"


def test_files_have_all_their_space_and_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    real = os.posix_fallocate

    def watch(descriptor: int, start: int, size: int) -> None:
        real(descriptor, start, size)
        taken.append((start, size, os.fstat(descriptor).st_blocks * 512))

    monkeypatch.setattr(os, "posix_fallocate", watch)
    files = RowFiles(tmp_path / "rows", "PartialFC")
    rows = files.zeros((1000, 3, 5))
    assert rows.shape == (1000, 3, 5)
    assert not bool(rows.any())
    ((start, size, on_disk),) = taken
    assert (start, size) == (0, 60_000)
    assert on_disk >= size, "a hole would be filled, or not, when it is first written"
    assert list((tmp_path / "rows").iterdir()) == []
    rows[7] = 3.0
    for _ in range(2):
        files.read_ahead(torch.tensor([7, 999]))
    assert bool(rows[7].eq(3.0).all())


class Advised(mmap.mmap):
    """Notes what it is told of the use that it will have."""

    advice: list[int]

    def madvise(self, option: int, start: int = 0, length: int | None = None) -> None:
        if length is None:
            self.advice = [*getattr(self, "advice", []), option]
        super().madvise(option, start, len(self) - start if length is None else length)


def test_checkpoints_read_all_rows_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("facelab.head.rows.row_files.mmap.mmap", Advised)
    rows = partial_fc(tmp_path / "rows")
    assert rows._files is not None
    memory: Advised = rows._files._files[0][0]  # type: ignore[assignment]
    for use, expected in (
        (lambda: None, mmap.MADV_RANDOM),
        (rows.state_dict, mmap.MADV_SEQUENTIAL),
        (rows.after_update, mmap.MADV_RANDOM),
        (lambda: rows.load_state_dict(rows.state_dict()), mmap.MADV_SEQUENTIAL),
    ):
        use()
        assert memory.advice[-1] == expected


def test_a_full_disk_is_said_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    for kind in (PartialFC, VPL, PCO):
        said = f"{kind.__name__}.folder: '.*rows' cannot take a file of 9.6e-05 GB .* \\(No space left on device\\)"
        with pytest.raises(ConfigError, match=said):
            partial_fc(tmp_path / "rows", kind)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows").write_text("a file")
    with pytest.raises(ConfigError, match=r"folder: '.*' cannot take a file of .*; name a folder that can be written"):
        partial_fc(tmp_path / "rows")


def test_rows_in_files_stay_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="float32 and for training on the CPU, not torch.float64 on cpu"):
        partial_fc(tmp_path / "rows").double()


def test_a_run_with_rows_in_files_resumes_with_the_same_bits(
    tmp_path: Path,
    run_tiny: Callable[..., RunResult],
    cut_back: Callable[[Path, Path, int], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As one with rows in memory, which `test_every_classifier.py` resumes. The owner sees its rows before going on."""
    seen = []
    monkeypatch.setattr(PartialFC, "check_rows", lambda self: seen.append((int(self.updates), self.weight.clone())))
    folder = tmp_path / "rows"
    options = f"{{sample_rate: 0.5, unsampled: exact, folder: {folder}}}"
    settings = (f"classifier={{PartialFC: {options}}}", "checkpoint.keep_every_epochs=1")
    run_tiny(tmp_path / "whole", *settings)
    cut_back(tmp_path / "whole", tmp_path / "cut", 4)
    assert run_tiny(tmp_path / "cut", *settings, resume=True).progress.complete
    last = [CheckpointStore(tmp_path / run / "checkpoints").find("last") for run in ("whole", "cut")]
    whole, cut = (open_rows(checkpoint, 0, 8, "classifier") for checkpoint in last)
    assert {key.rsplit(".")[-1] for key in whole} == {"weight", "momentum_buffer", "clock"}
    assert all(torch.cat(stored.parts).equal(torch.cat(cut[key].parts)) for key, stored in whole.items())
    ((updates, rows),) = seen
    assert updates == 4
    assert not rows.equal(torch.cat(whole["weight"].parts))
    assert bool(rows.any())
    assert list(folder.iterdir()) == []
