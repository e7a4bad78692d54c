import sys
from pathlib import Path

import pytest

from facelab.errors import ConfigError
from facelab.plugins import import_plugins


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
