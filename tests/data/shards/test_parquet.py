"""Parquet: row groups from this disk and from a web server, and files that are others than they should be."""

import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from facelab.data.base import SAMPLERS, SOURCES
from facelab.data.loading.loader import Loader
from facelab.data.shards import parquet_file
from facelab.data.sources.open_source import open_source
from facelab.data.sources.parquet import Parquet
from facelab.errors import ConfigError, CorruptImage, DataError

pytestmark = pytest.mark.extras
pyarrow = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

COUNT, GROUP = 50, 12
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(path: Path | None = None, group: int = GROUP, **columns: Any) -> Path:
        target = tmp_path / "a.parquet" if path is None else path
        pq.write_table(pyarrow.table(columns), target, row_group_size=group)
        return target

    return written


@pytest.fixture
def images(png: Any, picture: Any) -> list[bytes]:
    return [png(picture(n)) for n in range(COUNT)]


def published(images: list[bytes]) -> Any:
    """A column of images as Hugging Face's datasets write it."""
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    return pyarrow.array([{"bytes": image, "path": f"{n}.png"} for n, image in enumerate(images)], kind)


LABELS = [n % 5 for n in range(COUNT)]


def test_images_and_labels_are_those_of_the_columns(write: Write, images: list[bytes], picture: Any) -> None:
    path = write(image=published(images), label=LABELS, split=["train"] * COUNT)
    source = SOURCES.build("Parquet", {"files": str(path)})
    assert (len(source), source.num_classes, source.labels.tolist()) == (COUNT, 5, LABELS)
    assert source.runs.tolist() == [0, 12, 24, 36, 48]
    assert [source.encoded(n) for n in range(COUNT)] == images
    assert np.array_equal(source.read(-1), picture(COUNT - 1))
    assert (source.name(13), source.location(13)) == ("a.parquet row 13", f"{path} row 13")
    assert pickle.loads(pickle.dumps(source)).encoded(33) == images[33]
    for given in (path, path.parent, path.parent / "*.parquet"):
        assert open_source(given).fingerprint() == source.fingerprint()


def test_several_files_are_one_source_and_a_refusal_of_their_labels_says_of_what(
    write: Write, images: list[bytes]
) -> None:
    path = write(image=published(images), label=LABELS)
    shutil.copy(path, path.with_name("b.parquet"))
    both = Parquet(str(path.parent))
    assert both.labels.tolist() == LABELS * 2
    assert (both.name(COUNT - 1), both.name(COUNT)) == (f"a.parquet row {COUNT - 1}", "b.parquet row 0")
    assert both.encoded(COUNT + 5) == images[5]
    write(image=published(images), label=[0, 7] * (COUNT // 2))
    for given, where in ((path, re.escape(str(path))), (path.parent, "2 Parquet files")):
        with pytest.raises(DataError, match=rf"^{where}: .*class [1-9] has no image"):
            Parquet(str(given))


def test_other_columns_are_named(write: Write, images: list[bytes]) -> None:
    path = write(img=images, back=images, id=np.arange(COUNT, dtype=np.uint8) % 5)
    with pytest.raises(DataError, match=r"has 2 columns of images \(img, back\) .*say which one with image: NAME"):
        Parquet(str(path), label="id")
    source = Parquet(str(path), image="img", label="id")
    assert [source.encoded(n) for n in range(COUNT)] == images


def test_a_web_server_gives_each_row_group_once(write: Write, server: Any, images: list[bytes]) -> None:
    for number in range(2):
        write(server.folder / f"{number}.parquet", image=published(images), label=LABELS)
    source = Parquet(f"{server.url}/{{0..1}}.parquet", timeout=5.0, pause=0.001)
    server.asked.clear()
    server.faults = ["cut", "drop", "503"]
    sampler = SAMPLERS.build("ShardShuffle", {"buffer": 30}, labels=source.labels, seed=1, runs=source.runs)
    found = [source.encoded(row) for row in sampler.rows(0, 0, 2 * COUNT).tolist()]
    assert sorted(found) == sorted(images * 2)
    assert len(server.asked) == len(source.runs) + 3
    loader = Loader(source, sampler, batch_size=20, workers=2)
    expected = [batch.index.tolist() for batch in loader.batches(1)]
    assert [batch.index.tolist() for batch in loader.batches(1, 2)] == expected[2:]
    assert source.keeps_runs, "so that threads read it unless told"
    processes = Loader(source, sampler, batch_size=20, workers=2, reader="processes")
    found = zip(loader.batches(1), processes.batches(1), strict=True)
    assert all(torch.equal(one.image, other.image) for one, other in found)


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"image": ["a.png", "b.png"], "label": [0, 1]}, r"has 0 columns of images \(no bytes\) among image, label"),
        ({"image": [b"a", b"b"], "label": ["ann", "ben"]}, "the column 'label' holds string, but labels are"),
        ({"image": [b"a", b"b"], "label": [0.0, 1.0]}, "the column 'label' holds double"),
        ({"image": [b"a", b"b"], "label": [True, False]}, "the column 'label' holds bool"),
        ({"image": [b"a", b"b"], "label": [0, None]}, "row group 0 has a row without 'label'"),
        ({"image": [b"a", b"b"], "label": [0, -1]}, "row group 0 has the 'label' -1"),
        ({"image": [b"a", b"b"], "label": [0, 5]}, "class 1 has no image"),
        ({"image": [b"a", b"b"], "id": [0, 1]}, "has no column 'label' of labels; .* Columns: image, id"),
        ({"image": pytest.param, "label": []}, ""),
    ],
)  # fmt: skip
def test_files_of_other_columns_are_refused(write: Write, columns: dict[str, Any], reason: str) -> None:
    if not reason:
        columns, reason = (
            {"image": pyarrow.array([], pyarrow.binary()), "label": pyarrow.array([], pyarrow.int64())},
            "holds no row",
        )
    with pytest.raises(DataError, match=reason):
        Parquet(str(write(**columns)))


def test_options_that_name_nothing_are_refused(write: Write, images: list[bytes]) -> None:
    path = write(image=published(images), label=LABELS)
    with pytest.raises(DataError, match="the column 'imag' of images is not there. Did you mean 'image'"):
        Parquet(str(path), image="imag")
    with pytest.raises(DataError, match="the column 'label' of images is no bytes"):
        Parquet(str(path), image="label")
    with pytest.raises(ConfigError, match="cache_mb is 0"):
        Parquet(str(path), cache_mb=0)


def test_a_missing_image_is_corrupt_and_no_gap(write: Write, images: list[bytes]) -> None:
    source = Parquet(str(write(image=[images[0], None, images[2]], label=[0, 1, 2])))
    assert source.encoded(2) == images[2]
    with pytest.raises(CorruptImage, match=r"a\.parquet row 1: the image has 0 bytes"):
        source.read(1)


def test_what_a_file_says_of_its_size_is_bounded(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(image=[bytes(1000)] * 200, label=[0] * 200, group=200)  # one image, stored once, for all rows
    source = Parquet(str(path))
    assert source.files[0].sizes[0] < 5000
    monkeypatch.setattr(parquet_file, "MOST_BYTES", 5000)
    with pytest.raises(DataError, match="row group 0 unpacks to more than 5000 bytes"):
        source.encoded(0)
    monkeypatch.setattr(parquet_file, "MOST_BYTES", 50)
    with pytest.raises(
        DataError, match="has a row group of 200 rows and .* bytes of images; up to .* smaller row groups"
    ):
        Parquet(str(path))
    monkeypatch.setattr(parquet_file, "MOST_BYTES", 1 << 30)
    monkeypatch.setattr(parquet_file, "MOST_ROWS", 100)
    with pytest.raises(DataError, match="has a row group of 200 rows"):
        Parquet(str(path))


def test_damage_is_told_and_a_changed_file_refused(write: Write, images: list[bytes]) -> None:
    path = write(image=published(images), label=LABELS)
    source, sound, random = Parquet(str(path)), path.read_bytes(), np.random.default_rng(0)
    path.write_bytes(sound + b"x")
    with pytest.raises(DataError, match="has changed since it was opened"):
        source.encoded(2)
    changes = [sound[:length] for length in range(0, len(sound), 2500)]
    for at in (*random.integers(0, len(sound) - 4, 60), *range(len(sound) - 200, len(sound) - 4, 9)):
        changes.append(sound[:at] + random.bytes(4) + sound[at + 4 :])
    refused = 0
    for content in changes:
        path.write_bytes(content)
        try:
            damaged = Parquet(str(path))
            [damaged.encoded(n) for n in range(len(damaged))]
        except (DataError, CorruptImage):
            refused += 1
    assert refused > len(sound) // 2500


def test_no_change_of_the_description_ends_the_process(write: Write) -> None:
    path = write(image=published([b"a", b"b", b"c"]), label=[0, 0, 1], group=2)
    sound = path.read_bytes()
    refused = 0
    for at in range(len(sound) - 8 - int.from_bytes(sound[-8:-4], "little"), len(sound) - 8):
        path.write_bytes(sound[:at] + bytes([sound[at] ^ 0x4E]) + sound[at + 1 :])
        try:
            damaged = Parquet(str(path))
            [damaged.encoded(n) for n in range(len(damaged))]
        except (DataError, CorruptImage):
            refused += 1
    assert refused > 400


@pytest.mark.parametrize("use_dictionary", [True, False])
def test_a_few_bytes_that_stand_for_many_are_refused(tmp_path: Path, use_dictionary: bool) -> None:
    path = tmp_path / "a.parquet"
    values = pyarrow.array([bytes(4 << 20)] * 40, pyarrow.binary())
    pq.write_table(
        pyarrow.table({"image": values, "label": [0] * 40}), path, compression="zstd", use_dictionary=use_dictionary
    )
    assert path.stat().st_size < 1 << 15
    before = pyarrow.default_memory_pool().bytes_allocated()
    with pytest.raises(
        DataError, match=r"has a row group of 40 rows and 1677\d{5} bytes|unpacks to more than 134217728"
    ):
        Parquet(str(path)).encoded(0)
    assert pyarrow.default_memory_pool().bytes_allocated() - before < 1 << 20


def test_a_page_that_unpacks_to_more_than_the_file_says_is_not_unpacked(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Parquet(str(write(image=[b"abc"], label=[0])))
    monkeypatch.setattr(parquet_file, "unpacked_size", lambda content: 1 << 28)
    with pytest.raises(DataError, match="row group 0 unpacks to more than 134217728 bytes"):
        source.encoded(0)
