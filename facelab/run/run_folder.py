"""The folder of a run: made by one process alone, locked as long as a process of the run lives, no trace if refused."""

import errno
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from facelab import distributed
from facelab.errors import ConfigError

if sys.platform != "win32":
    import fcntl

LOCK = ".lock"


@contextmanager
def claimed(folder: Path | None, new: Path, say: Callable[[str], None]) -> Iterator[Path]:
    """Context in which no other run can use a folder; every process of the run enters it.

    Every process holds the lock, so that a folder stays closed as long as one of them lives, whichever was killed. The
    system lifts the lock of a process that ends, so it cannot be left behind.

    Args:
        folder: The run's folder, made if it is missing; None makes a new one.
        new: That new one; where it exists, a number is added to its name.
        say: Told in a sentence if the file system cannot lock.

    Yields:
        The folder, the same on every process.

    Raises:
        ConfigError: If another run uses the folder, or it cannot be made or written to.
    """
    made: list[Path] = []
    lock = _Lock()
    try:
        found = folder

        def claim_first() -> None:
            nonlocal found
            if distributed.is_main():
                found = _make_new(new, made) if folder is None else _make(folder, made)
                lock.take(found)

        distributed.together(claim_first)
        place, made[:] = distributed.broadcast_object((found, made))
        assert place is not None, "the first process made it"
        distributed.together(lambda: None if distributed.is_main() else lock.join(place))
        if not lock.works:
            say(f"the file system of '{place}' cannot lock: take care that no other run writes there.")
        yield place
    finally:
        lock.leave()
        for path in reversed(made):
            with suppress(OSError):  # it is not empty if anything came of the run
                path.rmdir()


@dataclass
class _Lock:
    """A shared lock of the processes of one run on a file that names them.

    Attributes:
        works: Whether the file system can lock.
    """

    works: bool = True
    _path: Path | None = None
    _file: int = field(default=-1)

    def take(self, folder: Path) -> None:
        """Lock as the first process."""
        self._open(folder, alone=True)
        # Those who signed and were killed may still stand there.
        os.ftruncate(self._file, 0)
        self._sign()
        # Shared from here on: other processes of this run get in, another run, which wants it alone first, does not.
        self._lock(alone=False)

    def join(self, folder: Path) -> None:
        """Lock as another process of the same run."""
        self._open(folder, alone=False)
        self._sign()

    def leave(self) -> None:
        """Unlock; the last process removes the file."""
        if self._path is None:
            return
        if self.works and self._lock(alone=True):
            self._path.unlink(missing_ok=True)
        os.close(self._file)
        self._path = None

    def _open(self, folder: Path, *, alone: bool) -> None:
        path = folder / LOCK
        while self._path is None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            except FileNotFoundError:  # a run that was refused has just removed the folder
                continue
            except OSError as error:
                raise _unusable(folder, error) from None
            if not self._lock(alone=alone):
                holders = _holders(path)
                os.close(self._file)
                raise ConfigError(
                    f"'{folder}' is in use by {holders}; wait for its end or stop it, or choose another folder."
                )
            if _same_file(self._file, path):  # else its last holder removed it in between
                self._path = path
            else:
                os.close(self._file)

    def _lock(self, *, alone: bool) -> bool:
        """Lock or change the lock; False if another process is in the way."""
        if sys.platform == "win32":
            self.works = False
            return True
        try:
            fcntl.flock(self._file, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # some network file systems have no locks
            self.works = False
        return True

    def _sign(self) -> None:
        with suppress(OSError):  # on a full disk nobody is named
            os.write(self._file, f"{os.getpid()} {socket.gethostname()}\n".encode())


def _make(folder: Path, made: list[Path]) -> Path:
    """The folder with its parents; those that were missing are added to ``made``, the outermost first."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        try:
            path.mkdir()
        except FileExistsError:  # another run was faster
            continue
        except OSError as error:
            raise _unusable(path, error) from None
        made.append(path)
    if not folder.is_dir():
        raise _unusable(folder, NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)))
    return folder


def _make_new(folder: Path, made: list[Path]) -> Path:
    """A folder that nobody else has: ``name``, else ``name-2`` and so on."""
    _make(folder.parent, made)
    for number in count(1):
        path = folder if number == 1 else folder.with_name(f"{folder.name}-{number}")
        try:
            path.mkdir()
        except FileExistsError:
            continue
        except OSError as error:
            raise _unusable(path, error) from None
        made.append(path)
        return path
    raise AssertionError("there is always a next number")


def _unusable(folder: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"a run cannot be written to '{folder}': {error.strerror}; choose another place by --run FOLDER or "
        "output=FOLDER."
    )


def _holders(lock: Path) -> str:
    """The living among those who signed, in words."""
    try:
        signed = [line.split() for line in lock.read_text(errors="replace").splitlines()]
    except OSError:
        signed = []
    here = socket.gethostname()
    living = [words for words in signed if len(words) == 2 and (words[1] != here or _lives(words[0]))]
    if not living:
        return "another run"
    numbers = ", ".join(words[0] for words in living)
    return f"process{'es' if len(living) > 1 else ''} {numbers} on {living[0][1]}"


def _lives(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, ValueError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
