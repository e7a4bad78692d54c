"""One process needs no group; two processes exchange what they should, with the gradients that training needs."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from facelab import distributed
from facelab.errors import ConfigError, FacelabError


def test_one_process_needs_no_group() -> None:
    rows = torch.arange(6.0).view(3, 2).requires_grad_()
    distributed.initialise()
    assert (distributed.rank(), distributed.world_size(), distributed.local_rank()) == (0, 1, 0)
    assert distributed.is_main()
    distributed.barrier()
    assert distributed.broadcast_object("x") == "x"
    assert distributed.gather_objects(3) == [3]
    assert distributed.gather_rows(rows) is rows
    assert not distributed.all_reduce_sum(rows).requires_grad
    assert distributed.all_reduce_max(rows).equal(rows)
    distributed.shutdown()


def test_an_incomplete_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(
        ConfigError, match="WORLD_SIZE is set but RANK is not; start several processes through torchrun"
    ):
        distributed.initialise()


@pytest.mark.parametrize("classes", [1, 2, 11, 12])
@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_class_ranges_follow_each_other_and_differ_by_one_at_most(classes: int, world: int) -> None:
    ranges = [distributed.class_range(classes, rank, world) for rank in range(world)]
    sizes = [stop - start for start, stop in ranges]
    assert [start for start, _ in ranges[1:]] == [stop for _, stop in ranges[:-1]]
    assert ranges[0][0] == 0
    assert ranges[-1][1] == classes
    assert max(sizes) - min(sizes) <= 1
    assert sizes == sorted(sizes, reverse=True)


def exchange(offset: float) -> dict[str, Any]:
    """Everything that two processes say to each other; runs in each of them."""
    rank, world = distributed.rank(), distributed.world_size()
    own = torch.tensor([[1.0 + rank, offset]], requires_grad=True)
    weight = torch.tensor([[10.0 ** (2 * rank)], [10.0 ** (2 * rank + 1)]])
    (gradient,) = torch.autograd.grad((distributed.gather_rows(own) * weight).sum(), own)
    distributed.barrier()
    return {
        "place": (rank, world, distributed.local_rank(), distributed.is_main()),
        "rows": distributed.gather_rows(own).detach(),
        "rows gradient": gradient,
        "labels": distributed.gather_labels(torch.tensor([rank, 7])),
        "sum": distributed.all_reduce_sum(own),
        "max": distributed.all_reduce_max(own),
        "sent": distributed.broadcast_object(("from", rank)),
        "objects": distributed.gather_objects({"rank": rank}),
        "gradients": [gradient_through(function, rank) for function in GRADIENT_RULES],
    }


GRADIENT_RULES = (distributed.sum_shares, distributed.use_locally, distributed.use_commonly)


def gradient_through(function: Any, rank: int) -> tuple[Tensor, Tensor]:
    """Value and gradient of one rule, for the input rank + 1 and the outer gradient 3 * (rank + 1)."""
    given = torch.tensor([rank + 1.0], requires_grad=True)
    value = function(given)
    value.backward(torch.tensor([3.0 * (rank + 1)]))
    assert given.grad is not None
    return value.detach(), given.grad


@pytest.fixture(scope="module")
def both() -> list[dict[str, Any]]:
    return distributed.run_processes(exchange, 2, 5.0)


def test_places_and_objects(both: list[dict[str, Any]]) -> None:
    assert [result["place"] for result in both] == [(0, 2, 0, True), (1, 2, 1, False)]
    for result in both:
        assert result["sent"] == ("from", 0)
        assert result["objects"] == [{"rank": 0}, {"rank": 1}]


def test_rows_labels_and_reductions(both: list[dict[str, Any]]) -> None:
    for result in both:
        assert result["rows"].tolist() == [[1.0, 5.0], [2.0, 5.0]]
        assert result["labels"].tolist() == [0, 7, 1, 7]
        assert result["sum"].tolist() == [[3.0, 10.0]]
        assert result["max"].tolist() == [[2.0, 5.0]]
        assert not result["sum"].requires_grad


def test_gradient_of_gathered_rows_is_the_sum_over_processes_times_their_number(both: list[dict[str, Any]]) -> None:
    assert both[0]["rows gradient"].tolist() == [[2 * 101.0, 2 * 101.0]]
    assert both[1]["rows gradient"].tolist() == [[2 * 1010.0, 2 * 1010.0]]


def test_gradient_rules(both: list[dict[str, Any]]) -> None:
    for rank, result in enumerate(both):
        (total, share), (same, summed), (unchanged, divided) = result["gradients"]
        outer = 3.0 * (rank + 1)
        assert (float(total), float(share)) == (3.0, outer)
        assert (float(same), float(summed)) == (rank + 1.0, 9.0)
        assert (float(unchanged), float(divided)) == (rank + 1.0, outer / 2)


def lose_another() -> str:
    """Runs in each of two processes, of which the second leaves without a word."""
    try:
        with distributed.joined():
            if distributed.rank():
                distributed.shutdown()
                return "left"
            for _ in range(3):
                distributed.gather_objects(1)
    except FacelabError as error:
        return str(error)
    return ""


def test_a_process_that_is_left_alone_says_so() -> None:
    assert distributed.run_processes(lose_another, 2) == ["another process has ended, so this one ends too.", "left"]


def test_a_group_that_does_not_come_together_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("Gloo connectFullMesh failed with [third_party/gloo/gloo/pair.cc:152] refused\nmore")

    group = {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"}
    for name, value in group.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(distributed, "_end_with_launcher", lambda: None)
    monkeypatch.setattr(torch.distributed, "init_process_group", fail)
    with pytest.raises(
        FacelabError, match=r"process 1 does not reach .*pair.cc:152\] refused\); .* GLOO_SOCKET_IFNAME"
    ):
        distributed.initialise()


def test_other_errors_are_left_as_they_are() -> None:
    with pytest.raises(RuntimeError, match="gloo/ of one process"), distributed.joined():
        raise RuntimeError("gloo/ of one process")


SCRIPT = """
import os
from facelab import distributed

def rank():
    return distributed.rank()

if __name__ == "__main__":
    if "RANK" in os.environ:
        raise SystemExit("a process of the group has run the script itself")
    for _ in range(8):  # so short a function has ended one process before the other had connected to it
        assert distributed.run_processes(rank, 2) == [0, 1]
    print("as often as asked")
"""


def test_processes_of_a_script_do_not_run_the_script_again(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = {key: value for key, value in os.environ.items() if key != "RANK"}
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    command = [sys.executable, str(script)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == "as often as asked\n", done.stderr
