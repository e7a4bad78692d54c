"""Every classifier, with those of other packages: rows, state, learning, resuming, two processes."""

import copy
import inspect
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from facelab import distributed
from facelab.catalogue import build, entries
from facelab.errors import CheckpointError, ConfigError, DataError
from facelab.head.base import HEADS
from facelab.head.classifier import CLASSIFIERS, Classifier, ClassifierOutput, UpdateRule
from facelab.head.rows.feature_rows import FeatureRows
from facelab.run.assembly import assemble, restore
from facelab.run.run import RunResult
from facelab.run.settings import load_config
from facelab.weights.checkpoint import CheckpointStore
from facelab.weights.tensor_files import read_tree

Run = Callable[..., RunResult]
Cut = Callable[[Path, Path, int], Path]
ENTRIES = sorted({*entries(CLASSIFIERS), *CLASSIFIERS.names()})


def slow_for(*names: str) -> list[Any]:
    """All entries; for those named, which take seconds and have relatives in the usual tests, as slow tests."""
    return [pytest.param(name, marks=pytest.mark.slow) if name in names else name for name in ENTRIES]


# What an owner needs beside its defaults. A new one needs a line only if it needs something.
SMALL: dict[str, dict[str, Any]] = {
    "ClassPool": {"fraction": 1.0},
    "PCO": {"thresholds": [0.0, 0.0], "window": 5},
    "PrototypeMemory": {"size": 8},  # as many as people, so that none of the strangers of the start is left
    "PrototypeQueue": {"size": 19},
}
MODES = {"ClassPool": "class_pool", "PrototypeQueue": "{semi_siamese: {decay: 0.9}}"}
ALL_HEADS = sorted({*entries(HEADS), *HEADS.names()})
LOOK_UP_PEOPLE = ("ClassPool", "PrototypeMemory")  # who find in each step where a person's rows are
RULE = UpdateRule(name="sgd", lr=0.05, weight_decay=5e-4, momentum=0.9, nesterov=False, betas=(0.9, 0.999), eps=1e-8)
IMAGES = {**dict.fromkeys(MODES, 2), "PrototypeMemory": 4}  # of a person in a batch, where it needs several
TINY = str(Path(__file__).parents[1] / "tiny_run.yaml")
CLASSES, DIM, BATCH = 11, 6, 8


def classifier(name: str) -> Classifier:
    head = build(HEADS, {"CosFace": {"margin": 0.1, "scale": 16}})
    return build(CLASSIFIERS, {name: SMALL.get(name, {})}, num_classes=CLASSES, feat_dim=DIM, head=head, seed=1)


def output_of(model: Classifier, features: Tensor, labels: Tensor) -> ClassifierOutput:
    """Of a step; who stores features gets some of other images of the same people."""
    if isinstance(model, FeatureRows):
        model.offer(features.detach().roll(1, dims=1), labels, keep=True)
    output: ClassifierOutput = model(features, labels)
    return output


def batch(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(BATCH, DIM, generator=generator), torch.randint(CLASSES, (BATCH,), generator=generator)


@pytest.mark.cuda
@pytest.mark.parametrize("name", ENTRIES)
def test_a_gpu_gives_the_same(name: str, gpu: torch.device) -> None:
    """Three updates by the owner's own optimiser, or by SGD."""

    def run(device: torch.device) -> list[Tensor]:
        model, found = classifier(name).to(device), []
        own = model.optimizer(RULE)
        rows = list(model.parameters())
        optimizer = own if own is not None else torch.optim.SGD(rows, RULE.lr) if rows else None
        for seed in range(3):
            features, labels = (given.to(device) for given in batch(seed))
            output = output_of(model, features.requires_grad_(), labels)
            output.loss.backward()
            assert features.grad is not None
            found += [output.loss.detach(), features.grad]
            if optimizer is not None:
                optimizer.step()
                optimizer.zero_grad()
            model.after_update()
        return [one.cpu() for one in (*found, *model.row_tensors().values())]

    for found, wanted in zip(run(gpu), run(torch.device("cpu")), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [*ENTRIES, *(f"head {head}" for head in ALL_HEADS)])
def test_a_step_looks_at_no_number(name: str, host_waits: Any) -> None:
    """For which the host would wait on a GPU. A sample of more classes than a batch has, 10 and 8, needs none."""
    head = build(HEADS, name.removeprefix("head ") if " " in name else "CosFace", num_classes=100, feat_dim=DIM)
    spec = "FullSoftmax" if " " in name else {name: {} if name == "PCO" else SMALL.get(name, {})}
    model = build(CLASSIFIERS, spec, num_classes=100, feat_dim=DIM, head=head, seed=1)
    features, labels = batch()
    with host_waits:
        output_of(model, features.requires_grad_(), labels).loss.backward()
        model.after_update()
    assert bool(host_waits.lines) == (name in LOOK_UP_PEOPLE), host_waits.lines


@pytest.mark.parametrize("name", CLASSIFIERS.names())
def test_it_documents_its_options(name: str) -> None:
    text = inspect.getdoc(CLASSIFIERS.get(name)) or ""
    assert [option for option in CLASSIFIERS.parameters(name) if f"    {option}: " not in text] == []


@pytest.mark.parametrize("name", ENTRIES)
def test_embeddings_get_a_gradient_and_metrics_none(name: str) -> None:
    features, labels = batch()
    output = output_of(classifier(name), features.requires_grad_(), labels)
    output.loss.backward()
    assert features.grad is not None
    assert bool(features.grad.isfinite().all())
    assert bool(features.grad.any())
    assert {"accuracy", "target_cosine", "norm"} <= set(output.metrics)
    assert all(value.shape == () and not value.requires_grad for value in output.metrics.values())


@pytest.mark.parametrize("name", ENTRIES)
@pytest.mark.parametrize("head", ALL_HEADS)
def test_every_head_trains_on_it_or_is_refused_by_name(head: str, name: str) -> None:
    margin = build(HEADS, head, num_classes=CLASSES, feat_dim=DIM)
    try:
        given = {"num_classes": CLASSES, "feat_dim": DIM, "head": margin, "seed": 1}
        model = build(CLASSIFIERS, {name: SMALL.get(name, {})}, **given)
    except ConfigError as reason:
        refusal = str(reason)
    else:
        refusal = ""
        require_that_it_trains(model)
    assert not refusal or type(margin).__name__ in refusal


def require_that_it_trains(model: Classifier) -> None:
    """Three updates: gradients are there and finite, rows move and stay finite."""
    own = model.optimizer(RULE)
    moved = [] if own is None else [one for group in own.param_groups for one in group["params"]]
    others = [one for one in model.parameters() if not any(one is parameter for parameter in moved)]
    optimizers = [] if own is None else [own]
    optimizers += [torch.optim.SGD(others, RULE.lr, momentum=0.9)] if others else []
    before = copy.deepcopy(model.state_dict())
    features, labels = batch()
    features = (20 * torch.nn.functional.normalize(features)).requires_grad_()
    for _ in range(3):
        features.grad = None
        output = output_of(model, features, labels)
        output.loss.backward()
        assert features.grad is not None
        assert bool(features.grad.isfinite().all())
        assert bool(features.grad.any())
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        model.after_update()
        assert bool(output.loss.isfinite())
    rows = {key: tensor for key, tensor in model.row_tensors().items() if tensor.is_floating_point()}
    assert all(bool(tensor.isfinite().all()) for tensor in rows.values())
    assert any(not tensor.equal(before[key]) for key, tensor in rows.items()), "no row has moved"


@pytest.mark.parametrize("name", ENTRIES)
def test_its_rows_are_state(name: str) -> None:
    model = classifier(name)
    start, stop = model.row_range
    rows, state = model.row_tensors(), model.state_dict()
    assert rows
    assert all(tensor.shape[0] == stop - start and state[key].equal(tensor) for key, tensor in rows.items())
    sharded = {id(parameter) for key, parameter in model.named_parameters() if not key.startswith("head.")}
    assert sharded <= {id(tensor) for tensor in rows.values()}, "a parameter is no row and would differ everywhere"


@pytest.mark.parametrize("name", ENTRIES)
def test_state_goes_round_through_a_state_dict(name: str) -> None:
    model, other = classifier(name), classifier(name)
    for step in range(2):
        output_of(model, *batch(step))
        model.after_update()
    other.load_state_dict(copy.deepcopy(model.state_dict()))
    losses = []
    for both in (model, other):
        torch.manual_seed(0)
        losses.append(output_of(both, *batch(2)).loss)
    assert losses[0].equal(losses[1])


@pytest.mark.parametrize("name", ENTRIES)
def test_labels_outside_are_refused(name: str) -> None:
    with pytest.raises(DataError, match=rf"label {CLASSES} is outside of 0\.\.{CLASSES - 1}"):
        classifier(name)(torch.ones(1, DIM), torch.tensor([CLASSES]))


WRONG = [
    ("ClassPool", "table.slot_of", 99, r"whole numbers from -1 to 10"),
    ("ClassPool", "table.people", CLASSES, r"whole numbers from -1 to 10"),
    ("ClassPool", "table.people", 3, "do not agree on who has which slot"),
    ("ClassPool", "table.next_row", 2, "whole numbers from 0 to 1"),
    ("ClassPool", "table.clock", -1, "whole numbers from 0 to"),
    ("PrototypeMemory", "table.slot_of", -2, "whole numbers from -1 to 7"),
    ("PrototypeMemory", "table.people", 0.5, "whole numbers from -1 to 10"),
    ("PrototypeQueue", "people", CLASSES, "whole numbers from -1 to 10"),
    ("PrototypeQueue", "next", 19, "whole numbers from 0 to 18"),
    ("PartialFC", "updates", -1, "whole numbers from 0 to"),
    ("VPL", "updates", 2**40, "whole numbers from 0 to"),
    ("PCO", "stage", 4, "whole numbers from 1 to 3"),
    ("PCO", "squares", float("nan"), "must be sums of squares"),
]


@pytest.mark.parametrize(("name", "tensor", "value", "said"), WRONG)
def test_state_that_cannot_be_is_refused_and_changes_nothing(name: str, tensor: str, value: float, said: str) -> None:
    model = classifier(name)
    before = copy.deepcopy(model.state_dict())
    # As a mode loads it: rows come on their own.
    state = {**before, **model.row_tensors(), tensor: torch.full(before[tensor].shape, value)}
    with pytest.raises(CheckpointError, match=f"is damaged: '.*{tensor.split('.')[-1]}.*{said}"):
        model.load_state_dict(state)
    assert all(value.equal(before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", ENTRIES)
def test_what_a_state_lacks_is_named(name: str) -> None:
    model = classifier(name)
    state = model.state_dict()
    for key in state:
        with pytest.raises(RuntimeError, match=rf'Missing key\(s\) in state_dict: "{key}"'):
            model.load_state_dict({other: value for other, value in state.items() if other != key})


def test_another_classifier_is_named_with_what_to_take_back(
    tmp_path: Path, run_tiny: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def go_on(name: str, owner: dict[str, Any]) -> None:
        former, *others = words(name)
        settings = [*others, "training.batch_size=8", "training.epochs=1"]
        if not (tmp_path / name).exists():
            run_tiny(tmp_path / name, former, *settings)
        parts = assemble(load_config(TINY, [*settings, f"classifier={json.dumps(owner)}"]))
        restore(parts, CheckpointStore(tmp_path / name / "checkpoints").find("last"))

    for owner in ({"ClassPool": {"fraction": 0.5}}, {"PrototypeQueue": {"size": 8}}):
        said = f"fit the classifier {next(iter(owner))}: .*; take classifier and head with their options back, or begin"
        with pytest.raises(CheckpointError, match=said):
            go_on("ClassPool", owner)
    monkeypatch.setitem(SMALL, "PartialFC", {"unsampled": "exact"})
    with pytest.raises(CheckpointError, match="class rows keeps clock, .*; take optimizer.name and .* unsampled"):
        go_on("PartialFC", {"PartialFC": {"unsampled": "lazy"}})


def words(name: str) -> tuple[str, ...]:
    mode = [f"mode={MODES[name]}"] if name in MODES else []
    sampler = [f"data.sampler={{ClassBalanced: {{images_per_class: {IMAGES[name]}}}}}"] if name in IMAGES else []
    owner = f"classifier={json.dumps({name: SMALL.get(name, {})})}"
    return (owner, *mode, *sampler, "checkpoint.keep_every_epochs=1", "training.log_every=3")


def tensors(tree: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(tree, Tensor):
        yield path, tree
    for key, value in tree.items() if isinstance(tree, dict) else ():
        yield from tensors(value, f"{path}/{key}")


def stored(run: Path) -> dict[str, Tensor]:
    """Every tensor of the last checkpoint of a run."""
    checkpoint = CheckpointStore(run / "checkpoints").find("last")
    files = [checkpoint / "training.pt", *sorted(checkpoint.glob("process-*.pt"))]
    return {f"{file.name}{path}": tensor for file in files for path, tensor in tensors(read_tree(file))}


@pytest.mark.parametrize("name", slow_for("SubCenter", "PCO", "VPL", "PrototypeMemory", "ClassPool", "PrototypeQueue"))
def test_a_run_learns(name: str, tmp_path: Path, run_tiny: Run) -> None:
    run_tiny(tmp_path / "run", *words(name), "training.epochs=8")
    losses = [json.loads(line)["loss"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("name", slow_for("SubCenter", "VPL", "PrototypeMemory"))
def test_a_resumed_run_ends_with_the_same_bits(name: str, tmp_path: Path, run_tiny: Run, cut_back: Cut) -> None:
    settings = (
        *words(name),
        "training.accumulate=2",
        "training.epochs=2",
    )
    run_tiny(tmp_path / "whole", *settings)
    cut_back(tmp_path / "whole", tmp_path / "cut", 4)
    assert run_tiny(tmp_path / "cut", *settings, resume=True).progress.complete
    expected, found = stored(tmp_path / "whole"), stored(tmp_path / "cut")
    assert expected.keys() == found.keys()
    assert [key for key, tensor in expected.items() if not tensor.equal(found[key])] == []


Steps = tuple[list[Tensor], tuple[int, int], dict[str, Tensor]]


def two_steps(name: str) -> Steps:
    """Losses of two updates of a run, the range of this process's rows, and the rows afterwards."""
    parts = assemble(load_config(TINY, words(name)))
    (owner,) = parts.mode.row_owners().values()
    losses = []
    for _, one in zip(range(2), parts.feed.batches(0, 0), strict=False):
        output = parts.mode.step(one)
        parts.optim.update(output.loss)
        parts.mode.after_update()
        losses.append(output.loss.detach())
    return losses, owner.row_range, {key: tensor.detach() for key, tensor in owner.row_tensors().items()}


def two_steps_of_all() -> list[Steps]:
    return [two_steps(name) for name in ENTRIES]


@pytest.fixture(scope="module")
def two() -> list[list[Steps]]:
    """Of all classifiers in one start of processes, because starting takes longer than computing."""
    return distributed.run_processes(two_steps_of_all, 2)


@pytest.mark.parametrize("name", ENTRIES)
def test_two_processes_share_the_rows_and_see_one_loss(name: str, two: list[list[Steps]]) -> None:
    first, second = (steps[ENTRIES.index(name)] for steps in two)
    for loss, other in zip(first[0], second[0], strict=True):
        torch.testing.assert_close(loss, other)
    assert first[1][0] == 0
    assert first[1][1] == second[1][0]
    for (start, stop), rows in (first[1:], second[1:]):
        assert all(len(tensor) == stop - start for tensor in rows.values())
