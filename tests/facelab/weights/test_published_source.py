"""Whose network a file is of: names, what stands before them, the head that stays behind, and all that does not fit."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

import facelab
from facelab.backbone.base import BACKBONES, Backbone
from facelab.backbone.names.import_names import import_backbone, unused_names
from facelab.catalogue import build, resolve
from facelab.cli import main as cli
from facelab.errors import CheckpointError, ConfigError, DataError, FacelabError
from facelab.model.face_model import load_backbone
from facelab.weights.published_file import read_state
from facelab.weights.published_source import SOURCES, WRAPPERS, published_network

SMALL: dict[str, Any] = {"IResNet": {"depth": 18, "feat_dim": 8, "input_spec": {"height": 16, "width": 16}}}
ROWS = torch.zeros(4, 3)


def run(*words: str) -> str:
    result = CliRunner().invoke(cli.app, list(words))
    if isinstance(result.exception, FacelabError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def their_state(network: Backbone) -> dict[str, Tensor]:
    """An `IResNet` under InsightFace's names."""
    units = {"norm1": "bn1", "norm2": "bn2", "norm3": "bn3", "act": "prelu", "shortcut": "downsample"}
    ends = {"stem.0": "conv1", "stem.1": "bn1", "stem.2": "prelu", "output.norm": "bn2", "output.fc": "fc"}
    state = {}
    for name, tensor in network.state_dict().items():
        layer, _, last = name.rpartition(".")
        if layer.startswith("stages."):
            _, stage, index, unit, *rest = name.split(".")
            state[".".join([f"layer{int(stage) + 1}", index, units.get(unit, unit), *rest])] = tensor
        else:
            state[f"{(ends | {'output.last_norm': 'features'})[layer]}.{last}"] = tensor
    return state


@pytest.fixture(scope="module")
def network() -> Backbone:
    return build(BACKBONES, SMALL).eval()


@pytest.mark.parametrize(
    ("project", "colour", "mean", "std"),
    [
        ("facexzoo", "BGR", 127.5, 128),
        ("insightface", "RGB", 127.5, 127.5),
        ("adaface", "BGR", 127.5, 127.5),
        ("magface", "BGR", 0, 255),
        ("transface", "RGB", 127.5, 127.5),
        ("petalface", "RGB", 127.5, 127.5),
    ],
)
def test_every_network_of_a_source_has_the_input_of_its_project(
    project: str, colour: str, mean: float, std: float
) -> None:
    networks = SOURCES[project].networks
    assert networks
    for name in networks:
        source, spec = published_network(f"{project}:{name}")
        assert source is SOURCES[project]
        registered, options = resolve(BACKBONES, spec)
        assert options.keys() <= BACKBONES.parameters(registered).keys()
        assert {"colour": colour, "mean": mean, "std": std}.items() <= options["input_spec"].items()


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("facexzo:GhostNet", r"'facexzo:GhostNet' names no source\. Did you mean 'facexzoo'\? Known: facexzoo:NAME, "),
        ("r50", r"'r50' names no source\. Known: facexzoo:NAME, insightface:NAME, adaface:NAME, magface:NAME, "),
        ("facexzoo:", r"'facexzoo:' is no network of facexzoo\. Known: MobileFaceNet, ResNet50_ir, "),
        ("facexzoo", r"'facexzoo' is no network of facexzoo\. Known: MobileFaceNet, "),
        (
            "adaface:ir101",
            r"no network of adaface\. Did you mean 'ir_101'\? Known: ir_18, ir_34, ir_50, ir_101, ir_se_50\.",
        ),
        ("facelab:", "names no network; write facelab:NAME with one of `facelab list backbones`"),
    ],
)
def test_a_wrong_address_is_answered_with_what_is_possible(address: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        published_network(address)


@pytest.mark.parametrize(
    ("project", "before", "head"),
    [
        ("insightface", "", []),
        ("insightface", "module.", []),
        ("insightface", "_orig_mod.module.", []),
        ("magface", "", []),  # its own tensors features.weight and fc.weight are no front and no head
        ("magface", "features.", ["fc.weight"]),
        ("magface", "features.module.", ["fc.weight"]),
        ("magface", "module.features.", ["module.fc.weight"]),
        ("facexzoo", "backbone.", ["head.weight"]),
        ("facexzoo", "backbone.", ["head.weight", "head.margins"]),
        ("facexzoo", "module.", []),  # the probe network of semi-siamese training
        ("adaface", "model.", ["head.kernel", "head.t", "head.batch_mean", "head.batch_std"]),
        ("adaface", "model.module.", ["head.kernel"]),
    ],
)
def test_the_head_stays_behind(network: Backbone, project: str, before: str, head: list[str]) -> None:
    inner = their_state(network)
    file = {f"{before}{name}": tensor for name, tensor in inner.items()} | dict.fromkeys(head, ROWS)
    state, left = SOURCES[project].separate(file, "file.pth")
    assert state.keys() == inner.keys()
    assert left == [name.removeprefix("module.") for name in head]
    assert all(state[name] is tensor for name, tensor in inner.items())


def test_tensors_beside_network_and_head_are_refused(network: Backbone) -> None:
    file = {f"backbone.{name}": tensor for name, tensor in their_state(network).items()}
    file |= {"head.weight": ROWS, "teacher.weight": ROWS, "fc.weight": ROWS}
    with pytest.raises(
        CheckpointError, match=r"'a\.pt' holds, beside network and head, 1 unknown \('teacher\.weight'\)"
    ):
        SOURCES["facexzoo"].separate(file, "a.pt")


def test_whole_numbers_in_place_of_weights_are_refused_and_other_precisions_are_not(network: Backbone) -> None:
    state = their_state(network)
    halves, _ = import_backbone(SMALL, {name: tensor.half() for name, tensor in state.items()}, "a.pth")
    assert torch.equal(halves.state_dict()["stem.0.weight"], state["conv1.weight"].half().float())
    state["conv1.weight"] = state["conv1.weight"].to(torch.int8)
    with pytest.raises(CheckpointError, match=r"1 of another kind \('stem.0.weight' int8 instead of float32\)"):
        import_backbone(SMALL, state, "a.pth")


def test_all_that_does_not_fit_is_listed_at_once(network: Backbone) -> None:
    state = their_state(network)
    del state["conv1.weight"], state["layer2.0.bn1.bias"]
    state["fc.weight"] = torch.zeros(8, 7)
    state["bn2.bias"] = torch.tensor(1.0)
    state |= {f"extra.{number}": ROWS for number in range(7)}
    state["layer1.x.conv1.weight"] = ROWS
    with pytest.raises(CheckpointError) as refused:
        import_backbone(SMALL, state, "a.pth")
    assert str(refused.value) == (
        "the weights in 'a.pth' do not fit the network: 2 missing ('stages.1.0.norm1.bias', 'stem.0.weight'), "
        "8 unknown ('extra.0', 'extra.1', 'extra.2', 'extra.3', 'extra.4', 'extra.5' …), "
        "2 of another shape ('output.fc.weight' 8x7 instead of 8x512, 'output.norm.bias' scalar instead of 512)."
    )


def test_a_tensor_that_is_there_twice_is_refused(network: Backbone) -> None:
    state = their_state(network) | {"stem.0.weight": ROWS}
    with pytest.raises(CheckpointError, match=r"has 'stem\.0\.weight' of IResNet twice, once as 'stem\.0\.weight'"):
        import_backbone(SMALL, state, "a.pth")


def test_counters_that_old_pytorch_does_not_save_are_not_asked_for(network: Backbone) -> None:
    state = {name: value for name, value in their_state(network).items() if not name.endswith("num_batches_tracked")}
    imported, _ = import_backbone(SMALL, state, "a.pth")
    image = torch.rand(2, 3, 16, 16)
    assert torch.equal(imported.eval()(image), network(image))


def test_a_network_of_ours_is_imported_under_its_own_names(tmp_path: Path) -> None:
    mine = build(BACKBONES, "MobileFaceNet-0.5-64px").eval()
    torch.save({f"module.{name}": tensor for name, tensor in mine.state_dict().items()}, tmp_path / "mine.pt")
    said = run(
        "import", str(tmp_path / "mine.pt"), "--as", "facelab:MobileFaceNet-0.5-64px", "--out", str(tmp_path / "m")
    )
    assert "64x64 BGR, -0.9961..0.9961" in said
    assert "Left out" not in said
    loaded = facelab.load(tmp_path / "m", device="cpu").network.state_dict()
    assert all(torch.equal(value, loaded[key]) for key, value in mine.state_dict().items())


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    wrapped = {f"backbone.{name}": tensor for name, tensor in build(BACKBONES, "MobileFaceNet").state_dict().items()}
    torch.save({"state_dict": {**wrapped, "head.weight": ROWS}}, tmp_path / "zoo.pt")
    file, out = str(tmp_path / "zoo.pt"), tmp_path / "model"
    said = run("import", file, "--as", "facexzoo:MobileFaceNet", "--out", str(out))
    assert said.splitlines()[-1] == "Left out: 1 of the head ('head.weight')."
    assert "112x112 BGR, -0.9961..0.9961" in said.replace("\n", " ")
    with pytest.raises(DataError, match="exists already"):
        run("import", file, "--as", "facexzoo:MobileFaceNet", "--out", str(out))
    with pytest.raises(CheckpointError, match=r"do not fit the network: \d+ missing .*, \d+ unknown "):
        run("import", file, "--as", "facexzoo:GhostNet", "--out", str(tmp_path / "no"))
    assert {path.name for path in tmp_path.iterdir()} == {"zoo.pt", "model"}
    with pytest.raises(
        ConfigError, match="'facexzoo:GhostNet' has no adapters; --rank, --scale and --tau are for files of petalface"
    ):
        run("import", file, "--as", "facexzoo:GhostNet", "--rank", "8", "--out", str(tmp_path / "no"))


def test_tensors_that_nothing_reads_are_told_apart() -> None:
    network = build(BACKBONES, {"EfficientNet-B0": {"input_spec": {"height": 32, "width": 32}}})
    assert unused_names(network, {"_fc.weight": 0, "_conv_stem.weight": 0}) == ["_fc.weight"]
    assert unused_names(network, dict.fromkeys(network.state_dict(), 0)) == []


@pytest.mark.parametrize("words", [["petalface", "model.pt"], ["petalface", "hf://a/b/c"], ["petalface"]])
def test_a_source_in_the_place_of_the_file_is_answered(words: list[str]) -> None:
    with pytest.raises(
        ConfigError, match=r"'petalface' is a source and no file; .*: facelab import FILE --as petalface:NAME --out"
    ):
        run("import", *words)


MORE = ("_orig_mod.", "module.", "model.")
WRAPPED = [*((word,) for word in WRAPPERS), MORE, ("module.", "network.", "features.")]


@pytest.mark.parametrize("words", WRAPPED)
@pytest.mark.parametrize("project", SOURCES)
def test_wrapped_networks_of_every_source(network: Backbone, project: str, words: tuple[str, ...]) -> None:
    front, plain = "".join(words), their_state(network)
    wrapped = {front + name: tensor for name, tensor in plain.items()}
    assert SOURCES[project].separate(wrapped, "file") == (plain, [])
    beside = {**wrapped, "head.weight": ROWS}
    assert SOURCES[project].separate(beside, "file") == (plain, ["head.weight"])


def test_what_lies_beside_network_and_head_is_named(network: Backbone) -> None:
    wrapped = {f"module.model.{name}": tensor for name, tensor in their_state(network).items()}
    with pytest.raises(CheckpointError, match=r"beside network and head, 1 unknown \('other\.weight'\)"):
        SOURCES["facelab"].separate({**wrapped, "module.other.weight": ROWS}, "file")


def test_a_network_with_a_part_called_features_is_no_wrapped_one() -> None:
    """ReXNet's is most of the network."""
    state = {**dict.fromkeys((f"features.{number}.weight" for number in range(9)), 1), "output_layer.weight": 2}
    assert SOURCES["facexzoo"].separate(state, "file") == (state, [])


def test_timm_networks_are_imported_under_the_names_of_timm(tmp_path: Path) -> None:
    spec = {"Timm": {"model": "test_resnet", "output": "classifier", "feat_dim": 8}}
    torch.manual_seed(0)
    made = build(BACKBONES, spec).eval()
    theirs = {f"model.{name.removeprefix('network.')}": tensor for name, tensor in made.state_dict().items()}
    wrapped = {f"network.{name}": tensor for name, tensor in made.state_dict().items()}
    for state in (theirs, made.state_dict(), wrapped):
        torch.save({"epoch": 3, "model": {"state_dict": state}}, tmp_path / "timm.pt")
        found, _ = SOURCES["facelab"].separate(read_state(str(tmp_path / "timm.pt")), "timm.pt")
        loaded, _ = import_backbone(spec, found, "timm.pt")
        assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in made.state_dict().items())
    model = load_backbone(spec, tmp_path / "timm.pt", device="cpu")
    assert model.feat_dim == 8


def test_edgeface_is_imported(shared_root: Path, tmp_path: Path) -> None:
    weights = shared_root / "data" / "weights" / "edgeface_xxs.safetensors"
    if not weights.is_file():
        pytest.skip("no weights of EdgeFace")
    run("import", str(weights), "--as", "facelab:EdgeFace-XXS", "--out", str(tmp_path / "model"))
    image = torch.randint(0, 256, (1, 3, 112, 112), dtype=torch.uint8)
    expected = load_backbone("EdgeFace-XXS", weights, device="cpu").embed(image)
    assert (facelab.load(tmp_path / "model", device="cpu").embed(image) == expected).all()
