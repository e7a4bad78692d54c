"""Whether a resumed run trains on the people it began with: class rows mean people by their place alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from facelab.data.base import Source
from facelab.errors import ConfigError
from facelab.weights.snapshot import TRAINING
from facelab.weights.tensor_files import read_tree

KEY = "training_set"


def describe(source: Source) -> dict[str, Any]:
    """What a checkpoint keeps of a training set: the numbers of people and images, and a hash of who is who."""
    return {"people": source.num_classes, "images": len(source), "hash": source.people_hash()}


def check_training_set(
    now: dict[str, Any], checkpoint: Path, *, allow_changes: bool, say: Callable[[str], None]
) -> None:
    """Compare the training set with the one that a checkpoint was trained on.

    Args:
        now: What `describe` gives of the training set.
        checkpoint: The checkpoint.
        allow_changes: Go on with as many, but other people or images.
        say: Told in a sentence if the checkpoint does not know.

    Raises:
        ConfigError: If it changed.
    """
    then = read_tree(checkpoint / TRAINING, lazily=True).get(KEY)
    if then is None:
        say(f"'{checkpoint}' does not say whom it was trained on; take care that the training set is still the same.")
        return
    if then == now:
        return
    before, after = (f"{one['images']} images of {one['people']} people" for one in (then, now))
    changed = f"the training set changed: '{checkpoint}' was trained on {before}, and there are {after} now"
    if before == after:
        changed = (
            f"the training set changed: '{checkpoint}' was trained on {before}, and there are as many now, but with "
            "other names or labels"
        )
    if then["people"] != now["people"]:
        raise ConfigError(
            f"{changed}, so its class rows do not fit. Bring the old one back, or start a new run with this one's "
            "network as its base."
        )
    if not allow_changes:
        raise ConfigError(
            f"{changed}; its class rows may stand for other people. Bring the old one back, or pass --allow-changes to "
            "go on with the new one."
        )
