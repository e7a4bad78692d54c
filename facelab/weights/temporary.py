"""Names for what is being written, beside the place where it will lie; what killed processes left there goes."""

import glob
import hashlib
import os
import re
import shutil
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# On a shared disk a process of another machine, which cannot be asked for, may have the same number.
HOST = hashlib.blake2b(socket.gethostname().encode(), digest_size=4).hexdigest()
NAME = re.compile(r"\..*\.([0-9a-f]{8})-(\d{1,9})\.part", re.DOTALL)


def temporary_name(target: Path) -> Path:
    """A hidden name beside ``target``, this process's own, so that two that write the same do not meet."""
    return target.with_name(f".{target.name}.{HOST}-{os.getpid()}.part")


def final_place(path: Path) -> Path:
    """Where a file will lie that is being written below temporary names."""
    return Path(*(part[1:].rsplit(".", 2)[0] if NAME.fullmatch(part) else part for part in path.parts))


@contextmanager
def temporary_folder(target: Path) -> Iterator[Path]:
    """A new folder beside ``target``, which is gone after the block unless it was renamed.

    Raises:
        OSError: If it cannot be made.
    """
    remove_leftovers(target.parent.glob(f".{glob.escape(target.name)}.*.part"))
    folder = temporary_name(target)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_leftovers(found: Iterable[Path]) -> None:
    """Remove, of some files and folders, those of temporary names whose process has ended on this machine."""
    for path in list(found):  # before anything goes from the folders that are looked through
        named = NAME.fullmatch(path.name)
        if named is None or named[1] != HOST or _is_running(int(named[2])):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                path.unlink()


def _is_running(process: int) -> bool:
    if os.name == "nt":  # where the signal 0 is another one
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True
