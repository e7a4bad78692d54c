"""FaceX-Zoo's training set: a list of ``path label`` lines and a root folder."""

from pathlib import Path
from typing import Literal

from facelab.data.base import SOURCES
from facelab.data.formats.alignment_record import read_alignment
from facelab.data.formats.labels import checked_labels
from facelab.data.formats.list_file import ListFile
from facelab.data.formats.lst_file import LstFile
from facelab.data.formats.open_files import open_files
from facelab.data.sources.file_source import FileSource
from facelab.errors import DataError


def open_list(path: Path) -> ListFile | LstFile:
    """The list of a file, by its ending.

    Raises:
        DataError: If the file is missing, empty or has a bad line.
    """
    return LstFile(path) if path.suffix.lower() == ".lst" else ListFile(path)


@SOURCES.register("ImageList")
class ImageList(FileSource):
    """Images named by a list with ``path label`` on each line, as FaceX-Zoo writes it.

    The label is the last field, so that paths may have spaces; blank lines are skipped. A hundred million lines take
    1.8 GB: paths stay in the list on disk and are read from there.

    Args:
        root: Folder or archive (``.tar``, ``.zip``, ``.tar.gz``) that the paths start from.
        list_file: The list; im2rec's form (``key <tab> label <tab> path``) if its name ends in ``.lst``.
        relabel: Number the classes anew where labels have gaps, instead of refusing the list.
        check_files: Which images must exist before training starts: ``sample`` (1000 of them, spread evenly), ``all``
            or ``none``. A missing image that this did not find is met as a corrupt one.

    Raises:
        DataError: If the list or root is missing, a line is not ``path label``, a class has no image, or an image that
            was looked for is missing.
    """

    def __init__(
        self,
        root: Path,
        list_file: Path,
        relabel: bool = False,
        check_files: Literal["sample", "all", "none"] = "sample",
    ) -> None:
        self.list = open_list(Path(list_file))
        self.labels, self.num_classes = checked_labels(self.list.labels, str(list_file), relabel)
        self.files = open_files(Path(root))
        self.warn_of_skipped()
        self.alignment = read_alignment(self.files)
        looked_for = {"all": range(len(self.list)), "sample": self.probes(), "none": ()}[check_files]
        missing = next((index for index in looked_for if self.files.size(self.name(index)) is None), None)
        if missing is not None:
            near = self.files.find(self.name(missing))
            beside = f"; but there is '{near}'" if near else ""
            raise DataError(
                f"{self.location(missing)}: there is no such image{beside}; the list's paths are taken to start in "
                f"'{root}'."
            )

    def name(self, index: int) -> str:
        """Path of image ``index`` as the list gives it."""
        return self.list[index].decode("utf-8", "surrogateescape")

    def names_digest(self) -> str:
        """A hash of the list."""
        return self.list.digest()

    def origin(self, index: int) -> str:
        """The list and its line."""
        return f"{self.list.path} line {self.list.line(index)}: "
