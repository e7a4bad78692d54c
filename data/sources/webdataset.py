"""WebDataset: tar shards in which the files of one name are a sample, here or elsewhere."""

import hashlib
import logging
import posixpath
from functools import cached_property
from urllib.parse import urlsplit

import numpy as np

from facelab.data.base import SOURCES
from facelab.data.formats.archive import readable_name
from facelab.data.formats.images import hash_of
from facelab.data.formats.labels import checked_labels
from facelab.data.shards.address import expand
from facelab.data.shards.kept_index import open_shards
from facelab.data.shards.patience import Patience
from facelab.data.shards.ranged_file import RangedFile
from facelab.data.shards.run_cache import RunCache
from facelab.data.shards.tar_index import Fields, TarIndex
from facelab.data.sources.encoded_source import EncodedSource, cut_runs
from facelab.errors import in_range
from facelab.progress import OnProgress

RUN = 2 << 20
"""Bytes that are asked for at once where neighbours are wanted too."""


@SOURCES.register("WebDataset")
class WebDataset(EncodedSource):
    """Images in tar shards, each with its label in a file beside it (``000012.jpg``, ``000012.cls``).

    Each shard is read once to find its samples, and what was found is kept in the folder of caches, unless an index
    lies beside it (``train-0000.tar.index``). Of shards elsewhere, single images are read by range requests; once a
    third image of one run of neighbours is wanted, as with the sampler ``ShardShuffle``, the whole run is.

    Args:
        shards: Paths or addresses (``http(s)://``, and with ``facelab[remote]`` ``s3://``, ``hf://`` and what else
            fsspec reads): one pattern or several, ``{0000..0127}`` counts; a folder means its ``.tar`` files.
        image: Ending of the image in a sample; by default the one file that has the ending of an image.
        label: Ending of the file with the label, a whole number; ``json:FIELD`` for one in JSON. By default ``cls``, or
            else ``json:label``.
        relabel: Number the classes anew where labels have gaps, instead of refusing the set.
        attempts: How often a read of a shard elsewhere is tried.
        timeout: Seconds that one try may take.
        pause: Seconds before the second try; each further pause is twice as long.
        cache_mb: MiB of runs that are kept in memory, of shards elsewhere.
        progress: Called with (shards opened, all).

    Raises:
        ConfigError: If an option is out of range, or a package for an address is not installed.
        DataError: If a shard cannot be had, is damaged or has changed, or a sample is not as it should be.
    """

    def __init__(
        self,
        shards: str | list[str],
        image: str | None = None,
        label: str | None = None,
        relabel: bool = False,
        attempts: int = 5,
        timeout: float = 30.0,
        pause: float = 0.5,
        cache_mb: int = 512,
        progress: OnProgress | None = None,
    ) -> None:
        in_range("WebDataset cache_mb", cache_mb, 1, 1 << 20)
        patience, addresses = Patience(attempts, timeout, pause), expand(shards, ".tar")
        self.shards = open_shards(addresses, Fields(image, label), patience, progress or (lambda *_: None))
        for sentence in (sentence for _, index in self.shards for sentence in index.left_out):
            logging.getLogger(__name__).warning(sentence)
        indices = [index for _, index in self.shards]
        self._starts = np.cumsum([0, *(len(index.places) for index in indices)])
        where = self.shards[0][0].name if len(self.shards) == 1 else f"{len(self.shards)} shards"
        self.labels, self.num_classes = checked_labels(
            np.concatenate([index.labels for index in indices]), where, relabel
        )
        runs = (start + cut_runs(index.places, RUN) for start, index in zip(self._starts, indices, strict=False))
        self.runs = self._runs = np.concatenate(list(runs))
        self.keeps_runs = not all(file.is_near for file, _ in self.shards)
        self._cache = RunCache[bytes](cache_mb << 20, len)
        self._history = max(2, (cache_mb << 20) // RUN)

    def encoded(self, index: int) -> bytes:
        """Image ``index`` as stored."""
        file, shard, row = self._find(index)
        if file.is_near:
            return shard.content(row, file)
        run = int(np.searchsorted(self._runs, index, side="right")) - 1
        if not self._cache.is_wanted(run, self._history):
            return shard.content(row, file)
        first, last = self._rows_of_run(run)
        begin, end = shard.span(first)[0], shard.span(last)[1]
        content = self._cache.get(run, lambda: file.read(begin, end - begin))
        start, stop = shard.span(row)
        return shard.checked(row, content[start - begin : stop - begin], file)

    def location(self, index: int) -> str:
        """Shard and file."""
        file, shard, row = self._find(index)
        return f"{file.name}/{readable_name(shard.names[row])}"

    def name(self, index: int) -> str:
        """Name of the shard and of the file in it."""
        file, shard, row = self._find(index)
        return f"{posixpath.basename(urlsplit(file.name).path)}/{shard.names[row].decode('utf-8', 'surrogateescape')}"

    def fingerprint(self) -> str:
        """Hash of the names, sizes and labels of all images."""
        return self._fingerprint

    def revision(self) -> str:
        """The same and the versions of all shards."""
        return hash_of([self._fingerprint, *(f"{file.size} {file.version}" for file, _ in self.shards)])

    @cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.blake2b(digest_size=16)
        for _, index in self.shards:
            digest.update(hash_of(name.decode("utf-8", "surrogateescape") for name in index.names).encode())
            digest.update(index.sizes.tobytes())
        digest.update(np.ascontiguousarray(self.labels).data)
        return digest.hexdigest()

    def _find(self, index: int) -> tuple[RangedFile, TarIndex, int]:
        """The shard of an image, and its row in it."""
        image = range(len(self))[index]
        number = int(np.searchsorted(self._starts, image, side="right")) - 1
        return *self.shards[number], image - int(self._starts[number])

    def _rows_of_run(self, run: int) -> tuple[int, int]:
        """First and last row of a run in its shard."""
        start = int(self._runs[run])
        stop = int(self._runs[run + 1]) if run + 1 < len(self._runs) else len(self)
        row = self._find(start)[2]
        return row, row + stop - start - 1
