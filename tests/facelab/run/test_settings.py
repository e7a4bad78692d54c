from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from facelab.backbone.base import BACKBONES
from facelab.config import differences
from facelab.data.synthetic.source import SyntheticFaces
from facelab.data.transforms.base import TRANSFORMS
from facelab.data.transforms.crop import Crop
from facelab.errors import ConfigError
from facelab.quality.card import ScorerCard
from facelab.quality.table import write_scores
from facelab.run.assembly import assemble, open_source
from facelab.run.settings import (
    VARIANTS,
    RunConfig,
    find_config,
    load_config,
    load_tree,
    make_config,
    shipped_configs,
)
from facelab.run.study import make_study
from facelab.weights.card import model_card
from facelab.weights.model_folder import write_model

SYNTHETIC = "data.source={SyntheticFaces: {identities: 4, per_identity: 4}}"
SMALL_SWIN: dict[str, Any] = {"patch": 20, "dim": 16, "depths": [2, 1], "heads": [2, 2], "window": 3, "feat_dim": 16}
SMALL_BACKBONES: dict[str, dict[str, Any]] = {
    "PETALSwin": SMALL_SWIN,
    "SwinTransformer": {**SMALL_SWIN, "patch": 28, "window": 4},
    "AttentionNet-92": {"width": 0.125},
    "vit_l": {"dim": 32, "depth": 1},
    **{f"TransFace-{size}": {"dim": 64, "depth": 1} for size in "SBL"},
}
STUDIES = [name for name in shipped_configs() if VARIANTS in load_tree(name)]
RUNS = [name for name in shipped_configs() if name not in STUDIES]
NEW = [name for name in RUNS if "finetune" not in name and load_config(name).base is None]
ADAPTED = [name for name in RUNS if load_config(name).base is not None]
SMALL = [SYNTHETIC, "training.batch_size=8", "training.precision=fp32"]


def check_building(config: RunConfig) -> None:
    parts = assemble(config.model_copy(update={"evaluation": type(config.evaluation)()}))
    assert parts.progress.total == 2 * config.training.epochs
    assert next(iter(parts.feed.batches(0, 0))).size == 8


@pytest.mark.parametrize("name", shipped_configs())
def test_every_shipped_configuration_says_what_it_is(name: str) -> None:
    assert load_tree(name)["name"]
    assert find_config(name).read_text().startswith("# ")


@pytest.mark.parametrize("name", NEW)
def test_every_shipped_configuration_builds_on_small_data(name: str) -> None:
    backbone = load_config(name).backbone
    entry = backbone if isinstance(backbone, str) else next(iter(backbone or {}))
    small = [f"backbone={{{entry}: {SMALL_BACKBONES[entry]}}}"] if entry in SMALL_BACKBONES else ["data.size=112"]
    room = ["classifier.ClassPool.fraction=1"] if name.startswith("class_pool") else []
    check_building(load_config(name, [*SMALL, *small, *room]))


@pytest.mark.parametrize("name", ADAPTED)
def test_every_shipped_adaptation_builds_on_a_small_base(name: str, tmp_path: Path) -> None:
    options = {**SMALL_SWIN, "input_spec": {"height": 120, "width": 120}}
    base = BACKBONES.build("Swin", options)
    write_model(tmp_path / "base", base.state_dict(), model_card("Swin", options, base))
    small = [*SMALL, "data.size=120", f"base={tmp_path / 'base'}"]
    faces = open_source(load_config(name, small))
    # Every person is seen in both qualities, as the loss across qualities wants it.
    scores = np.tile(np.linspace(0, 1, 4, dtype=np.float32), 4)
    write_scores(tmp_path / "scores.csv", faces, scores, ScorerCard(name="CNNIQA", low=0, high=1))
    check_building(load_config(name, [*small, f"data.quality={tmp_path / 'scores.csv'}"]))


def test_the_recipe_for_low_resolution_needs_a_base_and_a_folder(tmp_path: Path) -> None:
    options = {"width": 0.5, "feat_dim": 16}
    base = BACKBONES.build("MobileFaceNet", options)
    write_model(tmp_path / "base", base.state_dict(), model_card("MobileFaceNet", options, base))
    faces = SyntheticFaces(identities=4, per_identity=4, size=112)
    for index in range(len(faces)):
        path = tmp_path / "people" / str(faces.labels[index]) / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), faces.read(index))
    given = [f"base={tmp_path / 'base'}", f"data.source.BothQualities.source.ImageFolder.root={tmp_path / 'people'}"]
    # Its own scorer needs a package of an extra.
    given += ["data.quality={Sharpness: {}}", "training.batch_size=8"]
    parts = assemble(load_config("adaptation/low-resolution", given))
    batch = next(iter(parts.feed.batches(0, 0)))
    assert batch.quality is not None
    assert set(parts.mode.step(batch).metrics) >= {"apart"}
    assert parts.card["adapter"]["DualLoRA"]["joined"] == 0.7


@pytest.mark.parametrize("name", STUDIES)
def test_every_shipped_study_is_checked_run_by_run(name: str, tmp_path: Path) -> None:
    study = make_study(load_tree(name), tmp_path, name)
    if study.base is not None:
        check_building(load_tiny(study.base))
        store(load_tiny(study.base), tmp_path / "base")
    people = "{SyntheticFaces: {identities: 4, per_identity: 2}}"
    source = f"data.source.Concat.sources=[{people}, {{LowResolution: {{source: {people}, resolution: [8, 16]}}}}]"
    if study.base is None:
        source = SYNTHETIC
    given = []
    if name == "distillation/vargfacenet":
        teacher = tmp_path / "given-teacher"
        store(load_config("conventional", [*SMALL, "data.size=112", "backbone.MobileFaceNet.feat_dim=512"]), teacher)
        given = [f"mode.distillation.teacher={teacher}"]
    small = make_study(load_tree(name, [source, *given, "training.batch_size=8"]), tmp_path, name)
    assert len(small.variants) >= 2
    for member, config in small.variants.items():
        check_building(config)
        store(config, tmp_path / member)


def store(config: RunConfig, folder: Path) -> None:
    """The network of a run as it would begin, for later ones that go on from it or learn from it."""
    parts = assemble(config.model_copy(update={"evaluation": type(config.evaluation)()}))
    write_model(folder, parts.mode.inference_network().state_dict(), parts.card)


def load_tiny(config: RunConfig) -> RunConfig:
    """The same run on few faces."""
    data = {**config.tree()["data"], "source": {"SyntheticFaces": {"identities": 4, "per_identity": 4}}}
    return make_config({**config.tree(), "data": data, "training": {**config.tree()["training"], "batch_size": 8}}, "")


def test_the_published_recipe_of_vargfacenet(tmp_path: Path) -> None:
    first, second = make_study(load_tree("distillation/vargfacenet"), tmp_path, "here").variants.values()
    for run in (first, second):
        assert run.head == {"ArcFace": {"margin": 0.5, "scale": 64}}
        assert run.mode == {"distillation": {"teacher": "models/ms1mv3_arcface_r100", "losses": {"Angular": 7}}}
    assert (first.backbone, first.base) == ("VarGFaceNet", None)
    assert (second.backbone, second.base) == (None, tmp_path / "generation-1"), "the same teacher, the former student"


def test_the_published_recipes_of_petalface() -> None:
    tiny, briar = (load_config(f"adaptation/petalface-{name}") for name in ("tinyface", "briar"))
    assert (tiny.training.epochs, tiny.schedule.warmup_epochs) == (40, 2)
    assert (briar.training.epochs, briar.schedule.warmup_epochs) == (10, 1)
    published = {"dropout": 0.1, "dropout_on": "output", "initial": "trunc_normal", "moving_statistics": True}
    for run in (tiny, briar):
        assert (run.optimizer.name, run.optimizer.lr, run.optimizer.weight_decay) == ("adamw", 5e-4, 0.1)
        assert (run.training.batch_size, run.training.clip_norm, run.seed) == (8 * 8, 5, 19)
        assert run.adapter == {"DualLoRA": {"rank": 8, "targets": ["*.qkv"], "single": ["feature.2"], **published}}
        assert (run.gate, run.head) == ({"compat": {"tau": 0.5}}, "InsightFace-CosFace")
    four, twelve = (load_config(f"conventional/petalface-webface{size}m") for size in (4, 12))
    assert [(run.training.epochs, run.training.batch_size) for run in (four, twelve)] == [(26, 8 * 128), (20, 8 * 256)]
    for run in (four, twelve):
        assert (run.optimizer.name, run.optimizer.lr, run.optimizer.weight_decay) == ("adamw", 1e-3, 0.05)
        assert (run.schedule.warmup_epochs, run.training.clip_norm, run.seed) == (1, 5, 2048)
        assert (run.backbone, run.head) == ({"PETALSwin": {"shift_mask": False}}, "InsightFace-ArcFace")
    for run in (tiny, briar, four, twelve):
        assert (run.schedule.name, run.schedule.power, run.schedule.compat) == ("polynomial", 1, "insightface")
        assert (run.training.clip, run.classifier) == ("network", {"FullSoftmax": {"initial": "normal"}})
        assert (run.data.size, run.training.precision, run.data.augment["flip"]) == (120, "fp32", 0.5)


@pytest.mark.parametrize(
    ("name", "lr", "batch", "epochs", "warmup"),
    [
        ("ms1mv2-s", 1e-3, 8 * 512, 35, 3),
        ("ms1mv2-b", 1e-3, 8 * 512, 35, 3),
        ("ms1mv2-l", 1e-3, 8 * 512, 35, 3),
        ("glint360k-s", 1e-4, 8 * 128, 40, 4),
        ("glint360k-b", 1e-4, 8 * 128, 35, 3),
        ("glint360k-l", 1e-4, 8 * 128, 35, 3),
    ],
)
def test_the_published_recipes_of_transface(name: str, lr: float, batch: int, epochs: int, warmup: int) -> None:
    run = load_config(f"transface/{name}")
    assert run.name == f"transface-{name}"
    assert run.backbone == f"TransFace-{name[-1].upper()}"
    assert (run.optimizer.name, run.optimizer.lr, run.optimizer.weight_decay) == ("adamw", lr, 0.1)
    assert (run.training.batch_size, run.training.epochs, run.schedule.warmup_epochs) == (batch, epochs, warmup)
    assert (run.schedule.name, run.schedule.power, run.schedule.compat) == ("polynomial", 2, "transface")
    assert (run.training.precision, run.training.clip_norm, run.training.clip) == ("fp16", 5, "network")
    assert (run.head, run.classifier) == ("InsightFace-ArcFace", {"FullSoftmax": {"initial": "normal"}})
    options = {
        "patches": 7,
        "probability": 0.2,
        "strength": 1.0,
        "ranking": "fresh",
        "entropy": "deviation",
        "gamma": 1.0,
    }
    assert run.mode == {"transface": options}
    assert run.data.augment == {"flip": 0.5}


def test_the_published_recipe_of_insightface() -> None:
    run = load_config("conventional/insightface")
    assert (run.backbone, run.head) == ("r50", "InsightFace-ArcFace")
    optimizer, training = run.optimizer, run.training
    assert (optimizer.name, optimizer.lr, optimizer.momentum, optimizer.weight_decay) == ("sgd", 0.1, 0.9, 5e-4)
    assert (training.epochs, training.batch_size, training.precision) == (20, 8 * 128, "fp16")
    assert (run.schedule.name, run.schedule.power, run.schedule.compat) == ("polynomial", 1, "insightface")
    assert (run.schedule.warmup_epochs, training.clip_norm, training.clip) == (0, 5, "network")
    assert (run.classifier, run.data.augment["flip"]) == ({"FullSoftmax": {"initial": "normal"}}, 0.5)


def test_the_published_recipe_of_lvface() -> None:
    run = load_config("conventional/lvface")
    optimizer, training = run.optimizer, run.training
    assert (run.backbone, run.head) == ("vit_l", {"CosFace": {"margin": 0.4, "scale": 64}})
    assert run.classifier == {"PCO": {"sample_rate": 0.1, "thresholds": [0.2, 0.35], "initial": "normal"}}
    assert (optimizer.name, optimizer.lr, optimizer.betas, optimizer.weight_decay) == ("adamw", 1e-3, (0.9, 0.999), 0.1)
    assert (training.epochs, training.batch_size, run.schedule.name) == (60, 64 * 384, "polynomial")


def test_the_published_recipe_of_facexzoo() -> None:
    config = load_config("conventional/facexzoo")
    assert (config.optimizer.lr, config.optimizer.weight_decay, config.optimizer.momentum) == (0.1, 1e-4, 0.9)
    assert (config.training.batch_size, config.training.epochs) == (512, 18)
    assert config.schedule.milestones == (10, 13, 16)


def test_the_published_recipe_of_facexzoo_for_swin() -> None:
    config = load_config("conventional/facexzoo-swin")
    optimizer, schedule = config.optimizer, config.schedule
    assert (optimizer.name, optimizer.lr, optimizer.weight_decay, optimizer.eps) == ("adamw", 5e-4, 0.05, 1e-8)
    assert (optimizer.betas, optimizer.decay_norms_and_biases) == ((0.9, 0.999), False)
    assert (schedule.warmup_start, schedule.minimum, schedule.compat) == (5e-7, 5e-6, "swin")
    assert (config.training.epochs, config.training.batch_size, config.training.precision) == (18, 512, "fp16")
    assert (config.backbone, config.data.size, config.data.resize) == ("SwinTransformer", 224, True)
    rates = [schedule.build([optimizer.lr], total_updates=180, updates_per_epoch=10).rate(5e-4, at) for at in (0, 10)]
    assert rates == pytest.approx([5e-7, 5e-7 + 0.9 * (5e-4 - 5e-7)])


def test_swin_decays_weights_but_neither_norms_nor_biases() -> None:
    small = f"backbone={{SwinTransformer: {SMALL_BACKBONES['SwinTransformer']}}}"
    parts = assemble(load_config("conventional/facexzoo-swin", [*SMALL, small]))
    groups = {group["name"]: group["weight_decay"] for group in parts.optim.optimizers[0].param_groups}
    assert groups == {"network": 0.05, "network without decay": 0.0, "class rows": 0.05}


def test_mixed_precision_is_all_that_the_mx_rows_change() -> None:
    plain, mixed = load_config("conventional/facexzoo"), load_config("conventional/facexzoo-mx")
    assert (mixed.training.precision, mixed.backbone, mixed.head) == ("fp16", "AttentionNet-92", "MV-Softmax")
    assert (mixed.optimizer, mixed.schedule, mixed.data) == (plain.optimizer, plain.schedule, plain.data)
    assert mixed.training.model_copy(update={"precision": "fp32"}) == plain.training


def test_an_inherited_protocol_can_be_taken_back() -> None:
    lfw = "evaluation.protocols.lfw={BinPack: {path: lfw.bin}}"
    config = load_config("conventional", ["evaluation.protocols.synthetic=null", lfw])
    assert config.evaluation.protocols == {"lfw": {"BinPack": {"path": "lfw.bin"}}}


def test_class_rows_may_learn_at_a_rate_of_their_own() -> None:
    parts = assemble(load_config("conventional", [SYNTHETIC, "training.batch_size=8", "optimizer.class_lr=0.5"]))
    rates = {group["name"]: group["lr"] for group in parts.optim.optimizers[0].param_groups}
    assert rates["class rows"] == pytest.approx(5 * rates["network"])


def test_a_configuration_extends_a_shipped_one(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("extends: conventional/facexzoo\nhead: {ArcFace: {margin: 0.45}}\n")
    config = load_config(str(tmp_path / "mine.yaml"), ["head.ArcFace.scale=32"])
    assert config.head == {"ArcFace": {"margin": 0.45, "scale": 32}}
    assert config.training.batch_size == 512


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["heads=ArcFace"], "unknown key 'heads'. Did you mean 'head'"),
        (["training.precision=fp8"], "'training.precision' is 'fp8'"),
        (["training.batch_size=10", "training.accumulate=3"], "batch_size 10 must be a multiple of accumulate 3"),
        (["name=../up"], "'name' is '../up'"),
        (["data.on_corrupt=ignore"], "'data.on_corrupt' is 'ignore'"),
        (["schedule.name=multistep"], "multistep needs milestones"),
    ],
)
def test_refusals(overrides: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        load_config("conventional", overrides)


def test_changes_that_version_0_1_wrote_down_are_those_of_today() -> None:
    """Runs of then are resumed: their settings have every option, and null for what was off."""
    crop, light = {"probability": 0.2, "smallest": 0.5}, {"probability": 0.2, "brightness": 0.2, "contrast": 0.2}
    erase = {"probability": 0.3, "smallest": 0.02, "largest": 0.2, "elongation": 2.0, "fill": 0}
    stored = [
        ({}, {"flip": 0.5, "crop": None, "shift": None, "light": None, "erase": None}),
        (
            {"flip": 0, "crop": {}, "light": {}},
            {"flip": 0.0, "crop": crop, "shift": None, "light": light, "erase": None},
        ),
        (
            {"shift": {"pixels": 3}, "erase": {"probability": 0.3}},
            {"flip": 0.5, "crop": None, "shift": {"probability": 0.5, "pixels": 3}, "light": None, "erase": erase},
        ),
    ]
    for given, written in stored:
        new, old = (
            load_config("conventional", [f"data.augment={yaml.safe_dump(one, default_flow_style=True)}"])
            for one in (given, written)
        )
        assert differences(old.tree(), new.tree()) == []
        assert differences({"augment": written}, {"augment": old.tree()["data"]["augment"]}) == []


def test_a_mistyped_change_is_answered_with_its_place() -> None:
    with pytest.raises(ConfigError, match=r"'data.augment' is .*: transform 'crop' has no option 'smalest'. Did you"):
        load_config("conventional", ["data.augment.crop.smalest=0.4"])
    with pytest.raises(ConfigError, match="'data.augment.flip' is true, but must be a number"):
        load_config("conventional", ["data.augment.flip=true"])
    with pytest.raises(ConfigError, match="unknown transform 'crpo'. Did you mean 'crop'"):
        assemble(load_config("conventional", ["data.augment.crpo.smallest=0.4"]))


def test_scores_of_whole_images_are_refused_for_cropped_ones() -> None:
    def data(**more: Any) -> RunConfig:
        given = {"source": "SyntheticFaces", "quality": {"Sharpness": {}}, **more}
        return make_config({"backbone": "r18", "head": "CosFace", "data": given}, "here")

    for change in ("crop", "light"):
        with pytest.raises(ConfigError, match=rf"augment.{change} changes how good an image is.*online_quality: true"):
            data(augment={change: {}})
    assert data(augment={"crop": {}}, online_quality=True).data.online_quality
    assert not data(augment={"erase": {}}).data.online_quality
    assert not data(augment={"crop": None}).data.online_quality
    later = data(augment={"of_a_plugin": {}})  # plugins are imported when the run begins
    with pytest.raises(ConfigError, match="unknown transform 'of_a_plugin'"):
        assemble(later)
    TRANSFORMS.register("of_a_plugin")(type("Later", (Crop,), {}))
    try:
        with pytest.raises(ConfigError, match="data.augment.of_a_plugin changes how good an image is"):
            assemble(later)
    finally:
        del TRANSFORMS._classes["of_a_plugin"]
    for quality in ("table.csv", None):
        with pytest.raises(ConfigError, match="online_quality needs a scorer in quality, such as {Sharpness: {}}"):
            data(quality=quality, online_quality=True)


def test_the_published_recipe_of_adaface() -> None:
    run = load_config("conventional/adaface")
    assert (run.backbone, run.head) == ("AdaFace-IR101", "AdaFace")
    assert (run.optimizer.lr, run.optimizer.momentum, run.optimizer.weight_decay) == (0.1, 0.9, 5e-4)
    assert not run.optimizer.decay_norms_and_biases
    assert (run.schedule.milestones, run.training.epochs, run.training.batch_size) == ((12, 20, 24), 26, 512)
    jitter = dict.fromkeys(("brightness", "contrast", "saturation"), 0.5)
    assert run.data.augment == {
        "flip": 0.5,
        "crop_in_place": {"probability": 0.2, "smallest": 0.2, "elongation": 4 / 3},
        "low_resolution": {"probability": 0.2, "resolution": [22, 111], "recipe": "interpolation"},
        "colour_jitter": {"probability": 0.2, **jitter},
    }


def test_messages_name_the_file_and_what_was_changed_in_it() -> None:
    with pytest.raises(ConfigError, match=r"train\.yaml' with seed=1 training\.epoch=2: unknown key 'training\.epoch'"):
        load_config("conventional", ["seed=1", "training.epoch=2"])
    with pytest.raises(ConfigError, match=r"train\.yaml' with name=x{195}…: "):
        load_config("conventional", [f"name={'x' * 500}", "bogus=2"])
