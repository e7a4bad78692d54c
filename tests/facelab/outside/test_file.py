"""Only regular files are opened, and nothing waits for a pipe."""

import os
from pathlib import Path

import pytest

from facelab.outside.file import opened, opened_text, read_regular, require_regular


def test_pipe_is_refused_at_once(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for read in (opened, opened_text, read_regular, require_regular):
        with pytest.raises(OSError, match="pipe, device or socket"):
            read(pipe)


def test_devices_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="pipe, device or socket"):
        read_regular("/dev/zero")
    with pytest.raises(IsADirectoryError, match="it is a folder"):
        read_regular(tmp_path)
    with pytest.raises(OSError, match="null"):
        read_regular("a\0b")


def test_bytes_and_text(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"\xef\xbb\xbfa\n")
    assert read_regular(file) == b"\xef\xbb\xbfa\n"
    with opened_text(file) as text:
        assert text.read() == "a\n"


def test_limit_is_inclusive(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"12345")
    assert read_regular(file, 5) == b"12345"
    with pytest.raises(OSError, match="it has 5 bytes, more than the 4"):
        read_regular(file, 4)
