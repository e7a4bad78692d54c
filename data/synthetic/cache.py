"""Rendered once, read often: synthetic faces in a memory map that several processes may ask for at the same moment."""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from threading import Lock

import cv2
import numpy as np
from numpy.typing import NDArray

from facelab.data.synthetic.camera import seen_landmarks
from facelab.data.synthetic.person import draw_person
from facelab.data.synthetic.photo import draw_photo
from facelab.data.synthetic.render import GENERATOR_VERSION, render_face
from facelab.errors import DataError
from facelab.outside.arrays import mapped_npy
from facelab.progress import OnProgress
from facelab.threads import cores

if sys.platform != "win32":
    import fcntl

ROWS_PER_WORKER = 400  # fewer do not repay the start of a process
ROWS_PER_REPORT = 100


@dataclass(frozen=True)
class Plan:
    """Which faces: photos 0 .. per_identity - 1 of persons first .. first + identities - 1, person by person."""

    seed: int
    first: int
    identities: int
    per_identity: int
    size: int

    def __len__(self) -> int:
        """Number of images, N."""
        return self.identities * self.per_identity

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, H, W, 3)."""
        return len(self), self.size, self.size, 3

    def render(self, row: int) -> NDArray[np.uint8]:
        """Image ``row``, RGB, (H, W, 3)."""
        person, photo = divmod(row, self.per_identity)
        return render_face(self.seed, self.first + person, photo, self.size)

    def landmarks(self, row: int) -> NDArray[np.float64]:
        """Where the five landmarks of image ``row`` lie, in pixels, (5, 2)."""
        number, photo = divmod(row, self.per_identity)
        person = draw_person(self.seed, self.first + number)
        return seen_landmarks(person, draw_photo(self.seed, self.first + number, photo)) * self.size - 0.5

    @property
    def key(self) -> str:
        """Hex hash of the faces and of everything that could change their pixels."""
        # Lines, blurs and random numbers may come out otherwise in other versions of OpenCV and NumPy.
        versions = [GENERATOR_VERSION, cv2.__version__, np.__version__]
        return hashlib.sha256(json.dumps([asdict(self), versions], sort_keys=True).encode()).hexdigest()[:16]

    @property
    def file_name(self) -> str:
        """Name of the cache file; says at a glance what lies in it."""
        return f"synthetic-{self.identities}x{self.per_identity}-{self.size}px-seed{self.seed}-{self.key}.npy"


def cache_folder() -> Path:
    """Where rendered faces lie by default: ``FACELAB_CACHE``, else ``facelab`` in the user's cache folder."""
    given = os.environ.get("FACELAB_CACHE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "facelab"


def cached_file(plan: Plan, folder: Path, progress: OnProgress | None = None) -> Path:
    """The file with the faces of ``plan``, rendered now if it is not there yet.

    It is written under a temporary name and renamed, so a file that exists is complete. Processes that ask together
    wait for the first one.

    Args:
        plan: Which faces.
        folder: Created if missing.
        progress: Called with (images done, images in all) while rendering.

    Raises:
        DataError: If the folder cannot be written, the disk is full, or rendering fails.
    """
    path = folder / plan.file_name
    if path.is_file():
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with alone(path.with_suffix(".lock")):
            # Another process may have written it while this one waited for the lock.
            if not path.is_file():
                _write(plan, path, progress or _unreported)
    except OSError as error:
        raise DataError(
            f"cannot write synthetic faces to '{folder}' ({len(plan) * plan.size**2 * 3 / 1e6:.0f} MB): "
            f"{error.strerror or error}; set FACELAB_CACHE to another folder."
        ) from None
    return path


def open_cached(path: Path, plan: Plan) -> NDArray[np.uint8]:
    """The memory map (N, H, W, 3) in a cache file.

    Raises:
        DataError: If the file does not hold the faces of ``plan``.
    """
    try:
        pixels = mapped_npy(path)
    except (OSError, ValueError) as error:
        raise DataError(f"the cache file '{path}' is damaged ({error}); delete it and it is rendered again.") from None
    if pixels.shape != plan.shape or pixels.dtype != np.uint8:
        raise DataError(f"the cache file '{path}' holds {pixels.dtype} {pixels.shape}, not {plan.shape}; delete it.")
    return pixels


def _unreported(done: int, total: int) -> None:
    """The progress callback of those who do not want to know."""


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Keep other processes of this machine out; without file locks they would only make the same file twice.

    Raises:
        OSError: If the lock file cannot be written.
    """
    with path.open("w") as handle:
        if sys.platform != "win32":
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _write(plan: Plan, path: Path, progress: OnProgress) -> None:
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=".tmp", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": plan.shape}
            np.lib.format.write_array_header_1_0(file, header)
            start = file.tell()
        _render_all(plan, temporary, start, progress)
        with temporary.open("rb+") as file:
            # Pixels first, name second: after a crash, a file that has its name is complete.
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _render_all(plan: Plan, path: Path, offset: int, progress: OnProgress) -> None:
    done, guard = 0, Lock()

    def report(rows: int) -> None:
        nonlocal done
        with guard:
            done += rows
            progress(done, len(plan))

    workers = max(1, min(cores(), len(plan) // ROWS_PER_WORKER))
    if workers == 1:
        write_rows(plan, path, offset, 0, len(plan), report)
        return
    # Each worker writes a stretch of its own, so that none waits for another.
    bounds = np.linspace(0, len(plan), workers + 1).astype(int).tolist()
    with ThreadPoolExecutor(workers) as pool:
        jobs = [pool.submit(_run_worker, plan, path, offset, start, stop, report) for start, stop in pairwise(bounds)]
        for job in jobs:
            job.result()


def write_rows(plan: Plan, path: Path, offset: int, start: int, stop: int, report: Callable[[int], None]) -> None:
    """Render rows ``start`` to ``stop`` into their place in a file whose first row begins at byte ``offset``."""
    with path.open("rb+") as file:
        file.seek(offset + start * plan.size**2 * 3)
        for first in range(start, stop, ROWS_PER_REPORT):
            last = min(first + ROWS_PER_REPORT, stop)
            # write(), not a memory map: on a full disk it raises an error, where a map kills the process
            file.write(b"".join(plan.render(row).tobytes() for row in range(first, last)))
            report(last - first)


def _run_worker(plan: Plan, path: Path, offset: int, start: int, stop: int, report: Callable[[int], None]) -> None:
    """Render in a process of its own: the work holds the GIL, and `multiprocessing` would run the caller's script."""
    job = json.dumps({"plan": asdict(plan), "path": str(path), "offset": offset, "start": start, "stop": stop})
    # The worker must import what this process would: -P keeps the folder where the user stands out of its path.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-P", "-m", "facelab.data.synthetic.worker", job]
    said = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip().isdigit():
                report(int(line))
            else:
                said.append(line.strip())
    if process.returncode != 0:
        reason = said[-1] if said else f"exit status {process.returncode}"
        raise DataError(f"rendering synthetic faces into '{path.parent}' failed: {reason}")
