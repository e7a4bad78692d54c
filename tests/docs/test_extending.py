"""docs/extending.md works as it stands: its files make a package, and its commands run in it."""

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "extending.md"
NAMES = ("HalfMargin", "RunningMeans", "PlainNet", "Biases", "Capped", "gamma", "mirrored")
QUICK_TESTS = (
    "head/test_heads.py",
    "head/test_every_classifier.py",
    "backbone/test_every_backbone.py",
    "adapter/test_every_adapter.py",
    "data/test_every_sampler.py",
    "data/transforms/test_every_transform.py",
)
SMALLER = (
    "training.epochs=1",
    "data.size=32",
    "data.source.SyntheticFaces={identities: 8, per_identity: 8}",
    "evaluation.protocols.synthetic={SyntheticPairs: {identities: 10, per_identity: 4, folds: 2, pairs: 40}}",
)

# One process runs all commands, because starting takes longer than what they do.
DRIVER = """
import json, sys
import pytest
from facelab.cli.main import app

for words in json.loads(sys.argv[1]):
    print("$", *words, flush=True)
    if words[0] == "pytest":
        code = pytest.main(words[1:])
        assert code == 0, f"pytest ended with {code}"
    else:
        app(words, standalone_mode=False)
"""


def blocks(language: str) -> list[str]:
    found: list[str] = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return found


def write_package(folder: Path) -> None:
    """The page's files, each at the path in its first line, installed as pip would."""
    (folder / "newcomer").mkdir()
    (folder / "newcomer" / "__init__.py").touch()
    for text in (*blocks("python"), *blocks("yaml"), *blocks("toml")):
        (folder / text.splitlines()[0].removeprefix("# ")).write_text(text)
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    info = folder / f"{project['name']}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    groups = [
        f"[{group}]\n" + "".join(f"{name} = {module}\n" for name, module in entries.items())
        for group, entries in project["entry-points"].items()
    ]
    (info / "entry_points.txt").write_text("\n".join(groups))


def commands() -> list[list[str]]:
    """The page's commands as words of one program; training is made smaller, tests are found but not run."""
    result = []
    for line in "".join(blocks("bash")).splitlines():
        words = [word for word in shlex.split(line) if not word.startswith("PYTHONPATH=")]
        if words[:2] == ["bash", "$FACELAB/train.sh"]:
            assert words[2:4] == ["--config", "small.yaml"]
            result.append(["train", "small.yaml", *words[4:], *SMALLER])
        elif words[:2] == ["bash", "$FACELAB/tests/run.sh"]:
            result.append(["pytest", "-q", "--collect-only", f"--rootdir={ROOT}", str(ROOT / words[2]), *words[3:]])
        elif words[0] == "facelab":
            result.append(words[1:])
        else:
            assert words[:2] == ["pip", "install"], line
    return result


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The package's folder after all commands, and what they printed."""
    folder = tmp_path_factory.mktemp("newcomer")
    write_package(folder)
    quick = [str(ROOT / "tests" / name) for name in QUICK_TESTS]
    chosen = f"({' or '.join(NAMES)}) and not processes"  # those of two processes are the page's reader's to run
    words = [*commands(), ["pytest", "-q", f"--rootdir={ROOT}", *quick, "-k", chosen]]
    environment = os.environ | {"PYTHONPATH": f"{folder}:{ROOT}", "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, json.dumps(words)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=folder,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout


@pytest.mark.parametrize("name", [*NAMES, "Nearest", "Distance"])
def test_each_example_is_listed_and_trained(name: str, output: tuple[Path, str]) -> None:
    folder, printed = output
    assert name in printed
    trained = [path.parent for path in folder.glob("runs/*/config.yaml") if name in path.read_text()]
    assert trained
    assert all((run / "checkpoints" / "index.json").is_file() for run in trained)


def test_the_adapter_leaves_a_small_file(output: tuple[Path, str]) -> None:
    folder, printed = output
    assert 0 < (folder / "biases.safetensors").stat().st_size < 1 << 18
    assert "parameters are trained" in printed


def test_the_scorer_leaves_a_table(output: tuple[Path, str]) -> None:
    folder, _ = output
    assert '"name":"Brightness"' in (folder / "brightness.csv").read_text()


def test_the_callback_and_the_protocol_are_in_the_log(output: tuple[Path, str]) -> None:
    folder, _ = output
    assert '"distance": ' in (folder / "runs" / "distance" / "metrics.jsonl").read_text()
    assert '"nearest/rank-1": ' in (folder / "runs" / "nearest" / "metrics.jsonl").read_text()


def test_the_command_prints(output: tuple[Path, str]) -> None:
    folder, printed = output
    lines = [json.loads(line) for line in (folder / "runs" / "plain" / "metrics.jsonl").read_text().splitlines()]
    *_, last = (line for line in lines if "accuracy" in line)
    assert f"$ last runs/plain\nloss {last['loss']:.4g}\n" in printed
    assert f"--metric accuracy\naccuracy {last['accuracy']:.4g}\n" in printed


def test_each_example_is_compared(output: tuple[Path, str]) -> None:
    folder, printed = output
    compared = [words for words in commands() if words[0] == "compare"]
    assert len(compared) == len(NAMES)
    assert all((folder / path).is_dir() for words in compared for path in words[1:])
    assert (folder / "comparison" / "comparison.html").is_file()
    assert printed.count("$ compare") == len(NAMES)


def test_the_page_names_every_group_of_entry_points() -> None:
    from facelab.cli.show import REGISTRIES

    text = PAGE.read_text()
    assert [kind for kind in REGISTRIES if f"`facelab.{kind}`" not in text] == []
