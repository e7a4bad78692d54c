"""An extraction that was killed goes on and ends bit-equal; damaged blocks are refused by name."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facelab.data.base import ImageSet, Pixels
from facelab.errors import DataError
from facelab.test_protocol.extraction import embedding_cache
from facelab.test_protocol.extraction.embed import embed
from facelab.test_protocol.extraction.embedding_cache import EmbeddingCache, block_rows


class Stop(Exception):
    """Stands for whatever ends a process."""


class Interrupted(ImageSet):
    """Images of another set; reading those from row ``end`` on stops the program."""

    def __init__(self, images: ImageSet, end: int) -> None:
        self.images, self.end = images, end

    def __len__(self) -> int:
        return len(self.images)

    def read(self, index: int) -> Pixels:
        if index >= self.end:
            raise Stop
        return self.images.read(index)

    def location(self, index: int) -> str:
        return self.images.location(index)

    def fingerprint(self) -> str:
        return self.images.fingerprint()


@pytest.fixture
def images(make_images: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    """50 images, in blocks of 6."""
    monkeypatch.setattr(embedding_cache, "BLOCK_ROWS", 6)
    random = np.random.default_rng(3)
    return make_images([random.integers(0, 256, (16, 16, 3), dtype=np.uint8) for _ in range(50)])


@pytest.mark.parametrize("ends", [(0,), (17,), (6, 7, 30, 49)])
def test_interrupted_and_resumed_is_bit_equal(
    tiny_net: Any, images: Any, tmp_path: Path, ends: tuple[int, ...]
) -> None:
    whole = embed(tiny_net, images, batch_size=3, flip=True, cache=tmp_path / "whole")
    read: list[int] = []
    for end in ends:
        with pytest.raises(Stop):
            embed(tiny_net, Interrupted(images, end), batch_size=3, flip=True, workers=1, cache=tmp_path / "cut")
        read.append(len(list((tmp_path / "cut").glob("*/*.npz"))))
    tiny_net.calls = 0
    resumed = embed(tiny_net, images, batch_size=3, flip=True, cache=tmp_path / "cut")
    np.testing.assert_array_equal(whole.values, resumed.values)
    np.testing.assert_array_equal(whole.flipped, resumed.flipped)
    assert read == [end // 6 for end in ends]  # whole blocks are kept, and those alone
    assert tiny_net.calls == 2 * (17 - 2 * read[-1])
    alone = embed(tiny_net, images, batch_size=3, flip=True)  # not through a cache
    np.testing.assert_array_equal(whole.values, alone.values)
    np.testing.assert_array_equal(whole.flipped, alone.flipped)
    assert not np.array_equal(alone.flipped, alone.values)


def test_a_folder_keeps_its_blocks_whatever_the_batch_size(tiny_net: Any, images: Any, tmp_path: Path) -> None:
    whole = embed(tiny_net, images, batch_size=3, cache=tmp_path)
    next(tmp_path.glob("*/000000012-*.npz")).unlink()
    tiny_net.calls = 0
    again = embed(tiny_net, images, batch_size=64, cache=tmp_path)
    assert tiny_net.calls == 1
    np.testing.assert_allclose(whole.values, again.values, atol=1e-6)


@pytest.mark.parametrize("what", ["revision", "fingerprint"])
def test_other_images_of_the_same_names_are_embedded_anew(
    what: str, tiny_net: Any, images: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed(tiny_net, images, batch_size=3, cache=tmp_path)
    monkeypatch.setattr(images, what, lambda: "another")
    other = embed(tiny_net, images, batch_size=3, cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    np.testing.assert_array_equal(other.values, embed(tiny_net, images, batch_size=3).values)


@pytest.mark.parametrize("place", np.linspace(0, 0.999, 40))
def test_any_changed_byte_of_a_block_is_noticed_or_harmless(
    tiny_net: Any, images: Any, tmp_path: Path, place: float
) -> None:
    whole = embed(tiny_net, images, batch_size=6, cache=tmp_path)
    file = next(tmp_path.glob("*/000000006-*.npz"))
    content = bytearray(file.read_bytes())
    content[int(place * len(content))] ^= 0x55
    file.write_bytes(content)
    refusal, again = "", whole
    try:
        again = embed(tiny_net, images, batch_size=6, cache=tmp_path)
    except DataError as error:
        refusal = str(error)
    np.testing.assert_array_equal(whole.values, again.values)
    assert not refusal or re.search("000000006.* are damaged .*delete the file, and only its images are embe", refusal)


def changed_block(folder: Path, **arrays: Any) -> Path:
    """The second block with other arrays in it."""
    file = next(folder.glob("*/000000006-*.npz"))
    with np.load(file) as stored:
        np.savez(file, **{**dict(stored), **arrays})
    return file


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"values": np.zeros((6, 9), np.float32)}, "has embeddings of length 9, .* of length 8; delete the one"),
        ({"values": np.zeros((5, 8), np.float32)}, r"damaged \(float32 of shape \(5, 8\)\)"),
        ({"values": np.zeros((6, 8), np.float16)}, r"damaged \(float16 of shape"),
        ({"values": np.full((6, 8), np.nan, np.float32)}, r"damaged \(values that are not finite\)"),
        ({"values": np.diag([0, 0, 0, 0, 0, np.inf, 0, 0])[:6].astype(np.float32)}, "values that are not finite"),
        ({"values": np.zeros(6, np.float32)}, "damaged"),
        ({"failed": np.array("5")}, "damaged"),
        ({"failed": np.array('[[1, "a"]]')}, r"damaged \(images of other blocks\)"),
        ({"failed": np.array("[" * 100_000)}, "damaged"),
        ({"owner": np.array("elsewhere")}, "belongs to the cache folder 'elsewhere'; delete the file"),
    ],
)
def test_foreign_and_damaged_blocks_are_named(
    tiny_net: Any, images: Any, tmp_path: Path, arrays: dict[str, Any], sentence: str
) -> None:
    embed(tiny_net, images, batch_size=6, cache=tmp_path)
    changed_block(tmp_path, **arrays)
    with pytest.raises(DataError, match=rf"000000006-000000012\.npz: .*{sentence}"):
        embed(tiny_net, images, batch_size=6, cache=tmp_path)


def test_mirrored_embeddings_of_another_width_are_named(tiny_net: Any, images: Any, tmp_path: Path) -> None:
    embed(tiny_net, images, batch_size=6, flip=True, cache=tmp_path)
    changed_block(tmp_path, flipped=np.zeros((6, 9), np.float32))
    with pytest.raises(DataError, match=r"damaged \(float32 of shape \(6, 9\)\)"):
        embed(tiny_net, images, batch_size=6, flip=True, cache=tmp_path)


def test_a_manifest_of_another_model_is_refused(tiny_net: Any, images: Any, tmp_path: Path) -> None:
    embed(tiny_net, images, batch_size=6, cache=tmp_path)
    manifest = next(tmp_path.glob("*/manifest.json"))
    tree = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**tree, "made_of": {**tree["made_of"], "model": "another"}}))
    with pytest.raises(DataError, match=r"manifest\.json: is of another model, image set or preprocessing; delete the"):
        embed(tiny_net, images, batch_size=6, cache=tmp_path)


def test_a_block_that_was_cut_off_is_named(tiny_net: Any, images: Any, tmp_path: Path) -> None:
    embed(tiny_net, images, batch_size=6, cache=tmp_path)
    file = next(tmp_path.glob("*/000000006-*.npz"))
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(DataError, match=r"000000006-000000012\.npz: the cached embeddings are damaged"):
        embed(tiny_net, images, batch_size=6, cache=tmp_path)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [("{", "is damaged; delete the folder"), ('{"images": 7, "rows": 6}', "counts 7 images instead of 50")],
)
def test_a_damaged_manifest_is_named(tiny_net: Any, images: Any, tmp_path: Path, content: str, sentence: str) -> None:
    embed(tiny_net, images, batch_size=6, cache=tmp_path)
    next(tmp_path.glob("*/manifest.json")).write_text(content)
    with pytest.raises(DataError, match=rf"manifest\.json: {sentence}"):
        embed(tiny_net, images, batch_size=6, cache=tmp_path)


def test_a_block_that_only_another_machine_sees(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the cache must lie where all processes reach it"):
        EmbeddingCache(tmp_path, [range(6)]).load(range(6), False)


def test_a_cache_that_cannot_be_written(tiny_net: Any, images: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot be written"):
        embed(tiny_net, images, cache=tmp_path / "file")


def test_preprocessing_and_alignment_have_folders_of_their_own(tiny_net: Any, images: Any, tmp_path: Path) -> None:
    embed(tiny_net, images, cache=tmp_path)
    embed(tiny_net, images, cache=tmp_path, resize=True)
    images.alignment = "ArcFace scaled 112"
    embed(tiny_net, images, cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize(
    ("images", "processes", "batch_size", "expected"),
    [(469_375, 1, 64, 1024), (469_375, 8, 100, 1000), (7_701, 8, 64, 960), (20, 2, 64, 64), (5, 8, 1, 1)],
)
def test_blocks_are_whole_batches_and_enough_for_all(
    images: int, processes: int, batch_size: int, expected: int
) -> None:
    assert block_rows(images, processes, batch_size) == expected
