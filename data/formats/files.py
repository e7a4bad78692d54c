"""Image files by name, from a folder or from a tar archive that is read without unpacking it."""

import hashlib
import os
import posixpath
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from itertools import groupby
from pathlib import Path

from facelab.data.formats.image_header import MAX_ENCODED
from facelab.data.formats.text_list import one_form
from facelab.errors import CorruptImage, DataError
from facelab.outside.file import read_regular

IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".png", ".bmp", ".dib", ".webp", ".pgm", ".ppm", ".pnm", ".tif", ".tiff")
)
ARCHIVES = (".tar", ".zip", ".tar.gz", ".tgz")
NO_IMAGE = "files without the ending of an image"
NO_FOLDER = "images in no person's folder"
DEEPER = "images deeper than a person's folder"
EMPTY = "folders without an image of their own"


class LeftOut:
    """What was passed over while a folder or archive was looked through: how many for each reason, and the first."""

    def __init__(self) -> None:
        self._count: Counter[str] = Counter()
        self._first: dict[str, str] = {}

    def add(self, reason: str, name: str, count: int = 1) -> None:
        """Count something; the first name of a reason is kept."""
        self._count[reason] += count
        self._first.setdefault(reason, name)

    def sentences(self, root: Path | str) -> tuple[str, ...]:
        """One for each reason: how many, why, and the first name."""
        return tuple(
            f"{root}: {count} left out, {why} (first: {self._first[why]!r})." for why, count in self._count.items()
        )


class ImageFiles(ABC):
    """The files below one root. Names are relative paths with ``/``; reads may come from several threads.

    Attributes:
        root: The folder or archive.
        skipped: What was left out, one sentence for each reason: from an archive when it was indexed, and by `people`
            once it has given all of them.
    """

    root: Path
    skipped: tuple[str, ...] = ()

    def names(self) -> Iterator[str]:
        """Names of all files, those of a folder in succession."""
        raise NotImplementedError

    def folders(self) -> Iterator[tuple[str, list[str]]]:
        """Each folder that has images with their sorted names, in the order of the folders' names; '' is the root."""
        found: dict[str, list[str]] = {}
        for folder, names in groupby(filter(_may_be_image, self.names()), posixpath.dirname):
            found.setdefault(folder, []).extend(names)
        yield from sorted(found.items())

    def people(self) -> Iterator[tuple[str, list[str]]]:
        """Each person with the sorted names of the images, in the order of the people's names.

        A person is a folder with images; the name is the whole path. All lie at one depth below the folder that holds
        everything, that of the highest one: what lies deeper, or beside the people, is left out and counted in
        ``skipped``. Hidden files are passed over in silence.
        """
        left_out, found = LeftOut(), dict(self.folders())
        # Archives mostly have one folder around all people, which is nobody's, whatever images lie in it.
        top = posixpath.commonpath(found) if len(found) > 1 and "" not in found else ""
        depth = min((folder.count("/") for folder in found if folder != top), default=0)
        people = {folder for folder in found if folder and folder.count("/") == depth}
        for folder, images in found.items():
            if folder in people:
                yield folder, images
            else:
                left_out.add(NO_FOLDER if folder in ("", top) else DEEPER, images[0], len(images))
        for name in self.names():
            if posixpath.dirname(name) in people and not _may_be_image(name) and not _is_hidden(name):
                left_out.add(NO_IMAGE, name)
        self.skipped = tuple(dict.fromkeys((*self.skipped, *left_out.sentences(self.root))))

    def find(self, name: str) -> str | None:
        """The file of a name, or else the one image beside it that differs in ending or Unicode form alone.

        Lists name images as they were published; aligned copies are PNG, and macOS writes accents in two parts.

        Returns:
            Its name, or None if there is neither.

        Raises:
            DataError: If several images have that stem.
        """
        # One look at the disk in the usual case; only then is the whole folder listed.
        if self.size(name) is not None:
            return name
        folder, file = posixpath.split(posixpath.normpath(one_form(name)))
        stems = self._stems(folder)
        # Crops of namesakes keep the whole name: IMG.jpg.png beside IMG.png.png.
        found = stems.get(file) or stems.get(_stem(file), [])
        if len(found) > 1:
            raise DataError(
                f"{self.root}: '{name}' is not there, but {len(found)} images are called like it, '{found[0]}' and "
                f"'{found[1]}'; keep one of them."
            )
        return found[0] if found else None

    def _stems(self, folder: str) -> Mapping[str, list[str]]:
        """Images of a folder by their stems, both in one Unicode form."""
        return self._all_stems.get(folder, {})

    @cached_property
    def _all_stems(self) -> Mapping[str, Mapping[str, list[str]]]:
        found: dict[str, dict[str, list[str]]] = {}
        for folder, images in self.folders():
            _add_stems(found.setdefault(one_form(folder), {}), images)
        return found

    @abstractmethod
    def size(self, name: str) -> int | None:
        """Bytes of a file, or None if there is no such file."""

    def revision(self, names: Iterable[str]) -> str:
        """A hash of some files as they are now, another one once any of them was written anew; see `stamp`."""
        return stamp(self.root)

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
        self._found: dict[str, Mapping[str, list[str]]] = {}

    def names(self) -> Iterator[str]:
        """All files at whatever depth, sorted; what is hidden is passed over, and links to folders are not followed."""
        found: list[str] = []
        for place, folders, names in os.walk(self._base):
            folders[:] = [folder for folder in folders if not folder.startswith(".")]
            below = os.path.relpath(place, self._base)
            found += [posixpath.normpath(posixpath.join(below, name)) for name in names if not _is_hidden(name)]
        yield from sorted(found)

    def folders(self) -> Iterator[tuple[str, list[str]]]:
        """The folders right below the root; hidden ones are passed over."""
        for folder in self._listed(LeftOut()):
            images = self._images(folder, LeftOut())
            if images:
                yield folder, images

    def people(self) -> Iterator[tuple[str, list[str]]]:
        """One folder right below the root for each person; hidden files and folders are passed over in silence."""
        left_out = LeftOut()
        for person in self._listed(left_out):
            images = self._images(person, left_out)
            if images:
                yield person, images
            else:
                left_out.add(EMPTY, person)
        self.skipped = left_out.sentences(self.root)

    def _stems(self, folder: str) -> Mapping[str, list[str]]:
        if folder not in self._found:
            actual = self._actual(folder)
            names = [] if actual is None else [entry.name for entry in _entries(str(self.root / actual))]
            images = (posixpath.join(actual or "", name) for name in names if is_image_name(name))
            self._found[folder] = _add_stems({}, images)
        return self._found[folder]

    def _actual(self, folder: str) -> str | None:
        """A folder by its name in one Unicode form; None if there is none."""
        if (self.root / folder).is_dir():
            return folder
        above, name = posixpath.split(folder)
        place = self._actual(above) if name else None
        if place is None:
            return None
        return next(
            (
                posixpath.join(place, entry.name)
                for entry in _entries(str(self.root / place))
                if one_form(entry.name) == name and entry.is_dir()
            ),
            None,
        )

    def _listed(self, left_out: LeftOut) -> list[str]:
        """Folders right below the root; lists and other files that are no images may lie beside them."""
        folders = []
        for entry in _entries(self._base):
            if entry.is_dir():
                folders.append(entry.name)
            elif is_image_name(entry.name):
                left_out.add(NO_FOLDER, entry.name)
        return folders

    def _images(self, person: str, left_out: LeftOut) -> list[str]:
        images = []
        for entry in _entries(os.path.join(self._base, person)):  # noqa: PTH118 (speed: millions of files)
            name = f"{person}/{entry.name}"
            if is_image_name(entry.name) and not entry.is_dir():
                images.append(name)
            elif entry.is_dir():
                self._deeper(name, left_out)
            else:
                left_out.add(NO_IMAGE, name)
        return images

    def _deeper(self, folder: str, left_out: LeftOut) -> None:
        for place, folders, names in os.walk(self.root / folder):
            folders.sort()  # as they will be walked through; the disk gives them in any order
            below = Path(place).relative_to(self.root).as_posix()
            for name in sorted(filter(is_image_name, names)):
                left_out.add(DEEPER, f"{below}/{name}")

    def size(self, name: str) -> int | None:
        """Bytes of a file, or None if there is no such file."""
        try:
            return os.stat(os.path.join(self._base, name)).st_size  # noqa: PTH116, PTH118 (speed: millions of files)
        except (OSError, ValueError):  # ValueError: a zero byte in the name
            return None

    def revision(self, names: Iterable[str]) -> str:
        """A look at each file, a microsecond or two where the disk is local."""
        digest = hashlib.blake2b(digest_size=16)
        for name in names:
            digest.update(stamp(os.path.join(self._base, name)).encode())  # noqa: PTH118 (speed: millions of files)
        return digest.hexdigest()

    def read(self, name: str) -> bytes:
        """Content of a file."""
        path = os.path.join(self._base, name)  # noqa: PTH118 (speed: a fifth of the time of a small read)
        try:
            return read_regular(path, MAX_ENCODED)
        except FileNotFoundError:
            raise CorruptImage(f"{path}: there is no such image.") from None
        except OSError as error:
            raise CorruptImage(f"{path}: cannot be read ({error.strerror}).") from None


def stamp(path: str | os.PathLike[str]) -> str:
    """What changes when a file is written anew: its size, both times of change and its number; empty if there is none.

    The time of change of the inode (``ctime``) cannot be set by a program: copies that keep the time of the original,
    and archives in which all times are equal, do not deceive it. A copied or renamed data set has another stamp.
    """
    try:
        found = os.stat(path)  # noqa: PTH116 (speed: millions of files)
    except (OSError, ValueError):
        return ""
    return f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns} {found.st_ino}\n"


def _entries(folder: str) -> list[os.DirEntry[str]]:
    """What lies in a folder, by name, without what is hidden."""
    with os.scandir(folder) as entries:
        # Labels follow this order, and that of a folder is another one on each file system.
        return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)


def _stem(file: str) -> str:
    """A file's name without the ending of an image, in one Unicode form."""
    stem, ending = posixpath.splitext(one_form(file))
    return stem if ending.lower() in IMAGE_SUFFIXES else stem + ending


def _add_stems(stems: dict[str, list[str]], images: Iterable[str]) -> dict[str, list[str]]:
    for image in images:
        stems.setdefault(_stem(posixpath.basename(image)), []).append(image)
    return stems


def _may_be_image(path: str) -> bool:
    return is_image_name(posixpath.basename(path))


def _is_hidden(path: str) -> bool:
    return posixpath.basename(path).startswith(".")


def is_image_name(name: str) -> bool:
    """Whether a file's ending is one of `IMAGE_SUFFIXES` and it is not hidden."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122 (speed)


def is_archive(path: Path) -> bool:
    """Whether a file's name ends as one of `ARCHIVES`."""
    return path.name.lower().endswith(ARCHIVES)
