"""Files of ``torch.save`` that are small and would become large, deep or endless."""

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from facelab.errors import CheckpointError
from facelab.weights import torch_limits
from facelab.weights.published_file import read_state
from facelab.weights.tensor_files import read_tree
from facelab.weights.torch_limits import MAX_DEPTH, ROOM, check_limits, check_tensor_sizes


def archived(path: Path, data: bytes, compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("a/data.pkl", data)
        archive.writestr("a/byteorder", b"little")
        archive.writestr("a/version", b"3\n")
    return path


def legacy(path: Path, data: bytes) -> Path:
    head = (pickle.dumps(content, 2) for content in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
    path.write_bytes(b"".join(head) + data + pickle.dumps([], 2))
    return path


DEEP_KEY = b"\x80\x02}q\x00)" + b"\x85" * 500_000 + b"Ns."
DEEP_LISTS = b"\x80\x02}U\x01a" + b"]" * 70 + b"a" * 69 + b"s."
SHARED = (
    b"\x80\x02}U\x01a](NNNNNNNNNNeq\x00"
    + b"".join(b"](" + b"h" + bytes([n]) * 1 + (b"h" + bytes([n])) * 9 + b"eq" + bytes([n + 1]) for n in range(20))
    + b"s."
)
DEEP_BEHIND: Any = []  # between shallow items
for _ in range(70):
    DEEP_BEHIND = [None, DEEP_BEHIND, None]
LOOP = b"\x80\x02}q\x00U\x01ah\x00sh\x00U\x01bNs0."


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", [archived, legacy])
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (DEEP_KEY, "nested more than 64 deep"),
        (DEEP_LISTS, "nested more than 64 deep"),
        (pickle.dumps({"a": DEEP_BEHIND}, 2), "nested more than 64 deep"),
        (SHARED, "more than 10,000,000 values"),
        (LOOP, "changes what it has put into something else"),
    ],
)
def test_pickle_is_refused(tmp_path: Path, form: Any, data: bytes, reason: str) -> None:
    with pytest.raises(CheckpointError, match=f"a.pt' is refused: it .*{reason}; nothing of it was run"):
        read_tree(form(tmp_path / "a.pt", data))


@pytest.mark.parametrize("name", ["a/DATA.PKL", "a/Data.pkl"])
def test_names_of_members_count_in_either_case(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr(name, DEEP_KEY)
        archive.writestr("a/version", b"3\n")
    with pytest.raises(CheckpointError, match="nested more than 64 deep"):
        read_tree(tmp_path / "a.pt")


@pytest.mark.parametrize(
    ("content", "place", "value"), [(b"?", 0, 80), (b"}.", 8, 0x20), (b"}.", 6, 99), (b"}.", 16, 0)]
)
def test_a_damaged_member_does_not_hide_the_others(tmp_path: Path, content: bytes, place: int, value: int) -> None:
    """Nothing looked at what PyTorch reads where an earlier member could not be read."""
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr("a/first.pkl", content)
        archive.writestr("a/data.pkl", DEEP_KEY)
        archive.writestr("a/version", b"3\n")
    data = bytearray((tmp_path / "a.pt").read_bytes())
    data[data.index(b"PK\1\2") + place] = value
    (tmp_path / "a.pt").write_bytes(data)
    with pytest.raises(CheckpointError, match=r"a.pt' is not a readable checkpoint: it"):
        read_tree(tmp_path / "a.pt")


def test_a_second_directory_is_refused(tmp_path: Path) -> None:
    """Python looks for it before the end, PyTorch where the end says."""
    evil = archived(tmp_path / "a.pt", DEEP_KEY).read_bytes()
    good = archived(tmp_path / "b.pt", pickle.dumps({"a": 1}, 2)).read_bytes()
    (tmp_path / "a.pt").write_bytes(evil[:-22] + good[:-22] + evil[-22:])
    with pytest.raises(CheckpointError, match="its archive is damaged .its directory does not lie at its end"):
        read_tree(tmp_path / "a.pt")


def test_number_of_operations_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_limits, "MAX_OPERATIONS", 1000)
    with pytest.raises(CheckpointError, match="more than 1,000 operations"):
        read_tree(archived(tmp_path / "a.pt", b"\x80\x02}U\x01a](" + b"N" * 1000 + b"es."))


def test_compressed_and_overlapping_archives_are_refused(tmp_path: Path) -> None:
    sound = pickle.dumps({"a": 1}, 2)
    with pytest.raises(CheckpointError, match="its archive is compressed"):
        read_tree(archived(tmp_path / "a.pt", sound, zipfile.ZIP_DEFLATED))
    file = archived(tmp_path / "b.pt", sound)
    data = bytearray(file.read_bytes())
    at = data.index(b"PK\x01\x02")
    data[at + 20 : at + 28] = len(data).to_bytes(4, "little") * 2
    file.write_bytes(data)
    with pytest.raises(CheckpointError, match="members of its archive are larger than the file"):
        read_tree(file)


def test_what_programs_save_is_within_the_limits(tmp_path: Path) -> None:
    network = torch.nn.Sequential(*(torch.nn.Linear(4, 4) for _ in range(100)))
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    shared = [1, 2, 3]
    nested: Any = []
    for _ in range(MAX_DEPTH - 10):
        nested = [nested]
    tree = {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "a": shared, "b": shared, "c": nested}
    for zipped in (True, False):
        torch.save(tree, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
        check_limits(tmp_path / "a.pt")
        assert read_tree(tmp_path / "a.pt")["b"] == shared


def test_expanded_tensors_are_refused(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(1).expand(1 << 36)}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"tensors would take 274,877,906,944 bytes, but the file has only"):
        read_state(str(tmp_path / "a.pt"))
    torch.save({"w": torch.zeros(1).expand(1000), "v": torch.zeros(3)}, tmp_path / "b.pt")
    assert read_state(str(tmp_path / "b.pt"))["w"].shape == (1000,)


def test_tensors_may_be_shared_four_times_over(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(bytes(1000))
    check_tensor_sizes(tmp_path / "a.pt", [4000, ROOM])
    with pytest.raises(CheckpointError, match="but the file has only 1,000"):
        check_tensor_sizes(tmp_path / "a.pt", [4000, ROOM, 1])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("tensor", "reason"),
    [
        (lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "1 nested"),
        (lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8), "1 quantised"),
        (lambda: torch.ones(2, dtype=torch.complex64), "1 of type complex64"),
        (lambda: torch.ones((1,) * 20), "1 of 20 dimensions"),
        (lambda: torch.ones(2).to_sparse(), "1 sparse or without values"),
    ],
)
def test_odd_tensors_are_named(tmp_path: Path, tensor: Any, reason: str) -> None:
    torch.save({"w": tensor(), "v": torch.ones(2)}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=rf"no network can use: {reason} \('w'\)"):
        read_state(str(tmp_path / "a.pt"))


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.bfloat16])
def test_small_floats_are_read(tmp_path: Path, dtype: torch.dtype) -> None:
    torch.save({"w": torch.tensor([0.5, -2.0]).to(dtype)}, tmp_path / "a.pt")
    assert read_state(str(tmp_path / "a.pt"))["w"].tolist() == [0.5, -2.0]
    torch.save({"w": torch.tensor([0.5, torch.nan]).to(dtype)}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="1 with NaN or infinity"):
        read_state(str(tmp_path / "a.pt"))


def test_storage_that_is_larger_than_its_record_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"w": torch.zeros(77)}, buffer)
    data = buffer.getvalue().replace(b"K\x4d", b"K\xff")  # the numbers of elements
    (tmp_path / "a.pt").write_bytes(data)
    with pytest.raises(CheckpointError, match="a.pt' is not a readable checkpoint: "):
        read_state(str(tmp_path / "a.pt"))
