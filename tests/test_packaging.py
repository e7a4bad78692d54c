"""facelab installs whole, leaks nothing, and is one package in whichever way it is started."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
SETUPTOOLS: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
FOLDERS: dict[str, str] = SETUPTOOLS["package-dir"]
NOT_PACKAGED = {"tests", "docs", "benchmarks", "build", "dist", "runs"}
SHIPPED = (".py", ".yaml", ".html", ".css", ".js")
LEFT_BEHIND = shutil.ignore_patterns(".*", "*.egg-info", "__pycache__", "tests", *NOT_PACKAGED)

# Prints where things were found; run in every situation that a user can be in.
REPORT = """
import json, pathlib, facelab, facelab.head, facelab.training_mode.conventional
from facelab.backbone.base import BACKBONES
from facelab.catalogue import catalogue_file
from facelab.run.settings import shipped_configs
print(json.dumps({
    "facelab": facelab.__file__, "head": facelab.head.__file__, "mode": facelab.training_mode.conventional.__file__,
    "catalogues": {kind: str(catalogue_file(kind)) for kind in ("backbone", "head", "adapter")},
    "backbones": BACKBONES.names(), "configs": [str(path) for path in shipped_configs().values()],
}))
"""


def own_folder(package: str) -> str:
    """Folder of a package below the root: ``facelab.training_mode.conventional`` -> ``training_mode/conventional``."""
    parent, _, name = package.rpartition(".")
    return FOLDERS.get(package) or f"{own_folder(parent)}/{name}"


def packages_in(root: Path) -> set[str]:
    """Folders of a checkout that are packages, as their names in facelab."""
    found = set()
    for file in root.glob("[!.]*/**/__init__.py"):
        words = file.parent.relative_to(root).parts
        if words[0] not in NOT_PACKAGED and not words[0].endswith(".egg-info"):
            found.add(".".join(words if words[0] == "facelab" else ("facelab", *words)))
    return found


def test_every_package_is_listed() -> None:
    assert set(SETUPTOOLS["packages"]) == packages_in(ROOT) | {"facelab.conf"}


def test_every_listed_package_comes_from_its_folder() -> None:
    for package in SETUPTOOLS["packages"]:
        assert (ROOT / own_folder(package)).is_dir(), package
    assert own_folder("facelab.conf") == "."


def test_every_file_beside_the_modules_is_shipped() -> None:
    """A file that is found in the checkout but not in the wheel would fail for others only."""
    for package in SETUPTOOLS["packages"]:
        patterns = SETUPTOOLS["package-data"].get(package, [])
        shown = (path for path in (ROOT / own_folder(package)).iterdir() if not path.name.startswith("."))
        for file in (path for path in shown if path.suffix in SHIPPED[1:]):
            assert any(fnmatch(file.name, pattern) for pattern in patterns), f"{package} leaves {file.name} behind"


def environment_of_a_user() -> dict[str, str]:
    """Without the path by which the tests may be running from the checkout: it would hide what is installed."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def completed(*words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """What a command in the environment of a user ended with."""
    command = [str(word) for word in words]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, env=environment_of_a_user())


def run(*words: str | Path, cwd: Path) -> str:
    """Standard output of a command that must succeed."""
    done = completed(*words, cwd=cwd)
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def refusal(python: Path, statement: str, cwd: Path) -> str:
    """Last line of the traceback that an import ends in."""
    done = completed(python, "-c", statement, cwd=cwd)
    assert done.returncode == 1, done.stdout
    return done.stderr.strip().splitlines()[-1]


class Environment:
    """A new virtual environment that borrows the packages facelab needs from the one that runs the tests."""

    def __init__(self, folder: Path) -> None:
        run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder.parent)
        self.python = folder / "bin" / "python"
        self.facelab = folder / "bin" / "facelab"
        self.site = Path(
            run(self.python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip()
        )
        (self.site / "borrowed.pth").write_text(sysconfig.get_path("purelib"))
        self.before = {path.name for path in self.site.iterdir()}

    def install(self, *words: str | Path) -> None:
        """``pip install`` without dependencies."""
        pip = (
            sys.executable,
            "-m",
            "pip",
            "--python",
            self.python,
            "install",
            "--no-deps",
            "--disable-pip-version-check",
        )
        run(*pip, *words, cwd=self.site)

    def added(self) -> set[str]:
        """What installing added to site-packages."""
        return {path.name for path in self.site.iterdir()} - self.before - {"__pycache__"}

    def report(self, cwd: Path) -> dict[str, Any]:
        """What a Python that stands in ``cwd`` finds; and the command line must start there."""
        assert "train" in run(self.python, "-m", "facelab", "--help", cwd=cwd)
        report: dict[str, Any] = json.loads(run(self.python, "-c", REPORT, cwd=cwd).splitlines()[-1])
        return report


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout, as building leaves traces beside the sources."""
    return Path(shutil.copytree(ROOT, tmp_path_factory.mktemp("packaging") / "checkout", ignore=LEFT_BEHIND))


@pytest.fixture(scope="session")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder to stand in."""
    return tmp_path_factory.mktemp("elsewhere")


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Environment]:
    return lambda name: Environment(tmp_path_factory.mktemp("environments") / name)


@pytest.fixture(scope="session")
def installed(environment: Callable[[str], Environment], checkout: Path) -> Environment:
    """After ``pip install .``."""
    made = environment("installed")
    made.install(checkout)
    return made


def lies_in(report: dict[str, Any], package: Path, catalogues: Path) -> None:
    """All parts are of one installation, and the catalogues and configurations come with it."""
    for name in ("facelab", "head", "mode"):
        assert Path(report[name]).is_relative_to(package), report
    for kind, path in report["catalogues"].items():
        assert Path(path) == catalogues / f"{kind}_conf.yaml"
        assert Path(path).is_file()
    assert report["backbones"]
    assert report["configs"]
    assert all(Path(path).is_relative_to(package) for path in report["configs"])


@pytest.mark.packaging
def test_installed(installed: Environment, elsewhere: Path) -> None:
    package = installed.site / "facelab"
    lies_in(installed.report(elsewhere), package, package / "conf")
    assert "train" in run(installed.facelab, "--help", cwd=elsewhere)


@pytest.mark.packaging
def test_installing_adds_one_package_and_no_other_name(installed: Environment) -> None:
    assert {name for name in installed.added() if not name.endswith(".dist-info")} == {"facelab"}


@pytest.mark.packaging
def test_installed_while_standing_in_the_checkout(installed: Environment, checkout: Path) -> None:
    """Python prefers the folder it stands in, the command the installed package; neither mixes the two."""
    lies_in(installed.report(checkout), checkout, checkout)
    assert "train" in run(installed.facelab, "--help", cwd=checkout)


@pytest.mark.packaging
def test_editable(environment: Callable[[str], Environment], checkout: Path, elsewhere: Path) -> None:
    editable = environment("editable")
    editable.install("-e", checkout)
    for folder in (elsewhere, checkout):
        lies_in(editable.report(folder), checkout, checkout)
    assert "train" in run(editable.facelab, "--help", cwd=elsewhere)


@pytest.mark.packaging
def test_from_the_checkout(environment: Callable[[str], Environment], checkout: Path) -> None:
    lies_in(environment("bare").report(checkout), checkout, checkout)


@pytest.mark.packaging
@pytest.mark.parametrize("folder", sorted(name for name in FOLDERS.values() if name not in (".", "facelab")))
def test_parts_refuse_to_be_imported_by_their_folder(folder: str, installed: Environment, checkout: Path) -> None:
    sentence = refusal(installed.python, f"import {folder}", checkout)
    assert sentence == (f"ImportError: this package is 'facelab.{folder}'; import it by that name, not as '{folder}'")


@pytest.mark.packaging
def test_facelab_is_not_its_own_part(installed: Environment, checkout: Path) -> None:
    sentence = refusal(installed.python, "import facelab.facelab", checkout)
    assert sentence == "ImportError: this package is 'facelab'; import it by that name, not as 'facelab.facelab'"


@pytest.mark.packaging
def test_wheel_holds_every_module(checkout: Path, tmp_path: Path) -> None:
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", tmp_path, checkout, cwd=tmp_path)
    (wheel,) = tmp_path.glob("facelab-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    expected = {"facelab/py.typed"} | {f"facelab/conf/{path.name}" for path in checkout.glob("*_conf.yaml")}
    for package in packages_in(checkout):
        files = [path for path in (checkout / own_folder(package)).iterdir() if path.suffix in SHIPPED]
        expected |= {f"{package.replace('.', '/')}/{path.name}" for path in files}
    assert names == expected
