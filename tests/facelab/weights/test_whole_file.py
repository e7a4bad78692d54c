"""Files that are there whole, and places that are asked for before the work."""

import os
from pathlib import Path

import pytest

from facelab.errors import DataError
from facelab.weights.whole_file import Kind, require_writable, write_whole


@pytest.mark.parametrize("kind", ["file", "folder", "new"])
@pytest.mark.parametrize("name", ["new", "deep/er/new", "name" * 50])
def test_a_place_that_takes_something_is_left_as_it_was(kind: Kind, name: str, tmp_path: Path) -> None:
    require_writable(tmp_path / name, kind)
    assert not list(tmp_path.iterdir())


def test_what_is_there_may_be_replaced_added_to_or_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("old")
    require_writable(tmp_path / "file", "file")
    require_writable(tmp_path, "folder")
    monkeypatch.chdir(tmp_path)
    require_writable(Path(), "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    with pytest.raises(DataError, match="'.*' is a folder; name a file in it"):
        require_writable(tmp_path, "file")
    with pytest.raises(DataError, match="file' is a file; name a folder"):
        require_writable(tmp_path / "file", "folder")
    with pytest.raises(DataError, match="file: exists already; remove it or choose another name"):
        require_writable(tmp_path / "file", "new")


@pytest.mark.parametrize("kind", ["file", "folder", "new"])
def test_a_place_that_takes_nothing_is_refused(kind: Kind, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="file/deep/new: cannot be written \\(Not a directory\\)"):
        require_writable(tmp_path / "file" / "deep" / "new", kind)
    with pytest.raises(DataError, match="….*cannot be written \\(File name too long\\)"):
        require_writable(tmp_path / ("x" * 300), kind)
    with pytest.raises(DataError, match="cannot be written"):
        require_writable(Path("/proc/new"), kind)  # where nobody may write, root included
    if os.getuid():
        tmp_path.chmod(0o500)
        with pytest.raises(DataError, match="cannot be written \\(Permission denied\\)"):
            require_writable(tmp_path / "new", kind)


def test_a_long_name_is_refused_when_it_is_written_too(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="File name too long"):
        write_whole(tmp_path / ("x" * 300), b"")
