"""``facelab cost``: what it prints, writes and refuses."""

import csv
import io
import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from facelab.cli.cost import chosen
from facelab.cli.main import app
from facelab.cost.cost_table import CostRow, Speed, cost_tables, reasons, row_reasons, short
from facelab.cost.network_cost import Operations
from facelab.cost.published_costs import PUBLISHED
from facelab.cost.thop_count import ThopCount, thop_missing
from facelab.errors import FacelabError

TINY = "{MobileFaceNet: {width: 0.25, input_spec: {height: 32, width: 48}}}"


def cost(*words: str) -> str:
    result = CliRunner().invoke(app, ["cost", *words])
    if isinstance(result.exception, FacelabError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_table_and_files(tmp_path: Path) -> None:
    pytest.importorskip("thop")
    said = cost(
        "MobileFaceNet", "--no-speed", "--json", str(tmp_path / "a.json"), "--csv", str(tmp_path / "b" / "a.csv")
    )
    for text in (
        "112x112",
        "1.20M",
        "1.19M",
        "221.16M",
        "227.57M",
        "36.8",
        "2 x 3.21M BatchNorm",
        "12.82M BatchNorm2d",
    ):
        assert text in said
    assert "images/s" not in said
    (network,) = json.loads((tmp_path / "a.json").read_text())["networks"]
    (row,) = csv.DictReader((tmp_path / "b" / "a.csv").read_text().splitlines())
    assert network["parameters"] == int(row["parameters"]) == int(row["parameters in use"]) == 1200512
    assert network["macs"] == int(row["MACs"]) == 221161984
    assert network["published"] == {"parameters": 1.19e6, "macs": 227.57e6, "source": "FaceX-Zoo"}
    assert network["speed"] is None
    assert row["seconds for 1 image"] == ""


def test_speed_is_measured_in_the_inference_form(tmp_path: Path) -> None:
    small = "{RepVGG: {depths: [1, 1, 1, 1], widths: [0.25, 0.25, 0.25, 0.25], input_spec: {height: 32, width: 32}}}"
    said = cost(small, TINY, "--seconds", "0", "--json", str(tmp_path / "a.json"))
    assert "images/s" in said
    assert "32x48" in said
    for network in json.loads((tmp_path / "a.json").read_text())["networks"]:
        assert network["speed"]["latency"] > 0
        assert network["speed"]["throughput"] > 0
    repvgg = json.loads((tmp_path / "a.json").read_text())["networks"][0]
    assert repvgg["used"] < repvgg["parameters"]
    assert repvgg["inference_work"]["convolution"] < repvgg["work"]["convolution"]


def test_without_thop_its_column_is_empty_and_the_reason_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    thop_missing.cache_clear()
    monkeypatch.setitem(sys.modules, "thop", None)
    try:
        said = cost(TINY, "--no-speed")
    finally:
        thop_missing.cache_clear()
    assert " ".join(said.split()).count("pip install thop") == 1
    assert "made of" not in said


def test_names() -> None:
    assert list(chosen([])) == list(PUBLISHED)
    assert list(chosen(["mobilefacenet*", "r50"])) == ["MobileFaceNet", "MobileFaceNet-0.5-64px", "r50"]
    assert set(chosen(["RepVGG_[AB]0"])) == {"RepVGG_A0", "RepVGG_B0"}
    assert chosen([TINY])[TINY]["MobileFaceNet"]["width"] == 0.25


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["MobileFacNet"], "unknown backbone 'MobileFacNet'. Did you mean 'MobileFaceNet'?"),
        (["x*"], "no backbone matches 'x*'. Known: "),
        (["{MobileFaceNet: {widht: 1}}", "--no-speed"], "has no option 'widht'. Did you mean 'width'?"),
        (["r50", "--plugin", "no_such_module"], "cannot import 'no_such_module'"),
    ],
)
def test_refusals(words: list[str], sentence: str) -> None:
    with pytest.raises(FacelabError) as refused:
        cost(*words)
    assert sentence in str(refused.value)


@pytest.mark.parametrize("option", ["--json", "--csv"])
def test_a_folder_is_refused_before_anything_is_measured(
    option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("facelab.cli.cost.cost_of", lambda *_: pytest.fail("measured first"))
    with pytest.raises(FacelabError, match=r"is a folder; name a file in it\.$"):
        cost(TINY, option, str(tmp_path))


def test_numbers_are_written_like_facexzoos() -> None:
    assert [short(count) for count in (1200512, 6.296e9, 0, None)] == ["1.20M", "6.30G", "0.00M", "-"]


def test_what_is_not_known_is_a_dash() -> None:
    row = CostRow("a", (8, 8), 5, None, None, None, None, None, None, None)
    assert list(row_reasons(row)) == []
    size, work = cost_tables([row])
    assert [column._cells for column in size.table.columns[3:]] == [["-"]] * 3
    assert [column._cells for column in work.table.columns[1:]] == [["-"]] * 3


def test_80_columns_break_no_word() -> None:
    names = ("MobileFaceNet-0.5-64px", "ResNet152_ir_se", "AttentionNet-92")
    counts = Operations(convolution=100_000_000, linear=1, attention=0, norm=10_000_000)
    row = CostRow(
        "", (112, 112), 134_560_000, 101_790_000, counts, counts, ThopCount(117_000_000, {"BatchNorm2d": 17_000_000}),
        221_300_000, Speed(0.4168, 740.5), PUBLISHED["AttentionNet-92"],
    )  # fmt: skip
    rows = [replace(row, name=name) for name in names]
    file = io.StringIO()
    for part in (*cost_tables(rows), reasons(rows)):
        Console(file=file, width=80).print(part)
    said = file.getvalue()
    assert max(map(len, said.splitlines())) <= 80
    for word in (*names, "112x112", "134.56M", "published", "activations", "221.3", "throughput", "740.5", "416.8"):
        assert re.search(rf"(^|\s){re.escape(word)}(\s|$)", said, re.MULTILINE), word


def test_reasons_add_up() -> None:
    work = Operations(convolution=90_000_000, linear=10_000_000, attention=50_000_000, norm=0)
    thop = ThopCount(120_000_000, {"Conv2d": 90_000_000, "Linear": 10_000_000, "LayerNorm": 20_000_000})
    row = CostRow("a", (8, 8), 10_000_000, 9_000_000, work, work, thop, None, None, None)
    assert list(row_reasons(row)) == [
        ("in use 9.00M", "1.00M without a way to the embedding"),
        ("THOP 120.00M", "150.00M + 20.00M LayerNorm - 50.00M of functions, parameters and subclasses"),
    ]
