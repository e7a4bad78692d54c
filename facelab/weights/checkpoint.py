"""Checkpoints: one folder each, written beside its final name, synced, renamed; read only when complete and unharmed.

A run's ``checkpoints`` folder holds ``step-<update>`` folders and ``index.json``, which names the last and the best
one; it is made anew from the folders where it is lost or damaged. In a folder lie the files of a `Snapshot` and
``manifest.json`` with the hash of each and the score.
"""

import math
import shutil
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError

from facelab import distributed
from facelab.errors import CheckpointError, first_line
from facelab.weights.checkpoint_index import STEP, CheckpointIndex, read_index, whole_checkpoints, write_index
from facelab.weights.manifest import is_unharmed, is_whole, read_manifest, verify, write_manifest
from facelab.weights.snapshot import Snapshot, write_local, write_shared
from facelab.weights.synced_files import sync_folder


class CheckpointStore:
    """The checkpoints of one run.

    Args:
        folder: Where they lie; made on the first save.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, update: int, snapshot: Snapshot, *, score: float | None = None, keep: bool = False) -> Path:
        """Write one checkpoint; called on every process. The last and the best one stay, older ones are deleted.

        Args:
            update: Updates made so far; names the folder.
            snapshot: What to keep.
            score: Headline of an evaluation at this update, higher is better.
            keep: Never delete this one.

        Raises:
            CheckpointError: If it cannot be written (full disk, rights); earlier checkpoints are untouched then.
        """
        score = score if score is not None and math.isfinite(score) else None
        final = self.folder / f"step-{update:08d}"
        partial = self.folder / f".partial-{update:08d}"
        # All processes know the same reason, so that all go through the same attempts and none waits alone.
        failure = self._attempt(lambda: self._prepare(partial))
        failure = failure or self._attempt(lambda: write_local(partial, snapshot))
        failure = failure or self._attempt(lambda: self._publish(partial, final, update, snapshot, score, keep))
        if failure:
            if distributed.is_main():
                shutil.rmtree(partial, ignore_errors=True)
            raise CheckpointError(
                f"cannot write the checkpoint '{final}': {failure}. Earlier checkpoints are unharmed."
            )
        return final

    def _attempt(self, action: Callable[[], object]) -> str:
        """Run ``action`` on every process; the reason of the first failure on any of them, or an empty string."""
        reason = ""
        try:
            action()
        except (OSError, RuntimeError, SafetensorError) as error:  # torch reports a failed write as RuntimeError
            reason = (error.strerror if isinstance(error, OSError) else None) or first_line(error)
        return next((found for found in distributed.gather_objects(reason) if found), "")

    def _prepare(self, partial: Path) -> None:
        if distributed.is_main():
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)

    def _publish(
        self, partial: Path, final: Path, update: int, snapshot: Snapshot, score: float | None, keep: bool
    ) -> None:
        if not distributed.is_main():
            return
        write_shared(partial, snapshot)
        # The last of the files, so that a folder with a manifest is whole; all are on the disk before it gets its name.
        write_manifest(partial, update, score)
        sync_folder(partial)
        index = self.index()  # before there is one more
        if final.exists():  # the same update saved twice: the newer one wins
            shutil.rmtree(final)
        partial.rename(final)
        sync_folder(self.folder)
        self._retain(index.with_new(final.name, score, keep=keep))

    def _retain(self, index: CheckpointIndex) -> None:
        """Write the index, then delete the checkpoints that it does not name: a kill between leaves too many."""
        write_index(self.folder, index)
        for path in self.folder.iterdir():
            if path.name.startswith(("step-", ".partial-")) and not index.stays(path.name):
                shutil.rmtree(path, ignore_errors=True)

    def index(self) -> CheckpointIndex:
        """The last, the best and the kept checkpoints; see `read_index`."""
        return read_index(self.folder)

    def find(self, which: str) -> Path:
        """The folder of ``last``, ``best`` or ``step-<update>``, where leading zeros may be left out.

        Raises:
            CheckpointError: If there is none.
        """
        name = getattr(self.index(), which) if which in ("last", "best") else _full_name(which)
        if name and is_whole(self.folder / name):
            return self.folder / name
        existing = ", ".join(self.names()) or "none; name the folder of a run that has written some"
        raise CheckpointError(f"'{self.folder}' has no checkpoint '{which}'. There are: {existing}.")

    def names(self) -> list[str]:
        """All complete checkpoints, oldest first."""
        return whole_checkpoints(self.folder)

    def require_unharmed(self, checkpoint: Path) -> None:
        """`verify` a checkpoint of this run before going on from it, each process a share of the files.

        Raises:
            CheckpointError: On every process, if it is damaged; the message names those that are not.
        """
        try:
            names = sorted(read_manifest(checkpoint)["sha256"])[distributed.rank() :: distributed.world_size()]
            distributed.together(lambda: verify(checkpoint, names))
        except CheckpointError as error:
            offer = self.unharmed_instead(checkpoint, "go on from one by --resume")
            offer = offer or "There is no unharmed one; start anew in another folder."
            raise CheckpointError(f"{error} {offer}") from None

    def unharmed_instead(self, checkpoint: Path, option: str) -> str:
        """The sentence that offers the other unharmed checkpoints, such as with ``--resume``; empty without any."""
        good = [name for name in self.names() if name != checkpoint.name and is_unharmed(self.folder / name)]
        return f"Unharmed: {', '.join(good)}; {option} {good[-1]}." if good else ""


def is_checkpoint_name(word: str) -> bool:
    """Whether a word may name a checkpoint of a run: ``last``, ``best`` or ``step-<update>``."""
    return word in ("last", "best") or STEP.fullmatch(word) is not None


def _full_name(which: str) -> str | None:
    """The folder's name of ``step-<update>``; None for anything else, so that no path leads out of the folder."""
    found = STEP.fullmatch(which)
    return None if found is None else f"step-{int(found[1]):08d}"
