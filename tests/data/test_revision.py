"""What is kept of images is told apart from that of others which took their names, sizes and times."""

import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from facelab.data.alignment.alignment import ARCFACE_112
from facelab.data.base import ImageSet, Pixels, Source
from facelab.data.formats.images import PathImages
from facelab.data.formats.record_writer import write_recordio
from facelab.data.sources.aligned_images import AlignedImages
from facelab.data.sources.concat import Concat
from facelab.data.sources.degradation import Degraded
from facelab.data.sources.image_folder import ImageFolder
from facelab.data.sources.image_list import ImageList
from facelab.data.sources.low_resolution import LowResolutionSource
from facelab.data.sources.occluded import Occluded
from facelab.data.sources.packed import Packed, write_packed
from facelab.data.sources.recordio import RecordIO
from facelab.data.sources.resized import Resized, ResizedImages
from facelab.data.synthetic.source import LowResolution, SyntheticFaces
from facelab.iqa.shares import Share
from facelab.model.given_images import GivenImages
from facelab.test_protocol.protocols.bin_pack import PackImages
from facelab.test_protocol.protocols.joint import JoinedImages


def rewritten(path: Path) -> None:
    """Other content under the old name, with the old size and the old times."""
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_mtime_ns == before.st_mtime_ns


@pytest.fixture
def bitmaps(tmp_path: Path) -> Path:
    """``bitmaps/p0/0.bmp`` … of equal size, and their list."""
    for name in ("p0/0.bmp", "p0/1.bmp", "p1/0.bmp"):
        (tmp_path / "bitmaps" / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / "bitmaps" / name), np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8))
    (tmp_path / "list.txt").write_text("p0/0.bmp 0\np0/1.bmp 0\np1/0.bmp 1\n")
    return tmp_path / "bitmaps"


Opened = tuple[Callable[[], ImageSet], Path]


def folder(root: Path) -> Opened:
    return lambda: ImageFolder(root), root / "p0" / "1.bmp"


def listed(root: Path) -> Opened:
    return lambda: ImageList(root, root.parent / "list.txt"), root / "p0" / "1.bmp"


def paths(root: Path) -> Opened:
    return lambda: PathImages(root, ["p1/0.bmp", "p0/1.bmp"]), root / "p0" / "1.bmp"


def tar(root: Path) -> Opened:
    with tarfile.open(root.parent / "faces.tar", "w") as archive:
        archive.add(root, ".")
    return lambda: ImageFolder(root.parent / "faces.tar"), root.parent / "faces.tar"


def records(root: Path) -> Opened:
    path, source = root.parent / "train.rec", ImageFolder(root)
    write_recordio(path, source, source.encoded)
    return lambda: RecordIO(path), path


def packed(root: Path) -> Opened:
    write_packed(root.parent / "packed", ImageFolder(root))
    return lambda: Packed(root.parent / "packed"), root.parent / "packed" / "images.u8"


@pytest.mark.parametrize("make", [folder, listed, paths, tar, records, packed])
def test_files_that_were_written_anew_are_another_revision(make: Callable[[Path], Opened], bitmaps: Path) -> None:
    opened, file = make(bitmaps)
    first = opened()
    assert opened().revision() == first.revision()
    before = first.fingerprint(), first.revision()
    rewritten(file)
    assert opened().fingerprint() == before[0]
    assert opened().revision() != before[1]


def test_names_in_score_tables_do_not_say_where_a_set_lies(bitmaps: Path) -> None:
    for make in (folder, listed, paths, tar, records, packed):
        images = make(bitmaps)[0]()
        found = [images.name(row) for row in range(len(images))]
        assert len(set(found)) == len(found)
        assert not any(str(bitmaps.parent) in name for name in found), make


def test_a_folder_that_takes_the_place_of_another_is_another_revision(bitmaps: Path) -> None:
    before = ImageFolder(bitmaps).revision()
    other = bitmaps.with_name("other")
    for path in sorted(bitmaps.rglob("*.bmp")):
        (other / path.relative_to(bitmaps)).parent.mkdir(parents=True, exist_ok=True)
        (other / path.relative_to(bitmaps)).write_bytes(path.read_bytes())
        os.utime(other / path.relative_to(bitmaps), ns=(0, 0))
        os.utime(path, ns=(0, 0))
    before = ImageFolder(bitmaps).revision()
    bitmaps.rename(bitmaps.with_name("old"))
    other.rename(bitmaps)
    assert ImageFolder(bitmaps).revision() != before


class Changing(Source):
    """Images whose fingerprint does not see what happens to them."""

    def __init__(self) -> None:
        self.labels, self.num_classes, self.now = np.array([0, 1]), 2, "1"

    def read(self, index: int) -> Pixels:
        return np.zeros((112, 112, 3), np.uint8)

    def location(self, index: int) -> str:
        return str(index)

    def fingerprint(self) -> str:
        return "always"

    def revision(self) -> str:
        return self.now


WRAPPERS: dict[type, Callable[[Source], ImageSet | Share]] = {
    ResizedImages: lambda source: ResizedImages(source, 8, 8),
    Resized: lambda source: Resized(source, 8, 8),
    AlignedImages: lambda source: AlignedImages(source, np.stack([ARCFACE_112] * 2), 112, "scaled", ""),
    Concat: lambda source: Concat([source, Changing()]),
    Degraded: Degraded,
    Occluded: lambda source: Occluded(source, "mouth"),
    LowResolutionSource: LowResolutionSource,
    LowResolution: lambda source: LowResolution(source, 8),
    JoinedImages: lambda source: JoinedImages([source, Changing()]),
    Share: lambda source: Share(source, [1]),
}


@pytest.mark.parametrize("kind", WRAPPERS, ids=lambda kind: kind.__name__)
def test_sets_made_of_others_follow_them(kind: type) -> None:
    source = Changing()
    made = WRAPPERS[kind](source)
    before = made.fingerprint(), made.revision()
    source.now = "2"
    assert made.fingerprint() == before[0]
    assert made.revision() != before[1]


def test_every_set_that_has_a_fingerprint_of_its_own_says_its_revision() -> None:
    """Else the one that it inherits, its fingerprint, would miss images that were written anew."""

    def all_below(kind: type) -> Iterator[type]:
        for sub in kind.__subclasses__():
            yield sub
            yield from all_below(sub)

    ours = {kind for kind in all_below(ImageSet) if kind.__module__.startswith("facelab.")}
    silent = {kind for kind in ours if "fingerprint" in vars(kind) and "revision" not in vars(kind)}
    # drawn from a key; a hash of all content; images that a caller hands over, of which nothing is kept
    assert silent == {SyntheticFaces, PackImages, GivenImages}
