import errno
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from facelab import distributed
from facelab.errors import CheckpointError
from facelab.weights import synced_files
from facelab.weights.checkpoint import CheckpointStore
from facelab.weights.checkpoint_index import CheckpointIndex
from facelab.weights.manifest import verify
from facelab.weights.snapshot import ClassRows, Snapshot, read_card, read_local, read_model, read_rows
from facelab.weights.tensor_files import read_tree

DAMAGED = ("model.json", "model.safetensors", "process-00000.pt", "training.pt")


def snapshot(value: float = 1.0, rows: int = 5) -> Snapshot:
    return Snapshot(
        model={"weight": torch.full((2, 3), value)},
        card={"format": 1},
        training={"update": 1, "nested": [{"tensor": torch.arange(3)}]},
        local={"rng": torch.get_rng_state()},
        rows={"classifier": ClassRows(0, rows, {"weight": torch.arange(rows * 2.0).reshape(rows, 2)})},
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


def test_without_scores_only_the_last_stays(store: CheckpointStore) -> None:
    for update in (1, 2, 3):
        store.save(update, snapshot())
    assert store.names() == ["step-00000003"]


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

    monkeypatch.setattr(synced_files.os, "fsync", full)
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


@pytest.fixture
def three(store: CheckpointStore) -> CheckpointStore:
    """Three checkpoints of which the first is kept, the second the best, and the third was the last."""
    store.save(1, snapshot(), score=0.5, keep=True)
    store.save(2, snapshot(), score=0.9)
    store.save(4, snapshot(), score=0.7)
    return store


@pytest.mark.parametrize(
    "content",
    [
        None,
        "",
        "{",
        "[]",
        "null",
        "[" * 100_000,
        '{"last": 4}',
        '{"last": "step-00000009"}',
        '{"last": null, "best": null, "best_score": null, "kept": []}',
        '{"last": "step-00000004", "kept": null}',
        '{"last": "step-00000004", "kept": ["../.."]}',
        '{"last": "step-00000004", "best": "step-00000002", "best_score": "high"}',
        '{"last": "step-00000004", "best": "step-00000002", "best_score": NaN}',
        '{"last": "step-00000004", "best": "step-00000002"}',
    ],
)
def test_an_index_that_is_lost_or_damaged_is_made_anew_and_deletes_nothing(
    three: CheckpointStore, content: str | None
) -> None:
    path = three.folder / "index.json"
    path.unlink()
    if content is not None:
        path.write_text(content)
    assert three.find("last").name == "step-00000004"
    assert three.find("best").name == "step-00000002"
    three.save(5, snapshot(), score=0.8)
    assert three.names() == ["step-00000001", "step-00000002", "step-00000004", "step-00000005"]
    assert three.find("best").name == "step-00000002"


def test_checkpoints_without_a_score_in_their_manifest_are_found_again_too(three: CheckpointStore) -> None:
    for path in three.folder.glob("*/manifest.json"):
        manifest = json.loads(path.read_text())
        del manifest["score"]  # as an earlier version wrote it
        path.write_text(json.dumps(manifest))
    (three.folder / "index.json").unlink()
    assert three.index() == CheckpointIndex(last="step-00000004", kept=three.names())


def test_folders_without_a_manifest_are_no_new_run(store: CheckpointStore) -> None:
    (store.save(1, snapshot()) / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match=r"no complete checkpoint: 'step-00000001' lacks manifest.json. Bring it"):
        store.index()


def test_the_best_of_equal_scores_is_the_first(store: CheckpointStore) -> None:
    store.save(1, snapshot(), score=0.5)
    store.save(2, snapshot(), score=0.5)
    assert store.find("best").name == "step-00000001"


def test_a_score_that_is_no_number_is_none(store: CheckpointStore) -> None:
    verify(store.save(1, snapshot(), score=float("nan")))
    assert store.index().best is None


def test_an_update_that_is_saved_twice_is_the_newer_one(store: CheckpointStore) -> None:
    store.save(3, snapshot(1.0), score=0.9)
    store.save(3, snapshot(2.0), score=0.8)
    assert torch.equal(read_model(store.find("last"))["weight"], torch.full((2, 3), 2.0))
    assert store.index().best_score == 0.8, "the score of what is there no more"


@pytest.mark.parametrize("which", ["step-2", "step-00000002", "best"])
def test_a_checkpoint_is_found_by_its_number(three: CheckpointStore, which: str) -> None:
    assert three.find(which) == three.folder / "step-00000002"


@pytest.mark.parametrize("which", ["step-", "../checkpoints/step-00000002", "step-2/../step-00000002", "kept", ""])
def test_what_is_no_name_of_a_checkpoint_is_refused(three: CheckpointStore, which: str) -> None:
    with pytest.raises(CheckpointError, match="has no checkpoint '.*'. There are: step-00000001, step-00000002, step-"):
        three.find(which)


def test_a_damaged_checkpoint_is_answered_with_the_unharmed_ones(three: CheckpointStore) -> None:
    for name in ("step-00000002/model.json", "step-00000004/training.pt"):
        (three.folder / name).write_bytes(b"damaged")
    with pytest.raises(
        CheckpointError,
        match=r"training.pt' is damaged: .* Unharmed: step-00000001; go on from one by --resume step-00000001\.",
    ):
        three.require_unharmed(three.find("last"))
    (three.folder / "step-00000001/model.json").unlink()
    with pytest.raises(CheckpointError, match="There is no unharmed one; start anew in another folder"):
        three.require_unharmed(three.find("last"))


def test_the_newest_of_the_unharmed_ones_is_offered(three: CheckpointStore) -> None:
    (three.folder / "step-00000004/training.pt").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match=r"Unharmed: step-00000001, step-00000002; .* --resume step-00000002\."):
        three.require_unharmed(three.find("last"))


def damage_that_two_find(folder: Path) -> list[str]:
    """What this process hears when one file after the other is damaged; each reads but its share of them."""
    store, heard = CheckpointStore(folder), []
    checkpoint = store.find("last")

    def write(path: Path, content: bytes) -> None:
        distributed.together(lambda: path.write_bytes(content) if distributed.is_main() else None)

    for name in DAMAGED:
        content = (checkpoint / name).read_bytes()
        write(checkpoint / name, b"damaged")
        try:
            store.require_unharmed(checkpoint)
            heard.append("nothing")
        except CheckpointError as error:
            heard.append(str(error))
        write(checkpoint / name, content)
    store.require_unharmed(checkpoint)
    return heard


def test_processes_that_share_the_files_find_any_damage(store: CheckpointStore) -> None:
    store.save(1, snapshot())
    for heard in distributed.run_processes(damage_that_two_find, 2, store.folder):
        assert [f"{name}' is damaged" in sentence for name, sentence in zip(DAMAGED, heard, strict=True)] == [True] * 4


@pytest.mark.parametrize("content", ["[]", "{}", '{"sha256": null}', '{"sha256": {"model.json": 1}}', "[" * 100_000])
def test_a_manifest_of_another_form_is_damaged(store: CheckpointStore, content: str) -> None:
    folder = store.save(1, snapshot())
    (folder / "manifest.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"manifest.json is missing or damaged"):
        verify(folder)


def test_only_the_files_that_are_read_need_to_be_unharmed(store: CheckpointStore) -> None:
    folder = store.save(1, snapshot())
    (folder / "process-00000.pt").write_bytes(b"damaged")
    verify(folder, ["model.safetensors", "model.json"])
    with pytest.raises(CheckpointError, match="process-00000.pt' is damaged"):
        verify(folder, ["process-00000.pt"])


@pytest.mark.parametrize("version", ["now", "0.1"])
def test_rows_are_put_together_from_any_number_of_processes(store: CheckpointStore, version: str) -> None:
    folder = store.save(1, snapshot())
    full = torch.arange(22.0).reshape(11, 2)
    for rank, (start, stop) in enumerate([(0, 4), (4, 8), (8, 11)]):
        rows = full[start:stop].clone()
        tree = {"rows": {"classifier": {"range": [start, stop], "tensors": {"weight": rows}}}}
        former = {"rows": {"classifier.weight": rows}, "row_range": [start, stop]}
        torch.save({"local": {}, **(tree if version == "now" else former)}, folder / f"process-{rank:05d}.pt")
    for start, stop in [(0, 11), (0, 6), (6, 11), (3, 9)]:
        assert torch.equal(read_rows(folder, start, stop)["weight"], full[start:stop])
    with pytest.raises(CheckpointError, match="has no class rows 11 to 12 of its classifier"):
        read_rows(folder, 6, 12)


def test_each_owner_has_rows_of_its_own(store: CheckpointStore) -> None:
    rows = {"classifier": ClassRows(0, 2, {"weight": torch.ones(2, 3)}), "queue": ClassRows(0, 4, {})}
    folder = store.save(1, replace(snapshot(), rows=rows | {"pool": ClassRows(0, 3, {"weight": torch.zeros(3, 1)})}))
    assert read_rows(folder, 0, 2)["weight"].shape == (2, 3)
    assert read_rows(folder, 1, 3, "pool")["weight"].shape == (2, 1)
    assert read_rows(folder, 0, 4, "queue") == {}


def test_a_checkpoint_without_rows_says_whose_are_missing(store: CheckpointStore) -> None:
    folder = store.save(1, replace(snapshot(), rows={}))
    with pytest.raises(CheckpointError, match="has no class rows 0 to 2 of its prototypes"):
        read_rows(folder, 0, 2, "prototypes")


def test_the_manifest_lists_every_file(store: CheckpointStore) -> None:
    folder = store.save(1, snapshot())
    listed = json.loads((folder / "manifest.json").read_text())["sha256"]
    assert {*listed, "manifest.json"} == {path.name for path in folder.iterdir()}


def test_rows_of_other_processes_are_not_read(store: CheckpointStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is mapped; of those that hold other rows, only their range is looked at."""
    folder, lazily = store.save(1, snapshot()), []
    load = torch.load

    def watched(*arguments: Any, **options: Any) -> Any:
        lazily.append(options["mmap"])
        return load(*arguments, **options)

    monkeypatch.setattr(torch, "load", watched)
    kept = read_rows(folder, 1, 3)["weight"]
    assert torch.equal(kept, torch.arange(10.0).reshape(5, 2)[1:3])
    assert read_local(folder)["processes"] == 1
    assert lazily == [True, True]
    for path in folder.iterdir():
        path.write_bytes(b"")
    assert torch.equal(kept, torch.arange(10.0).reshape(5, 2)[1:3]), "a copy, not the map"
