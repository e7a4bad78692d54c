import hashlib
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest
import yaml
from typer.testing import CliRunner

import facelab
from facelab.backbone.base import BACKBONES
from facelab.cli.main import app
from facelab.errors import ConfigError, FacelabError
from facelab.plugins import import_plugins
from facelab.run.launch import launch

TINY = Path(__file__).parent.parent / "tiny_run.yaml"


def test_imports_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_plugin.py").write_text("LOADED = True\n")
    monkeypatch.syspath_prepend(tmp_path)
    import_plugins(["my_plugin"])
    assert sys.modules["my_plugin"].LOADED


def test_a_missing_module_is_named() -> None:
    with pytest.raises(
        ConfigError, match="plugins: cannot import 'no_such_plugin': .* Is it installed or on PYTHONPATH"
    ):
        import_plugins(["no_such_plugin"])


@pytest.mark.parametrize("name", ["", ".", ".relative", "a..b", "../evil", "a b", "a\0b"])
def test_what_is_no_name_of_a_module_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="is no name of a module; write for example my.module"):
        import_plugins([name])


def test_a_module_that_is_no_python_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "no_python.py").write_text("this is no Python\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=r"cannot import 'no_python': invalid syntax \(no_python.py, line 1\)"):
        import_plugins(["no_python"])


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The module ``stranger`` registers a backbone, and leaves this file when it is imported."""
    code = """
        from pathlib import Path
        from facelab.backbone.base import BACKBONES
        from facelab.backbone.mobilefacenet import MobileFaceNet

        Path({mark!r}).touch()
        BACKBONES.register("Stranger")(type("Stranger", (MobileFaceNet,), {{"__module__": __name__}}))
    """
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "stranger.py").write_text(dedent(code).format(mark=str(tmp_path / "mark")))
    monkeypatch.syspath_prepend(tmp_path / "code")
    yield tmp_path / "mark"
    sys.modules.pop("stranger", None)
    BACKBONES._classes.pop("Stranger", None)


@pytest.fixture
def foreign(trained_run: Path, tmp_path: Path) -> Path:
    """A run's folder that names the plugin in its settings and in its cards."""
    folder = tmp_path / "foreign"
    shutil.copytree(trained_run, folder)
    settings = yaml.safe_load((folder / "config.yaml").read_text()) | {"plugins": ["stranger"]}
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    for path in (folder / "checkpoints").glob("step-*/model.json"):
        card = json.loads(path.read_text()) | {"plugins": ["stranger"]}
        card["backbone"]["name"] = "Stranger"
        path.write_text(json.dumps(card))
        manifest = json.loads((path.parent / "manifest.json").read_text())
        manifest["sha256"]["model.json"] = hashlib.sha256(path.read_bytes()).hexdigest()
        (path.parent / "manifest.json").write_text(json.dumps(manifest))
    return folder


NOT_IMPORTED = "names the plugin 'stranger', which is not imported because a file says so; if you trust it, add "


def test_a_model_folder_imports_nothing(foreign: Path, mark: Path, photos: list[Path]) -> None:
    with pytest.raises(ConfigError, match=NOT_IMPORTED):
        facelab.load(foreign)
    for command in (["test"], ["embed"], ["merge", "--out", "x"], ["draw", "--gallery", "x", "--probe", "y"]):
        words = [command[0], str(foreign), *command[1:], *([str(photos[0])] if command == ["embed"] else [])]
        result = CliRunner().invoke(app, words)
        assert isinstance(result.exception, FacelabError)
    assert not mark.exists()


def test_the_user_allows_a_plugin_by_the_command(foreign: Path, mark: Path, photos: list[Path], tmp_path: Path) -> None:
    words = ["embed", str(foreign), str(photos[0]), "--out", str(tmp_path / "e.npz"), "--plugin", "stranger"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert mark.exists()


def test_a_run_folder_imports_nothing_on_resume(foreign: Path, mark: Path) -> None:
    with pytest.raises(ConfigError, match=f"config.yaml' {NOT_IMPORTED}--plugin stranger"):
        launch(None, [], run=foreign, resume=True)
    assert not mark.exists()
    assert launch(None, ["plugins=[stranger]"], run=foreign, resume=True) == 0
    assert mark.exists()


def test_a_study_folder_imports_nothing_on_resume(mark: Path, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    folder.mkdir()
    tree = yaml.safe_load(TINY.read_text())
    (folder / "study.yaml").write_text(yaml.safe_dump({**tree, "variants": {"a": {"plugins": ["stranger"]}}}))
    with pytest.raises(ConfigError, match=NOT_IMPORTED):
        launch(None, [], run=folder, resume=True)
    assert not mark.exists()


def test_the_users_own_configuration_imports(mark: Path, tmp_path: Path) -> None:
    words = ["plugins=[stranger]", "backbone={Stranger: {width: 0.25, feat_dim: 16}}", "training.epochs=1"]
    assert launch(str(TINY), words, run=tmp_path / "run") == 0
    assert mark.exists()
