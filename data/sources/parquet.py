"""Parquet files of images and labels, as Hugging Face publishes data sets."""

import hashlib
import posixpath
from functools import cached_property
from urllib.parse import urlsplit

import numpy as np

from facelab.data.base import SOURCES
from facelab.data.formats.image_header import MAX_ENCODED
from facelab.data.formats.images import hash_of
from facelab.data.formats.labels import checked_labels
from facelab.data.shards.address import expand
from facelab.data.shards.open_ranged import open_ranged
from facelab.data.shards.parquet_file import Columns, ParquetFile
from facelab.data.shards.patience import Patience
from facelab.data.shards.run_cache import RunCache
from facelab.data.sources.encoded_source import EncodedSource
from facelab.errors import CorruptImage, DataError, in_range
from facelab.progress import OnProgress


@SOURCES.register("Parquet")
class Parquet(EncodedSource):
    """Images in a column of Parquet files, with a column of labels; needs ``facelab[parquet]``.

    A row group is read at once and its images wait in memory, so that the sampler ``ShardShuffle`` reads each once an
    epoch; any other order reads one for almost every image. Labels are read at the start.

    Args:
        files: Paths or addresses as of `WebDataset`; a folder means its ``.parquet`` files.
        image: Column of the encoded images, or of ``{bytes, path}``; by default the only one.
        label: Column of the labels, whole numbers.
        relabel: Number the classes anew where labels have gaps, instead of refusing the set.
        attempts: How often a read of a file elsewhere is tried.
        timeout: Seconds that one try may take.
        pause: Seconds before the second try; each further pause is twice as long.
        cache_mb: MiB of row groups that are kept in memory.
        progress: Called with (files opened, all).

    Raises:
        ConfigError: If an option is out of range, or a package is not installed.
        DataError: If a file cannot be had or is damaged, or a column is missing or of another type.
    """

    def __init__(
        self,
        files: str | list[str],
        image: str | None = None,
        label: str = "label",
        relabel: bool = False,
        attempts: int = 5,
        timeout: float = 30.0,
        pause: float = 0.5,
        cache_mb: int = 512,
        progress: OnProgress | None = None,
    ) -> None:
        in_range("Parquet cache_mb", cache_mb, 1, 1 << 20)
        patience, addresses = Patience(attempts, timeout, pause), expand(files, ".parquet")
        self.files, labels = list[ParquetFile](), list[np.ndarray]()
        for address in addresses:
            self.files.append(ParquetFile(open_ranged(address, patience), Columns(image, label)))
            labels.append(self.files[-1].labels())
            if progress is not None:
                progress(len(self.files), len(addresses))
        where = self.files[0].file.name if len(self.files) == 1 else f"{len(self.files)} Parquet files"
        every = np.concatenate(labels)
        if not len(every):
            raise DataError(f"{where}: holds no row.")
        self.labels, self.num_classes = checked_labels(every, where, relabel)
        self._starts = np.cumsum([0, *map(len, labels)])
        self._groups = [
            (number, group, rows)
            for number, file in enumerate(self.files)
            for group, rows in enumerate(file.rows.tolist())
            if rows
        ]
        ends = np.cumsum([rows for _, _, rows in self._groups])
        self.runs = self._runs = np.concatenate([[0], ends[:-1]]).astype(np.int64)
        self.keeps_runs = True
        self._cache = RunCache[list[bytes]](cache_mb << 20, _bytes_of)

    def encoded(self, index: int) -> bytes:
        """Image ``index`` as stored."""
        row = range(len(self))[index]
        run = int(np.searchsorted(self._runs, row, side="right")) - 1
        number, group, _ = self._groups[run]
        image = self._cache.get(run, lambda: self.files[number].images(group))[row - int(self._runs[run])]
        if not 0 < len(image) <= MAX_ENCODED:
            raise CorruptImage(f"{self.location(row)}: the image has {len(image):,} bytes.")
        return image

    def location(self, index: int) -> str:
        """File and row."""
        file, row = self._find(index)
        return f"{file.file.name} row {row}"

    def name(self, index: int) -> str:
        """Name of the file, and row."""
        file, row = self._find(index)
        return f"{posixpath.basename(urlsplit(file.file.name).path)} row {row}"

    def fingerprint(self) -> str:
        """Hash of the labels and of the rows and bytes of all row groups."""
        return self._fingerprint

    def revision(self) -> str:
        """The same and the versions of all files."""
        return hash_of([self._fingerprint, *(f"{file.file.size} {file.file.version}" for file in self.files)])

    @cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.blake2b(np.ascontiguousarray(self.labels).data, digest_size=16)
        for file in self.files:
            digest.update(file.rows.tobytes() + file.sizes.tobytes())
        return digest.hexdigest()

    def _find(self, index: int) -> tuple[ParquetFile, int]:
        """The file of an image, and its row in it."""
        row = range(len(self))[index]
        number = int(np.searchsorted(self._starts, row, side="right")) - 1
        return self.files[number], row - int(self._starts[number])


def _bytes_of(images: list[bytes]) -> int:
    return sum(map(len, images))
