"""A resumed run trains on the people that it began with, or says that they changed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from facelab.catalogue import build
from facelab.data.base import SOURCES, Source
from facelab.errors import ConfigError
from facelab.run.run import RunResult
from facelab.run.training_set import check_training_set
from facelab.weights.checkpoint import CheckpointStore
from facelab.weights.tensor_files import read_tree

Run = Callable[..., RunResult]
CHANGED = "other names or labels; its class rows may stand for other people. .* pass --allow-changes"


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """Four people with three images each; D waits beside the set."""
    for person in "ABCD":
        folder = tmp_path / ("set" if person != "D" else "") / f"P{person}"
        folder.mkdir(parents=True)
        for number in range(3):
            pixels = np.random.default_rng([ord(person), number]).integers(0, 256, (32, 32, 3), np.uint8)
            cv2.imwrite(str(folder / f"{number}.png"), pixels)
    return tmp_path / "set"


def words(source: str) -> list[str]:
    return [f"data.source={source}", "training.batch_size=4", "training.epochs=2"]


def exchange(people: Path) -> None:
    """PA leaves and PD comes, so that every label means another person."""
    shutil.rmtree(people / "PA")
    shutil.copytree(people.parent / "PD", people / "PD")


@pytest.mark.parametrize("wrap", ["{}", "{{Concat: {{sources: [{}]}}}}", "{{Degraded: {{source: {}}}}}"])
def test_other_people_are_refused_or_allowed(tmp_path: Path, run_tiny: Run, people: Path, wrap: str) -> None:
    settings = words(wrap.format(f"{{ImageFolder: {{root: {people}}}}}"))
    run_tiny(tmp_path / "run", *settings)
    assert run_tiny(tmp_path / "run", *settings, resume=True).progress.complete
    exchange(people)
    with pytest.raises(
        ConfigError,
        match=f"the training set changed: .* 9 images of 3 people, and there are as many now, but with {CHANGED}",
    ):
        run_tiny(tmp_path / "run", *settings, resume=True)
    assert run_tiny(tmp_path / "run", *settings, resume=True, allow_changes=True).progress.complete


def test_more_people_never_fit(tmp_path: Path, run_tiny: Run, people: Path) -> None:
    settings = [*words(f"{{ImageFolder: {{root: {people}}}}}"), "data.resize=true"]
    run_tiny(tmp_path / "run", *settings)
    shutil.copytree(people.parent / "PD", people / "PD")
    sentence = "9 images of 3 people, and there are 12 images of 4 people now, so its class rows do not fit"
    for allow in (False, True):
        with pytest.raises(ConfigError, match=sentence):
            run_tiny(tmp_path / "run", *settings, resume=True, allow_changes=allow)
    shutil.rmtree(people / "PB")
    shutil.rmtree(people / "PA")
    with pytest.raises(ConfigError, match="there are 6 images of 2 people now, so its class rows do not fit"):
        run_tiny(tmp_path / "run", *settings, resume=True)


def test_exchanged_labels_are_seen(tmp_path: Path, run_tiny: Run, people: Path) -> None:
    names = sorted(path.relative_to(people).as_posix() for path in people.rglob("*.png"))
    labels = ["ABC".index(name[1]) for name in names]
    listed = tmp_path / "list.txt"
    listed.write_text("".join(f"{name} {label}\n" for name, label in zip(names, labels, strict=True)))
    settings = words(f"{{ImageList: {{root: {people}, list_file: {listed}}}}}")
    run_tiny(tmp_path / "run", *settings)
    listed.write_text("".join(f"{name} {[1, 0, 2][label]}\n" for name, label in zip(names, labels, strict=True)))
    with pytest.raises(ConfigError, match=CHANGED):
        run_tiny(tmp_path / "run", *settings, resume=True)


def test_a_set_that_moved_is_the_same(tmp_path: Path, people: Path) -> None:
    def hash_at(root: Path) -> str:
        source: Source = build(SOURCES, {"ImageFolder": {"root": str(root)}})
        return source.people_hash()

    before = hash_at(people)
    people.rename(tmp_path / "moved")
    assert hash_at(tmp_path / "moved") == before


def test_a_checkpoint_of_an_earlier_version_goes_on_with_a_sentence(tmp_path: Path, run_tiny: Run) -> None:
    run_tiny(tmp_path / "run", "training.epochs=1")
    checkpoint = CheckpointStore(tmp_path / "run" / "checkpoints").find("last")
    training = read_tree(checkpoint / "training.pt")
    said: list[str] = []
    check_training_set(training["training_set"], checkpoint, allow_changes=False, say=said.append)
    assert said == []
    del training["training_set"]
    torch.save(training, checkpoint / "training.pt")
    check_training_set({"people": 3}, checkpoint, allow_changes=False, say=said.append)
    assert "does not say whom it was trained on; take care that the training set is still the same" in said[0]


def test_resuming_keeps_the_record(tmp_path: Path, run_tiny: Run) -> None:
    run_tiny(tmp_path / "run", "training.epochs=1")
    shutil.copytree(tmp_path / "run", tmp_path / "longer")
    run_tiny(tmp_path / "longer", "training.epochs=2", resume=True, allow_changes=True)
    stores = [CheckpointStore(tmp_path / name / "checkpoints").find("last") for name in ("run", "longer")]
    first, second = (read_tree(path / "training.pt")["training_set"] for path in stores)
    assert first == second
    assert json.dumps(first)
