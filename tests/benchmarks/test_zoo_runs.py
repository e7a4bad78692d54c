"""The comparison of heads and backbones: what a row is, what is kept, what the table shows; and one run of seconds."""

import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from facelab.backbone.base import BACKBONES
from facelab.catalogue import build, entries
from facelab.cost.network_cost import network_cost
from facelab.errors import ConfigError
from facelab.head.base import HEADS
from facelab.run.study import make_study
from facelab.test_protocol.base import Metric, Report
from facelab.test_protocol.report.run_report import write_run_report

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a part of the benchmark by name."""
    monkeypatch.syspath_prepend(BENCHMARKS)

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    return load


def small_faces(runs: ModuleType) -> Any:
    source = {"SyntheticFaces": {"identities": 32, "per_identity": 2}}
    test = {"SyntheticPairs": {"identities": 20, "per_identity": 4, "folds": 2, "pairs": 40}}
    return runs.Faces("few", 64, {"source": source}, {"drawn": test}, ("accuracy", "AUC"))


def finish(folder: Path, run: str, accuracy: float) -> None:
    """A run that is finished, as far as a table looks."""
    metrics = (Metric("accuracy", accuracy), Metric("AUC", accuracy))
    write_run_report(folder / run, {run: [Report("drawn", metrics, {"parameters": 1000, "macs": 2_000_000})]})


def test_every_head_that_has_a_scale_has_the_same(module: Any) -> None:
    heads = module("heads")
    built = {name: build(HEADS, {name: heads.rescaled(name)}, num_classes=9, feat_dim=4) for name in entries(HEADS)}
    assert built.keys() >= {*HEADS.names(), *heads.VARIANTS}
    own = {"AdaCos", "CircleLoss", "Softmax", "SphereFace"}
    assert {name for name, head in built.items() if head.scale != heads.SCALE} == own
    assert built["CircleLoss"].scale == 64
    assert heads.rescaled("AM-Softmax") == {"scale": 16}
    with pytest.raises(ConfigError, match="Did you mean 'ArcFace'"):
        heads.head_rows(["Arcface"])


def test_margins_stay_those_of_the_catalogue(module: Any) -> None:
    head: Any = build(HEADS, {"AM-Softmax": module("heads").rescaled("AM-Softmax")}, num_classes=9, feat_dim=4)
    assert head.margin == 0.35


@pytest.mark.parametrize("name", BACKBONES.names())
def test_every_family_is_narrow_and_costs_about_the_same(module: Any, name: str) -> None:
    options = module("backbones").narrow_options(name)
    with torch.device("meta"):
        network = BACKBONES.build(name, {**options, "input_spec": {"height": 64, "width": 64}})
    cost = network_cost(network, (64, 64))
    assert cost.macs is not None
    assert 12e6 < cost.macs < 40e6
    assert network.feat_dim == 128


def test_transformers_have_the_optimiser_that_they_need(module: Any) -> None:
    rows = module("backbones").backbone_rows(["Swin", "RepVGG"])
    assert rows["Swin"]["optimizer"]["name"] == "adamw"
    assert rows["RepVGG"] == {"backbone": {"RepVGG": module("backbones").narrow_options("RepVGG")}}
    with pytest.raises(ConfigError, match="Did you mean 'RepVGG'"):
        module("backbones").backbone_rows(["RepVgg"])


def test_settings_are_those_of_a_run(module: Any, tmp_path: Path) -> None:
    runs, heads, backbones = module("zoo_runs"), module("heads"), module("backbones")
    faces = runs.open_faces("synthetic", tmp_path, tmp_path)
    rows = {**heads.head_rows(HEADS.names()), **backbones.backbone_rows(BACKBONES.names())}
    common = {"backbone": heads.BACKBONE, "head": backbones.HEAD}
    tree = {**runs.settings(faces, 3, "fp32"), **common, "variants": rows}
    study = make_study(tree, tmp_path, "here")
    assert study.variants["ArcFace"].head == {"ArcFace": {"scale": 16}}
    assert study.variants["ViT"].head == "MV-Softmax"
    assert study.variants["ViT"].optimizer.lr == 1e-3
    with pytest.raises(ConfigError, match="data is 'celeb'.*Known: synthetic, lfw"):
        runs.open_faces("celeb", tmp_path, tmp_path)


def test_the_table_has_finished_runs_only_with_the_best_row_first(module: Any, tmp_path: Path) -> None:
    runs = module("zoo_runs")
    for run, accuracy in {"a-0": 0.5, "a-1": 0.7, "b+-0": 0.8, "b+-10": 0.6, "b+-2": 0.7}.items():
        finish(tmp_path, run, accuracy)
    (tmp_path / "c-0").mkdir()
    found = runs.finished_runs(tmp_path)
    assert {row: [path.name for path in paths] for row, paths in found.items()} == {
        "a": ["a-0", "a-1"],
        "b+": ["b+-0", "b+-2", "b+-10"],
    }
    runs.write_table(tmp_path, small_faces(runs))
    table = json.loads((tmp_path / "comparison" / "comparison.json").read_text())
    assert [[cell["text"] for cell in row[:2]] for row in table["rows"]] == [
        ["b+", "70.00 ± 10.00"],
        ["a", "60.00 ± 14.14"],
    ]
    assert table["columns"][:3] == ["model", "drawn accuracy [%]", "drawn AUC [%]"]
    assert (tmp_path / "comparison" / "rows.png").stat().st_size > 1000
    assert runs.finished_runs(tmp_path) == found


@pytest.mark.slow
def test_a_finished_run_is_not_run_again(module: Any, tmp_path: Path) -> None:
    runs = module("zoo_runs")
    rows = {"NormFace": {"head": "NormFace"}}
    common = {"backbone": {"MobileFaceNet": {"width": 0.25, "feat_dim": 16}}}
    options = {"steps": 1, "seeds": 1, "out": tmp_path, "precision": "fp32", "threads": torch.get_num_threads()}
    runs.run_rows(rows, common, small_faces(runs), **options)
    report = tmp_path / "few-1-fp32" / "NormFace-0" / "report.json"
    first = report.stat().st_mtime_ns
    (tmp_path / "few-1-fp32" / "comparison" / "comparison.json").unlink()
    runs.run_rows(rows, common, small_faces(runs), **options)
    assert report.stat().st_mtime_ns == first
    table = json.loads((tmp_path / "few-1-fp32" / "comparison" / "comparison.json").read_text())
    assert [row[0]["text"] for row in table["rows"]] == ["NormFace"]
