from pathlib import Path

import pytest

from facelab.errors import ConfigError
from facelab.training_mode.assembly import assemble
from facelab.training_mode.settings import find_config, load_config, shipped_configs

SYNTHETIC = "data.source={SyntheticFaces: {identities: 4, per_identity: 4}}"


@pytest.mark.parametrize("name", shipped_configs())
def test_every_shipped_configuration_loads_and_says_what_it_is(name: str) -> None:
    assert load_config(name).name
    assert find_config(name).read_text().startswith("# ")


@pytest.mark.parametrize("name", [name for name in shipped_configs() if "finetune" not in name])
def test_every_shipped_configuration_builds_on_small_data(name: str) -> None:
    config = load_config(name, [SYNTHETIC, "data.size=112", "training.batch_size=8", "training.precision=fp32"])
    parts = assemble(config.model_copy(update={"evaluation": type(config.evaluation)()}))
    assert parts.progress.total == 2 * config.training.epochs
    assert next(iter(parts.feed.batches(0, 0))).size == 8


def test_the_published_recipe_of_facexzoo() -> None:
    config = load_config("conventional/facexzoo")
    assert (config.optimizer.lr, config.optimizer.weight_decay, config.optimizer.momentum) == (0.1, 1e-4, 0.9)
    assert (config.training.batch_size, config.training.epochs) == (512, 18)
    assert config.schedule.milestones == (10, 13, 16)


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
