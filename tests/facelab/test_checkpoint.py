import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from facelab import checkpoint as module
from facelab.checkpoint import CheckpointStore, Snapshot, read_card, read_model, read_rows, read_tree, verify
from facelab.errors import CheckpointError


def snapshot(value: float = 1.0, rows: int = 5) -> Snapshot:
    return Snapshot(
        model={"weight": torch.full((2, 3), value)},
        card={"format": 1},
        training={"update": 1, "nested": [{"tensor": torch.arange(3)}]},
        local={"rng": torch.get_rng_state()},
        rows={"weight": torch.arange(rows * 2.0).reshape(rows, 2)},
        row_range=(0, rows),
    )


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "checkpoints")


def test_what_is_written_reads_back(store: CheckpointStore) -> None:
    folder = store.save(3, snapshot(2.5))
    verify(folder)
    assert torch.equal(read_model(folder)["weight"], torch.full((2, 3), 2.5))
    assert read_card(folder) == {"format": 1}
    assert torch.equal(read_tree(folder / "training.pt")["nested"][0]["tensor"], torch.arange(3))
    assert torch.equal(read_rows(folder, 1, 4)["weight"], torch.arange(10.0).reshape(5, 2)[1:4])


def test_last_best_and_kept_stay_and_the_rest_goes(store: CheckpointStore) -> None:
    store.save(1, snapshot(), score=0.5, keep=True)
    store.save(2, snapshot(), score=0.9)
    store.save(3, snapshot(), score=0.7)
    store.save(4, snapshot())
    assert store.names() == ["step-00000001", "step-00000002", "step-00000004"]
    assert store.find("best").name == "step-00000002"
    assert store.find("last").name == "step-00000004"


def test_a_checkpoint_that_does_not_exist_is_answered_with_those_that_do(store: CheckpointStore) -> None:
    store.save(1, snapshot())
    with pytest.raises(CheckpointError, match="has no checkpoint 'best'. There are: step-00000001"):
        store.find("best")


def test_a_half_written_checkpoint_is_never_found(store: CheckpointStore) -> None:
    store.save(1, snapshot())
    partial = store.folder / ".partial-00000002"
    partial.mkdir()
    (partial / "training.pt").write_bytes(b"half")
    assert store.find("last").name == "step-00000001"
    store.save(3, snapshot())
    assert not partial.exists()


@pytest.mark.parametrize("name", ["model.safetensors", "training.pt", "process-00000.pt"])
def test_damage_is_found(store: CheckpointStore, name: str) -> None:
    folder = store.save(1, snapshot())
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=f"{name}' is damaged"):
        verify(folder)


def test_a_missing_file_is_named(store: CheckpointStore) -> None:
    folder = store.save(1, snapshot())
    (folder / "training.pt").unlink()
    with pytest.raises(CheckpointError, match="lacks 'training.pt'"):
        verify(folder)


def test_a_full_disk_loses_nothing(store: CheckpointStore, monkeypatch: pytest.MonkeyPatch) -> None:
    good = store.save(1, snapshot())

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module.os, "fsync", full)
    with pytest.raises(
        CheckpointError, match="step-00000002': No space left on device. Earlier checkpoints are unharmed"
    ):
        store.save(2, snapshot())
    monkeypatch.undo()
    verify(good)
    assert store.find("last") == good
    assert [path.name for path in store.folder.iterdir() if path.name.startswith(".partial")] == []


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, ("evil-was-here",))


def test_a_pickle_that_would_run_code_is_refused_and_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state": Evil()}, tmp_path / "training.pt")
    with pytest.raises(CheckpointError, match=r"training.pt' is refused"):
        read_tree(tmp_path / "training.pt")
    assert not (tmp_path / "evil-was-here").exists()


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04 half"])
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "training.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match="training.pt"):
        read_tree(tmp_path / "training.pt")


def test_a_damaged_index_is_named(store: CheckpointStore) -> None:
    store.save(1, snapshot())
    (store.folder / "index.json").write_text("{")
    with pytest.raises(CheckpointError, match="index.json' is damaged"):
        store.find("last")


def test_rows_are_put_together_from_any_number_of_processes(store: CheckpointStore) -> None:
    folder = store.save(1, snapshot())
    full = torch.arange(22.0).reshape(11, 2)
    for rank, (start, stop) in enumerate([(0, 4), (4, 8), (8, 11)]):
        tree = {"local": {}, "rows": {"weight": full[start:stop].clone()}, "row_range": [start, stop]}
        torch.save(tree, folder / f"process-{rank:05d}.pt")
    for start, stop in [(0, 11), (0, 6), (6, 11), (3, 9)]:
        assert torch.equal(read_rows(folder, start, stop)["weight"], full[start:stop])
    with pytest.raises(CheckpointError, match="has no class rows 11 to 12"):
        read_rows(folder, 6, 12)


def test_the_manifest_lists_every_file(store: CheckpointStore) -> None:
    folder = store.save(1, snapshot())
    listed = json.loads((folder / "manifest.json").read_text())["sha256"]
    assert {*listed, "manifest.json"} == {path.name for path in folder.iterdir()}
