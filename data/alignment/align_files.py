"""Aligning many images: reads a folder or archive, writes a folder, names what could not be aligned."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2

from facelab.data.alignment.alignment import TemplateForm, align, refuse_other_order, template
from facelab.data.alignment.crop_names import crop_names
from facelab.data.alignment.landmarks import Landmarks
from facelab.data.base import Pixels
from facelab.data.formats.files import ImageFiles
from facelab.data.formats.images import decode_image
from facelab.data.loading.ordered_map import ordered_map
from facelab.data.loading.refusals import Refusal
from facelab.errors import DataError, in_range, one_of
from facelab.threads import thread_count
from facelab.weights.temporary import remove_leftovers, temporary_name

Format = Literal["png", "jpg"]
AHEAD = 64


@dataclass(frozen=True)
class AlignOptions:
    """How images are aligned and written.

    Attributes:
        size: Side of the aligned images, in pixels.
        form: See `facelab.data.alignment.alignment.template`.
        format: ``png`` loses nothing, ``jpg`` is smaller.
        quality: Of JPEG, 95 to 100.
        on_error: ``error`` stops at an image that cannot be aligned, ``skip`` leaves it out.
        overwrite: Replace files that exist.
        workers: Threads, see `facelab.threads.thread_count`.

    Raises:
        ConfigError: If a value is out of range.
    """

    size: int = 112
    form: TemplateForm = "scaled"
    format: Format = "png"
    quality: int = 95
    on_error: Literal["error", "skip"] = "error"
    overwrite: bool = False
    workers: int = 2

    def __post_init__(self) -> None:
        template(self.size, self.form)
        one_of("form", self.form, ("scaled", "resized"))
        one_of("format", self.format, ("png", "jpg"))
        one_of("on_error", self.on_error, ("error", "skip"))
        in_range("quality", self.quality, 95, 100)
        thread_count(self.workers)


def align_files(files: ImageFiles, landmarks: Landmarks, out: Path, options: AlignOptions) -> Iterator[Refusal | None]:
    """Align every image that has landmarks and write it below ``out`` under its own name, with the format's ending.

    Files are written whole or not at all, so that an interrupted run leaves nothing half done.

    Args:
        files: Where the images are.
        landmarks: Which of them, and their landmarks.
        out: Folder to write to.
        options: How.

    Yields:
        For each image, in the order of ``landmarks``: None, or why it was left out.

    Raises:
        DataError: Before anything is written if no face has its landmarks like most are, a file exists, two images
            would become one file, or (under ``on_error: error``) an image is missing; later at the first image that
            cannot be aligned; if the disk is full.
    """
    targets = _targets(files, landmarks, out, options)
    remove_leftovers(out.rglob(".*.part"))
    refuse_other_order(landmarks.points, landmarks.names.__getitem__)
    missing = [name for name in landmarks.names if options.on_error == "error" and files.size(name) is None]
    if missing:
        raise DataError(
            f"{files.root}: {len(missing)} of {len(targets)} images with landmarks are missing, "
            f"the first is '{missing[0]}'."
        )

    def work(row: int) -> Refusal | None:
        name = landmarks.names[row]
        where = files.where(name)
        try:
            pixels = decode_image(files.read(name), where)
            aligned = align(pixels, landmarks.points[row], options.size, options.form, where)
        except DataError as error:
            if options.on_error == "error":
                raise
            return Refusal(where, str(error))
        write_crop(targets[row], aligned, options)
        return None

    yield from ordered_map(work, range(len(targets)), workers=thread_count(options.workers), ahead=AHEAD)


def _targets(files: ImageFiles, landmarks: Landmarks, out: Path, options: AlignOptions) -> list[Path]:
    if out.resolve() == files.root.resolve():
        raise DataError(f"{out}: is the folder of the images themselves; write to another.")
    named = crop_names(landmarks.names, out)
    targets = [out / f"{named[name]}.{options.format}" for name in landmarks.names]
    existing = [] if options.overwrite else [target for target in targets if target.exists()]
    if existing:
        raise DataError(
            f"{existing[0]}: exists ({len(existing)} of {len(targets)} do); "
            "write to another folder, or allow it with --overwrite."
        )
    return targets


def write_crop(path: Path, pixels: Pixels, options: AlignOptions) -> None:
    """Write an aligned face, whole or not at all.

    Raises:
        DataError: If it cannot be written.
    """
    parameters = [cv2.IMWRITE_JPEG_QUALITY, options.quality] if options.format == "jpg" else []
    done, data = cv2.imencode(f".{options.format}", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), parameters)
    if not done:
        raise AssertionError(f"OpenCV cannot write {options.format}")
    temporary = temporary_name(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(bytes(data.tobytes()))
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise DataError(f"{path}: cannot be written ({error.strerror}).") from None
