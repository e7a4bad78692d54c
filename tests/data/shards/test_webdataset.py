"""WebDataset: the same images from this disk and from a web server, with any faults, in any order, in any process."""

import os
import pickle
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from facelab.data.base import SAMPLERS, SOURCES
from facelab.data.loading.loader import Loader
from facelab.data.loading.shard_shuffle import ShardShuffle
from facelab.data.shards import kept_index, tar_index
from facelab.data.shards.ranged_file import LocalFile
from facelab.data.sources import webdataset
from facelab.data.sources.concat import Concat
from facelab.data.sources.open_source import open_source
from facelab.data.sources.resized import Resized
from facelab.data.sources.webdataset import WebDataset
from facelab.errors import ConfigError, CorruptImage, DataError
from facelab.run.assembly import open_loader
from facelab.run.assembly import open_source as open_training_source
from facelab.run.settings import load_config
from facelab.threads import Reader

TINY = str(Path(__file__).parents[2] / "tiny_run.yaml")

SHARDS, EACH = 3, 40


@pytest.fixture
def shards(tmp_path: Path, server: Any, tar_of: Callable[..., Path], picture: Any, png: Any) -> str:
    """Three shards of 40 images of seven people in the folder of the server; image n is ``picture(n)``."""
    for shard in range(SHARDS):
        files = {}
        for n in range(shard * EACH, (shard + 1) * EACH):
            files |= {f"p/{n:04d}.png": png(picture(n)), f"p/{n:04d}.cls": str(n % 7).encode()}
        tar_of(server.folder / f"train-{shard:04d}.tar", files)
    return f"{server.folder}/train-{{0000..0002}}.tar"


def remote(server: Any, **options: Any) -> WebDataset:
    return WebDataset(f"{server.url}/train-{{0000..0002}}.tar", attempts=4, timeout=5.0, pause=0.001, **options)


def test_images_and_labels_are_those_of_the_shards(shards: str, picture: Any) -> None:
    source = SOURCES.build("WebDataset", {"shards": shards})
    assert (len(source), source.num_classes) == (SHARDS * EACH, 7)
    assert np.array_equal(source.labels, np.arange(SHARDS * EACH) % 7)
    for n in (0, 39, 40, 119):
        assert np.array_equal(source.read(n), picture(n))
    assert np.array_equal(source.read(-1), picture(119))
    assert source.name(41) == "train-0001.tar/p/0041.png"
    assert source.location(41) == f"{shards.replace('{0000..0002}', '0001')}/p/0041.png"
    assert np.array_equal(pickle.loads(pickle.dumps(source)).read(41), picture(41))
    for other in (Path(shards).parent, shards, str(Path(shards).parent / "*.tar")):
        assert open_source(other).fingerprint() == source.fingerprint()
    assert isinstance(open_source(shards.replace("{0000..0002}", "0001")), WebDataset)


def test_a_web_server_gives_the_same_whatever_it_does(shards: str, server: Any) -> None:
    local, faults = WebDataset(shards), ["drop", "cut", "whole", "503", "other part"]
    server.faults = ["drop", "cut", "503"]  # no more than a shard has tries, as three are opened at once
    away = remote(server)
    assert away.fingerprint() == local.fingerprint()
    assert away.people_hash() == local.people_hash()
    for n, fault in zip(range(0, 120, 7), faults * 4, strict=False):
        server.faults = [fault] * 3
        assert away.encoded(n) == local.encoded(n)
        assert n > 14 or not server.faults  # later ones come out of a run that was read at once
    copy = pickle.loads(pickle.dumps(away))
    assert copy.encoded(77) == local.encoded(77)


def test_shards_are_indexed_once(shards: str, server: Any, cache: Path) -> None:
    first = remote(server)
    server.asked.clear()
    second = remote(server)
    assert second.fingerprint() == first.fingerprint()
    assert [part for _, part in server.asked] == ["bytes=0-0"] * SHARDS  # that they are still the same
    server.etag = '"2"'
    server.asked.clear()
    remote(server)
    assert len(server.asked) > SHARDS * 2
    for kept in cache.glob("*.npz"):
        kept.write_bytes(b"damaged")
    assert remote(server).fingerprint() == first.fingerprint()


def test_an_index_beside_a_shard_saves_reading_it(shards: str, server: Any, cache: Path) -> None:
    local = WebDataset(shards)
    for file, index in local.shards:
        Path(f"{file.name}.index").write_bytes(index.packed())
    for kept in cache.glob("*.npz"):
        kept.unlink()
    away = remote(server)
    assert away.fingerprint() == local.fingerprint()
    assert sum(part.startswith("bytes=0-") and path.endswith(".tar") for path, part in server.asked) == SHARDS
    for other in (b"hello", b"", bytes(1 << 24)):
        for kept in cache.glob("*.npz"):
            kept.unlink()
        (server.folder / "train-0001.tar.index").write_bytes(other)
        assert remote(server).fingerprint() == local.fingerprint()
    (server.folder / "train-0001.tar.index").write_bytes((server.folder / "train-0000.tar.index").read_bytes())
    for kept in cache.glob("*.npz"):
        kept.unlink()
    with pytest.raises(DataError, match="train-0001"):  # an image is read with its name
        remote(server).encoded(EACH)
    server.asked.clear()
    signed = WebDataset(f"{server.url}/train-{{0000..0002}}.tar?signature=7", attempts=1, timeout=5.0)
    assert signed.fingerprint() == local.fingerprint()
    assert not any("index" in path for path, _ in server.asked), "a signature is for one file"


def test_an_index_that_is_older_than_its_shard_is_not_taken(
    shards: str, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    local = WebDataset(shards)
    (file, index), *_ = local.shards
    shard, beside = Path(file.name), Path(f"{file.name}.index")
    beside.write_bytes(index.packed())
    content = bytearray(shard.read_bytes())
    with tarfile.open(shard) as tar:
        place = tar.getmember("p/0003.cls").offset_data
    content[place : place + 1] = b"6"  # a label that is corrected, in its place
    shard.write_bytes(content)
    for age, label in ((1, 6), (0, 3)):
        for kept in cache.glob("*.npz"):
            kept.unlink()
        now = shard.stat().st_mtime_ns
        os.utime(beside, ns=(now, now - age))
        assert WebDataset(shards).labels[:4].tolist() == [0, 1, 2, label]
    assert caplog.messages == [f"{beside}: is older than its shard; it is made anew."]


def test_neighbours_are_read_together_and_others_alone(
    shards: str, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webdataset, "RUN", 20 << 10)
    local, away = WebDataset(shards), remote(server)
    assert len(away._runs) > 2 * SHARDS
    assert np.array_equal(away._runs, local._runs)

    def requests(sampler: str, **options: Any) -> int:
        server.asked.clear()
        rows = SAMPLERS.build(sampler, options, labels=away.labels, seed=0, runs=away.runs).rows(0, 0, 120)
        assert [away.encoded(row) for row in rows.tolist()] == [local.encoded(row) for row in rows.tolist()]
        return len(server.asked)

    assert requests("ShardShuffle", buffer=30) <= 3 * len(away._runs)
    away._cache, away._history = type(away._cache)(1, len), 1
    assert requests("Shuffle") >= 110


@pytest.mark.parametrize(("workers", "reader"), [(1, "auto"), (3, "auto"), (2, "processes")])
def test_batches_are_the_same_with_any_workers_after_a_restart_and_of_two_processes(
    shards: str, server: Any, workers: int, reader: Reader
) -> None:
    def batches(
        source: Any, start: int = 0, rank: int = 0, world: int = 1, reader: Reader = reader
    ) -> list[tuple[list[int], int]]:
        sampler = SAMPLERS.build("ShardShuffle", {"buffer": 30}, labels=source.labels, seed=1, runs=source.runs)
        loader = Loader(source, sampler, batch_size=20, rank=rank, world_size=world, workers=workers, reader=reader)
        return [(batch.index.tolist(), int(batch.image.sum())) for batch in loader.batches(2, start)]

    expected, away = batches(WebDataset(shards), reader="threads"), remote(server)
    server.faults = ["cut", "503", "drop"]
    assert batches(away) == expected
    assert (away.keeps_runs, WebDataset(shards).keeps_runs) == (True, False)
    assert batches(away, 3, reader="threads") == expected[3:]
    halves = zip(*(batches(away, rank=rank, world=2, reader="threads") for rank in (0, 1)), strict=True)
    assert [left + right for (left, _), (right, _) in halves] == [rows for rows, _ in expected]


@pytest.mark.parametrize("reader", ["threads", "processes"])
def test_a_server_that_is_lost_stops_the_run_and_skips_nothing(reader: Reader, shards: str, server: Any) -> None:
    away = remote(server)
    sampler = SAMPLERS.build("Sequential", {}, labels=away.labels, seed=0)
    loader = Loader(away, sampler, batch_size=20, workers=2, reader=reader, on_corrupt="skip")
    server.always = "cut"
    with pytest.raises(
        DataError, match=r"train-0000\.tar: bytes \d+ to \d+ cannot be read: 4 tries in .* s ended with"
    ):
        list(loader.batches(0))
    assert not loader.corrupt.count


def test_a_bad_shard_is_told_before_all_others_are_read(shards: str, server: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(kept_index, "OPENERS", 1)
    (server.folder / "train-0000.tar").write_bytes(b"no tar" * 1000)
    with pytest.raises(DataError, match=r"train-0000\.tar: is not an uncompressed tar archive"):
        remote(server)
    # What was opened meanwhile gives up at its next block; without that, each would be read to its end.
    stop = threading.Event()
    stop.set()
    with pytest.raises(DataError, match="reading was given up"):
        tar_index.index_tar(LocalFile(server.folder / "train-0001.tar"), tar_index.Fields(), stop)


def test_a_corrupt_image_is_named_and_a_changed_shard_refused(shards: str, server: Any) -> None:
    source = WebDataset(shards)
    path, row = Path(source.shards[1][0].name), 5
    place = int(source.shards[1][1].places[row])
    data = bytearray(path.read_bytes())
    data[place : place + 60] = bytes(60)
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"train-0001\.tar: has changed since it was opened"):
        source.read(EACH + row)
    with pytest.raises(CorruptImage, match=r"train-0001\.tar/p/0045\.png: "):
        WebDataset(shards).read(EACH + row)


def test_a_process_that_was_forked_reads_on_its_own(shards: str, server: Any) -> None:
    away, local = remote(server), WebDataset(shards)
    away.encoded(3)
    child = os.fork()
    if not child:
        with away._cache._lock:
            pass
        os._exit(0 if all(away.encoded(3) == local.encoded(3) for _ in range(5)) else 1)
    assert all(away.encoded(4) == local.encoded(4) for _ in range(5))
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files where the system shows them")
def test_epochs_leave_no_connection_open(shards: str, server: Any) -> None:
    away = remote(server)
    sampler = SAMPLERS.build("Shuffle", {}, labels=away.labels, seed=0)
    loader = Loader(away, sampler, batch_size=10, workers=3)
    counts = []
    for epoch in range(5):
        list(loader.batches(epoch))
        counts.append(len(list(Path("/proc/self/fd").iterdir())))
    assert (
        max(counts[1:]) <= counts[0] + 8
    )  # both ends of the connections are in this process, and close a little later


def test_a_run_gives_the_runs_of_its_source_to_the_sampler(shards: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webdataset, "RUN", 20 << 10)
    options = [f"data.source={{WebDataset: {{shards: '{shards}'}}}}", "data.sampler=ShardShuffle", "data.size=[12, 10]"]
    config = load_config(TINY, options)
    source = open_training_source(config)
    sampler = open_loader(config, source, torch.device("cpu"), None)._sampler
    assert isinstance(sampler, ShardShuffle)
    assert np.array_equal(sampler._first, source.runs)


def test_other_sources_keep_the_runs(shards: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webdataset, "RUN", 20 << 10)
    source = WebDataset(shards)
    assert np.array_equal(Resized(source, 8, 8).runs, source.runs)
    both = Concat([source, source])
    assert np.array_equal(both.runs, np.concatenate([source._runs, 120 + source._runs]))


def test_labels_with_gaps_and_strange_options_are_refused(
    tmp_path: Path, tar_of: Callable[..., Path], png: Any, picture: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = png(picture(0))
    path = tar_of(tmp_path / "a.tar", {"1.png": image, "1.cls": b"4", "2.png": image, "2.cls": b"9"})
    with pytest.raises(DataError, match=r"a\.tar: class 0 has no image; .*relabel: true"):
        WebDataset(str(path))
    assert WebDataset(str(path), relabel=True).labels.tolist() == [0, 1]
    with pytest.raises(ConfigError, match="cache_mb is 0"):
        WebDataset(str(path), cache_mb=0)
    with pytest.raises(DataError, match=r"b\.tar: cannot be opened \(No such file"):
        WebDataset(str(tmp_path / "b.tar"))
    monkeypatch.setattr(tar_index, "MOST_SAMPLES", 1)
    with pytest.raises(DataError, match="holds more than 1 samples"):
        WebDataset(str(path), label="cls")
    monkeypatch.setenv("FACELAB_CACHE", str(path))
    with pytest.raises(DataError, match="set FACELAB_CACHE to another folder"):
        WebDataset(str(path))
