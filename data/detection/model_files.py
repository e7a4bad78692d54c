"""Files of weights: those that an installed package carries, with their hashes, and those that a user has."""

import hashlib
import subprocess
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import cv2

from facelab.data.detection.base import ModelFile
from facelab.errors import ConfigError, DataError
from facelab.outside.file import read_regular
from facelab.outside.trial import run_trial

LARGEST_MODEL = 1 << 28
"""Bytes. Detectors have up to 105 MB."""
SECONDS = 60  # for a trial


@dataclass(frozen=True)
class PackagedModel:
    """A file of weights in an installed package, which is not imported.

    Attributes:
        distribution: What pip calls the package.
        package: What Python calls it.
        path: The file below the package's folder.
        sha256: What its content must be (hex): the package is another's, and its next version may bring another model.
        install: What installs it.
    """

    distribution: str
    package: str
    path: str
    sha256: str
    install: str = "pip install 'facelab[faces]'"

    def read(self, wanted_by: str) -> tuple[bytes, ModelFile]:
        """The content, and what a record says of it.

        Raises:
            ConfigError: If the package is not installed, lacks the file, or brings another one.
        """
        found = find_spec(self.package)
        folders = found.submodule_search_locations if found else None
        path = Path(folders[0]) / self.path if folders else None
        if path is None or not path.is_file():
            raise ConfigError(
                f"{wanted_by} needs {Path(self.path).name} of the package {self.distribution}, which is not installed: "
                f"{self.install}."
            )
        data, digest = _read(path)
        if digest != self.sha256:
            raise ConfigError(
                f"{path}: is not the file that {wanted_by} was tested with (SHA-256 {digest[:12]}… instead of "
                f"{self.sha256[:12]}…); install another version of {self.distribution}, or give a file as model."
            )
        return data, ModelFile(path.name, digest, f"{self.distribution} {_version(self.distribution)}")


def read_given(path: Path) -> tuple[bytes, ModelFile]:
    """The content of a user's file, and what a record says of it.

    Raises:
        DataError: If it is missing, no regular file, larger than a detector, or ends OpenCV.
    """
    data, digest = _read(path)
    _try(data, path)
    return data, ModelFile(path.name, digest, "given")


def _read(path: Path) -> tuple[bytes, str]:
    try:
        data = read_regular(path, LARGEST_MODEL)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from None
    return data, hashlib.sha256(data).hexdigest()


def _try(data: bytes, path: Path) -> None:
    """Let another process open a file first: on some networks of others OpenCV does not fail but crash."""
    try:
        done = run_trial("facelab.data.detection.network_trial", data, seconds=SECONDS)
    except subprocess.TimeoutExpired:
        raise DataError(f"{path}: is no detector: OpenCV takes more than {SECONDS} s for a small image.") from None
    if done.returncode:
        raise DataError(f"{path}: is no detector: OpenCV {cv2.__version__} crashes on it.")


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:  # a copy of the package without its metadata
        return "of unknown version"
