"""The files below a root, whatever the root is."""

from pathlib import Path

from facelab.data.formats.files import ARCHIVES, FolderFiles, ImageFiles, is_archive
from facelab.data.formats.tar import TarFiles
from facelab.data.formats.unpacked_tar import open_unpacked
from facelab.data.formats.zip import ZipFiles
from facelab.errors import DataError


def open_files(root: Path) -> ImageFiles:
    """The files of a folder, or of an archive; a ``.tar.gz`` is unpacked into the folder of caches first.

    Raises:
        DataError: If ``root`` does not exist or is neither.
    """
    if root.is_dir():
        return FolderFiles(root)
    if not root.exists():
        raise DataError(f"{root}: there is no such folder or archive.")
    if not is_archive(root):
        raise DataError(
            f"{root}: images are read from a folder or from an archive ({', '.join(ARCHIVES)}); this is neither."
        )
    if root.name.lower().endswith(".zip"):
        return ZipFiles(root)
    return TarFiles(root) if root.name.lower().endswith(".tar") else open_unpacked(root)
