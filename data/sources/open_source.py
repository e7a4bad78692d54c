"""A source from what a user types: a path whose kind shows, a registered name, or YAML."""

from pathlib import Path

from facelab.catalogue import build
from facelab.data.base import SOURCES, Source
from facelab.data.formats.files import ARCHIVES, is_archive
from facelab.data.shards.address import is_pattern
from facelab.data.shards.tar_index import is_shard
from facelab.data.sources.image_folder import ImageFolder
from facelab.data.sources.image_list import ImageList
from facelab.data.sources.lmdb import LMDB
from facelab.data.sources.packed import META, Packed
from facelab.data.sources.parquet import Parquet
from facelab.data.sources.recordio import RecordIO
from facelab.data.sources.webdataset import WebDataset
from facelab.errors import ConfigError, DataError
from facelab.outside.yaml import parse_yaml
from facelab.progress import OnProgress

OTHER_ARCHIVES = frozenset((".gz", ".bz2", ".xz", ".zst", ".7z", ".rar", ".tbz2", ".txz"))
LMDB_FILES = frozenset((".lmdb", ".mdb"))
KINDS = (
    "a folder or an archive of people, a list (.txt or .lst), a .rec file, a folder that was packed, or shards "
    "(.tar in a folder, a pattern such as 'train-{0000..0127}.tar', an address; .parquet, .lmdb)"
)


def open_source(given: str | Path, root: Path | None = None, progress: OnProgress | None = None) -> Source:
    """The source that a path, a name or a piece of YAML means.

    A folder with ``meta.json`` is `Packed`, one with ``train.rec`` and a ``.rec`` file are `RecordIO`, an ``.lmdb``
    file and a folder with ``data.mdb`` are `LMDB`, ``.parquet`` files, a folder of them, a pattern and an address are
    `Parquet`, those of ``.tar`` files and one that begins with labels beside the images are `WebDataset`, other folders
    and archives are `ImageFolder`, and other files are `ImageList`. ``SyntheticFaces`` or ``{ImageFolder: {root:
    lfw.tar, min_images: 5}}`` are read as in a run's configuration.

    Args:
        given: The path, name or YAML.
        root: Where the paths of a list start; the list's folder by default.
        progress: Called with (done, all) while a source prepares itself.

    Raises:
        ConfigError: If it is neither a path that exists nor a source's name, or ``root`` is given for something else
            than a list.
        DataError: If the source cannot be used.
    """
    path = Path(given)
    text = str(given).strip()
    if not text:  # which a path would take for the folder where the user stands
        raise ConfigError(f"the source is empty; a source is {KINDS}.")
    # A file or folder that is there counts before a source of that name.
    is_spec = text.startswith("{") or (text in SOURCES and not path.exists())
    if root is not None and (is_spec or path.is_dir() or path.suffix.lower() == ".rec" or is_archive(path)):
        raise ConfigError(f"'{given}' is no list of images; a root is only needed for one.")
    if is_spec:
        return build(SOURCES, parse_yaml(text, f"the source '{text[:80]}'"), progress=progress)
    if is_pattern(text) and not path.exists():
        return _of_shards(text, progress)
    if not path.exists():
        raise DataError(f"{given}: there is no such file or folder; a source is {KINDS}.")
    if path.is_dir():
        return _of_folder(path, progress)
    if path.suffix.lower() == ".rec":
        return RecordIO(path)
    if path.suffix == ".parquet":
        return Parquet(text, progress=progress)
    if path.suffix.lower() in LMDB_FILES:
        return LMDB(path, progress=progress)
    if is_archive(path):
        return WebDataset(text, progress=progress) if is_shard(path) else ImageFolder(path)
    if path.suffix.lower() in OTHER_ARCHIVES:
        raise DataError(f"{given}: of archives, {', '.join(ARCHIVES)} are read; unpack it, or pack it as one of them.")
    if path.suffix.lower() == ".bin":
        raise DataError(f"{given}: a .bin file is a verification pack, to test with (BinPack.path={given}).")
    return ImageList(path.parent if root is None else root, path)


def _of_folder(path: Path, progress: OnProgress | None) -> Source:
    if (path / META).is_file():
        return Packed(path)
    if (path / "train.rec").is_file():
        return RecordIO(path)
    if (path / "data.mdb").is_file():
        return LMDB(path, progress=progress)
    entries = [entry for entry in path.iterdir() if not entry.name.startswith(".")]
    endings = {"/" if entry.is_dir() else entry.suffix for entry in entries}
    if ".parquet" in endings:
        return Parquet(str(path), progress=progress)
    return WebDataset(str(path), progress=progress) if ".tar" in endings and "/" not in endings else ImageFolder(path)


def _of_shards(pattern: str, progress: OnProgress | None) -> Source:
    """Files elsewhere, or several at once; an address may have a query behind its name."""
    is_parquet = pattern.partition("?")[0].endswith(".parquet")
    return (Parquet if is_parquet else WebDataset)(pattern, progress=progress)
