"""The mode: what its two passes see, whose turn it is, what it learns, and what is refused."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from facelab.data.base import Batch
from facelab.errors import ConfigError
from facelab.run.assembly import RunParts, assemble
from facelab.run.run import RunResult
from facelab.run.settings import load_config
from facelab.training_mode.occlusion import Occlusion
from facelab.weights.checkpoint import CheckpointStore
from facelab.weights.snapshot import read_model
from facelab.weights.tensor_files import read_tree

Run = Callable[..., RunResult]
Cut = Callable[[Path, Path, int], Path]
TINY = str(Path(__file__).parents[2] / "tiny_run.yaml")
HIDDEN = "data.augment.occlude={probability: 0.6}"


def words(options: str, *more: str) -> list[str]:
    return [f"mode={{occlusion: {options}}}", HIDDEN, *more]


def mode_and_batch(options: str, *more: str) -> tuple[Occlusion, Batch, RunParts]:
    parts = assemble(load_config(TINY, words(options, *more)))
    assert isinstance(parts.mode, Occlusion)
    return parts.mode, next(iter(parts.feed.batches(0, 0))), parts


def gradients(mode: Occlusion, batch: Batch) -> dict[str, Tensor | None]:
    """Of everything that learns, by name; None where nothing asked for one."""
    for module in mode.networks().values():
        module.eval()
    mode.step(batch).loss.backward()
    named = {f"{name}.{key}": one for name, net in mode.networks().items() for key, one in net.named_parameters()}
    return {name: parameter.grad for name, parameter in named.items()}


def test_both_passes_are_classified_and_held_together() -> None:
    mode, batch, _ = mode_and_batch(
        "{generator: random, probability: 1, masked: 0.5, consistency: 3, segmentation: 0.2}"
    )
    for module in mode.networks().values():
        module.eval()
    output = mode.step(batch)
    assert batch.reference is not None
    assert batch.occluded is not None
    assert batch.occluded.any()
    assert not torch.equal(batch.reference, batch.image)
    clean = mode.network(*mode.inputs(Batch(batch.reference, batch.label, batch.index)))
    drop = mode._drop(batch, torch.zeros(16, *(mode.place.cells.channels, 4, 4)))
    with mode.place.passing(1 - drop) as seen:
        hidden = mode.network.features(*mode.inputs(batch)).embedding
    losses = [mode.classifier(one, batch.label).loss for one in (clean, hidden)]
    apart = 1 - torch.cosine_similarity(clean, hidden).mean()
    assert mode.segment is not None
    part = batch.occluded.float().unfold(2, 8, 8).unfold(3, 8, 8).mean(dim=(4, 5))
    told = torch.nn.functional.binary_cross_entropy_with_logits(mode.segment(seen[0]), part)
    torch.testing.assert_close(output.loss, losses[0] + 0.5 * losses[1] + 3 * apart + 0.2 * told)


def test_cells_are_dropped_of_the_images_of_chance_up_to_the_area() -> None:
    mode, batch, _ = mode_and_batch("{generator: landmark, probability: 0.5, area: 0.25}")
    drop = mode._drop(batch, torch.zeros(16, mode.place.cells.channels, 4, 4))
    assert set(drop.sum(dim=(1, 2, 3)).tolist()) == {0.0, 4.0}
    assert torch.equal(drop, mode._drop(batch, torch.zeros(16, mode.place.cells.channels, 4, 4)))


def test_the_reversed_gradient_raises_what_the_network_lowers() -> None:
    """A step of the generator along its gradient's fall makes the loss of masked features larger."""
    mode, batch, _ = mode_and_batch("{probability: 1, segmentation: 0, consistency: 0}")
    found = gradients(mode, batch)
    other, _, _ = mode_and_batch("{probability: 1, segmentation: 0, consistency: 0, strength: 2}")
    doubled = gradients(other, batch)
    for name, gradient in found.items():
        assert gradient is not None
        factor = 2 if name.startswith("generator") else 1
        scale = float(gradient.abs().max()) + 1e-9
        torch.testing.assert_close(doubled[name], factor * gradient, rtol=1e-3, atol=1e-5 * scale)


def test_the_network_and_the_generator_take_turns() -> None:
    """With the generator still, the network learns all; in its turn, only what clean images and segmentation say."""
    options = "{probability: 1, alternate: 2, segmentation: 0}"
    both, batch, _ = mode_and_batch("{probability: 1, segmentation: 0}")
    reversal = gradients(both, batch)
    mode, _, _ = mode_and_batch(options)
    own = gradients(mode, batch)
    assert all(gradient is None for name, gradient in own.items() if name.startswith("generator"))
    for name, gradient in own.items():
        if name.startswith("network"):
            torch.testing.assert_close(gradient, reversal[name])
    turned, _, _ = mode_and_batch(options)
    turned.after_update()
    found = gradients(turned, batch)
    clean, _, _ = mode_and_batch("{generator: random, probability: 0, masked: 0, consistency: 1e-12, segmentation: 0}")
    alone = gradients(clean, batch)
    for name, gradient in found.items():
        torch.testing.assert_close(
            gradient, (alone if name.startswith("network") else reversal)[name], rtol=1e-3, atol=1e-6
        )


def test_new_layers_learn_as_class_rows_do() -> None:
    _, _, parts = mode_and_batch("{}", "optimizer.lr=0.01", "optimizer.class_lr=0.3")
    rates = {group["name"]: group["lr"] for group in parts.optim._groups()}
    assert rates["new layers"] == rates["class rows"] == pytest.approx(30 * rates["network"])
    named = {name for name, _ in parts.mode.generator.network.named_parameters()}  # type: ignore[attr-defined]
    count = sum(len(group["params"]) for group in parts.optim._groups() if group["name"] == "new layers")
    assert count == 2 * len(named)


def test_it_learns_to_see_what_is_hidden() -> None:
    mode, batch, parts = mode_and_batch("{generator: random, segmentation: 10}", "optimizer.lr=0.02")
    told = []
    for _ in range(10):
        output = mode.step(batch)
        parts.optim.update(output.loss)
        told.append(float(output.metrics["segmentation"]))
    assert told[-1] < 0.75 * told[0]


def test_whose_turn_it_is_comes_back() -> None:
    mode, _, _ = mode_and_batch("{alternate: 3}")
    mode.after_update()
    mode.after_update()
    other, _, _ = mode_and_batch("{alternate: 3}")
    assert not other._is_generators_turn
    other.load_state(mode.state())
    assert other._is_generators_turn


@pytest.mark.slow  # that reversal does: test_every_mode.py
def test_a_run_in_turns_that_is_killed_ends_alike(tmp_path: Path, run_tiny: Run, cut_back: Cut) -> None:
    settings = words("{alternate: 3, ema: 0.9}", "training.epochs=2", "checkpoint.keep_every_epochs=1")
    whole = run_tiny(tmp_path / "whole", *settings).folder
    cut = cut_back(whole, tmp_path / "cut", 4)
    run_tiny(cut, *settings, resume=True)
    ends = [CheckpointStore(run / "checkpoints").find("last") for run in (whole, cut)]
    expected, found = (read_tree(one / "training.pt")["mode"] for one in ends)
    assert expected.keys() == {"network", "ema", "generator", "segmentation", "classifier", "frozen", "updates"}
    for name in ("network", "ema", "generator", "segmentation"):
        assert all(torch.equal(tensor, found[name][key]) for key, tensor in expected[name].items())
    assert read_model(ends[0]).keys() == expected["network"].keys(), "generator and segmentation are not exported"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("{area: 0}", "occlusion area is 0"),
        ("{area: 0.05}", "occlusion area is 0.05, less than one of 4 x 4 cells; raise it, or name an earlier stage"),
        ("{probability: 2}", "occlusion probability is 2"),
        ("{strength: 0}", "occlusion strength is 0"),
        ("{masked: -1}", "occlusion masked is -1"),
        ("{alternate: 1}", "occlusion alternate is 1"),
        ("{generator: half_face, alternate: 2}", "the generator 'half_face' learns nothing and needs no turn"),
        ("{probability: 0}", "lost cells, and there are none: raise probability"),
        ("{masked: 0, consistency: 0}", "and masked or consistency, or set generator: random"),
        (
            "{generator: random, masked: 0, consistency: 0, segmentation: 0}",
            "are 0; raise one, or take mode: conventional",
        ),
        ("{generator: eyes}", "option 'generator' is 'eyes'"),
    ],
)
def test_refused_options(options: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        mode_and_batch(options)


def test_without_anything_that_hides_there_is_nothing_to_segment() -> None:
    none = "data.augment.occlude=null"
    with pytest.raises(ConfigError, match=r"no transform of data\.augment hides a part .* add data\.augment\.occlude="):
        mode_and_batch("{}", none)
    mode, batch, _ = mode_and_batch("{segmentation: 0}", none)
    assert batch.occluded is None
    assert mode.segment is None
    assert bool(mode.step(batch).loss.isfinite())
