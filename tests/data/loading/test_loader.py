"""The loader: the same batches for any number of threads, processes and restarts; bad images by policy."""

import json
import threading
import time
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from facelab.data.base import Batch, Pixels, Source
from facelab.data.loading.batch_reader import CHUNK
from facelab.data.loading.loader import Loader
from facelab.data.loading.refusals import Refusals
from facelab.data.loading.samplers import ClassBalanced, Sequential, Shuffle
from facelab.errors import ConfigError, CorruptImage, DataError


class Dots(Source):
    """Image ``index`` is filled with its own number; some images are bad in one way or another."""

    def __init__(
        self,
        size: int = 100,
        classes: int = 10,
        bad: dict[int, type[Exception]] | None = None,
        shapes: dict[int, tuple[int, ...]] | None = None,
    ) -> None:
        self.labels = np.arange(size, dtype=np.int64) % classes
        self.num_classes = classes
        self.bad = bad or {}
        self.shapes = shapes or {}
        self.reads = 0

    def read(self, index: int) -> Pixels:
        self.reads += 1
        if index in self.bad:
            raise self.bad[index](f"dot {index}: is broken.")
        shape = self.shapes.get(index, (4, 6, 3))
        return np.full(shape, index % 256, np.float32 if len(shape) == 2 else np.uint8)

    def location(self, index: int) -> str:
        return f"dot {index}"

    def fingerprint(self) -> str:
        return "dots"


class Packed(Dots):
    """All pixels in one array, read together."""

    def read_many(self, indices: np.ndarray) -> Pixels:
        pixels = np.broadcast_to((indices % 256).astype(np.uint8)[:, None, None, None], (len(indices), 4, 6, 3))
        return np.ascontiguousarray(pixels)


def loader(source: Source | None = None, **options: Any) -> Loader:
    source = source or Dots()
    sampler = options.pop("sampler", None) or Shuffle(source.labels, seed=1)
    return Loader(source, sampler, **{"batch_size": 20, "workers": 1, **options})


def indices(batches: Any) -> list[list[int]]:
    return [batch.index.tolist() for batch in batches]


def same(left: Batch, right: Batch) -> bool:
    return all(torch.equal(getattr(left, name), getattr(right, name)) for name in ("image", "label", "index"))


@pytest.mark.parametrize("source", [Dots(), Packed()])
def test_what_a_batch_holds(source: Source) -> None:
    scores = np.linspace(0, 1, 100, dtype=np.float32)
    batch = next(loader(source, quality=scores, batch_size=50).batches(0))
    assert batch.image.shape == (50, 3, 4, 6)
    assert batch.image.dtype == torch.uint8
    assert batch.image.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(batch.image[:, 1, 2, 3].long(), batch.index)
    assert torch.equal(batch.label, batch.index % 10)
    assert batch.quality is not None
    assert torch.equal(batch.quality, torch.from_numpy(scores)[batch.index])
    moved = batch.to(torch.device("meta"))
    assert {moved.image.device.type, moved.label.device.type, moved.quality.device.type} == {"meta"}
    assert moved.index is batch.index, "with the host, where tables are looked up"


@pytest.mark.parametrize("size", [CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 17])
def test_a_batch_of_several_parts_is_whole(size: int) -> None:
    for source in (Dots(600), Packed(600)):
        batch = next(loader(source, batch_size=size).batches(0))
        assert torch.equal(batch.image[:, 1, 2, 3].long(), batch.index % 256)
        assert batch.image.is_contiguous(memory_format=torch.channels_last)


def test_a_batch_never_lies_in_the_memory_of_its_source() -> None:
    stored = np.full((100, 4, 6, 3), 7, np.uint8)
    stored.flags.writeable = False

    class Lent(Dots):
        def read_many(self, indices: np.ndarray) -> Pixels:
            return stored[: len(indices)]

    batch = next(loader(Lent()).batches(0))
    batch.image.fill_(8)
    assert stored.max() == 7


def test_quality_is_none_without_scores() -> None:
    assert next(loader().batches(0)).quality is None


@pytest.mark.parametrize("workers", [0, 3])
def test_threads_change_nothing(workers: int) -> None:
    expected = list(loader().batches(2))
    found = list(loader(workers=workers, prefetch=3).batches(2))
    assert len(found) == 5
    assert all(map(same, found, expected))


def test_processes_share_the_same_global_batches() -> None:
    whole = indices(loader().batches(1))
    parts = [indices(loader(rank=rank, world_size=4).batches(1)) for rank in range(4)]
    assert [[row for part in step for row in part] for step in zip(*parts, strict=True)] == whole
    assert loader(rank=3, world_size=4).first_row == 15


def test_resume_in_the_middle_of_an_epoch() -> None:
    whole = indices(loader().batches(3))
    assert indices(loader(workers=2).batches(3, 2)) == whole[2:]
    assert indices(loader().batches(3, 5)) == []
    with pytest.raises(ConfigError, match="step 6 is not inside an epoch of 5 steps"):
        loader().batches(3, 6)


def test_images_that_fill_no_batch_are_left_out() -> None:
    options: dict[str, Any] = {"batch_size": 32, "sampler": Sequential(Dots().labels)}
    assert loader(**options).steps_per_epoch == 3
    parts = [loader(**options, rank=rank, world_size=2) for rank in (0, 1)]
    assert [indices(part.batches(0))[-1] for part in parts] == [[*range(64, 80)], [*range(80, 96)]]


def test_a_sampler_that_gives_more_than_indices_is_refused() -> None:
    class Pairs(Shuffle):
        def rows(self, epoch: int, start: int, stop: int) -> NDArray[np.int64]:
            index = super().rows(epoch, start, stop)
            return np.stack([index, index], axis=1)

    with pytest.raises(ConfigError, match=r"the sampler Pairs gives rows of shape \(20, 2\), but must give the index"):
        next(loader(sampler=Pairs(Dots().labels)).batches(0))


def test_groups_are_never_cut() -> None:
    sampler = ClassBalanced(Dots().labels, images_per_class=5)
    batches = list(loader(sampler=sampler, batch_size=30, world_size=2, rank=1).batches(0))
    assert [batch.size for batch in batches] == [15, 15, 15]
    for batch in batches:
        assert all(len(set(group)) == 1 for group in batch.label.reshape(-1, 5).tolist())


def test_prefetch_is_bounded() -> None:
    source = Dots(1000)
    batches = loader(source, workers=2, prefetch=3, batch_size=10).batches(0)
    next(batches)
    time.sleep(0.2)
    assert source.reads <= 10 * (1 + 3 + 2)
    batches.close()  # type: ignore[attr-defined]


def test_all_workers_are_busy_however_few_batches_wait() -> None:
    """Six batches must be in the making before any of them can go on."""
    meeting = threading.Barrier(6)

    class Meeting(Dots):
        def read(self, index: int) -> Pixels:
            if index % 10 == 0 and index < 60:
                meeting.wait(timeout=20)
            return super().read(index)

    source = Meeting(1000)
    batches = loader(source, sampler=Sequential(source.labels), workers=6, prefetch=1, batch_size=10).batches(0)
    assert [batch.index[0].item() for batch, _ in zip(batches, range(6), strict=False)] == [0, 10, 20, 30, 40, 50]
    batches.close()  # type: ignore[attr-defined]


def test_early_end_leaves_no_thread() -> None:
    before = threading.active_count()
    batches = loader(workers=3, prefetch=5).batches(0)
    next(batches)
    assert threading.active_count() > before
    batches.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_error_in_the_consumer_leaves_no_thread() -> None:
    before = threading.active_count()

    def consume() -> None:
        for _ in loader(workers=2).batches(0):
            raise KeyError("consumer")

    with pytest.raises(KeyError):
        consume()
    assert threading.active_count() == before


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("kind", [CorruptImage, OSError, ValueError])
def test_bad_image_stops_at_its_batch_with_its_name(workers: int, kind: type[Exception]) -> None:
    source = Dots(bad={45: kind})
    batches = loader(source, sampler=Sequential(source.labels), workers=workers).batches(0)
    assert [next(batches).index[0].item() for _ in range(2)] == [0, 20]
    with pytest.raises(CorruptImage, match="dot 45: "):
        next(batches)


@pytest.mark.parametrize("workers", [1, 3])
def test_skip_takes_another_of_the_class_and_reports(workers: int) -> None:
    source = Dots(bad={13: CorruptImage, 23: OSError})
    reader = loader(source, workers=workers, on_corrupt="skip")
    taken = [index for epoch in (0, 1) for batch in indices(reader.batches(epoch)) for index in batch]
    clean = [index for epoch in (0, 1) for batch in indices(loader().batches(epoch)) for index in batch]
    assert [new for new, old in zip(taken, clean, strict=True) if old not in (13, 23)] == [
        old for old in clean if old not in (13, 23)
    ]
    for new, old in zip(taken, clean, strict=True):
        assert new % 10 == old % 10
        assert new not in (13, 23)
    assert reader.corrupt.count == 2
    assert sorted(entry.location for entry in reader.corrupt.entries) == ["dot 13", "dot 23"]
    assert {entry.reason for entry in reader.corrupt.entries} == {
        "dot 13: is broken.",
        "dot 23: cannot be read (dot 23: is broken.).",
    }


def test_replacements_do_not_depend_on_threads_or_processes() -> None:
    source = Dots(bad=dict.fromkeys(range(30), CorruptImage))
    whole = indices(loader(source, on_corrupt="skip").batches(0))
    parts = [
        indices(loader(source, on_corrupt="skip", workers=2, rank=rank, world_size=2).batches(0)) for rank in (0, 1)
    ]
    assert [left + right for left, right in zip(*parts, strict=True)] == whole


def test_replacements_behind_the_first_chunk_do_not_depend_on_processes() -> None:
    """A process reads its part in chunks; what replaces an image must follow from its place in the epoch alone."""
    size = 2 * (CHUNK + 44)
    source = Dots(size, bad=dict.fromkeys(range(0, size, 3), CorruptImage))
    options: dict[str, Any] = {"on_corrupt": "skip", "batch_size": size, "sampler": Sequential(source.labels)}
    (whole,) = indices(loader(source, **options).batches(0))
    parts = [indices(loader(source, **options, rank=rank, world_size=2).batches(0))[0] for rank in (0, 1)]
    assert parts[0] + parts[1] == whole


def test_an_image_gets_other_replacements_in_other_epochs_and_places() -> None:
    source = Dots(bad={7: CorruptImage})
    with_seed = [loader(source, on_corrupt="skip", sampler=Sequential(source.labels), seed=seed) for seed in (0, 1)]
    epochs = [[indices(one.batches(epoch))[0][7] for epoch in range(6)] for one in with_seed]
    assert all(len(set(found)) > 1 for found in epochs)
    assert epochs[0] != epochs[1]
    assert all(image % 10 == 7 for found in epochs for image in found)


def test_a_class_without_a_good_image_is_replaced_by_another_class() -> None:
    source = Dots(classes=50, bad=dict.fromkeys((7, 57), CorruptImage))
    batches = list(loader(source, on_corrupt="skip").batches(0))
    assert all(torch.equal(batch.label, batch.index % 50) for batch in batches)
    assert not any(7 in batch.label for batch in batches)


def test_nothing_readable_is_an_error() -> None:
    source = Dots(bad=dict.fromkeys(range(100), CorruptImage))
    with pytest.raises(DataError, match=r"dot \d+: is broken. No readable image to replace it was found in 108 tries."):
        next(loader(source, on_corrupt="skip").batches(0))


def test_too_many_corrupt_images_are_an_error() -> None:
    source = Dots(2000, bad=dict.fromkeys(range(0, 2000, 7), CorruptImage))
    batches = loader(source, on_corrupt="skip", batch_size=100, workers=2).batches(0)
    with pytest.raises(DataError, match=r"^1[0-9]+ of 1[0-9]+ images that were read are corrupt, the first: dot \d+:"):
        list(batches)


def test_a_tenth_of_the_images_that_were_read_may_be_corrupt() -> None:
    """Images that were replaced were read too: 100 of 1000 is a tenth, 101 of 1000 is more."""
    corrupt = tuple((row, f"dot {row}: is broken.") for row in range(101))
    loader(Dots(900))._note(900, corrupt[:100])
    with pytest.raises(DataError, match=r"^101 of 1000 images that were read are corrupt, the first: dot 0: is broken"):
        loader(Dots(899))._note(899, corrupt)


@pytest.mark.parametrize("odd", [3, CHUNK - 1, CHUNK, CHUNK + 20])
def test_sizes_that_differ_name_the_image_and_both_sizes(odd: int) -> None:
    source = Dots(CHUNK + 60, shapes={odd: (5, 6, 3)})
    with pytest.raises(DataError, match=r"dot \d+: the image is [45]x6, but others of its batch are [45]x6; align"):
        next(loader(source, sampler=Sequential(source.labels), batch_size=CHUNK + 60).batches(0))


def test_pixels_of_a_wrong_kind_are_refused() -> None:
    source = Dots(shapes=dict.fromkeys(range(100), (4, 6)))
    with pytest.raises(
        DataError, match=r"must be uint8 of shape \(H, W, 3\), but Dots gives float32 of shape \(4, 6\)"
    ):
        next(loader(source).batches(0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"batch_size": 101},
            "batch_size is 101, but an epoch of the data set has only 100 images; set it to 100",
        ),
        ({"batch_size": 0}, "batch_size is 0, but must be at least 1"),
        ({"world_size": 3}, "batch_size is 20, which 3 processes cannot share evenly; take 18, for example"),
        ({"world_size": 2, "rank": 2}, r"rank is 2, but must lie in \[0, 1\] with 2 processes"),
        ({"workers": -1}, "workers is -1, but must lie in"),
        ({"prefetch": 0}, "prefetch is 0, but at least 1 batch"),
        ({"on_corrupt": "skipp"}, "on_corrupt is 'skipp'. Did you mean 'skip'"),
        (
            {"sampler": ClassBalanced(Dots().labels, 8)},
            "batch_size is 20, but the rows .* groups of 8 .* a multiple of 8",
        ),
        (
            {"sampler": ClassBalanced(Dots().labels, 8), "world_size": 2},
            "batch_size is 20, 10 images on each of 2 processes, but .*; take a multiple of 16",
        ),
    ],
)
def test_refusals(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        loader(**options)


def test_pinned_memory_needs_a_device() -> None:
    with pytest.raises(ConfigError, match="pin_memory speeds up copies to a CUDA device, and there is none"):
        loader(pin_memory=True)


@pytest.mark.cuda
def test_pinned_memory() -> None:
    batch = next(loader(pin_memory=True, workers=2).batches(0))
    assert batch.image.is_pinned()
    moved = batch.to(torch.device("cuda"))
    assert moved.image.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(moved.image.cpu(), batch.image)


def test_report_as_json_lines_and_csv(tmp_path: Any) -> None:
    report = Refusals(limit=2)
    for number in range(3):
        report.add(f"a{number}.jpg", f'a{number}.jpg: is "broken", sadly.')
    report.write(tmp_path / "corrupt.jsonl")
    report.write(tmp_path / "corrupt.csv")
    lines = [json.loads(line) for line in (tmp_path / "corrupt.jsonl").read_text().splitlines()]
    assert lines[0] == {"location": "a0.jpg", "reason": 'a0.jpg: is "broken", sadly.'}
    assert lines[2] == {"location": "", "reason": "1 more are not listed."}
    assert (tmp_path / "corrupt.csv").read_text().splitlines()[:2] == [
        "location,reason",
        'a0.jpg,"a0.jpg: is ""broken"", sadly."',
    ]
    with pytest.raises(ConfigError, match="written as .jsonl or .csv"):
        report.write(tmp_path / "corrupt.txt")
    with pytest.raises(DataError, match="cannot be written"):
        report.write(tmp_path / "missing" / "corrupt.csv")


def test_scores_of_another_count_or_without_a_number_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"quality has the shape \(3,\), but the source has 100 images"):
        loader(quality=np.zeros(3, np.float32))
    scores = np.ones(100, np.float32)
    scores[7] = np.nan
    with pytest.raises(DataError, match="dot 7: the image has no quality score"):
        list(loader(quality=scores).batches(0))


def test_an_image_that_is_replaced_needs_no_score() -> None:
    scores = np.arange(100, dtype=np.float32)
    scores[7] = np.nan
    batches = list(loader(Dots(bad={7: CorruptImage}), quality=scores, on_corrupt="skip").batches(0))
    assert sum(batch.size for batch in batches) == 100
    for batch in batches:
        assert batch.quality is not None
        assert torch.equal(batch.quality, torch.from_numpy(scores)[batch.index])


def test_the_parts_of_all_processes_are_known_before_any_image_is_read() -> None:
    source = Dots()
    parts = [part.tolist() for part in loader(source, rank=1, world_size=2).first_parts(3)]
    assert source.reads == 0
    each = [indices(loader(rank=rank, world_size=2).batches(0))[:3] for rank in (0, 1)]
    assert parts == [part for step in zip(*each, strict=True) for part in step]
    assert len(list(loader(source).first_parts(99))) == 5
