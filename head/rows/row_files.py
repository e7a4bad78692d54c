"""Rows and their state in files that are mapped into memory, where there are more than memory holds."""

import mmap
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from facelab.errors import ConfigError
from facelab.head.rows.row_optimizers import zeros_in_memory


class RowFiles:
    """Tensors in files without a name: whatever ends the process, nothing of them is left.

    All of a file's space is taken at once; were it taken when a page is first written, a disk that is full by then
    would end the process without a word.

    Args:
        folder: Where they lie, best a disk of this machine; made if it is not there.
        owner: Whose rows they are, for messages.
    """

    def __init__(self, folder: Path, owner: str) -> None:
        self.folder, self.owner = folder, owner
        self._files: list[tuple[mmap.mmap, int]] = []  # with the bytes of a row
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="read rows ahead")
        self._ahead: Future[None] | None = None

    def zeros(self, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
        """A tensor of zeros with a row for each class, (N, ...).

        Raises:
            ConfigError: If the folder cannot be written, or has not the room.
        """
        size = dtype.itemsize * torch.Size(shape).numel()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder) as file:
                os.posix_fallocate(file.fileno(), 0, size)
                memory = mmap.mmap(file.fileno(), size)
        except OSError as error:
            raise ConfigError(
                f"classifier.{self.owner}.folder: '{self.folder}' cannot take a file of {size / 1e9:.3g} GB with class "
                f"rows or their state ({error.strerror}); name a folder that can be written and has room for it."
            ) from None
        self._files.append((memory, size // shape[0]))
        self.expect_samples()
        return torch.frombuffer(memory, dtype=dtype).view(*shape)

    def zeros_like(self, parameter: Tensor) -> Tensor:
        """Zeros of a parameter's shape and type: in a file where it has rows, in memory where it has single numbers."""
        if parameter.ndim == 1:
            return zeros_in_memory(parameter)
        return self.zeros(parameter.shape, parameter.dtype)

    def expect_samples(self) -> None:
        """Say that rows are read here and there: what is read ahead behind one of them would be read for nothing."""
        self._advise(mmap.MADV_RANDOM)

    def expect_all(self) -> None:
        """Say that all rows are read in their order: page by page, a checkpoint would take many times as long."""
        self._advise(mmap.MADV_SEQUENTIAL)

    def _advise(self, expected: int) -> None:
        for memory, _ in self._files:
            memory.madvise(expected)

    def read_ahead(self, rows: Tensor) -> None:
        """Begin to read rows that will be asked for, int64, (N,), and return at once.

        Page by page, as they are touched, the disk would have one request at a time.
        """
        if self._ahead is not None:
            self._ahead.result()
        self._ahead = self._reader.submit(_read, list(self._files), rows.tolist())


def _read(files: list[tuple[mmap.mmap, int]], rows: list[int]) -> None:
    for memory, size in files:
        for row in rows:
            start = row * size // mmap.PAGESIZE * mmap.PAGESIZE
            memory.madvise(mmap.MADV_WILLNEED, start, (row + 1) * size - start)
