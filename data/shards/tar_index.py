"""Where the images of a tar shard lie and which labels they have: found by reading it once, then kept in a file."""

import io
import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from threading import Event

import numpy as np
from numpy.typing import NDArray

from facelab.data.base import Labels
from facelab.data.formats.archive import readable_name
from facelab.data.formats.files import IMAGE_SUFFIXES, LeftOut
from facelab.data.formats.image_header import MAX_ENCODED
from facelab.data.formats.names import PackedNames
from facelab.data.formats.tar import BLOCK, MAX_EXTENSION, header_name_and_size, is_header, tar_members
from facelab.data.shards.ranged_file import Ahead, LocalFile, RangedFile
from facelab.errors import DataError
from facelab.outside.arrays import read_npz
from facelab.outside.json import parse_json

FORMAT = "facelab tar index 1"
MAX_LABEL = 1 << 20  # bytes of a file with a label
MOST_SAMPLES = 1 << 22  # of one shard
MAX_INDEX = 1 << 28  # bytes
WHOLE = re.compile(rb"\s*([0-9]{1,18})\s*")
ENDS = "cls", "json:label"

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Fields:
    """Which files of a sample are read.

    Attributes:
        image: Ending of the image, such as ``jpg``; None for the one that has the ending of an image.
        label: Ending of the file with the label, a whole number in text; of JSON ``json:FIELD``. None for ``cls``, or
            else ``json:label``.
    """

    image: str | None = None
    label: str | None = None

    @property
    def labels(self) -> tuple[tuple[str, str], ...]:
        """Endings and fields of labels, the first one that a sample has counts; the field is empty for text."""
        given = ENDS if self.label is None else (self.label,)
        return tuple((ending, name) for ending, _, name in (text.partition(":") for text in given))

    def is_image(self, ending: str) -> bool:
        """Whether a file of a sample is its image."""
        if self.image is not None:
            return ending == self.image
        return posixpath.splitext(f"x.{ending}")[1].lower() in IMAGE_SUFFIXES


@dataclass(frozen=True)
class TarIndex:
    """The images of one shard, in their order.

    Attributes:
        names: Names in the archive, N of them.
        places: Where the content of each begins, int64, (N,).
        sizes: Bytes of each, int64, (N,).
        labels: Label of each, int64, (N,), as its file says.
        left_out: What else there was, a sentence for each kind.
    """

    names: PackedNames
    places: Integers
    sizes: Integers
    labels: Labels
    left_out: tuple[str, ...] = ()

    def content(self, row: int, file: RangedFile) -> bytes:
        """Encoded image ``row``, read with its header.

        Raises:
            DataError: If the shard has changed, or cannot be read.
            CorruptImage: If the image is too large.
        """
        start, stop = self.span(row)
        return self.checked(row, file.read(start, stop - start), file)

    def span(self, row: int) -> tuple[int, int]:
        """Where image ``row`` begins, with its header, and where it ends."""
        place = int(self.places[row])
        return place - BLOCK, place + int(self.sizes[row])

    def checked(self, row: int, data: bytes, file: RangedFile) -> bytes:
        """The content of an image of which header and content were read.

        Raises:
            DataError: If the header is not the one of this image: somebody wrote another archive in its place.
        """
        header, name = data[:BLOCK], self.names[row]
        told, size = header_name_and_size(header)
        told = posixpath.normpath(told)
        # Names of other letters, and long ones, stand in records before the header, which has what it can hold of them.
        fits = told == name or not name.isascii() or (len(told) > 90 and name.startswith(told))
        if not is_header(header) or size != self.sizes[row] or not fits:
            raise DataError(
                f"{file.name}: has changed since it was indexed: '{readable_name(name)}' does not begin at byte "
                f"{self.places[row]}."
            )
        return data[BLOCK:]

    def packed(self) -> bytes:
        """The index as a file (``.npz``)."""
        target = io.BytesIO()
        ends = np.cumsum([len(name) for name in self.names], dtype=np.int64)
        np.savez(
            target,
            format=np.array(FORMAT),
            places=self.places,
            sizes=self.sizes,
            labels=self.labels,
            ends=ends,
            names=np.frombuffer(b"".join(self.names), np.uint8),
            left_out=np.array(self.left_out, np.str_),
        )
        return target.getvalue()


def largest_index(file: RangedFile) -> int:
    """Most bytes of the index of a shard: what it says of an image is less than the image takes there."""
    return min(MAX_INDEX, file.size + MAX_EXTENSION)


def read_index(content: bytes, file: RangedFile) -> TarIndex:
    """An index that was kept; it is believed in nothing that would lead a reader out of its shard.

    Raises:
        ValueError: If it is damaged, or of another shard.
    """
    arrays = read_npz(io.BytesIO(content), largest_index(file))
    try:
        said, names = str(arrays["format"]), arrays["names"]
        places, sizes, labels, ends = (arrays[name] for name in ("places", "sizes", "labels", "ends"))
        left_out = tuple(map(str, arrays["left_out"].tolist()))
    except KeyError as error:
        raise ValueError(f"it has no {error}") from None
    if said != FORMAT:
        raise ValueError(f"it is of the format {said[:40]!r}")
    if any(column.dtype != np.int64 or column.shape != places.shape for column in (places, sizes, labels, ends)):
        raise ValueError("its columns differ")
    if places.ndim != 1 or not len(places) or names.dtype != np.uint8 or names.ndim != 1:
        raise ValueError("its columns are none")
    starts = places - BLOCK
    inside = (starts >= 0) & (sizes >= 0) & (sizes <= MAX_ENCODED) & (places <= file.size - sizes)
    if not inside.all() or (starts[1:] < places[:-1] + sizes[:-1]).any() or labels.min() < 0:
        raise ValueError("it leads out of the shard")
    if ends[-1] != len(names) or (np.diff(ends, prepend=0) < 1).any():
        raise ValueError("its names are damaged")
    return TarIndex(PackedNames(names.tobytes(), ends), places, sizes, labels, left_out)


def index_tar(file: RangedFile, fields: Fields, stop: Event | None = None) -> TarIndex:
    """Read a shard once and find its samples.

    Files with one name up to the first dot of their last part are a sample, and lie side by side.

    Args:
        file: The shard.
        fields: Which files of a sample are read.
        stop: Reading ends early when this is set.

    Raises:
        DataError: If the shard is no sound tar archive or cannot be read, a sample has no image, several, or no label,
            a label is no whole number, or a sample occurs twice.
    """
    left_out = LeftOut()
    names, rows = [], []
    for sample in _Samples(file, fields, left_out, stop).all():
        names.append(sample.image)
        rows.append((sample.place, sample.size, sample.label))
    if not rows:
        raise DataError(f"{file.name}: holds no sample.")
    places, sizes, labels = np.array(rows, np.int64).T.copy()
    return TarIndex(PackedNames.of(names), places, sizes, labels, left_out.sentences(file.name))


@dataclass
class _Sample:
    key: bytes
    endings: set[str] = field(default_factory=set)
    image: bytes = b""
    place: int = 0
    size: int = 0
    label: int | None = None
    rank: int = len(ENDS)  # of the label's ending among those that are looked for; the first one counts


class _Samples:
    """The samples of an archive, one after the other."""

    def __init__(self, file: RangedFile, fields: Fields, left_out: LeftOut, stop: Event | None) -> None:
        self.shard, self.ahead = file.name, Ahead(file, stop=stop)
        self.fields, self.left_out = fields, left_out
        self.keys: set[bytes] = set()
        self.sample = _Sample(b"")

    def all(self) -> Iterator[_Sample]:
        """Those with image and label; any other is an error, or goes into ``left_out``."""
        for name, place, _, size in tar_members(self.ahead, self.shard, self.left_out):
            path = posixpath.normpath(name)
            if path.startswith((b"/", b"../")) or path == b".." or b"\0" in path:
                self.left_out.add("a name that leads out of the archive", readable_name(name))
                continue
            key, ending = _split(path)
            if key != self.sample.key:
                yield from self._whole()
                self._begin(key)
            self._add(path, ending, place, size)
        yield from self._whole()

    def _begin(self, key: bytes) -> None:
        if key in self.keys:
            raise DataError(f"{self.shard}: the sample '{readable_name(key)}' occurs twice.")
        if len(self.keys) == MOST_SAMPLES:
            raise DataError(f"{self.shard}: holds more than {MOST_SAMPLES:,} samples.")
        self.keys.add(key)
        self.sample = _Sample(key)

    def _add(self, path: bytes, ending: str, place: int, size: int) -> None:
        """Note a file of the sample if it is its image or its label."""
        sample = self.sample
        if ending in sample.endings:
            raise DataError(f"{self.shard}: the file '{readable_name(path)}' occurs twice.")
        sample.endings.add(ending)
        if self.fields.is_image(ending):
            if sample.image:
                raise DataError(
                    f"{self.shard}: the sample '{readable_name(sample.key)}' has several images; say which one with "
                    f"image: {ending}, for example."
                )
            sample.image, sample.place, sample.size = path, place, size
        rank = next((rank for rank, (known, _) in enumerate(self.fields.labels) if known == ending), len(ENDS))
        if rank < sample.rank:
            label = self._label(f"{self.shard}/{readable_name(path)}", self.fields.labels[rank][1], place, size)
            if label is not None:
                sample.label, sample.rank = label, rank

    def _label(self, where: str, name: str, place: int, size: int) -> int | None:
        """A label in text, or a field of JSON; None if there is no such field."""
        if size > MAX_LABEL:
            raise DataError(f"{where}: has {size:,} bytes, which is no label.")
        content = self.ahead.read(place, size)
        if not name:
            found = WHOLE.fullmatch(content)
            if found is None:
                raise DataError(f"{where}: the label is {content[:40]!r}, but must be a whole number from 0.")
            return int(found[1])
        tree = parse_json(content, where, "the description of a sample", limit=MAX_LABEL)
        value = tree.get(name) if isinstance(tree, dict) else None
        # To Python, True is a number too.
        if value is None or (isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 60):
            return value
        raise DataError(f"{where}: '{name}' is {str(value)[:40]!r}, but must be a whole number from 0.")

    def _whole(self) -> Iterator[_Sample]:
        """The sample, if it is one."""
        sample, key = self.sample, readable_name(self.sample.key)
        if sample.image and sample.label is not None:
            yield sample
        elif sample.image:
            known = [f"'.{ending}'" + (f" with '{name}'" if name else "") for ending, name in self.fields.labels]
            raise DataError(
                f"{self.shard}: '{readable_name(sample.image)}' has no label: no {' or '.join(known)} lies beside it."
            )
        elif sample.label is not None:
            raise DataError(f"{self.shard}: the sample '{key}' has a label, but no image.")
        elif sample.endings:
            self.left_out.add("files beside the samples", key)


def _split(path: bytes) -> tuple[bytes, str]:
    """The name of a sample, and what follows the first dot of the last part."""
    folder, slash, last = path.rpartition(b"/")
    stem, _, ending = last.partition(b".")
    return folder + slash + stem, ending.decode("utf-8", "surrogateescape")


def is_shard(path: Path) -> bool:
    """Whether a tar archive begins with a sample that has its label in a file beside it (``.cls``).

    Raises:
        DataError: If it is no sound archive.
    """
    if path.suffix.lower() != ".tar":
        return False
    file = LocalFile(path)
    members = tar_members(Ahead(file, BLOCK), file.name, LeftOut())
    return any(name.endswith(b".cls") for name, *_ in islice(members, 8))
