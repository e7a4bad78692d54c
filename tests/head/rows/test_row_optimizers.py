"""Optimisers of rows against torch's dense ones, and calls to leave everything as it is."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from facelab.engine.optimizers import guarded_step, load_optimizer
from facelab.errors import CheckpointError
from facelab.head.classifier import UpdateRule
from facelab.head.rows.row_optimizers import RowAdamW, RowOptimizer, RowSGD

KINDS = ["sgd", "exact", "adamw"]


def rule(name: str = "sgd", lr: float = 0.1, decay: float = 0.0005, nesterov: bool = False) -> UpdateRule:
    return UpdateRule(name, lr, decay, 0.9, nesterov, (0.9, 0.999), 1e-8)  # type: ignore[arg-type]


def of_kind(kind: str, parameter: nn.Parameter, horizon: int = 4096) -> RowOptimizer:
    if kind == "adamw":
        return RowAdamW([parameter], rule("adamw"))
    return RowSGD([parameter], rule(), exact=kind == "exact", horizon=horizon)


def sparse(values: Tensor, rows: Tensor) -> Tensor:
    return torch.sparse_coo_tensor(rows[None], values[rows], values.shape)


@pytest.mark.parametrize("name", ["sgd", "nesterov", "adamw"])
def test_with_all_rows_they_are_torchs(name: str) -> None:
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(7, 3, dtype=torch.float64))
    other = nn.Parameter(weight.detach().clone())
    ours: RowOptimizer
    theirs: torch.optim.Optimizer
    if name == "adamw":
        ours, theirs = RowAdamW([weight], rule(name)), torch.optim.AdamW([other], lr=0.1, weight_decay=0.0005)
    else:
        nesterov = name == "nesterov"
        ours = RowSGD([weight], rule(nesterov=nesterov))
        theirs = torch.optim.SGD([other], lr=0.1, momentum=0.9, weight_decay=0.0005, nesterov=nesterov)
    for number in range(5):
        gradient = torch.randn(7, 3, dtype=torch.float64)
        weight.grad = gradient if number % 2 else sparse(gradient, torch.arange(7))
        other.grad = gradient.clone()
        ours.step()
        theirs.step()
        torch.testing.assert_close(weight, other, rtol=0, atol=1e-14)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_and_state_of_other_rows_are_not_touched(kind: str) -> None:
    weight = nn.Parameter(torch.randn(3000, 2))
    optimizer = of_kind(kind, weight)
    rows = torch.arange(0, 3000, 2)
    weight.grad = sparse(torch.randn(3000, 2), rows)
    before = weight.detach().clone()
    optimizer.step()
    assert weight[1::2].equal(before[1::2])
    assert bool((weight[::2] != before[::2]).all())
    for key, value in optimizer.state[weight].items():
        if isinstance(value, Tensor) and len(value.shape) and len(value) == 3000:
            assert not bool(value[1::2].any()), key
            assert bool(value[::2].all()), key


@pytest.mark.parametrize("kind", KINDS)
def test_an_update_that_is_called_off_leaves_everything_as_it_is(kind: str) -> None:
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(9, 2, dtype=torch.float64))
    optimizer = of_kind(kind, weight)
    untouched = nn.Parameter(weight.detach().clone())
    reference = of_kind(kind, untouched)
    for number, (skip, rows) in enumerate([(1.0, [0, 3]), (0.0, [1, 3]), (1.0, [1, 2]), (0.0, [0, 2])]):
        taken = torch.tensor(rows)
        gradient = sparse(torch.randn(9, 2, dtype=torch.float64), taken)
        for parameter, one in ((weight, optimizer), (untouched, reference)):
            if isinstance(one, RowSGD):
                one.catch_up(taken)
            parameter.grad = gradient * torch.nan if skip else gradient
            if one is optimizer or not skip:
                guarded_step(one, torch.tensor(skip))
        if isinstance(optimizer, RowSGD) and isinstance(reference, RowSGD):
            torch.testing.assert_close(optimizer.caught_up(weight), reference.caught_up(untouched), rtol=0, atol=1e-15)
        else:
            assert weight.equal(untouched), number


@pytest.mark.parametrize("kind", KINDS)
def test_its_state_is_put_back_in_place(kind: str) -> None:
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(9, 2))
    optimizer = of_kind(kind, weight, horizon=4)
    other = nn.Parameter(torch.zeros(9, 2))
    resumed = of_kind(kind, other, horizon=4)
    places = {key: value.data_ptr() for key, value in resumed.state[other].items() if isinstance(value, Tensor)}
    gradients = [sparse(torch.randn(9, 2), torch.tensor([number % 9, 8])) for number in range(1, 7)]

    def update(parameter: nn.Parameter, one: RowOptimizer, gradient: Tensor) -> None:
        if isinstance(one, RowSGD):
            one.catch_up(gradient.coalesce().indices()[0])
        parameter.grad = gradient
        one.step()

    for gradient in gradients[:3]:
        update(weight, optimizer, gradient)
    stored = copy.deepcopy(optimizer.state_dict()["state"])
    other.data.copy_(weight)
    load_optimizer(resumed, stored)
    assert {key: value.data_ptr() for key, value in resumed.state[other].items() if key in places} == places
    for gradient in gradients[3:]:
        update(weight, optimizer, gradient)
        update(other, resumed, gradient)
    assert weight.equal(other)
    assert all(
        torch.as_tensor(value).equal(torch.as_tensor(optimizer.state[weight][key]))
        for key, value in resumed.state[other].items()
    )


def test_what_has_one_number_for_each_row_decays_as_the_settings_say() -> None:
    weight, bias = nn.Parameter(torch.ones(3, 2)), nn.Parameter(torch.ones(3))
    given = UpdateRule("sgd", 0.1, 0.5, 0.9, False, (0.9, 0.999), 1e-8, decay_biases=False)
    groups = RowSGD([weight, bias], given).param_groups
    assert [group["weight_decay"] for group in groups] == [0.5, 0.0]


IMPOSSIBLE: dict[str, dict[str, Any]] = {
    "a clock of the future": {"clock": torch.full((5,), 9, dtype=torch.int16)},
    "a clock before all updates": {"clock": torch.full((5,), -1, dtype=torch.int16)},
    "a clock that is no whole number": {"clock": torch.full((5,), 0.5)},
    "another number of clocks": {"clock": torch.zeros(4, dtype=torch.int16)},
    "maps of another shape": {"maps": torch.zeros(3, 2, 2)},
    "maps that are not finite": {"maps": torch.full((9, 2, 2), float("nan"))},
    "now before all updates": {"now": -1},
    "now beyond the horizon": {"now": 8},
    "now as text": {"now": "2"},
    "no now": {"now": None},
}


@pytest.mark.parametrize("what", IMPOSSIBLE)
def test_a_past_that_cannot_have_been_is_refused_and_changes_nothing(what: str) -> None:
    weight = nn.Parameter(torch.randn(5, 2))
    optimizer = of_kind("exact", weight, horizon=8)
    for row in (0, 3):
        weight.grad = sparse(torch.randn(5, 2), torch.tensor([row]))
        optimizer.step()
    stored = copy.deepcopy(optimizer.state_dict()["state"])
    before = copy.deepcopy([weight.detach(), dict(optimizer.state[weight])])
    load_optimizer(optimizer, stored)
    with pytest.raises(CheckpointError, match="is damaged: by its clock, maps and now, class rows have missed updates"):
        load_optimizer(optimizer, {0: stored[0] | IMPOSSIBLE[what]})
    with pytest.raises(CheckpointError, match="is damaged: by its clock"):
        load_optimizer(optimizer, {0: {key: value for key, value in stored[0].items() if key != "maps"}})
    assert weight.equal(before[0])
    for key, value in before[1].items():
        now = optimizer.state[weight][key]
        assert now.equal(value) if isinstance(value, Tensor) else now == value


@pytest.mark.parametrize(("former", "now"), [("exact", "sgd"), ("adamw", "sgd"), ("sgd", "adamw"), ("adamw", "exact")])
def test_the_state_of_another_kind_is_refused_by_the_settings_to_take_back(former: str, now: str) -> None:
    weight = nn.Parameter(torch.randn(5, 2))
    stored = of_kind(former, weight).state_dict()["state"]
    said = "optimiser of class rows keeps .*, while that of the settings keeps .*; take optimizer.name and .* unsampled"
    with pytest.raises(CheckpointError, match=said):
        load_optimizer(of_kind(now, weight), stored)


def test_rows_that_were_lazy_go_on_exactly() -> None:
    weight = nn.Parameter(torch.randn(5, 2))
    load_optimizer(of_kind("exact", weight), of_kind("sgd", weight).state_dict()["state"])


@pytest.mark.cuda
@pytest.mark.parametrize("kind", KINDS)
def test_a_gpu_gives_the_same(kind: str, gpu: torch.device) -> None:
    def run(device: torch.device) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        weight = nn.Parameter(torch.randn(9, 4, generator=generator).to(device))
        optimizer = of_kind(kind, weight)
        for update in range(4):
            rows = torch.tensor([update, update + 2, 8], device=device)
            if isinstance(optimizer, RowSGD):
                optimizer.catch_up(rows)
            weight.grad = sparse(torch.randn(9, 4, generator=generator).to(device), rows)
            guarded_step(optimizer, torch.tensor(float(update == 2), device=device))  # the third is skipped
        return weight.detach().cpu()

    torch.testing.assert_close(run(gpu), run(torch.device("cpu")))
