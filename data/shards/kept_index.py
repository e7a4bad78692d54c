"""Indices of shards that were made once: beside the shard, or in the folder of caches."""

import hashlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event

from facelab.data.formats.writing import written_files
from facelab.data.loading.ordered_map import ordered_map
from facelab.data.shards.address import is_remote
from facelab.data.shards.open_ranged import open_ranged
from facelab.data.shards.patience import Patience
from facelab.data.shards.ranged_file import RangedFile
from facelab.data.shards.tar_index import Fields, TarIndex, index_tar, largest_index, read_index
from facelab.data.synthetic.cache import alone, cache_folder
from facelab.errors import DataError
from facelab.outside.file import read_regular

BESIDE = ".index"
"""What the name of a shard is followed by in that of its index."""
OPENERS = 16
"""Shards that are opened at the same time: each waits for its server."""


def open_shards(
    addresses: Sequence[str], fields: Fields, patience: Patience, progress: Callable[[int, int], None]
) -> list[tuple[RangedFile, TarIndex]]:
    """The shards of some addresses with their indices; those without one are read once, and their index is kept.

    Args:
        addresses: The shards.
        fields: Which files of a sample are read.
        patience: How often and how long what lies elsewhere is asked for.
        progress: Called with the number of shards done, and of all.

    Raises:
        ConfigError: If a package for an address is not installed.
        DataError: If a shard cannot be had or is damaged, or the folder of caches cannot be written.
    """
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Processes of one machine that start together read each shard once; runs on other sets do not wait.
        lock = folder / f"shards-{_hash(chr(10).join(addresses))}.lock"
        with alone(lock):
            found, stop = [], Event()

            def opened(address: str) -> tuple[RangedFile, TarIndex]:
                return _opened(address, fields, patience, folder, stop)

            # After a failure, the other shards are not read to their ends first.
            for shard in ordered_map(opened, addresses, workers=OPENERS, ahead=OPENERS, stop=stop):
                found.append(shard)
                progress(len(found), len(addresses))
            return found
    except OSError as error:
        raise DataError(
            f"'{folder}', where indices of shards are kept, cannot be written ({error.strerror or error}); set "
            "FACELAB_CACHE to another folder."
        ) from None


def _opened(address: str, fields: Fields, patience: Patience, folder: Path, stop: Event) -> tuple[RangedFile, TarIndex]:
    file = open_ranged(address, patience)
    key = f"{address}\n{file.size}\n{file.version}\n{fields}"
    path = folder / f"shard-{_hash(key)}.npz"
    index = _kept(path, file) if path.is_file() else None
    if index is None and fields == Fields():
        index = _beside(address, file, patience)
    if index is None:
        index = index_tar(file, fields, stop)
        path.unlink(missing_ok=True)
        with written_files(path) as (part,):
            part.write_bytes(index.packed())
    return file, index


def _hash(text: str) -> str:
    """A name for a file; what the text says, such as a password, cannot be read from it."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:24]


def _kept(path: Path, file: RangedFile) -> TarIndex | None:
    try:
        return read_index(read_regular(path, largest_index(file)), file)
    except (OSError, ValueError) as error:
        logging.getLogger(__name__).warning(f"{path}: the index of {file.name} is damaged ({error}); it is made anew.")
        return None


def _beside(address: str, file: RangedFile, patience: Patience) -> TarIndex | None:
    """The index that lies beside a shard, as `facelab data convert` writes it; None if there is none of this shard."""
    if is_remote(address):
        if "?" in address:
            return None  # a signature is for one file
    elif not Path(address + BESIDE).is_file():
        return None
    elif Path(address + BESIDE).stat().st_mtime_ns < Path(address).stat().st_mtime_ns:
        # The shard was written anew, perhaps with other labels in the same places.
        logging.getLogger(__name__).warning(f"{address}{BESIDE}: is older than its shard; it is made anew.")
        return None
    try:
        kept = open_ranged(address + BESIDE, patience)
    except DataError:
        return None  # whatever is wrong with an index, the shard itself is there
    if kept.size > largest_index(file):
        return None
    try:
        return read_index(kept.read(0, kept.size), file)
    except ValueError as error:
        logging.getLogger(__name__).warning(f"{kept.name}: is no index of {file.name} ({error}); it is made anew.")
        return None
