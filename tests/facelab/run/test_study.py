"""Studies: runs of their own in one folder, finished ones are skipped, one table; refusals."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from facelab.cli import main as cli
from facelab.errors import ConfigError
from facelab.run.launch import launch
from facelab.run.settings import load_config, load_tree
from facelab.run.study import make_study
from facelab.test_protocol.report.report_store import read_reports

TINY = Path(__file__).parents[2] / "tiny_run.yaml"
PROTOCOL = "{SyntheticPairs: {identities: 20, per_identity: 4, folds: 2, pairs: 40}}"


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A file: a base that is trained first, then two ways to adapt it."""
    path = tmp_path / "study.yaml"
    path.write_text(f"""
extends: {TINY}
name: ways
output: {tmp_path}
mode: adaptation
backbone: null
base: {{extends: {TINY}, training: {{epochs: 1}}}}
training: {{epochs: 1}}
evaluation: {{protocols: {{synthetic: {PROTOCOL}}}}}
variants:
  full: {{adapter: Full}}
  lora: {{adapter: {{LoRA: {{rank: 2}}}}, training: {{epochs: 2}}}}
""")
    return path


def test_nothing_is_left_of_a_study_whose_first_run_is_refused(study: Path, tmp_path: Path) -> None:
    study.write_text(study.read_text().replace("base: {extends", "base: {head: ArcFase, extends"))
    with pytest.raises(ConfigError, match="unknown head 'ArcFase'"):
        launch(str(study), [])
    assert list(tmp_path.iterdir()) == [study]


def test_it_ends_in_one_table_and_goes_on_where_it_stopped(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert launch(str(study), ["columns=[AUC]"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert text.index("frozen") < text.index("full")
    assert "parameters are trained" in text
    assert "synthetic AUC [%]" in text
    assert "synthetic accuracy [%]" not in text
    assert "† not significantly worse than the best" in text  # of 40 pairs
    assert (tmp_path / "ways" / "report.html").stat().st_size > 1000
    reports = read_reports(tmp_path / "ways")
    assert list(reports) == ["frozen", "full", "lora"]
    assert reports["frozen"][0].options["model"] != reports["lora"][0].options["model"]
    written = (tmp_path / "ways" / "full" / "report.json").stat().st_mtime_ns
    (tmp_path / "ways" / "lora" / "report.json").unlink()
    assert launch(None, [], run=tmp_path / "ways", resume=True) == 0
    text = capsys.readouterr().out
    assert f"'{tmp_path / 'ways' / 'full'}' is finished already" in text
    assert f"resumed '{tmp_path / 'ways' / 'lora'}' at update 8 of 8" in text
    assert (tmp_path / "ways" / "full" / "report.json").stat().st_mtime_ns == written
    assert [report.metrics for report in read_reports(tmp_path / "ways")["lora"]] == [reports["lora"][0].metrics]
    with pytest.raises(ConfigError, match="already holds a study; go on with it by --resume"):
        launch(str(study), [], run=tmp_path / "ways")
    with pytest.raises(ConfigError, match=r"started with other settings: optimizer\.lr"):
        launch(str(study), ["variants.full.optimizer.lr=0.01"], run=tmp_path / "ways", resume=True)


def test_a_variant_goes_on_from_an_earlier_one(tmp_path: Path) -> None:
    base = "{backbone: null, base: {variant: first}}"
    teacher = "{mode: {distillation: {teacher: {variant: first}}}}"
    tree = load_tree(str(TINY), [f"variants={{first: {{}}, second: {base}, third: {teacher}}}"])
    variants = make_study(tree, tmp_path, "here").variants
    assert variants["first"].base is None
    assert variants["second"].base == tmp_path / "first"
    assert variants["third"].mode == {"distillation": {"teacher": str(tmp_path / "first")}}
    tree["variants"] = {"second": tree["variants"]["second"], "first": {}}
    with pytest.raises(ConfigError, match="here, variant 'second': {variant: first} is no variant that is trained be"):
        make_study(tree, tmp_path, "here")


def test_overrides_reach_all_runs_one_variant_or_the_base(study: Path, tmp_path: Path) -> None:
    words = ["seed=5", "base.seed=6", "variants.lora.adapter.LoRA.rank=3", "variants.full=null"]
    made = make_study(load_tree(str(study), words), tmp_path / "ways", "here")
    assert made.base is not None
    assert made.base.seed == 6
    assert list(made.variants) == ["lora"]
    assert made.variants["lora"].seed == 5
    assert made.variants["lora"].adapter == {"LoRA": {"rank": 3}}
    assert made.variants["lora"].training.epochs == 2
    assert made.variants["lora"].base == tmp_path / "ways" / "base"
    trained = make_study(load_tree(str(study), ["base=runs/mine"]), tmp_path / "ways", "here")
    assert (trained.base, trained.variants["full"].base) == (None, Path("runs/mine"))


def test_a_name_that_is_chosen_already_keeps_its_options_everywhere(study: Path, tmp_path: Path) -> None:
    study.write_text(
        study.read_text()
        .replace("mode: adaptation", "mode: {adaptation: {distillation: 0.5}}")
        .replace("{adapter: Full}", "{adapter: Full, mode: adaptation}")
        .replace("lora: {", "lora: {mode: {adaptation: {distillation: 0.25}}, ")
    )
    for words in ([], ["mode=adaptation"], ["variants.full.mode=adaptation", "variants.lora.mode={adaptation: {}}"]):
        found = make_study(load_tree(str(study), words), tmp_path, "here")
        modes = {name: variant.mode for name, variant in found.variants.items()}
        assert modes == {"full": {"adaptation": {"distillation": 0.5}}, "lora": {"adaptation": {"distillation": 0.25}}}


def test_heads_are_compared_without_a_base(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "heads.yaml"
    heads = "variants: {cosface: {}, arcface: {head: ArcFace}}"
    protocols = f"evaluation: {{protocols: {{synthetic: {PROTOCOL}}}}}"
    path.write_text(f"extends: {TINY}\nname: heads\noutput: {tmp_path}\n{heads}\n{protocols}\n")
    assert launch(str(path), ["training.epochs=1"]) == 0
    assert list(read_reports(tmp_path / "heads")) == ["cosface", "arcface"]


def test_show_prints_every_run(study: Path) -> None:
    result = CliRunner().invoke(cli.app, ["show", str(study)])
    assert [line for line in result.output.splitlines() if line[0] != " "] == ["base:", "full:", "lora:"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["variants=[]"], "'variants' must hold runs by name"),
        (["variants={frozen: {}}"], "a variant cannot be called 'frozen'"),
        (["variants={../up: {}}"], r"a variant cannot be called '\.\./up'"),
        (["variants={a: 3}"], "variant 'a' must hold the settings that it changes, got 3"),
        (["columns=accuracy"], "'columns' must be a list of metrics"),
        (["variants.full.hed=ArcFace"], "variant 'full': unknown key 'hed'. Did you mean 'head'"),
        (["base.hed=ArcFace"], "here, base: unknown key 'hed'. Did you mean 'head'"),
        (["base.extends=nothing"], "'nothing' is neither a file nor a shipped configuration"),
    ],
)
def test_refusals(study: Path, tmp_path: Path, words: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        make_study(load_tree(str(study), words), tmp_path, "here")


def test_where_one_run_is_needed_a_study_is_refused(study: Path) -> None:
    with pytest.raises(ConfigError, match=r"is a study of several runs \(full, lora\), but one is needed here"):
        load_config(str(study))
