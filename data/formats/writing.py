"""Writing large files so that nothing half-written is left: a temporary name beside the target, then a rename."""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from facelab.errors import DataError
from facelab.weights.temporary import final_place, temporary_folder
from facelab.weights.whole_file import refuse_existing


@contextmanager
def written_folder(target: Path) -> Iterator[Path]:
    """A folder to write into; it becomes ``target`` when the block ends well, and disappears when it does not.

    Raises:
        DataError: If ``target`` exists, or the files cannot be written, for example because the disk is full.
    """
    refuse_existing(target)
    # Beside the target and so on the same file system, where a rename is one step.
    with _reported(target), temporary_folder(target) as temporary:
        yield temporary
        temporary.rename(target)


@contextmanager
def written_files(*targets: Path) -> Iterator[list[Path]]:
    """Temporary names for some files of one folder; all get their names when the block ends well, or none.

    Raises:
        DataError: If a target exists, or the files cannot be written, for example because the disk is full.
    """
    for target in targets:
        refuse_existing(target)
    with _reported(targets[0]), temporary_folder(targets[0]) as temporary:
        parts = [temporary / target.name for target in targets]
        yield parts
        for part, target in zip(parts, targets, strict=True):
            part.rename(target)


@contextmanager
def _reported(target: Path) -> Iterator[None]:
    """Say in one sentence what the disk had against it."""
    try:
        yield
    except OSError as error:
        place = final_place(target)
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise DataError(f"{place}: cannot be written ({error.strerror or error}).") from None
        raise DataError(f"{place}: the disk is full; nothing was written.") from None


def require_space(target: Path, size: int) -> None:
    """Check before a long work that ``size`` bytes fit beside ``target``.

    Raises:
        DataError: If they do not.
    """
    # The target's own folder may not be there yet.
    folder = next(parent for parent in target.absolute().parents if parent.exists())
    free = shutil.disk_usage(folder).free
    if size > free:
        raise DataError(f"{target}: needs {size:,} bytes, but only {free:,} are free; nothing was written.")
