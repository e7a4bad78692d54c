"""Pool and queue give the states, losses and gradients of FFC's and FaceX-Zoo's programs, over several steps."""

import json
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from facelab.head.base import MarginHead
from facelab.head.fused_product import FusedProduct
from facelab.head.margins.arcface import ArcFace
from facelab.head.margins.cosface import CosFace
from facelab.head.margins.mv_softmax import MVSoftmax
from facelab.head.margins.softmax import Softmax
from facelab.head.rows.class_pool import ClassPool
from facelab.head.rows.prototype_queue import PrototypeQueue

COPY = Path(__file__).resolve().parent.parent / "golden" / "feature_rows"
PEOPLE = 1000
RTOL, ATOL = 1e-4, 1e-5


class Golden:
    """One entry of the golden index with its arrays."""

    def __init__(self, folder: Path, name: str) -> None:
        entry = json.loads((folder / "index.json").read_text())[name]
        self.options: Mapping[str, Any] = entry["options"]
        with np.load(folder / entry["file"]) as arrays:
            self.arrays = {key: arrays[key] for key in arrays.files}

    def __getitem__(self, key: str) -> Tensor:
        return torch.from_numpy(np.asarray(self.arrays[key]))

    @property
    def steps(self) -> int:
        return 1 + max(int(found[1]) for key in self.arrays if (found := re.match(r"step(\d+)/", key)))


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual.detach().float(), expected.float(), rtol=RTOL, atol=ATOL)


def leaf(golden: Golden, key: str) -> Tensor:
    return golden[key].double().requires_grad_()


def gradient(leaf: Tensor) -> Tensor:
    assert leaf.grad is not None
    return leaf.grad


def along_the_sphere(gradient: Tensor, unit: Tensor) -> Tensor:
    """What is left of a gradient where features are normalised after it is taken: the original does that before."""
    unit = unit.detach().to(gradient.dtype)
    return gradient - (gradient * unit).sum(dim=1, keepdim=True) * unit


def pool_heads(options: Mapping[str, Any]) -> dict[str, MarginHead]:
    margins, scale = options["margins"], options["scale"]
    return {
        "AM": CosFace(margins["AM"], scale),
        "Arc": ArcFace(margins["Arc"], scale, boundary="none"),
        "SV": MVSoftmax("am", margins["SV"], options["sv_mask"], scale),
    }


def check_pool_state(pool: ClassPool, golden: Golden, step: str) -> None:
    people, slots = golden[f"{step}/after/lru_ids_recent_first"], golden[f"{step}/after/lru_slots_recent_first"]
    recent_first = pool.table.seen.argsort(descending=True)[: len(slots)]
    assert recent_first.tolist() == slots.tolist()
    assert pool.table.people[recent_first].tolist() == people.tolist()
    assert (pool.table.people < 0).sum() == pool.slots - len(slots)
    everybody = torch.full((PEOPLE,), -1)
    everybody[people] = slots
    assert pool.table.slot_of.tolist() == everybody.tolist()
    assert pool.table.next_row[slots].tolist() == golden[f"{step}/after/next_row"].flatten()[slots].tolist()
    close(pool.rows.transpose(0, 1), golden[f"{step}/after/queue"])


def check_pool(folder: Path) -> None:
    golden = Golden(folder, "ffc")
    size, dim = golden.options["queue_size"], golden.options["dim"]
    for loss, head in pool_heads(golden.options).items():
        pool = ClassPool(PEOPLE, dim, head, fraction=size / PEOPLE).double()
        pool.rows.copy_(golden["queue_init"].transpose(0, 1))
        for step in (f"step{number}" for number in range(golden.steps)):
            x, y = leaf(golden, f"{step}/probe_x"), leaf(golden, f"{step}/probe_y")
            passes = (
                ("rollback", x, golden[f"{step}/x_ids"], golden[f"{step}/gallery_y"], golden[f"{step}/y_ids"]),
                ("commit", y, golden[f"{step}/y_ids"], golden[f"{step}/gallery_x"], golden[f"{step}/x_ids"]),
            )
            for name, probe, people, gallery, shown in passes:
                pool.offer(gallery, shown, keep=name == "commit")
                place = pool.table.find(people, pool.table.place(shown))
                assert place.tolist() == golden[f"{step}/{name}/labels"].tolist()
                output = pool(probe, people)
                close(output.loss, golden[f"{loss}/{step}/{name}/loss"])
                output.loss.backward()
            close(gradient(x), along_the_sphere(golden[f"{loss}/{step}/grad_probe_x"], x))
            close(gradient(y), along_the_sphere(golden[f"{loss}/{step}/grad_probe_y"], y))
            pool.after_update()
            check_pool_state(pool, golden, step)


def queue_heads(options: Mapping[str, Any]) -> dict[str, MarginHead]:
    margin, scale = options["margin"], options["scale"]
    return {
        "softmax": Softmax(normalise=True, scale=scale),
        "am_softmax": CosFace(margin, scale),
        "arc_softmax": ArcFace(margin, scale, boundary="none"),
    }


def check_queue(folder: Path) -> None:
    golden = Golden(folder, "sst")
    for loss, head in queue_heads(golden.options).items():
        size, dim = golden.options["queue_size"], golden.options["dim"]
        queue = PrototypeQueue(PEOPLE, dim, head, size=size, exclude_same_person=False).double()
        queue.rows.copy_(golden["queue_init"].T)
        for step in (f"step{number}" for number in range(golden.steps)):
            people = golden[f"{step}/ids"]
            first, second = leaf(golden, f"{step}/p1"), leaf(golden, f"{step}/p2")
            kept = str(golden.arrays[f"{step}/enqueued"])
            losses = []
            for probe, gallery in ((first, "g2"), (second, "g1")):
                queue.offer(golden[f"{step}/{gallery}"], people, keep=gallery == kept)
                losses.append(queue(probe, people).loss)
            total = torch.stack(losses).mean()
            total.backward()
            close(total, golden[f"{loss}/{step}/loss"])
            close(gradient(first), golden[f"{loss}/{step}/grad_p1"])
            close(gradient(second), golden[f"{loss}/{step}/grad_p2"])
            queue.after_update()
            torch.testing.assert_close(queue.rows.T.float(), golden[f"{step}/after/queue"], rtol=0, atol=1e-6)
            assert queue.people.tolist() == golden[f"{step}/after/slot_ids"].tolist()
            assert int(queue.next) == int(golden[f"{step}/after/index"])


def test_the_pool_of_ffc_small_copy() -> None:
    check_pool(COPY)


def test_the_queue_of_facexzoo_small_copy() -> None:
    check_queue(COPY)


def test_pool_and_queue_small_copy_where_cosines_come_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("facelab.head.classifier.LARGEST_WHOLE", 0)
    monkeypatch.setattr("facelab.head.classifier.FusedProduct", partial(FusedProduct, chunk=8))  # of two or three slots
    check_pool(COPY)
    check_queue(COPY)


@pytest.mark.golden
def test_the_pool_of_ffc(golden_root: Path) -> None:
    check_pool(golden_root / "algorithms")


@pytest.mark.golden
def test_the_queue_of_facexzoo(golden_root: Path) -> None:
    check_queue(golden_root / "algorithms")
