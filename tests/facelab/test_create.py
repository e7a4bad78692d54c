import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import facelab
from facelab.adapter.base import ADAPTERS
from facelab.adapter.gate import SigmoidGate
from facelab.backbone.base import BACKBONES
from facelab.catalogue import build, entries
from facelab.errors import CheckpointError, ConfigError, DataError
from facelab.head.base import HEADS
from facelab.head.classifier import CLASSIFIERS
from facelab.head.rows.full_softmax import FullSoftmax
from facelab.inputs import InputSpec
from facelab.quality.card import ScorerCard

SMALL: dict[str, Any] = {"width": 0.25, "feat_dim": 16, "input_spec": {"height": 32, "width": 32}}


def test_importing_facelab_imports_nothing_heavy() -> None:
    line = "import sys, facelab; assert not {'torch', 'numpy', 'pydantic'} & set(sys.modules); facelab.metrics.roc"
    subprocess.run([sys.executable, "-c", line], check=True)


def test_an_unknown_attribute_is_none_of_ours() -> None:
    with pytest.raises(AttributeError, match="module 'facelab' has no attribute 'metric'"):
        facelab.metric  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.parametrize(
    ("names", "registry"),
    [(facelab.list_models, BACKBONES), (facelab.list_heads, HEADS), (facelab.list_adapters, ADAPTERS)],
)
def test_all_names_of_registry_and_catalogue_are_listed(names: Any, registry: Any) -> None:
    assert names() == sorted({*registry.names(), *entries(registry)})


def test_a_pattern_is_that_of_a_shell_in_either_case() -> None:
    assert facelab.list_models("R50") == ["r50"]
    assert {"ArcFace", "InsightFace-ArcFace", "ElasticFace-Arc+"} <= set(facelab.list_heads("*arc*"))
    assert "CosFace" not in facelab.list_heads("*arc*")
    assert facelab.list_heads("nothing*") == []


def test_a_model_is_made_of_the_catalogue_with_options_on_top() -> None:
    network = facelab.create_model("MobileFaceNet", **SMALL)
    assert network.training
    assert network.feat_dim == 16
    assert network.input_spec == InputSpec(32, 32, colour="BGR", std=128.0)  # the catalogue's, but for the size
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 16)
    assert (
        facelab.create_model("MobileFaceNet", **{**SMALL, "input_spec": InputSpec(32, 32)}).input_spec.colour == "RGB"
    )


def test_names_and_options_are_answered_as_in_yaml() -> None:
    for call, registry in ((facelab.create_model, BACKBONES), (facelab.create_head, HEADS)):
        supplied = {"num_classes": 3, "feat_dim": 4} if registry is HEADS else {}
        for spec in ({"Mobilefacenett": {}}, {"MobileFaceNet": {"widht": 1}}, {"ArcFace": {"margn": 0.4}}):
            ((name, options),) = spec.items()
            with pytest.raises(ConfigError) as as_yaml:
                build(registry, spec)
            with pytest.raises(ConfigError) as in_python:
                call(name, **supplied, **options)
            assert str(in_python.value) == str(as_yaml.value)
    with pytest.raises(ConfigError, match="unknown backbone 'Mobilefacenett'. Did you mean 'MobileFaceNet'?"):
        facelab.create_model("Mobilefacenett")


def test_weights_come_from_a_run_a_checkpoint_or_a_file(trained_run: Path, tmp_path: Path) -> None:
    trained = facelab.load(trained_run, device="cpu")
    assert trained.source is not None
    expected = {name: value.contiguous() for name, value in trained.network.state_dict().items()}
    save_file({f"module.{name}": value for name, value in expected.items()}, tmp_path / "a.safetensors")
    trained.save(tmp_path / "model.safetensors")
    files = (tmp_path / "a.safetensors", tmp_path / "model.safetensors", trained.source / "model.safetensors")
    for weights in (trained_run, str(trained_run), trained.source, *files):
        network = facelab.create_model("MobileFaceNet", weights=weights, **SMALL)
        assert network.training
        assert all(torch.equal(value, expected[name]) for name, value in network.state_dict().items())


def test_weights_of_timm_come_under_its_names_or_ours(tmp_path: Path) -> None:
    options: dict[str, Any] = {"model": "resnet18", "output": "classifier", "feat_dim": 8, "input_spec": {"height": 32}}
    network = facelab.create_model("Timm", **options)
    state = {name.removeprefix("network."): value for name, value in network.state_dict().items()}
    for names in (state, network.state_dict()):
        torch.save(names, tmp_path / "timm.pt")
        again = facelab.create_model("Timm", weights=tmp_path / "timm.pt", **options)
        assert all(torch.equal(value, again.state_dict()[name]) for name, value in network.state_dict().items())


def test_weights_that_do_not_fit_are_refused(trained_run: Path, dual: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="do not fit the network: .* of another shape"):
        facelab.create_model("MobileFaceNet", weights=trained_run, **{**SMALL, "width": 0.5})
    sentence = r"takes 32x32 BGR, .* but 'MobileFaceNet' takes 48x48 BGR, .* pass input_spec=\{'height': 32"
    with pytest.raises(ConfigError, match=sentence):
        facelab.create_model(
            "MobileFaceNet", weights=trained_run, **{**SMALL, "input_spec": {"height": 48, "width": 48}}
        )
    with pytest.raises(ConfigError, match=r"have adapters; take all by facelab.load\('.*dual'\).network"):
        facelab.create_model("MobileFaceNet", weights=dual, **SMALL)
    with pytest.raises(CheckpointError, match=r"nowhere\.safetensors"):
        facelab.create_model("MobileFaceNet", weights=tmp_path / "nowhere.safetensors", **SMALL)
    with pytest.raises(CheckpointError, match="is neither a run folder nor a checkpoint folder"):
        facelab.create_model("MobileFaceNet", weights=tmp_path, **SMALL)


@pytest.mark.parametrize("classifier", ["FullSoftmax", {"SubCenter": {}}])
def test_the_loss_is_that_of_head_and_classifier(classifier: Any) -> None:
    criterion = facelab.create_head(
        "CosFace", num_classes=5, feat_dim=8, classifier=classifier, seed=3, margin=0.2, scale=16
    )
    embeddings, labels = torch.randn(4, 8, requires_grad=True), torch.tensor([0, 4, 2, 2])
    head = build(HEADS, {"CosFace": {"margin": 0.2, "scale": 16}})
    expected = build(CLASSIFIERS, classifier, num_classes=5, feat_dim=8, head=head, seed=3)(embeddings, labels).loss
    loss = criterion(embeddings, labels)
    assert loss.shape == ()
    assert torch.equal(loss, expected)
    assert torch.equal(criterion(embeddings, labels.int()), expected)
    loss.backward()
    assert all(parameter.grad is not None for parameter in criterion.parameters())
    assert embeddings.grad is not None
    assert criterion.num_classes == 5


@pytest.mark.parametrize("name", facelab.list_heads())
def test_every_head_is_trained_by_plain_pytorch(name: str) -> None:
    torch.manual_seed(0)
    criterion = facelab.create_head(name, num_classes=4, feat_dim=8)
    embeddings = torch.nn.Parameter(torch.randn(8, 8))
    labels = torch.arange(8) % 4
    optimizer = torch.optim.SGD([embeddings, *criterion.parameters()], lr=0.01)
    for _ in range(2):
        optimizer.zero_grad()
        loss = criterion(embeddings, labels)
        loss.backward()
        optimizer.step()
    assert torch.isfinite(loss)
    again = facelab.create_head(name, num_classes=4, feat_dim=8, seed=1)
    again.load_state_dict(criterion.state_dict())
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in criterion.state_dict().items())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"num_classes": 1}, "num_classes is 1, but must be at least 2"),
        ({"num_classes": 2.5}, "num_classes is 2.5, but must be a whole number"),
        ({"feat_dim": 0}, "feat_dim is 0, but must be at least 1"),
        ({"feat_dim": "512"}, "feat_dim is '512', but must be a whole number"),
        ({"seed": -1}, "seed is -1, but must be at least 0"),
        ({"margin": "wide"}, "head 'ArcFace' option 'margin' is 'wide'"),
        ({"classifier": "FullSoftmaxx"}, "unknown classifier 'FullSoftmaxx'. Did you mean 'FullSoftmax'?"),
    ],
)
def test_a_head_that_cannot_be_is_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        facelab.create_head("ArcFace", **{"num_classes": 3, "feat_dim": 8, **options})


@pytest.mark.parametrize(
    ("embeddings", "labels", "sentence"),
    [
        (torch.zeros(2, 7), torch.zeros(2).long(), r"embeddings must be \(B, 8\), got \(2, 7\)"),
        (torch.zeros(8), torch.zeros(8).long(), r"embeddings must be \(B, 8\), got \(8,\)"),
        (torch.zeros(0, 8), torch.zeros(0).long(), r"embeddings must be \(B, 8\), got \(0, 8\)"),
        (torch.zeros(2, 8), torch.zeros(2, 1).long(), r"2 embeddings need as many labels, got \(2, 1\)"),
        (torch.zeros(2, 8), torch.zeros(2), r"labels must be integers \(int64\), got torch.float32"),
        (torch.zeros(2, 8), torch.zeros(2).bool(), r"labels must be integers \(int64\), got torch.bool"),
        (torch.zeros(2, 8), torch.tensor([0, 3]), r"label 3 is outside of 0\.\.2"),
    ],
)
def test_a_batch_that_cannot_be_is_refused(embeddings: torch.Tensor, labels: torch.Tensor, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        facelab.create_head("ArcFace", num_classes=3, feat_dim=8)(embeddings, labels)


def test_the_metrics_of_the_head_are_those_of_its_classifier() -> None:
    criterion = facelab.create_head("Softmax", num_classes=3, feat_dim=3)
    assert isinstance(criterion.classifier, FullSoftmax)
    output = criterion.classifier(criterion.classifier.weight.detach(), torch.arange(3))
    assert output.metrics["accuracy"] == 1


def test_adapters_freeze_what_the_network_was() -> None:
    network = facelab.create_model("MobileFaceNet", **SMALL).eval()
    image = torch.randn(2, 3, 32, 32)
    before = network(image)
    adapted = facelab.add_adapter(network, "LoRA", rank=2)
    assert not adapted.training
    assert torch.allclose(adapted(image), before, atol=1e-6)  # an update starts at nothing
    assert 0 < adapted.count().trainable < adapted.count().base
    assert not any(parameter.requires_grad for name, parameter in adapted.named_parameters() if name.endswith("weight"))


def test_experts_take_a_calibrated_gate() -> None:
    gate = SigmoidGate()
    with pytest.raises(ConfigError, match="the gate knows no scores yet"):
        facelab.add_adapter(facelab.create_model("MobileFaceNet", **SMALL), "DualLoRA", gate=gate, rank=2)
    gate.calibrate([0.1, 0.2, 0.8, 0.9], ScorerCard(name="made", low=0, high=1))
    adapted = facelab.add_adapter(facelab.create_model("MobileFaceNet", **SMALL), "DualLoRA", gate=gate, rank=2)
    assert adapted(torch.zeros(2, 3, 32, 32), torch.tensor([0.1, 0.9])).shape == (2, 16)
    with pytest.raises(ConfigError, match=r"has adapters already; merge them first: network\.merged\(\)"):
        facelab.add_adapter(adapted, "LoRA")


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("Lora", {}, "unknown adapter 'Lora'. Did you mean 'LoRA'?"),
        ("LoRA", {"rnk": 2}, "adapter 'LoRA' has no option 'rnk'. Did you mean 'rank'?"),
        ("DualLoRA", {}, "the adapter DualLoRA needs a gate"),
    ],
)
def test_an_adapter_that_cannot_be_is_refused(name: str, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        facelab.add_adapter(facelab.create_model("MobileFaceNet", **SMALL), name, **options)
