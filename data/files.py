"""Image files by name, from a folder or from a tar archive that is read without unpacking it."""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

from facelab.data.image_header import MAX_ENCODED
from facelab.errors import CorruptImage, DataError
from facelab.outside_file import read_regular

IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".webp", ".pgm", ".ppm", ".tif", ".tiff"))


class ImageFiles(ABC):
    """The files below one root. Names are relative paths with ``/``; reads may come from several threads.

    Attributes:
        root: The folder or archive.
        skipped: What was left out when the archive was indexed, one sentence each; empty for a folder.
    """

    root: Path
    skipped: tuple[str, ...] = ()

    @abstractmethod
    def people(self) -> Iterator[tuple[str, list[str]]]:
        """Each person with the sorted names of the images, in the order of the people's names.

        Raises:
            DataError: If the root is not made of one folder for each person.
        """

    @abstractmethod
    def size(self, name: str) -> int | None:
        """Bytes of a file, or None if there is no such file."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """Content of a file.

        Raises:
            CorruptImage: If it is missing or cannot be read.
        """

    def where(self, name: str) -> str:
        """The file's place for messages."""
        return f"{self.root}/{name}"


class FolderFiles(ImageFiles):
    """Files below a folder; symbolic links are followed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._base = os.fspath(root)

    def people(self) -> Iterator[tuple[str, list[str]]]:
        """One folder for each person; files with other endings than images and hidden files are passed over."""
        with os.scandir(self._base) as entries:
            folders = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
        for person in folders:
            with os.scandir(os.path.join(self._base, person)) as entries:  # noqa: PTH118 (speed: millions of files)
                yield person, sorted(f"{person}/{entry.name}" for entry in entries if is_image_name(entry.name))

    def size(self, name: str) -> int | None:
        """Bytes of a file, or None if there is no such file."""
        try:
            return os.stat(os.path.join(self._base, name)).st_size  # noqa: PTH116, PTH118 (speed: millions of files)
        except (OSError, ValueError):  # ValueError: a zero byte in the name
            return None

    def read(self, name: str) -> bytes:
        """Content of a file."""
        path = os.path.join(self._base, name)  # noqa: PTH118 (speed: a fifth of the time of a small read)
        try:
            return read_regular(path, MAX_ENCODED)
        except FileNotFoundError:
            raise CorruptImage(f"{path}: there is no such image.") from None
        except OSError as error:
            raise CorruptImage(f"{path}: cannot be read ({error.strerror}).") from None


def is_image_name(name: str) -> bool:
    """Whether a file's ending is one of `IMAGE_SUFFIXES` and it is not hidden."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122 (speed)


def open_files(root: Path) -> ImageFiles:
    """The files of a folder, or of an uncompressed ``.tar`` archive.

    Raises:
        DataError: If ``root`` does not exist or is neither.
    """
    from facelab.data.tar import TarFiles

    if root.is_dir():
        return FolderFiles(root)
    if not root.exists():
        raise DataError(f"{root}: there is no such folder or archive.")
    if root.suffix.lower() != ".tar":
        raise DataError(f"{root}: images are read from a folder or from an uncompressed .tar archive; this is neither.")
    return TarFiles(root)
