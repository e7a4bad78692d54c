"""Places of a file in an object store or on a hub, through fsspec and the package of that store."""

import os
import threading
import zlib
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any

from facelab.data.shards.address import shown
from facelab.data.shards.patience import FailedError, Patience
from facelab.data.shards.ranged_file import RangedFile
from facelab.errors import ConfigError, DataError, first_line

FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotImplementedError)
MARKS = ("ETag", "etag", "LastModified", "last_commit", "mtime", "created")


class FsspecFile(RangedFile):
    """A file that fsspec reads: ``s3://``, ``hf://``, ``gs://`` and whatever else is installed.

    Credentials are those that the store's own package finds (environment, configuration files); none is taken here.

    Args:
        address: The file.
        patience: How often and how long it is asked for.

    Raises:
        ConfigError: If the package for that kind of address is not installed.
        DataError: If it cannot be had.
    """

    def __init__(self, address: str, patience: Patience | None = None) -> None:
        self.address, self.name = address, shown(address)
        self.patience = patience or Patience()
        self._open()
        info = self.patience.of(lambda _: self._told(lambda: self._system.info(self._path)), self.name, 0)
        size = info.get("size")
        if info.get("type") != "file" or not isinstance(size, int) or size < 1:
            raise DataError(f"{self.name}: is no file with content.")
        self.size = size
        self.version = next((str(info[mark]) for mark in MARKS if info.get(mark) is not None), "")

    def _open(self) -> None:
        from fsspec.core import url_to_fs  # type: ignore[import-untyped]

        try:
            self._process, (self._system, self._path) = os.getpid(), url_to_fs(self.address)
        except ImportError as error:
            raise ConfigError(
                f"'{self.name}' needs a package ({first_line(error)[:120]}): pip install 'facelab[remote]'."
            ) from None
        except (OSError, ValueError) as error:
            raise DataError(f"{self.name}: cannot be opened ({first_line(error)[:200]}).") from None

    def __getstate__(self) -> dict[str, Any]:
        """All but the open file system."""
        return {key: value for key, value in vars(self).items() if key not in ("_system", "_path", "_process")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """The same file, opened anew."""
        vars(self).update(state)
        self._open()

    def read(self, offset: int, size: int) -> bytes:
        """``size`` bytes from ``offset``."""
        key = zlib.crc32(f"{self.address} {offset}".encode())
        what = f"{self.name}: bytes {offset} to {offset + size - 1}"
        return self.patience.of(lambda _: self._try(offset, size), what, key)

    def _try(self, offset: int, size: int) -> bytes:
        data: bytes = self._told(lambda: self._system.cat_file(self._path, start=offset, end=offset + size))
        if len(data) != size:
            raise FailedError(f"{len(data)} of {size} bytes came")
        return data

    def _told(self, ask: Callable[[], Any]) -> Any:
        """What the store answers; what its package raises becomes ours."""
        if self._process != os.getpid():
            self._open()  # threads and connections of these packages do not live on in a process that was forked
        answer = Future[Any]()
        # In a thread of its own, since not every package has a time limit; one that hangs does not keep the run alive.
        threading.Thread(target=_answer, args=(answer, ask), daemon=True).start()
        try:
            error = answer.exception(self.patience.timeout)
        except FutureTimeoutError:
            raise FailedError(f"no answer within {self.patience.timeout:g} s") from None
        if error is None:
            return answer.result()
        if isinstance(error, FINAL):
            raise DataError(f"{self.name}: cannot be read ({type(error).__name__}).")
        if not isinstance(error, Exception):
            raise error
        # Each package has errors of its own, which fsspec does not translate; their texts may hold addresses with
        # signatures, so their kind alone is told.
        raise FailedError(type(error).__name__)


def _answer(answer: Future[Any], ask: Callable[[], Any]) -> None:
    try:
        answer.set_result(ask())
    except BaseException as error:  # noqa: BLE001 (it is raised where the answer is waited for)
        answer.set_exception(error)
