"""Files from outside, mutated: whatever they hold, what comes is the content or a `FacelabError`, soon and in bounds.

Small sound files of every binary or structured kind are changed in ways that damage and malice have in common: bits
flip, parts are cut out, repeated, zeroed or exchanged for large numbers. Memory is limited meanwhile, so that a reader
that believes a size ends in a `MemoryError`. The long version takes minutes: ``bash tests/run.sh -m slow``.
"""

import gzip
import io
import json
import pickle
import resource
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from safetensors.torch import save
from scipy.io import savemat

from facelab.data.alignment.landmarks import read_landmarks
from facelab.data.base import ImageSet
from facelab.data.formats.images import PathImages, decode_file
from facelab.data.formats.record_writer import record_writer
from facelab.data.formats.records import Record
from facelab.data.shards.ranged_file import LocalFile
from facelab.data.shards.tar_index import Fields, index_tar, read_index
from facelab.data.sources.image_list import open_list
from facelab.data.sources.open_source import open_source
from facelab.data.sources.packed import Packed, write_packed
from facelab.data.sources.recordio import RecordIO
from facelab.data.sources.webdataset import WebDataset
from facelab.errors import FacelabError
from facelab.outside.json import read_json
from facelab.test_protocol.base import Metric, Report
from facelab.test_protocol.extraction.embedding_cache import EmbeddingCache
from facelab.test_protocol.extraction.extraction import Block
from facelab.test_protocol.lists.megaface_lists import read_feature_list
from facelab.test_protocol.protocols.agedb import read_agedb
from facelab.test_protocol.protocols.bin_pack import PackImages
from facelab.test_protocol.report.report_store import read_reports, write_reports
from facelab.weights.manifest import verify
from facelab.weights.published_file import read_state
from facelab.weights.snapshot import read_card
from facelab.weights.tensor_files import read_tree

ROOM = 3 << 30  # bytes of address space beside what the process has already
NUMBERS = (0, 1, 0x7F, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 40, (1 << 62) + 1, (1 << 63) - 1, -1)


@dataclass(frozen=True)
class Mutation:
    """One change of a file, wherever it is possible."""

    kind: str
    place: float
    length: int
    number: int

    def of(self, data: bytes) -> bytes:
        at = int(self.place * len(data))
        before, part, after = data[:at], data[at : at + self.length], data[at + self.length :]
        if self.kind == "flip" and part:
            return before + bytes([part[0] ^ (1 << self.number % 8)]) + data[at + 1 :]
        if self.kind == "number":
            width = (1, 2, 4, 8)[self.length % 4]
            order = "little" if self.length % 8 < 4 else "big"
            value = (NUMBERS[self.number % len(NUMBERS)] % (1 << (8 * width))).to_bytes(width, order)  # type: ignore[arg-type]
            return before + value + data[at + width :]
        return {
            "cut": before,
            "remove": before + after,
            "zero": before + bytes(len(part)) + after,
            "repeat": before + part * (2 + self.number % 3) + after,
            "insert": before + self.number.to_bytes(4, "big") + part + after,
            "digits": before + str(NUMBERS[self.number % len(NUMBERS)]).encode() + after,
            "brackets": before + b'[{"a":('[self.number % 4 : self.number % 4 + 1] * 3000 + after,
        }.get(self.kind, data)


KINDS = ("flip", "number", "cut", "remove", "zero", "repeat", "insert", "digits", "brackets")
MUTATIONS = st.lists(
    st.builds(
        Mutation, st.sampled_from(KINDS), st.floats(0, 0.999), st.integers(1, 300), st.integers(0, (1 << 32) - 1)
    ),
    min_size=1,
    max_size=4,
)


@contextmanager
def limited_memory() -> Iterator[None]:
    """Address space of this process as it is and `ROOM`, where the system says how much that is."""
    sizes, before = Path("/proc/self/statm"), resource.getrlimit(resource.RLIMIT_AS)
    if not sizes.exists():
        yield
        return
    used = int(sizes.read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def picture(seed: int = 0, side: int = 24) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)


def encoded(suffix: str, *options: int) -> bytes:
    smooth = cv2.GaussianBlur(picture(), (5, 5), 2)
    return bytes(cv2.imencode(suffix, smooth, list(options))[1])


def tar(mode: str = "w", form: int = tarfile.PAX_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode, format=form) as archive:
        for name in ("ann/1.png", "ann/2.png", "b" * 110 + "/é.png"):
            member = tarfile.TarInfo(name)
            member.size = len(encoded(".png"))
            archive.addfile(member, io.BytesIO(encoded(".png")))
    return file.getvalue()


def shard() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        labels = {"1.cls": b"0", "2.json": b'{"label": 1}', "b" * 110 + "/é.cls": b"2"}
        for name, content in labels.items():
            for part, data in ((name.partition(".")[0] + ".png", encoded(".png")), (name, content)):
                member = tarfile.TarInfo(part)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    return file.getvalue()


def lmdb() -> bytes:
    return gzip.decompress((Path(__file__).parent / "golden" / "lmdb" / "hsface.lmdb.gz").read_bytes())


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("ann/1.png", "ben/2.png"):
            archive.writestr(name, encoded(".png"))
    return file.getvalue()


def matlab(compressed: bool) -> bytes:
    cells = np.empty((2, 3), object)
    for row, column in np.ndindex(2, 3):
        cells[row, column] = {"name": f"{row}_{column}"}
    splits = np.empty((2, 1), object)
    for number in range(2):
        splits[number, 0] = {"pairs": cells, "labels": np.array([[1, -1, 1]])}
    file = io.BytesIO()
    savemat(file, {"splits": splits}, do_compression=compressed)
    return file.getvalue()


def torch_file(**options: Any) -> bytes:
    file = io.BytesIO()
    torch.save({"state_dict": {"a.weight": torch.ones(2, 3), "a.bias": torch.zeros(2)}, "epoch": 3}, file, **options)
    return file.getvalue()


def reports(folder: Path) -> bytes:
    curve = {"far": np.array([0.0, 1.0]), "tar": np.array([0.5, 1.0]), "threshold": np.array([0.9, 0.1])}
    return write_reports(
        folder, {"model": [Report("LFW", (Metric("accuracy", 0.5),), {"flip": True}, curve, {}, ())]}
    ).read_bytes()


def bin_pack(protocol: int) -> bytes:
    content: Any = (
        [encoded(".png"), np.frombuffer(encoded(".jpg"), np.uint8), picture(), b""],
        [True, np.bool_(False)],
    )
    return pickle.dumps(content, protocol)


def records(folder: Path) -> Path:
    with record_writer(folder / "a.rec") as writer:
        for key in range(3):
            writer.write(key, Record(np.array([float(key)], np.float32), True, encoded(".png")).packed())
    return folder / "a.rec"


def read_all(images: ImageSet) -> None:
    for row in range(min(len(images), 20)):
        with suppress(FacelabError):
            images.read(row)


def image(path: Path) -> object:
    return decode_file(path)


def source(path: Path) -> None:
    read_all(open_source(path))


def torch_state(path: Path) -> object:
    with suppress(FacelabError):
        read_tree(path)
    return read_state(str(path))


def index_of_records(path: Path) -> None:
    folder = path.parent / "whole"
    if not folder.exists():
        folder.mkdir()
        records(folder)
    read_all(RecordIO(folder / "a.rec", path))


def shard_file(folder: Path) -> LocalFile:
    (folder / "whole.tar").write_bytes(shard())
    return LocalFile(folder / "whole.tar")


def index_of_shard(path: Path) -> None:
    file = shard_file(path.parent)
    with suppress(ValueError):  # who asks makes the index anew
        index = read_index(path.read_bytes(), file)
        for row in range(min(len(index.names), 20)):
            index.content(row, file)


def packed_with(path: Path, part: str) -> None:
    folder = path.parent / "packed"
    if not folder.exists():
        (path.parent / "faces" / "p").mkdir(parents=True)
        (path.parent / "faces" / "p" / "1.png").write_bytes(encoded(".png"))
        write_packed(folder, open_source(path.parent / "faces"))
    sound = (folder / part).read_bytes()
    (folder / part).write_bytes(path.read_bytes())
    try:
        read_all(Packed(folder))
    finally:
        (folder / part).write_bytes(sound)


def sound_packed(folder: Path, part: str) -> bytes:
    folder = folder / part
    (folder / "faces" / "p").mkdir(parents=True)
    (folder / "faces" / "p" / "1.png").write_bytes(encoded(".png"))
    write_packed(folder / "packed", open_source(folder / "faces"))
    return (folder / "packed" / part).read_bytes()


def cached(path: Path) -> object:
    cache = EmbeddingCache(path.parent / "embeddings", [range(3)])
    cache.folder.mkdir(exist_ok=True)
    path.replace(cache.path(range(3)))
    return cache.load(range(3), True)


def sound_cache(folder: Path) -> bytes:
    cache = EmbeddingCache(folder / "embeddings", [range(3)])
    cache.save(Block(range(3), np.ones((3, 4), np.float32), np.ones((3, 4), np.float32), ((1, "broken"),)))
    return cache.path(range(3)).read_bytes()


def beside_images(path: Path) -> None:
    (path.parent / "a.png").write_bytes(encoded(".png"))
    path.replace(path.parent / "alignment.json")
    PathImages(path.parent, ["a.png"])


def landmark_lines() -> bytes:
    return b"".join(b"a/%d.png 30 40 70 40 50 60 35 80 65 80\n" % row for row in range(3))


def landmark_json() -> bytes:
    return json.dumps({"a.png": [[30, 40], [70, 40], [50, 60], [35, 80], [65, 80.5]]}).encode()


def card(path: Path) -> None:
    path.replace(path.parent / "model.json")
    read_card(path.parent)


def manifest(path: Path) -> None:
    path.replace(path.parent / "manifest.json")
    verify(path.parent)


def alignment() -> bytes:
    return json.dumps(
        {"template": "ArcFace", "form": "scaled", "size": 112, "template_hash": "0" * 64, "landmarks_hash": "0" * 64}
    ).encode()


@dataclass(frozen=True)
class Kind:
    """A kind of file: what is sound, and who reads it."""

    name: str
    sound: Callable[[Path], bytes]
    read: Callable[[Path], object]


def packed_kind(part: str) -> Kind:
    return Kind("part", lambda folder: sound_packed(folder, part), lambda path: packed_with(path, part))


FILES = {
    "png": Kind("a.png", lambda _: encoded(".png"), image),
    "jpeg": Kind("a.jpg", lambda _: encoded(".jpg"), image),
    "progressive jpeg": Kind("a.jpg", lambda _: encoded(".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1), image),
    "restarted jpeg": Kind("a.jpg", lambda _: encoded(".jpg", cv2.IMWRITE_JPEG_RST_INTERVAL, 1), image),
    "bmp": Kind("a.bmp", lambda _: encoded(".bmp"), image),
    "webp": Kind("a.webp", lambda _: encoded(".webp"), image),
    "tiff": Kind("a.tiff", lambda _: encoded(".tiff"), image),
    "ppm": Kind("a.ppm", lambda _: encoded(".ppm"), image),
    "tar": Kind("a.tar", lambda _: tar(), source),
    "gnu tar": Kind("a.tar", lambda _: tar(form=tarfile.GNU_FORMAT), source),
    "tar.gz": Kind("a.tar.gz", lambda _: gzip.compress(tar(), mtime=0), source),
    "zip": Kind("a.zip", lambda _: zipped(), source),
    "mat": Kind("a.mat", lambda _: matlab(False), read_agedb),
    "compressed mat": Kind("a.mat", lambda _: matlab(True), read_agedb),
    "bin 0": Kind("a.bin", lambda _: bin_pack(0), lambda path: read_all(PackImages(path))),
    "bin 2": Kind("a.bin", lambda _: bin_pack(2), lambda path: read_all(PackImages(path))),
    "bin 5": Kind("a.bin", lambda _: bin_pack(5), lambda path: read_all(PackImages(path))),
    "pt": Kind("a.pt", lambda _: torch_file(), torch_state),
    "old pt": Kind("a.pt", lambda _: torch_file(_use_new_zipfile_serialization=False), torch_state),
    "safetensors": Kind("a.safetensors", lambda _: save({"a": torch.ones(2, 3)}), lambda path: read_state(str(path))),
    "rec": Kind("a.rec", lambda folder: records(folder).read_bytes(), source),
    "idx": Kind("a.idx", lambda folder: records(folder).with_suffix(".idx").read_bytes(), index_of_records),
    "lmdb": Kind("a.lmdb", lambda _: lmdb(), source),
    "shard": Kind("a.tar", lambda _: shard(), lambda path: read_all(WebDataset(str(path)))),
    "index of a shard": Kind("a.npz", lambda folder: index_tar(shard_file(folder), Fields()).packed(), index_of_shard),
    "packed labels": Kind(
        "labels", lambda folder: sound_packed(folder, "labels.npy"), lambda path: packed_with(path, "labels.npy")
    ),
    "packed meta": Kind(
        "meta", lambda folder: sound_packed(folder, "meta.json"), lambda path: packed_with(path, "meta.json")
    ),
    "packed pixels": Kind(
        "pixels", lambda folder: sound_packed(folder, "images.u8"), lambda path: packed_with(path, "images.u8")
    ),
    "embeddings": Kind("a.npz", sound_cache, cached),
    "json": Kind("a.json", lambda _: b'{"a": [1, 2.5, null, {"b": "c"}]}', lambda path: read_json(path, "a file")),
    "report": Kind("report.json", reports, read_reports),
    "alignment": Kind("a.json", lambda _: alignment(), beside_images),
    "landmarks": Kind("a.txt", lambda _: landmark_lines(), read_landmarks),
    "landmarks in JSON": Kind("a.json", lambda _: landmark_json(), read_landmarks),
    "MegaFace": Kind("a.json", lambda _: b'{"path": ["a/1.png", "b/2.png"], "id": ["a", "b"]}', read_feature_list),
    "card": Kind("a.json", lambda _: b'{"network": {"IResNet": {}}, "input": {"height": 112}}', card),
    "manifest": Kind("a.json", lambda _: b'{"update": 1, "sha256": {"model.safetensors": "00"}}', manifest),
    "list": Kind("a.txt", lambda _: b"a/1.png 0\na/2.png 0\nb/1.png 1\n", lambda path: list(open_list(path))),
    "lst": Kind("a.lst", lambda _: b"0\t0.0\ta/1.png\n1\t1.0\tb/1.png\n", lambda path: list(open_list(path))),
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], bytes]:
    return cache(lambda name: FILES[name].sound(tmp_path_factory.mktemp("sound")))


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FACELAB_CACHE", str(tmp_path / "cache"))


def outcome(kind: Kind, data: bytes, folder: Path) -> str:
    """``content`` or the sentence; anything else leaves."""
    path = folder / kind.name
    path.write_bytes(data)
    try:
        with limited_memory():
            kind.read(path)
    except FacelabError as error:
        sentence = str(error)
    else:
        return "content"
    assert 0 < len(sentence) < 2000
    return sentence


@pytest.mark.filterwarnings("ignore")  # of PyTorch, about protocols that a damaged byte announces
@pytest.mark.parametrize("name", FILES)
def test_sound_files_are_read(name: str, sound: Callable[[str], bytes], tmp_path: Path) -> None:
    expected = "lacks 'model.safetensors'" if name == "manifest" else "content"
    assert expected in outcome(FILES[name], sound(name), tmp_path)


def fuzz(name: str, data: bytes, folder: Path, examples: int) -> None:
    @settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(MUTATIONS)
    def only_sentences_leave(mutations: list[Mutation]) -> None:
        spoilt = data
        for mutation in mutations:
            spoilt = mutation.of(spoilt)
        outcome(FILES[name], spoilt, folder)

    only_sentences_leave()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FILES)
def test_only_sentences_leave(name: str, sound: Callable[[str], bytes], tmp_path: Path) -> None:
    fuzz(name, sound(name), tmp_path, 40)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FILES)
def test_only_sentences_leave_in_the_long_run(name: str, sound: Callable[[str], bytes], tmp_path: Path) -> None:
    fuzz(name, sound(name), tmp_path, 3000)
