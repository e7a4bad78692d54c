"""A file by its address, wherever it lies."""

from pathlib import Path

from facelab.data.shards.address import is_remote
from facelab.data.shards.fsspec_file import FsspecFile
from facelab.data.shards.http_file import HttpFile
from facelab.data.shards.patience import Patience
from facelab.data.shards.ranged_file import LocalFile, RangedFile


def open_ranged(address: str, patience: Patience) -> RangedFile:
    """The file of an address: a path, ``http(s)://``, or what fsspec reads.

    Raises:
        ConfigError: If a package for it is not installed.
        DataError: If it cannot be had.
    """
    if not is_remote(address):
        return LocalFile(Path(address))
    return HttpFile(address, patience) if address.startswith(("http://", "https://")) else FsspecFile(address, patience)
