"""Writing WebDataset shards, each with its index beside it."""

import io
import posixpath
import tarfile
from collections.abc import Callable
from pathlib import Path

from facelab.data.base import Source
from facelab.data.formats.writing import written_files, written_folder
from facelab.data.shards.kept_index import BESIDE
from facelab.data.shards.ranged_file import LocalFile
from facelab.data.shards.tar_index import Fields, index_tar


def write_webdataset(
    target: Path,
    source: Source,
    encoded: Callable[[int], bytes],
    names: Callable[[int], str],
    per_shard: int,
    progress: Callable[[int], None] = lambda _: None,
) -> None:
    """Write a source as tar shards ``shard-00000.tar`` and on, in its order.

    Args:
        target: The new folder; it appears when all of it is written, or not at all.
        source: The labels.
        encoded: Gives image ``index`` as JPEG or PNG.
        names: Gives the path of image ``index`` without its ending.
        per_shard: Images of a shard.
        progress: Called with the number of images done.

    Raises:
        DataError: If the target exists or the disk is full.
        CorruptImage: If an image cannot be read.
    """
    with written_folder(target) as folder:
        for number, start in enumerate(range(0, len(source), per_shard)):
            path = folder / f"shard-{number:05d}.tar"
            with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
                for index in range(start, min(start + per_shard, len(source))):
                    data = encoded(index)
                    ending = "png" if data.startswith(b"\x89PNG") else "jpg"
                    key = _key(names(index))
                    _add(archive, f"{key}.{ending}", data)
                    _add(archive, f"{key}.cls", str(source.labels[index]).encode())
                    progress(index + 1)
            # Found by reading the shard as everybody else will.
            Path(f"{path}{BESIDE}").write_bytes(index_tar(LocalFile(path), Fields()).packed())


def write_tar_index(path: Path) -> Path:
    """Write the index of a shard beside it, so that whoever reads the shard elsewhere need not read all of it first.

    Returns:
        The new file.

    Raises:
        DataError: If it exists, or the shard is damaged or has other samples than it should have.
    """
    target = Path(f"{path}{BESIDE}")
    with written_files(target) as (part,):
        part.write_bytes(index_tar(LocalFile(path), Fields()).packed())
    return target


def _key(name: str) -> str:
    """A name whose last part has no dot, since the first one ends the name of a sample."""
    folder, last = posixpath.split(name)
    return posixpath.join(folder, last.replace(".", "_"))


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)  # no times, owners or rights: the same source gives the same bytes
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))
