"""Distillation: what the teacher sees, what is kept, what is refused, and how it is combined."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor

from facelab.backbone.base import BACKBONES, Backbone, Features
from facelab.catalogue import build
from facelab.data.base import SOURCES
from facelab.data.sources.resized import Resized
from facelab.data.transforms.augment import Augment
from facelab.engine.loop import StepOutput
from facelab.errors import CheckpointError, ConfigError, DataError
from facelab.head.rows.partial_fc import PartialFC
from facelab.inputs import InputSpec, normalise
from facelab.run import trained
from facelab.run.assembly import RunParts, assemble, restore
from facelab.run.run import RunResult, run_training
from facelab.run.settings import load_config
from facelab.run.trained import embed_source
from facelab.training_mode.distillation.mode import Distillation
from facelab.training_mode.distillation.teacher import Teacher, outputs_of
from facelab.weights.card import model_card
from facelab.weights.checkpoint import CheckpointStore
from facelab.weights.model_folder import write_model
from facelab.weights.snapshot import read_model
from facelab.weights.tensor_files import read_tree

Run = Callable[..., RunResult]
Cut = Callable[[Path, Path, int], Path]
TINY = str(Path(__file__).parents[2] / "tiny_run.yaml")
MOST = "SoftTarget: 0.1, FitNet: 1, PKT: 100, FT: {weight: 1}, RKD: 1, NST: 1, Angular: 1, MarginDistillation: 0.1"


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teacher") / "teacher"
    words = ["training.epochs=1", "seed=5", "backbone.MobileFaceNet.width=0.5"]
    run_training(load_config(TINY, words), folder, Console(quiet=True))
    return folder


def settings(teacher: Path, *more: str) -> list[str]:
    return ["mode=distillation", f"mode.distillation.teacher={teacher}", *more]


def assembled(teacher: Path, *more: str) -> tuple[RunParts, Distillation]:
    parts = assemble(load_config(TINY, settings(teacher, *more)))
    assert isinstance(parts.mode, Distillation)
    return parts, parts.mode


def first_step(parts: RunParts) -> StepOutput:
    return parts.mode.step(next(iter(parts.feed.batches(0, 0))))


def last(run: Path) -> Path:
    return CheckpointStore(run / "checkpoints").find("last")


def test_every_loss_at_once_learns_and_resumes_to_the_same_bits(
    tmp_path: Path, run_tiny: Run, cut_back: Cut, teacher: Path
) -> None:
    words = settings(
        teacher,
        f"mode.distillation.losses={{{MOST}, SNN-MIMIC: 0.01, Cosine: 1}}",
        "mode.distillation.view=clean",
        "data.augment={low_resolution: {resolution: [8, 16]}}",
        "training.epochs=2",
        "checkpoint.keep_every_epochs=1",
    )
    whole = run_tiny(tmp_path / "whole", *words).folder
    cut = cut_back(whole, tmp_path / "cut", 4)
    run_tiny(cut, *words, resume=True)
    expected, found = (read_tree(last(run) / "training.pt")["mode"] for run in (whole, cut))
    assert expected.keys() == {"network", "classifier", "FitNet", "FT", "frozen"}
    assert expected["frozen"].keys() == {"teacher"}
    for name in ("network", "FitNet", "FT"):
        assert all(torch.equal(tensor, found[name][key]) for key, tensor in expected[name].items())
    assert read_model(last(whole)).keys() == expected["network"].keys(), "what the losses learn is not exported"


def test_the_student_moves_towards_the_teacher_without_class_rows(tmp_path: Path, run_tiny: Run, teacher: Path) -> None:
    words = settings(teacher, "classifier=null", "head=null", "training.epochs=4", "training.log_every=4")
    run = run_tiny(tmp_path / "run", *words).folder
    logged = [line for line in (run / "metrics.jsonl").read_text().splitlines() if '"Angular"' in line]
    values = [float(line.split('"Angular": ')[1].split(",")[0].rstrip("}")) for line in logged]
    assert values[-1] < 0.7 * values[0]
    assert read_tree(last(run) / "training.pt")["mode"].keys() == {"network", "frozen"}


def test_the_teacher_is_frozen_and_in_evaluation_mode(teacher: Path) -> None:
    parts, mode = assembled(teacher)
    before = {name: tensor.clone() for name, tensor in mode.teacher.network.state_dict().items()}
    for batch in parts.feed.batches(0, 0):
        parts.optim.update(mode.step(batch).loss)
    assert not mode.teacher.network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in mode.teacher.network.state_dict().items())
    assert mode.network.training


class Mean(Backbone):
    """The mean of each channel, as it is fed."""

    def __init__(self, input_spec: InputSpec) -> None:
        super().__init__(input_spec, 3)
        self.one = torch.nn.Parameter(torch.ones(()))

    def features(self, image: Tensor) -> Features:
        return Features(self.one * image.mean(dim=(2, 3)))


def test_images_are_converted_to_what_the_teacher_takes() -> None:
    pixels = torch.randint(256, (2, 3, 8, 8), dtype=torch.uint8)
    asked = Teacher(Mean(InputSpec(4, 4, "BGR", 0.0, 255.0)), "mean")(pixels, maps=False)
    expected = pixels.float().mean(dim=(2, 3)).flip(1) / 255.0
    torch.testing.assert_close(asked.embedding, expected, rtol=0, atol=0.6 / 255)
    assert not asked.embedding.requires_grad


def test_tokens_on_a_square_are_a_map() -> None:
    tokens = torch.arange(2 * 9 * 4.0).view(2, 9, 4)
    (found,) = outputs_of(Features(torch.zeros(2, 5), tokens=tokens)).maps
    assert found.shape == (2, 4, 3, 3)
    assert torch.equal(found[1, :, 2, 1], tokens[1, 7])
    assert outputs_of(Features(torch.zeros(2, 5), tokens=tokens[:, :8])).maps == ()


def test_the_views_of_the_teacher() -> None:
    config = load_config(TINY, ["data.augment={low_resolution: {probability: 1}, flip: 1}"])
    batch = next(iter(assemble(config).feed.loader.batches(0)))
    augment = Augment(config.data.augment, config.seed)
    same, clean, stored = (augment(batch, 0, 0, view=view) for view in ("same", "clean", "stored"))
    assert same.reference is None
    assert clean.reference is not None
    assert torch.equal(clean.reference, batch.image.flip(3)), "turned round with the student's, but sharp"
    assert stored.reference is batch.image
    assert torch.equal(same.image, clean.image)
    assert not torch.equal(clean.image, clean.reference)
    flipped = Augment({"flip": 1.0}, 0)(batch, 0, 0, view="clean")
    assert flipped.reference is flipped.image, "nothing is done twice"


def test_the_teacher_sees_its_view(teacher: Path) -> None:
    words = ["mode.distillation.view=clean", "data.augment={low_resolution: {probability: 1}}"]
    parts, mode = assembled(teacher, *words)
    batch = next(iter(parts.feed.batches(0, 0)))
    assert batch.reference is not None
    network = mode.teacher.network
    with torch.no_grad():
        expected = network(normalise(batch.reference, network.input_spec))
    torch.testing.assert_close(mode._teacher(batch).embedding, expected)


def test_kept_embeddings_are_those_of_the_teacher(teacher: Path, tmp_path: Path) -> None:
    words = ["mode.distillation.view=stored", "mode.distillation.losses={Angular: 1, SoftTarget: 1, RKD: 1}"]
    cached = [*words, f"mode.distillation.cache={tmp_path / 'cache'}"]
    asked, parts = assembled(teacher, *words)[0], assembled(teacher, *cached)[0]
    for ours, others in zip(asked.feed.batches(0, 0), parts.feed.batches(0, 0), strict=True):
        own, other = (one.mode.step(batch) for one, batch in ((asked, ours), (parts, others)))
        torch.testing.assert_close(own.loss, other.loss, rtol=1e-4, atol=1e-5)
    files = sorted((tmp_path / "cache").rglob("*.npz"))
    assert files
    written = [file.stat().st_mtime_ns for file in files]
    assembled(teacher, *cached)
    assert [file.stat().st_mtime_ns for file in files] == written, "nothing is embedded again"
    files[0].write_bytes(files[0].read_bytes()[:-30])
    with pytest.raises(DataError, match="the cached embeddings are damaged .* delete the file"):
        assembled(teacher, *cached)


def test_a_teacher_of_larger_images_sees_them_before_they_are_made_small(tmp_path: Path) -> None:
    stored = build(SOURCES, {"SyntheticFaces": {"identities": 2, "per_identity": 2}}, size=48)
    config = load_config(TINY, ["data.size=24", "data.resize=true"])
    network = Mean(InputSpec(48, 48))
    found = embed_source(network, Resized(stored, 24, 24), tmp_path, config)
    pixels = torch.from_numpy(stored.read_many(np.arange(4))).permute(0, 3, 1, 2)
    with torch.no_grad():
        expected = network(normalise(pixels, network.input_spec))
    torch.testing.assert_close(torch.from_numpy(found), expected)


def test_another_teacher_or_source_has_other_embeddings(teacher: Path, base: Path, tmp_path: Path) -> None:
    words = ["mode.distillation.view=stored", f"mode.distillation.cache={tmp_path}"]
    tables = [
        assembled(teacher, *words)[1].table,
        assembled(base, *words)[1].table,
        assembled(teacher, *words, "data.source.SyntheticFaces.first_identity=100")[1].table,
    ]
    assert len(list(tmp_path.rglob("manifest.json"))) == 3
    assert all(table is not None and table.shape == (64, 16) for table in tables)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the student's structure."""
    folder = tmp_path_factory.mktemp("base") / "base"
    run_training(load_config(TINY, ["training.epochs=1"]), folder, Console(quiet=True))
    return folder


def test_adapters_of_a_student_learn_from_a_teacher(teacher: Path, base: Path, tmp_path: Path, run_tiny: Run) -> None:
    words = ["backbone=null", f"base={base}", "adapter={LoRA: {rank: 2}}", "training.epochs=1"]
    run = run_tiny(tmp_path / "run", *settings(teacher, *words, "mode.distillation.losses={FitNet: 1}")).folder
    before, after = read_model(last(base)), read_model(last(run))
    assert all(torch.equal(after[f"network.{name}"], tensor) for name, tensor in before.items())
    assert any(bool(tensor.any()) for name, tensor in after.items() if name.endswith("low_rank_up"))


def test_a_teacher_may_be_a_model_or_weights_of_a_backbone(teacher: Path, tmp_path: Path) -> None:
    options = {"width": 0.25, "feat_dim": 16, "input_spec": {"height": 40, "width": 40, "colour": "BGR"}}
    network = BACKBONES.build("MobileFaceNet", options)
    folder = write_model(tmp_path / "model", network.state_dict(), model_card("MobileFaceNet", options, network))
    weights = folder / "model.safetensors"
    size = "{height: 40, width: 40, colour: BGR}"
    spec = f"{{MobileFaceNet: {{width: 0.25, feat_dim: 16, input_spec: {size}, weights: {weights}}}}}"
    for word in (str(folder), spec):
        mode = assembled(Path(word))[1]
        assert all(
            torch.equal(one, network.state_dict()[name]) for name, one in mode.teacher.network.state_dict().items()
        )
    assert first_step(assembled(folder)[0]).loss.isfinite()
    with pytest.raises(ConfigError, match="the class rows of 'MobileFaceNet' are needed, but a file of weights has no"):
        assembled(Path(spec), "mode.distillation.losses={SoftTarget: 1}")
    with pytest.raises(CheckpointError, match="has no class rows, only a network; name the folder of a run"):
        assembled(folder, "mode.distillation.losses={SoftTarget: 1}")
    with pytest.raises(ConfigError, match="'MobileFaceNet' is to be loaded, but has no weights"):
        assembled(Path("{MobileFaceNet: {width: 0.25}}"))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["mode.distillation.losses={}", "classifier=null", "head=null"], "distillation has no loss; name one"),
        (["mode.distillation.losses={Angular: 0}"], "losses.Angular weight is 0.0, but must lie in"),
        (["mode.distillation.losses={Angullar: 1}"], "unknown distillation 'Angullar'. Did you mean 'Angular'"),
        (["mode.distillation.losses={RKD: {angel: 1}}"], "'RKD' has no option 'angel'. Did you mean 'angle'"),
        (
            ["mode.distillation.losses={FitNet: 1}", "classifier=null", "head=null"],
            "FitNet see feature maps alone, so the student's embedding would not learn",
        ),
        (
            ["mode.distillation.losses={SoftTarget: 1}", "classifier=null", "head=null"],
            "SoftTarget compares cosines to all classes, .* but the classifier is null",
        ),
        (
            ["mode.distillation.losses={SNN-MIMIC: 1}", "classifier=PartialFC"],
            "SNN-MIMIC compares cosines to all classes, .* but the classifier is PartialFC",
        ),
        (["mode.distillation.cache=x"], "with view: same the teacher sees each image as it was changed"),
        (
            ["mode.distillation.cache=x", "mode.distillation.view=stored", "mode.distillation.losses={NST: 1}"],
            "cache keeps embeddings, but NST compares feature maps",
        ),
        (["backbone.MobileFaceNet.feat_dim=8"], "student's have 8 numbers and the teacher's 16"),
        (
            ["mode.distillation.losses={SoftTarget: 1}", "data.source.SyntheticFaces.identities=9"],
            "was trained on other people or images than those of data.source",
        ),
    ],
)
def test_what_cannot_be_combined_is_refused_with_the_reason(words: list[str], sentence: str, teacher: Path) -> None:
    with pytest.raises(ConfigError, match=sentence):
        assembled(teacher, *words)


def test_rows_that_are_no_classes_are_refused(teacher: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trained, "count_rows", lambda _: {"classifier": 19})  # as a queue has slots
    with pytest.raises(CheckpointError, match="does not have one row for each class, as FullSoftmax has them; choose"):
        assembled(teacher, "mode.distillation.losses={SoftTarget: 1}")


def test_rows_of_a_teacher_are_caught_up_where_they_rested(tmp_path: Path) -> None:
    words = [
        "data.source.SyntheticFaces={identities: 24, per_identity: 2}",
        "training={epochs: 1, batch_size: 6, log_every: 2}",
        "optimizer={lr: 0.5, weight_decay: 0.05}",
        "classifier.PartialFC={sample_rate: 0.25, unsampled: exact}",
    ]
    config = load_config(TINY, words)
    run_training(config, tmp_path / "run", Console(quiet=True))
    parts = assemble(config)
    restore(parts, last(tmp_path / "run"))
    rows = parts.mode.row_owners()["classifier"]
    assert isinstance(rows, PartialFC)
    stored = rows.weight.detach().clone()
    found = trained.class_rows_of(tmp_path / "run", parts.source, torch.device("cpu"))
    rows.eval()
    expected = rows.candidates(torch.zeros(1, 16), torch.zeros(1, dtype=torch.int64)).rows
    assert not torch.allclose(stored, expected)
    assert found.equal(expected)


def test_a_teacher_that_needs_scores_is_refused() -> None:
    network = Mean(InputSpec(4, 4))
    network.needs_quality = True
    with pytest.raises(ConfigError, match="the teacher 'it' weighs its experts by quality scores"):
        Teacher(network, "it")
