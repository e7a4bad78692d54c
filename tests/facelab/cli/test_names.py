import json
import os
import subprocess
import sys

import pytest

import facelab
from facelab.catalogue import entries
from facelab.cli.names import CONFIGS, REGISTRIES, names_of
from facelab.cli.show import registry_of
from facelab.run.shipped import shipped_configs

HEAVY = ("torch", "timm", "torchvision", "scipy", "matplotlib", "cv2", "facelab.run.settings")
RUN = """
import json, sys
sys.argv = ["facelab", *json.loads(sys.argv[1])]
from facelab.__main__ import main
try:
    main()
except SystemExit:
    pass
print(json.dumps([name for name in {heavy} if name in sys.modules]), file=sys.stderr)
"""


def run(*words: str, **environment: str) -> tuple[str, list[str]]:
    """What a command prints in a process of its own, and which heavy modules it imported."""
    code = RUN.format(heavy=HEAVY)
    variables = {**os.environ, **environment, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(words)], capture_output=True, text=True, env=variables, check=True
    )
    *said, imported = done.stderr.splitlines()
    return done.stdout + "\n".join(said), json.loads(imported)


def completed(line: str) -> list[str]:
    """What bash is offered at the end of a line."""
    words = line.split()
    place = len(words) - (not line.endswith(" "))
    text, heavy = run(COMP_WORDS=line, COMP_CWORD=str(place), _FACELAB_COMPLETE="complete_bash")
    assert heavy == []
    return text.split()


@pytest.mark.parametrize("kind", REGISTRIES)
def test_names_are_those_of_the_registry_and_the_catalogue(kind: str) -> None:
    registry = registry_of(kind)
    ours = {name for name in registry.names() if registry.get(name).__module__.startswith("facelab.")}
    assert set(names_of(kind)) == ours | set(entries(registry))


def test_names_of_configurations() -> None:
    assert names_of(CONFIGS) == sorted(shipped_configs())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--help"], "Train, adapt and benchmark face recognition"),
        (["--version"], f"facelab {facelab.__version__}"),
        (["test", "--help"], "Test models on protocols"),
        (["iqa", "score", "--help"], "Score every image once"),
        (["data", "--help"], "Make, check, choose and convert training sets"),
        (["trian"], "Did you mean 'train'"),
        (["train", "--resmue"], "No such option"),
        (["list", "configs"], "conventional/facexzoo"),
    ],
)
def test_what_needs_no_network_imports_none(words: list[str], said: str) -> None:
    text, heavy = run(*words)
    assert said in text
    assert heavy == []


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("facelab tr", ["train"]),
        ("facelab list he", ["heads"]),
        ("facelab train adap", [name for name in sorted(shipped_configs()) if name.startswith("adap")]),
        ("facelab train adaptation head=ArcF", ["head=ArcFace"]),
        ("facelab train head = ArcF", ["ArcFace"]),  # bash takes a word apart at the equals sign
        ("facelab train adapter=Dual", ["adapter=DualLoRA"]),
        ("facelab train optimizer.lr=", []),
        ("facelab show conventional data.source=Synth", ["data.source=SyntheticFaces"]),
        ("facelab train conventional data.augment.crop_", ["data.augment.crop_in_place"]),
        ("facelab test runs/mine TinyF", ["TinyFace."]),
        ("facelab cost MobileFaceN", [name for name in names_of("backbones") if name.startswith("MobileFaceN")]),
        ("facelab cite AM-S", ["AM-Softmax"]),
        ("facelab iqa score faces --scorer Sharp", ["Sharpness"]),
    ],
)
def test_completion(line: str, offered: list[str]) -> None:
    assert completed(line) == offered
