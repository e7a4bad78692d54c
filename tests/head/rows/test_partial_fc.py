"""Sampled class rows: every head, what moves and what does not, several processes, resuming."""

import gc
import json
import logging
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from facelab import distributed
from facelab.catalogue import Spec, build, entries
from facelab.engine.optimizers import is_rowwise, load_optimizer
from facelab.errors import ConfigError
from facelab.head.base import HEADS, MarginHead
from facelab.head.classifier import CLASSIFIERS, UpdateRule
from facelab.head.rows.full_softmax import FullSoftmax
from facelab.head.rows.partial_fc import PartialFC
from facelab.head.rows.row_optimizers import RowOptimizer, RowSGD
from facelab.run.assembly import assemble
from facelab.run.settings import load_config

TINY = str(Path(__file__).parents[2] / "tiny_run.yaml")
ENTRIES = sorted({*entries(HEADS), *HEADS.names()})
CLASSES, DIM, BATCH = 23, 6, 12
RULE = UpdateRule("sgd", 0.1, 5e-4, 0.9, False, (0.9, 0.999), 1e-8)
ADAMW = UpdateRule("adamw", 0.01, 0.05, 0.9, False, (0.9, 0.999), 1e-8)


def update(rows: PartialFC, optimizer: torch.optim.Optimizer, features: Tensor, labels: Tensor) -> Tensor:
    loss = rows(features, labels).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    rows.after_update()
    result: Tensor = loss.detach()
    return result


def head_of(name: Spec) -> MarginHead:
    return build(HEADS, name, num_classes=CLASSES)


def batch(seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    features = 20 * normalize(torch.randn(BATCH, DIM, generator=generator, dtype=torch.float64))
    return features.to(dtype), torch.randint(CLASSES, (BATCH,), generator=generator)


@pytest.mark.parametrize(("rule", "unsampled"), [(RULE, "lazy"), (RULE, "exact"), (ADAMW, "lazy")])
def test_rows_go_with_the_last_who_uses_them(rule: UpdateRule, unsampled: Any) -> None:
    """At once, not when somebody looks for cycles: they may be most of a machine's memory."""
    # torch loads its compiler with the first optimiser, and keeps what it meets there until somebody looks for cycles.
    torch.optim.SGD([torch.zeros(1, requires_grad=True)]).zero_grad()
    gc.disable()
    try:
        rows = PartialFC(CLASSES, DIM, head_of("CosFace"), sample_rate=0.6, unsampled=unsampled)
        optimizer = rows.optimizer(rule)
        assert optimizer is not None
        update(rows, optimizer, *batch(dtype=torch.float32))
        there = [weakref.ref(rows), weakref.ref(rows.weight), weakref.ref(optimizer)]
        del rows, optimizer
        assert [one() for one in there] == [None] * 3
    finally:
        gc.enable()


@pytest.mark.parametrize("rule", [RULE, ADAMW], ids=["sgd", "adamw"])
@pytest.mark.parametrize("name", ENTRIES)
def test_only_what_takes_part_moves_with_every_head(name: str, rule: UpdateRule) -> None:
    rows = PartialFC(CLASSES, DIM, head_of(name), sample_rate=0.6).double()
    optimizer = rows.optimizer(rule)
    assert optimizer is not None
    before = {key: value.detach().clone() for key, value in rows.row_tensors().items()}
    features, labels = batch()
    taken = torch.isin(torch.arange(CLASSES), _taken(rows, features, labels))
    loss = update(rows, optimizer, features.requires_grad_(), labels)
    assert bool(loss.isfinite())
    assert 8 < int(taken.sum()) < CLASSES
    for key, value in rows.row_tensors().items():
        assert value[~taken].equal(before[key][~taken]), key
    assert not rows.weight[taken].equal(before["weight"][taken])


def _taken(rows: PartialFC, features: Tensor, labels: Tensor) -> Tensor:
    taken, _ = rows._sample(*rows.shard.columns(labels))
    return taken


def test_sub_centres_move_together() -> None:
    rows = PartialFC(CLASSES, DIM, head_of("ArcFace"), sample_rate=0.6, rows_per_class=3).double()
    sgd = rows.optimizer(RULE)
    assert sgd is not None
    before = rows.weight.detach().clone()
    features, labels = batch()
    taken = torch.isin(torch.arange(CLASSES), _taken(rows, features, labels))
    update(rows, sgd, features, labels)
    assert rows.weight.shape == (CLASSES, 3, DIM)
    moved = (rows.weight != before).flatten(1).any(dim=1)
    assert moved.equal(taken)


def test_a_sample_has_the_classes_of_the_batch_and_is_drawn_anew_for_each_update() -> None:
    rows = PartialFC(1000, DIM, head_of("CosFace"), sample_rate=0.05, seed=3)
    labels = torch.tensor([999, 5, 5, 0])
    samples = []
    for _ in range(3):
        taken, weight = rows._sample(*rows.shard.columns(labels))
        assert taken.shape == (50,)
        assert taken.equal(taken.unique())
        positive = torch.isin(taken, labels)
        assert int(positive.sum()) == 3
        assert weight[positive].eq(1).all()
        assert weight[~positive].mul(47).allclose(torch.tensor(997.0))
        again, _ = rows._sample(*rows.shard.columns(labels))
        assert again.equal(taken), "a draw belongs to an update"
        samples.append(taken)
        rows.after_update()
    assert len({tuple(sample.tolist()) for sample in samples}) == 3


def test_every_class_is_drawn_alike_and_independently() -> None:
    rows = PartialFC(40, DIM, head_of("CosFace"), sample_rate=0.25)
    drawn, together, draws = torch.zeros(40), torch.zeros(40, 40), 1500
    for _ in range(draws):
        taken, _ = rows._sample(torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.bool))
        drawn[taken] += 1
        together[taken[:, None], taken] += 1
        rows.after_update()
    pairs = together[~torch.eye(40, dtype=torch.bool)]
    for counts, share in ((drawn, 0.25), (pairs, 0.25 * 9 / 39)):
        error = (draws * share * (1 - share)) ** 0.5
        assert float((counts - draws * share).abs().max()) < 5 * error
        assert 0.8 < float(counts.std()) / error < 1.2


@pytest.mark.parametrize("name", ENTRIES)
def test_a_rate_of_1_is_the_full_softmax_to_the_last_bit(name: str) -> None:
    full = FullSoftmax(CLASSES, DIM, head_of(name), seed=2)
    rows = PartialFC(CLASSES, DIM, head_of(name), seed=2, sample_rate=1.0)
    assert rows.optimizer(RULE) is None
    for number in range(2):
        expected, output = full(*batch(number, torch.float32)), rows(*batch(number, torch.float32))
        output.loss.backward()
        expected.loss.backward()
        assert output.loss.equal(expected.loss)
    for parameter, other in zip(rows.parameters(), full.parameters(), strict=True):
        assert parameter.grad is not None
        assert other.grad is not None
        assert parameter.grad.equal(other.grad)


@pytest.mark.parametrize("name", ["AdaM-Softmax", "Softmax", "UniFace"])
def test_exact_rows_are_those_of_a_dense_optimiser(name: str) -> None:
    """With all that a class has; over a schedule that ends with all classes; and evaluation does not disturb it."""
    rates = [(0, 0.3), (4, 0.6), (6, 1.0), (8, 0.3)]
    rows = PartialFC(CLASSES, DIM, head_of(name), sample_rate=rates, unsampled="exact").double()
    dense = PartialFC(CLASSES, DIM, head_of(name), sample_rate=rates).double()
    row_sgd = rows.optimizer(RULE)
    assert isinstance(row_sgd, RowSGD)
    values = list(dense.row_tensors().values())
    torch_sgd = torch.optim.SGD(values, lr=0.1, momentum=0.9, weight_decay=5e-4)  # type: ignore[arg-type]
    for number in range(10):
        features, labels = batch(number)
        loss = update(rows, row_sgd, features, labels)
        output = dense(features, labels).loss
        output.backward()
        for value in dense.row_tensors().values():
            assert value.grad is not None
            value.grad = value.grad.to_dense()  # as an index that is differentiated gives it
        torch_sgd.step()
        torch_sgd.zero_grad()
        dense.after_update()
        torch.testing.assert_close(loss, output.detach(), rtol=0, atol=1e-11)
        evaluated = (one.eval()(features, labels).loss for one in (rows, dense))
        torch.testing.assert_close(*evaluated, rtol=0, atol=1e-10)
        rows.train()
        dense.train()
    row_sgd.catch_up()
    for key, value in rows.row_tensors().items():
        torch.testing.assert_close(value, dense.row_tensors()[key], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["AdaCos", "NPCFace"])
def test_statistics_of_heads_are_unbiased(name: str) -> None:
    """The mean over all draws is the sum over all classes; here over many, within five standard errors."""

    def statistics(classifier: FullSoftmax) -> dict[str, Tensor]:
        candidates = classifier.candidates(features, labels)
        product = classifier.product(features, candidates)
        terms = head.prepare(product.target(), features.norm(dim=1), labels)
        sums: dict[str, Tensor] = {}
        product.over_chunks(lambda cosine, part: sums.update(head.statistics(cosine, terms, part.negatives())))
        return sums

    head = head_of(name).double()
    features, labels = batch()
    rows = PartialFC(CLASSES, DIM, head, sample_rate=0.6).double()
    drawn = []
    with torch.no_grad():
        expected = statistics(FullSoftmax(CLASSES, DIM, head).double())
        for _ in range(400):
            drawn.append(statistics(rows))
            rows.after_update()
    for key, value in expected.items():
        assert_unbiased(torch.stack([one[key] for one in drawn]), value)


@pytest.mark.parametrize("name", ["UniFace", "SphereFace2"])
def test_the_loss_of_binary_heads_is_unbiased(name: str) -> None:
    features, labels = batch()
    head = head_of(name).double()
    rows = PartialFC(CLASSES, DIM, head, sample_rate=0.6).double()
    drawn = []
    with torch.no_grad():
        expected = FullSoftmax(CLASSES, DIM, head).double()(features, labels).loss
        for _ in range(400):
            drawn.append(rows(features, labels).loss)
            rows.after_update()
    assert_unbiased(torch.stack(drawn), expected)


def assert_unbiased(drawn: Tensor, expected: Tensor) -> None:
    error = 5 * drawn.std(dim=0) / len(drawn) ** 0.5
    assert bool((drawn.std(dim=0) > 0).any())
    assert bool(((drawn.mean(dim=0) - expected).abs() <= error + 1e-9).all())


def test_more_classes_in_the_batch_than_shall_take_part_are_said_once(caplog: pytest.LogCaptureFixture) -> None:
    rows = PartialFC(CLASSES, DIM, head_of("CosFace"), sample_rate=0.1).double()
    features, labels = batch()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert _taken(rows, features, labels).equal(labels.unique())
    assert [record.getMessage() for record in caplog.records] == [
        f"PartialFC: a sample_rate of 0.1 keeps 2 of 23 classes, but the batch has {len(labels.unique())} of them; all "
        "of these take part, and no others."
    ]


@pytest.mark.parametrize("rate", [0.0, 1.1, float("nan"), [(0, 0.5), (10, 0.0)]])
def test_rates_outside_are_refused(rate: Any) -> None:
    with pytest.raises(ConfigError, match=r"PartialFC sample_rate is .*, but must lie in \(0, 1\]"):
        PartialFC(CLASSES, DIM, head_of("CosFace"), sample_rate=rate)


@pytest.mark.parametrize("rates", [[], [(5, 0.1)], [(0, 0.1), (7, 0.3), (7, 1.0)]])
def test_schedules_that_do_not_say_what_holds_when_are_refused(rates: Any) -> None:
    with pytest.raises(ConfigError, match="the first must be 0, and each later than the last"):
        PartialFC(CLASSES, DIM, head_of("CosFace"), sample_rate=rates)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("optimizer.name=adamw", "rows of adamw, its steps depend on each row's own past"),
        ("optimizer.nesterov=true", "rows of Nesterov's momentum, which looks ahead"),
    ],
)
def test_exact_needs_plain_sgd(words: str, reason: str) -> None:
    config = load_config(TINY, ("classifier={PartialFC: {unsampled: exact}}", words))
    with pytest.raises(ConfigError, match=reason):
        assemble(config)


def test_a_schedule_is_read_from_settings() -> None:
    config = load_config(TINY, ("classifier={PartialFC: {sample_rate: [[0, 0.5], [3, 1]]}}",))
    (rows,) = assemble(config).mode.row_owners().values()
    assert isinstance(rows, PartialFC)
    assert rows.rates == [(0, 0.5), (3, 1.0)]


def test_how_many_classes_take_part_is_logged(tmp_path: Path, run_tiny: Callable[..., Any]) -> None:
    for name in ("PartialFC", "PCO", "VPL", "FullSoftmax"):
        options = {} if name == "FullSoftmax" else {"sample_rate": [[0, 0.25], [2, 0.5], [4, 1.0]]}
        words = (f"classifier={json.dumps({name: options})}", "training.epochs=1", "training.log_every=2")
        run_tiny(tmp_path / name, *words)
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        rates = [line["sample_rate"] for line in map(json.loads, lines) if "sample_rate" in line]
        assert rates[:2] == ([0.25, 0.5] if options else [])


def test_in_evaluation_all_classes_are_said_to_take_part() -> None:
    rows = PartialFC(CLASSES, DIM, head_of("ArcFace"), sample_rate=0.5)
    assert float(rows.eval()(*batch(dtype=torch.float32)).metrics["sample_rate"]) == 1.0


class Shared(PartialFC):
    """The same classes take part however many processes there are; for comparing them."""

    def _sample(self, column: Tensor, owned: Tensor) -> tuple[Tensor, Tensor]:
        every_other = torch.arange((self.shard.start + self._update) % 2, self.shard.size, 2)
        taken = torch.cat([every_other, column[owned]]).unique()
        return taken, torch.ones(len(taken), dtype=self.row_dtype)


@dataclass(frozen=True)
class Stored:
    """What a checkpoint keeps of the rows of a process, by parameter, and what is equal on all processes."""

    rows: dict[str, Tensor]
    rowwise: dict[tuple[int, str], Tensor]
    common: dict[tuple[int, str], Any]
    updates: int


Updates = tuple[list[Tensor], Stored]


def several_updates(head: Spec, rule: UpdateRule, unsampled: Any, count: int, stored: Stored | None = None) -> Updates:
    """Losses of some updates, from the start or from what all processes together stored; and what is stored then."""
    rows = Shared(CLASSES, DIM, head_of(head), unsampled=unsampled).double()
    rows.head.eval()  # running means of heads follow their weights, which are not those of a sample here
    optimizer = rows.optimizer(rule)
    assert isinstance(optimizer, RowOptimizer)
    if stored is not None:
        own = slice(*rows.row_range)
        rows.load_state_dict({key: value[own] for key, value in stored.rows.items()}, strict=False)
        rows.load_state_dict({"updates": torch.tensor(stored.updates)}, strict=False)
        state: dict[int, dict[str, Any]] = {}
        for (index, key), value in {**stored.common, **{at: one[own] for at, one in stored.rowwise.items()}}.items():
            state.setdefault(index, {})[key] = value
        load_optimizer(optimizer, state)
    samples = slice(*distributed.class_range(BATCH, distributed.rank(), distributed.world_size()))
    start = 0 if stored is None else stored.updates
    batches = [batch(number) for number in range(start, start + count)]
    losses = [update(rows, optimizer, features[samples], labels[samples]) for features, labels in batches]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    held = {
        (index, key): value
        for index, state_of in optimizer.state_dict()["state"].items()
        for key, value in state_of.items()
    }
    rowwise = {at: value for at, value in held.items() if is_rowwise(value, parameters[at[0]])}
    common = {at: value for at, value in held.items() if at not in rowwise}
    tensors = {key: value.detach() for key, value in rows.row_tensors().items()}
    return losses, Stored(tensors, rowwise, common, start + count)


def together(shares: list[Stored]) -> Stored:
    """The rows of all processes."""
    return Stored(
        {key: torch.cat([share.rows[key] for share in shares]) for key in shares[0].rows},
        {at: torch.cat([share.rowwise[at] for share in shares]) for at in shares[0].rowwise},
        shares[0].common,
        shares[0].updates,
    )


CASES: list[tuple[Spec, UpdateRule, str]] = [
    ("AdaM-Softmax", RULE, "exact"),
    ("Softmax", ADAMW, "lazy"),
    ("CosFace", RULE, "lazy"),
]


def several_processes() -> list[Updates]:
    """Of this process; all cases in one start of processes, because starting takes longer than computing."""
    return [several_updates(*case, count=3) for case in CASES]


@pytest.fixture(scope="module")
def two() -> list[list[Updates]]:
    return distributed.run_processes(several_processes, 2)


def test_two_processes_give_what_one_gives(two: list[list[Updates]]) -> None:
    assert_equal_to_one(two)


@pytest.mark.slow
def test_four_processes_give_what_one_gives() -> None:
    assert_equal_to_one(distributed.run_processes(several_processes, 4))


def assert_equal_to_one(processes: list[list[Updates]]) -> None:
    for number, case in enumerate(CASES):
        losses, alone = several_updates(*case, count=3)
        shares = [results[number] for results in processes]
        for share, _ in shares:
            torch.testing.assert_close(share, losses, rtol=0, atol=1e-9)
        assert_near(together([stored for _, stored in shares]), alone)


def assert_near(found: Stored, expected: Stored) -> None:
    """Rows, momenta and clocks."""
    torch.testing.assert_close(found.rows, expected.rows, rtol=0, atol=1e-9)
    torch.testing.assert_close(found.rowwise, expected.rowwise, rtol=0, atol=1e-9)
    for at, value in expected.common.items():
        assert torch.as_tensor(found.common[at]).equal(torch.as_tensor(value))


def test_one_process_goes_on_where_two_stopped(two: list[list[Updates]]) -> None:
    for number, case in enumerate(CASES):
        stored = together([results[number][1] for results in two])
        _, found = several_updates(*case, count=3, stored=stored)
        _, expected = several_updates(*case, count=6)
        assert_near(found, expected)


def go_on(stored: list[Stored]) -> list[Stored]:
    return [several_updates(*case, count=2, stored=one)[1] for case, one in zip(CASES, stored, strict=True)]


@pytest.mark.slow
def test_one_process_goes_on_where_three_stopped_after_two(two: list[list[Updates]]) -> None:
    stored = [together([results[number][1] for results in two]) for number in range(len(CASES))]
    three = distributed.run_processes(go_on, 3, stored)
    for number, case in enumerate(CASES):
        _, found = several_updates(*case, count=2, stored=together([shares[number] for shares in three]))
        _, expected = several_updates(*case, count=7)
        assert_near(found, expected)


@pytest.mark.parametrize(
    ("rate", "said"),
    [
        ("ten", "option 'sample_rate' is 'ten': Input should be a valid number"),
        ([0.1, 0.2], r"option 'sample_rate.0' is 0.1: Input should be a valid tuple"),
        ([[0, 0.1, 3]], r"option 'sample_rate.0' is \[0, 0.1, 3\]: Tuple should have at most 2 items"),
        ([[0.5, 0.1]], "option 'sample_rate.0.0' is 0.5: Input should be a valid integer"),
        ([[0, 0.1], [4, "x"]], "option 'sample_rate.1.1' is 'x': Input should be a valid number"),
    ],
)
def test_a_schedule_that_is_none_is_refused_at_the_place(rate: object, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        CLASSIFIERS.check("PartialFC", {"sample_rate": rate})
