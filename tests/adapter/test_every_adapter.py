"""What holds for every adapter on every backbone family: start, training, merging, recomputing, files, DDP."""

import json
from copy import deepcopy
from importlib import import_module
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from facelab import distributed
from facelab.adapter.base import ADAPTERS, AdaptedBackbone, Adapter
from facelab.adapter.files import load_adapter, save_adapter
from facelab.adapter.gate import Gate, LearnedGate, SigmoidGate
from facelab.adapter.gate_slot import gate_of_forward
from facelab.adapter.low_rank import LowRankConv2d, LowRankLayer, LowRankLinear, LowRankOptions
from facelab.adapter.peft_format import save_peft
from facelab.backbone.base import BACKBONES, Backbone, Features
from facelab.backbone.layers.recompute import recomputed
from facelab.engine.replica import replicate
from facelab.errors import CheckpointError, ConfigError, FacelabError
from facelab.inputs import InputSpec
from facelab.quality.card import ScorerCard
from facelab.vision import load_torchvision

# Options that make a backbone small, and the kinds of its layers that are worth adapting.
FAMILIES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "MobileFaceNet": ({"width": 0.125}, ["linear"]),
    "IResNet": ({"depth": 18, "width": 0.125}, ["conv", "linear"]),
    "Timm": ({"model": "edgenext_xx_small", "output": "classifier"}, ["linear"]),
}
CASES = [(adapter, family) for adapter in ADAPTERS.names() for family in FAMILIES]
QUALITY = torch.tensor([0.1, 0.5, 0.8, 0.9])


def base(family: str) -> Backbone:
    torch.manual_seed(0)
    side = 64 if family == "Timm" else 32
    options = {"feat_dim": 16, "input_spec": {"height": side, "width": side}, **FAMILIES[family][0]}
    return BACKBONES.build(family, options).eval()


def adapter_options(adapter: str, family: str) -> dict[str, Any]:
    """Small ranks for adapters that have one; others, also of other packages, by their defaults."""
    small = {"rank": 2, "kinds": FAMILIES[family][1], "dropout": 0.0}
    known = signature(ADAPTERS.get(adapter)).parameters
    return {name: value for name, value in small.items() if name in known}


def adapted(adapter: str, family: str, **options: Any) -> AdaptedBackbone:
    network = base(family)
    built = ADAPTERS.build(adapter, {**adapter_options(adapter, family), **options})
    return AdaptedBackbone(network, built, calibrated_gate() if built.needs_gate else None)


def calibrated_gate(kind: type[Gate] = SigmoidGate) -> Gate:
    gate = kind()
    gate.calibrate([0.1, 0.2, 0.8, 0.9], ScorerCard(name="test", low=0, high=1))
    return gate


def images(network: Backbone) -> Tensor:
    return torch.rand(4, 3, *network.input_spec.size, generator=torch.Generator().manual_seed(1)) * 2 - 1


def moved(network: AdaptedBackbone) -> AdaptedBackbone:
    """The network after something was learned."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return network


def quality_of(network: AdaptedBackbone) -> Tensor | None:
    return QUALITY if network.needs_quality else None


@pytest.mark.parametrize(("adapter", "family"), CASES)
def test_unchanged_at_the_start(adapter: str, family: str) -> None:
    network = adapted(adapter, family).eval()
    plain = base(family)
    assert torch.equal(network(images(plain), quality_of(network)), plain(images(plain)))


@pytest.mark.parametrize(("adapter", "family"), CASES)
def test_exactly_the_trainable_parameters_get_gradients_and_no_statistic_moves(adapter: str, family: str) -> None:
    network = adapted(adapter, family)
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    network = moved(network).train()
    (network(images(network), quality_of(network)) * torch.linspace(-1, 1, 16)).square().sum().backward()
    with_gradient = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    assert with_gradient == {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert with_gradient
    assert all(torch.equal(buffer, before[name]) for name, buffer in network.named_buffers())


@pytest.mark.parametrize(("adapter", "family"), CASES)
@pytest.mark.parametrize("gate", [0.0, 0.3, 1.0])
def test_merged_equals_unmerged(adapter: str, family: str, gate: float) -> None:
    network = moved(adapted(adapter, family)).double().eval()
    picture = images(network).double()
    expected = network.with_gate(picture, torch.full((4,), gate, dtype=torch.float64))
    merged = network.merged(gate)
    assert {name: tensor.shape for name, tensor in merged.state_dict().items()} == {
        name: tensor.shape for name, tensor in base(family).state_dict().items()
    }
    torch.testing.assert_close(merged(picture), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_image_has_its_own_gate(family: str) -> None:
    network = moved(adapted("DualLoRA", family)).eval()
    together = network(images(network), QUALITY)
    alone = torch.cat([network(images(network)[i : i + 1], QUALITY[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-6)
    other = network(images(network), QUALITY.flip(0))
    assert float((together - other).abs().max() / together.abs().max()) > 1e-3


def test_the_low_expert_is_silent_at_high_quality() -> None:
    network = moved(adapted("DualLoRA", "Timm", experts="low")).eval()
    plain = base("Timm")
    assert torch.equal(network.with_gate(images(plain), torch.ones(4)), plain(images(plain)))
    assert not torch.equal(network.with_gate(images(plain), torch.zeros(4)), plain(images(plain)))


def test_base_parameters_are_the_same_objects_under_the_same_names() -> None:
    network = base("Timm")
    parameters = dict(network.named_parameters())
    AdaptedBackbone(network, ADAPTERS.build("LoRA", {"rank": 2}))
    after = dict(network.named_parameters())
    assert all(after[name] is parameter for name, parameter in parameters.items())


@pytest.mark.parametrize(("adapter", "family"), CASES)
def test_a_copy_shares_nothing(adapter: str, family: str) -> None:
    network = moved(adapted(adapter, family)).eval()
    copy = deepcopy(network)
    expected = network(images(network), quality_of(network))
    moved(network)
    assert torch.equal(copy(images(copy), quality_of(copy)), expected)


class Recomputing(Backbone):
    """Two linear layers on tokens, computed again in the backward pass."""

    def __init__(self, again: bool) -> None:
        super().__init__(InputSpec(4, 4), 6)
        torch.manual_seed(0)
        self.again = again
        self.first, self.second = nn.Linear(4, 8), nn.Linear(8, 6)

    def features(self, image: Tensor) -> Features:
        tokens = image.flatten(0, 2)  # rows of all images: 12 for each
        inner = recomputed(self._block, tokens) if self.again else self._block(tokens)
        return Features(inner.unflatten(0, (len(image), -1)).mean(dim=1))

    def _block(self, tokens: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(tokens)))


@pytest.mark.parametrize("kind", [SigmoidGate, LearnedGate])
def test_recomputing_finds_the_gate_of_its_own_forward_pass(kind: type[Gate]) -> None:
    gradients = []
    for again in (False, True):
        dual = ADAPTERS.build("DualLoRA", {"rank": 2})
        network = moved(AdaptedBackbone(Recomputing(again), dual, calibrated_gate(kind)))
        network.train()
        torch.manual_seed(3)
        first = network(images(network), QUALITY)
        second = network(images(network)[:2], QUALITY[2:])  # two forward passes before one backward pass
        (first.square().sum() + 2 * second.square().sum()).backward()
        gradients.append([p.grad for p in network.parameters() if p.requires_grad])
    for kept, recomputed_gradient in zip(*gradients, strict=True):
        torch.testing.assert_close(kept, recomputed_gradient)


def test_original_options_start_elsewhere_and_move_statistics() -> None:
    torch.manual_seed(0)
    network = adapted("DualLoRA", "IResNet", initial="trunc_normal", dropout_on="output", moving_statistics=True)
    plain = base("IResNet")
    assert not torch.equal(network.eval()(images(plain), QUALITY), plain(images(plain)))
    before = {name: buffer.clone() for name, buffer in network.named_buffers() if name.endswith("running_mean")}
    network.train()(images(plain), QUALITY)
    assert before
    assert all(not torch.equal(network.get_buffer(name), mean) for name, mean in before.items())


@pytest.mark.parametrize(("options", "drops_outputs"), [({}, False), ({"dropout_on": "output"}, True)])
@pytest.mark.parametrize("adapter", ["LoRA", "DualLoRA"])
def test_dropout_is_on_the_input_unless_asked(adapter: str, options: dict[str, Any], drops_outputs: bool) -> None:
    """Dropped outputs of the update are zero; dropped inputs change all of them."""
    torch.manual_seed(0)
    network = moved(adapted(adapter, "Timm", dropout=0.5, **options)).train()
    layer = next(iter(network.low_rank_layers().values()))
    x = torch.randn(64, layer.weight.shape[1])
    with gate_of_forward(torch.tensor([0.0])):  # one expert alone
        update = layer(x) - nn.functional.linear(x, layer.weight, layer.bias)
    zeros = float((update.abs() < 1e-7).float().mean())
    assert (0.4 < zeros < 0.6) if drops_outputs else zeros < 0.05


@pytest.mark.parametrize("side", ["input", "output"])
def test_dropout_keeps_the_expected_update(side: str) -> None:
    torch.manual_seed(0)
    network = moved(adapted("DualLoRA", "Timm", dropout=0.5, dropout_on=side))
    layer = next(iter(network.low_rank_layers().values()))
    x = torch.randn(1, layer.weight.shape[1]).expand(4000, -1)
    with gate_of_forward(torch.tensor([0.3])):
        expected = layer.eval()(x[:1])
        mean = layer.train()(x).mean(dim=0, keepdim=True)
    torch.testing.assert_close(mean, expected, atol=0.03, rtol=0.05)


@pytest.mark.parametrize(("adapter", "family"), CASES)
def test_adapter_files_bring_the_network_back(adapter: str, family: str, tmp_path: Path) -> None:
    network = moved(adapted(adapter, family)).eval()
    path, gate = tmp_path / "adapter.safetensors", {"sigmoid": {}} if network.needs_quality else None
    save_adapter(path, network, {adapter: adapter_options(adapter, family)}, gate)
    back = load_adapter(path, base(family))[0].eval()
    assert torch.equal(back(images(back), quality_of(back)), network(images(network), quality_of(network)))


def test_adapters_of_another_base_are_refused(tmp_path: Path) -> None:
    network = adapted("LoRA", "Timm")
    save_adapter(tmp_path / "a.safetensors", network, {"LoRA": adapter_options("LoRA", "Timm")})
    other = base("Timm")
    next(iter(other.parameters())).data.add_(1.0)
    with pytest.raises(CheckpointError, match=f"belong to the base model {network.base_hash}, but this one is"):
        load_adapter(tmp_path / "a.safetensors", other)


@pytest.mark.parametrize("content", [b"", b"not safetensors at all"])
def test_other_files_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"a\.safetensors' cannot be read as an adapter file"):
        load_adapter(path, base("Timm"))


def test_moved_statistics_do_not_fit_into_an_adapter_file(tmp_path: Path) -> None:
    network = adapted("LoRA", "IResNet", moving_statistics=True)
    with pytest.raises(CheckpointError, match="store the whole model"):
        save_adapter(tmp_path / "a.safetensors", network, {"LoRA": {}})


def test_peft_files_hold_the_update(tmp_path: Path) -> None:
    network = moved(adapted("LoRA", "Timm", scale=3.0))
    save_peft(tmp_path, network)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    for name, layer in network.low_rank_layers().items():
        a, b = (tensors[f"base_model.model.{name}.lora_{which}.weight"] for which in "AB")
        torch.testing.assert_close(layer.weight + 3.0 * b @ a, layer.merged_weight(0.5))
    assert '"lora_alpha": 6.0' in (tmp_path / "adapter_config.json").read_text()


@pytest.mark.skipif(find_spec("peft") is None, reason="comparing needs peft: pip install 'facelab[peft]'")
@pytest.mark.parametrize("family", ["Timm", "IResNet"])
def test_peft_itself_loads_the_files(family: str, tmp_path: Path) -> None:
    load_torchvision()  # mended where its operators are missing; peft looks for it
    peft = import_module("peft")  # no importorskip: that would hide that the lowest version does not import
    network = moved(adapted("LoRA", family, scale=3.0)).eval()
    save_peft(tmp_path, network)
    loaded = peft.PeftModel.from_pretrained(base(family), str(tmp_path)).eval()
    torch.testing.assert_close(loaded(images(network)), network(images(network)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["Timm", "IResNet"])
def test_peft_folders_come_back(family: str, tmp_path: Path) -> None:
    network = moved(adapted("LoRA", family, scale=3.0)).eval()
    save_peft(tmp_path, network)
    back, stored = load_adapter(tmp_path, base(family))
    torch.testing.assert_close(back.eval()(images(back)), network(images(network)), rtol=1e-5, atol=1e-6)
    assert stored.adapter["LoRA"]["scale"] == 3.0
    other = base(family)
    next(iter(other.parameters())).data.add_(1.0)
    with pytest.raises(CheckpointError, match=f"belong to the base model {network.base_hash}"):
        load_adapter(tmp_path, other)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"peft_type": "IA3"}, "does not describe plain LoRA"),
        ({"r": "2"}, "does not describe plain LoRA"),
        ({"r": 1}, "do not fit the adapter: .* of another shape"),
        ({"r": 10**9}, "is larger than the layer"),
        ({"lora_alpha": float("nan")}, "does not describe plain LoRA"),
        ({"use_dora": True}, "asks for 'use_dora', which is more than plain LoRA"),
        ({"bias": "all"}, "asks for 'bias'"),
        ({"target_modules": "all-linear"}, "does not describe plain LoRA"),
        ({"target_modules": ["nowhere"]}, "target 'nowhere' matches none"),
        ({"target_modules": ["[" * 10_000]}, "has 10000 characters, but at most 200"),
        ({"lora_alpha": 1e308}, "adapter scale"),
        ({"base_model_name_or_path": "b" * 10**6}, "belong to the base model b{64}, but"),
    ],
)
def test_other_peft_folders_are_refused(change: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    save_peft(tmp_path, adapted("LoRA", "Timm"))
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(FacelabError, match=sentence) as refusal:
        load_adapter(tmp_path, base("Timm"))
    assert len(str(refusal.value)) < 600


@pytest.mark.parametrize("peft", [False, True])
@pytest.mark.parametrize("kind", [torch.int8, torch.bool, torch.int64])
def test_tensors_of_other_kinds_are_refused(kind: torch.dtype, peft: bool, tmp_path: Path) -> None:
    path, network = tmp_path / "a.safetensors", adapted("LoRA", "Timm")
    save_adapter(path, network, {"LoRA": adapter_options("LoRA", "Timm")})
    if peft:
        save_peft(tmp_path, network)
    changed = tmp_path / "adapter_model.safetensors" if peft else path
    with safe_open(changed, framework="pt") as file:
        tensors, header = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    first = min(tensors)
    save_file(tensors | {first: tensors[first].to(kind)}, changed, header)
    with pytest.raises(CheckpointError, match=f"1 of another kind .* {str(kind)[6:]} instead of float32"):
        load_adapter(tmp_path if peft else path, base("Timm"))


@pytest.mark.parametrize("kind", [torch.float16, torch.float64, torch.float8_e5m2])
@pytest.mark.parametrize("broken", [False, True])
def test_tensors_of_other_precisions_come_back(kind: torch.dtype, broken: bool, tmp_path: Path) -> None:
    save_peft(tmp_path, moved(adapted("LoRA", "Timm")))
    path = tmp_path / "adapter_model.safetensors"
    tensors = {name: tensor.to(kind) for name, tensor in load_file(path).items()}
    first = min(tensors)
    save_file(tensors | ({first: tensors[first].float().log().to(kind)} if broken else {}), path)
    if broken:
        with pytest.raises(CheckpointError, match="holds values that are not finite"):
            load_adapter(tmp_path, base("Timm"))
        return
    back = load_adapter(tmp_path, base("Timm"))[0].network.state_dict()
    name = first.removeprefix("base_model.model.").replace("lora_A.weight", "low_rank_down")
    assert torch.equal(back[name], tensors[first].float())


@pytest.mark.parametrize("damaged", ["adapter_config.json", "adapter_model.safetensors"])
def test_damaged_peft_folders_are_refused(damaged: str, tmp_path: Path) -> None:
    save_peft(tmp_path, adapted("LoRA", "Timm"))
    (tmp_path / damaged).write_bytes(b"\xff[1")
    with pytest.raises(CheckpointError, match=damaged):
        load_adapter(tmp_path, base("Timm"))
    (tmp_path / damaged).unlink()
    with pytest.raises(CheckpointError, match=damaged):
        load_adapter(tmp_path, base("Timm"))


class Convolutions(Backbone):
    """Convolutions with an option, and a linear layer."""

    def __init__(self, **options: int) -> None:
        super().__init__(InputSpec(8, 8), 6)
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1, **options)
        self.fc = nn.Linear(8, 6)

    def features(self, image: Tensor) -> Features:
        return Features(self.fc(self.second(self.first(image)).mean(dim=(2, 3))))


@pytest.mark.parametrize(("options", "what"), [({"groups": 2}, "groups 2"), ({"dilation": 2}, r"dilation \(2, 2\)")])
def test_convolutions_that_peft_computes_otherwise_are_refused(
    options: dict[str, int], what: str, tmp_path: Path
) -> None:
    built = ADAPTERS.build("LoRA", {"rank": 2, "kinds": ["conv", "linear"]})
    with pytest.raises(ConfigError, match=f"with {what} in another way, and 'second' is one"):
        save_peft(tmp_path / "peft", AdaptedBackbone(Convolutions(**options), built))
    assert not (tmp_path / "peft").exists()


def test_grouped_convolutions_cannot_be_merged_and_nothing_is_changed() -> None:
    network = moved(AdaptedBackbone(Convolutions(groups=2), ADAPTERS.build("LoRA", {"rank": 2, "kinds": ["conv"]})))
    layers = network.eval().low_rank_layers()
    with pytest.raises(ConfigError, match="2 groups mixes them and cannot be merged"):
        layers["second"].merged_weight(0.5)
    with pytest.raises(ConfigError, match="cannot be merged"):
        network.merged()
    assert network.low_rank_layers() == layers


class Bottleneck(Adapter):
    """What a third party may register: layers of its own, with statistics, behind the last one."""

    def __init__(self, hooked: bool = False) -> None:
        self.hooked = hooked

    def inject(self, network: Backbone) -> None:
        """Put a bottleneck behind ``fc``, or change what it gives."""
        if self.hooked:
            network.fc.register_forward_hook(lambda layer, given, result: 2 * result)  # type: ignore[union-attr,operator]
            network.fc.weight.requires_grad_(True)  # type: ignore[union-attr]
            return
        added = nn.Sequential(nn.Linear(6, 2, bias=False), nn.BatchNorm1d(2), nn.Linear(2, 6, bias=False))
        network.fc = nn.Sequential(network.fc, added)  # type: ignore[arg-type]
        added.requires_grad_(True)


@pytest.mark.parametrize("hooked", [False, True])
def test_adapters_of_third_parties_are_not_merged(hooked: bool) -> None:
    network = AdaptedBackbone(Convolutions(), Bottleneck(hooked))
    with pytest.raises(ConfigError, match=r"cannot be merged: beside low-rank updates it changed the network, .*'fc'"):
        network.merged()


def test_files_of_third_party_adapters_hold_all_that_the_base_has_not(tmp_path: Path) -> None:
    network = moved(AdaptedBackbone(Convolutions(), Bottleneck())).train()
    network(images(network))  # statistics of its own move
    added = {name for name in network.own_state() if ".1." in name}
    assert added == {name for name in network.state_dict() if ".1." in name}
    assert network.count().added >= 6 * 2 * 2 + 4
    assert "0 parameters" not in network.count().describe()
    with pytest.raises(ConfigError, match="plain LoRA alone"):
        save_peft(tmp_path / "peft", network)


def test_statistics_that_moved_without_a_word_are_found(tmp_path: Path) -> None:
    network = adapted("LoRA", "IResNet")
    next(buffer for name, buffer in network.named_buffers() if name.endswith("running_mean")).add_(1.0)
    for save in (
        lambda: save_adapter(tmp_path / "a", network, {"LoRA": {}}),
        lambda: save_peft(tmp_path / "b", network),
    ):
        with pytest.raises(CheckpointError, match="would not bring the network back"):
            save()
    assert not list(tmp_path.iterdir())


def test_moved_statistics_do_not_fit_into_a_peft_folder_either(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="store the whole model"):
        save_peft(tmp_path / "peft", adapted("LoRA", "IResNet", moving_statistics=True))
    assert not (tmp_path / "peft").exists()


class FixedTable(Convolutions):
    """A network with a table that it fixes, as sine positions are."""

    def __init__(self) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.ones(6), requires_grad=False)


def test_what_the_network_fixes_stays_fixed() -> None:
    network = AdaptedBackbone(FixedTable(), ADAPTERS.build("Full", {}))
    trained = {name for name, parameter in network.network.named_parameters() if parameter.requires_grad}
    assert trained == {name for name, _ in Convolutions().named_parameters()}
    merged = network.merged()
    assert not merged.get_parameter("positions").requires_grad
    assert merged.get_parameter("fc.weight").requires_grad
    with pytest.raises(ConfigError, match=r"leaves nothing to train: .*1 fixed \('positions'\)"):
        AdaptedBackbone(FixedTable(), ADAPTERS.build("Full", {"parameters": ["positions"]}))


@pytest.mark.parametrize("name", ["low_rank_down", "low_rank_up"])
@pytest.mark.parametrize("kind", [LowRankLinear, LowRankConv2d])
def test_drawn_factors_have_the_published_deviation(kind: type[LowRankLayer], name: str) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(1024, 1024) if kind is LowRankLinear else nn.Conv2d(128, 1024, 3)
    adapted_layer = kind(layer, "dual", LowRankOptions(rank=32, initial="trunc_normal"))  # type: ignore[arg-type]
    factor = getattr(adapted_layer, name).detach()
    assert float(factor.std()) == pytest.approx(0.02, rel=0.05)
    assert abs(float(factor.mean())) < 1e-3


@pytest.mark.parametrize("what", ["rank", "scale"])
def test_layers_that_differ_do_not_fit_into_pefts_format(what: str, tmp_path: Path) -> None:
    network = adapted("LoRA", "Timm")
    first = next(iter(network.low_rank_layers().values()))
    setattr(first, what, getattr(first, what) + 1)
    with pytest.raises(ConfigError, match="has one rank and scale, but the layers differ in them"):
        save_peft(tmp_path, network)
    assert list(tmp_path.iterdir()) == []


def test_two_experts_do_not_fit_into_pefts_format(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds plain LoRA alone"):
        save_peft(tmp_path, adapted("DualLoRA", "Timm"))


def _gradients(rank_count: int) -> list[Tensor]:
    network = moved(adapted("DualLoRA", "Timm")).train()
    replica = replicate(network)
    start, stop = distributed.class_range(4, distributed.rank(), rank_count)
    embedding = replica(images(network)[start:stop], QUALITY[start:stop])
    embedding.square().mean().backward()
    return [parameter.grad for parameter in network.parameters() if parameter.grad is not None]


def test_two_processes_train_as_one() -> None:
    (alone,) = distributed.run_processes(_gradients, 1, 1)
    for shared in distributed.run_processes(_gradients, 2, 2):
        for one, both in zip(alone, shared, strict=True):
            torch.testing.assert_close(both, one, rtol=1e-3, atol=1e-6)


def test_counts() -> None:
    network = adapted("DualLoRA", "MobileFaceNet")
    count = network.count()
    layer = next(iter(network.low_rank_layers().values()))
    outputs, inputs = layer.weight.shape
    assert count.added == count.trainable == 2 * 2 * (inputs + outputs)
    assert count.base == sum(parameter.numel() for parameter in base("MobileFaceNet").parameters())
    assert f"{count.trainable:,} parameters are trained" in count.describe()


def test_a_pattern_that_matches_nothing_is_answered_with_what_could() -> None:
    with pytest.raises(
        ConfigError, match=r"target '\*\.qvk' matches none of the \d+ linear layers\. Could match: netw"
    ):
        adapted("LoRA", "Timm", targets=["*.qvk"])


def test_only_the_parameters_of_a_pattern_are_trained(tmp_path: Path) -> None:
    network = adapted("Full", "IResNet", parameters=["*.conv1.weight", "output.*"])
    wanted = {name for name, _ in network.network.named_parameters() if ".conv1.w" in name or name[:7] == "output."}
    wanted.remove("output.last_norm.weight")  # this network fixes it at 1
    assert {name for name, parameter in network.network.named_parameters() if parameter.requires_grad} == wanted
    save_adapter(tmp_path / "a.safetensors", network, {"Full": {}})
    with safe_open(tmp_path / "a.safetensors", framework="pt") as file:
        assert set(file.keys()) == {f"network.{name}" for name in wanted}


def test_a_parameter_pattern_that_matches_nothing_is_answered_too() -> None:
    with pytest.raises(ConfigError, match=r"pattern 'nrom' matches none of the \d+ parameters\. Could match"):
        adapted("Full", "MobileFaceNet", parameters=["nrom"])


def test_a_rank_larger_than_the_layer_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"adapter rank 99 is larger than the layer 'network\..*; at most \d+ there"):
        adapted("LoRA", "Timm", rank=99)


@pytest.mark.parametrize(("adapter", "option"), [("LoRA", "targets"), ("DualLoRA", "single"), ("Full", "parameters")])
def test_endless_patterns_are_refused_before_they_are_matched(adapter: str, option: str) -> None:
    with pytest.raises(ConfigError, match="a pattern .* has 201 characters, but at most 200 are matched"):
        adapted(adapter, "MobileFaceNet", **{option: ["*" + "a" * 200]})


def test_a_scale_beyond_float32_is_refused() -> None:
    with pytest.raises(ConfigError, match="adapter scale"):
        adapted("LoRA", "Timm", scale=1e39)


def test_a_rank_that_does_not_fit_groups_is_refused() -> None:
    with pytest.raises(ConfigError, match="is not a multiple of the .* groups of the convolution"):
        adapted("LoRA", "MobileFaceNet", rank=1, kinds=["conv"])


def test_a_layer_cannot_be_single_and_dual() -> None:
    with pytest.raises(ConfigError, match="it can be in one"):
        adapted("DualLoRA", "Timm", targets=["*.qkv"], single=["*.qkv"])


def test_a_gate_where_it_belongs() -> None:
    with pytest.raises(ConfigError, match="DualLoRA needs a gate"):
        AdaptedBackbone(base("Timm"), ADAPTERS.build("DualLoRA", {"rank": 2}))
    with pytest.raises(ConfigError, match="LoRA has no use for a gate"):
        AdaptedBackbone(base("Timm"), ADAPTERS.build("LoRA", {"rank": 2}), SigmoidGate())


def test_missing_quality_is_refused() -> None:
    network = adapted("DualLoRA", "Timm")
    with pytest.raises(ConfigError, match="no quality scores; make them with `facelab iqa score DATA`"):
        network(images(network))
