"""Photos as people have them: a folder or archive with images at whatever depth, or a list of paths."""

import posixpath
from dataclasses import dataclass
from pathlib import Path

from facelab.data.formats.files import NO_IMAGE, ImageFiles, LeftOut, is_archive, is_image_name
from facelab.data.formats.open_files import open_files
from facelab.data.formats.text_list import is_whole, name_below, text_lines
from facelab.errors import DataError


@dataclass(frozen=True)
class Photos:
    """Some images of a folder or archive.

    Attributes:
        files: Where they are.
        names: Which of them, in order, each once.
        left_out: Which files are no photos by their endings, a sentence.
    """

    files: ImageFiles
    names: tuple[str, ...]
    left_out: tuple[str, ...] = ()


def open_photos(source: Path, root: Path | None = None) -> Photos:
    """The images of a folder or archive, hidden ones left out, or those that a list names.

    Args:
        source: The folder, the archive, or a text file with one path on each line; a label behind it is passed over.
        root: Where the paths of a list start; by default the folder of the list.

    Raises:
        DataError: If there is no such source, it has no image, or a line is not a path below ``root``.
    """
    left_out = LeftOut()
    if source.is_dir() or is_archive(source) or not source.exists():
        files = open_files(source)
        names = []
        for name in files.names():
            if is_image_name(posixpath.basename(name)):
                names.append(name)
            elif not posixpath.basename(name).startswith("."):
                left_out.add(NO_IMAGE, name)
    else:
        files = open_files(source.parent if root is None else root)
        lines = text_lines(source, errors="surrogateescape")
        names = [_listed(files, line, f"{source}:{number}") for number, line in lines]
    if not names:
        raise DataError(" ".join((f"{source}: there is no image.", *left_out.sentences(source))))
    return Photos(files, tuple(dict.fromkeys(names)), left_out.sentences(source))


def _listed(files: ImageFiles, line: str, where: str) -> str:
    name, *label = line.strip().rsplit(maxsplit=1)
    # A name may end in a blank and a number itself; only where there is no such file is it a label.
    if label and is_whole(label[0]) and files.size(name_below(line.strip(), where)) is None:
        return name_below(name, where)
    return name_below(line.strip(), where)
