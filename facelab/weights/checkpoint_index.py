"""Which checkpoint of a run is the last, which the best, and which are kept for good: ``index.json`` beside them."""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from facelab.errors import CheckpointError, DataError
from facelab.outside.json import read_json
from facelab.weights.manifest import MANIFEST, is_whole, score_of
from facelab.weights.synced_files import sync_folder, write_bytes

INDEX = "index.json"
STEP = re.compile(r"step-(\d{1,18})")


@dataclass(frozen=True)
class CheckpointIndex:
    """Names of the checkpoints that stay.

    Attributes:
        last: The newest one; None before the first.
        best: That of the highest score; the first of equal ones, None without any score.
        best_score: Its score.
        kept: Those that are never deleted.
    """

    last: str | None = None
    best: str | None = None
    best_score: float | None = None
    kept: Sequence[str] = ()

    def with_new(self, name: str, score: float | None, *, keep: bool) -> "CheckpointIndex":
        """The index after a checkpoint was written."""
        index = replace(self, last=name, kept=sorted({*self.kept, name}) if keep else self.kept)
        if index.best == name:  # written over after going back to an earlier checkpoint
            index = replace(index, best=None, best_score=None)
        if score is not None and (index.best_score is None or score > index.best_score):
            index = replace(index, best=name, best_score=score)
        return index

    def stays(self, name: str) -> bool:
        """Whether a checkpoint is one that is not deleted."""
        return name in (self.last, self.best, *self.kept)


def read_index(folder: Path) -> CheckpointIndex:
    """The index of a folder of checkpoints; only reads.

    Where ``index.json`` is lost, damaged or names a last checkpoint that is not there, all checkpoints that are
    there are kept, the newest is the last one, and the best is that of the best score in their manifests.

    Raises:
        CheckpointError: If there are folders of checkpoints, and none of them is complete.
    """
    stored = _stored(folder / INDEX)
    if stored is not None and stored.last is not None and is_whole(folder / stored.last):
        return stored
    names = whole_checkpoints(folder)
    broken = sorted(path for path in folder.glob("step-*") if path.is_dir())
    if broken and not names:
        raise CheckpointError(
            f"'{folder}' holds no complete checkpoint: '{broken[-1].name}' lacks {MANIFEST}. Bring it back, "
            "or move the folder away to start anew."
        )
    scores = {name: score for name in names if (score := score_of(folder / name)) is not None}
    best = max(scores, key=lambda name: scores[name], default=None)
    return CheckpointIndex(
        last=names[-1] if names else None,
        best=best,
        best_score=None if best is None else scores[best],
        kept=names,
    )


def whole_checkpoints(folder: Path) -> list[str]:
    """Names of all complete checkpoints, oldest first."""
    found = (path.parent.name for path in folder.glob(f"step-*/{MANIFEST}"))
    return sorted(name for name in found if STEP.fullmatch(name))


def write_index(folder: Path, index: CheckpointIndex) -> None:
    """Replace the index of a folder of checkpoints."""
    partial = folder / f".{INDEX}"
    write_bytes(partial, json.dumps(asdict(index), indent=1).encode())
    # Renaming is one step: whoever reads sees the old index or the new one, and a kill leaves one of them.
    partial.replace(folder / INDEX)
    sync_folder(folder)


def _stored(path: Path) -> CheckpointIndex | None:
    """What ``index.json`` says; None if it is missing or anything in it is not what we write."""
    try:
        stored = read_json(path, "an index of checkpoints")
        index = CheckpointIndex(
            last=stored.get("last"),
            best=stored.get("best"),
            best_score=stored.get("best_score"),
            kept=stored.get("kept", []),
        )
        names = [name for name in (index.last, index.best, *index.kept) if name is not None]
        score = index.best_score
        whole = all(STEP.fullmatch(name) for name in names) and (score is None or math.isfinite(score))
    except (DataError, TypeError, AttributeError):
        return None
    return index if whole and (index.best is None) == (score is None) else None
