"""Files through fsspec: the same promises as on a web server."""

import pickle
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from facelab.data.shards.fsspec_file import FsspecFile
from facelab.data.shards.patience import Patience
from facelab.data.sources.webdataset import WebDataset
from facelab.errors import ConfigError, DataError

fsspec = pytest.importorskip("fsspec")
QUICK = Patience(attempts=3, timeout=5.0, pause=0.001)


@pytest.fixture
def memory() -> Iterator[Any]:
    system = fsspec.filesystem("memory")
    yield system
    system.store.clear()


def test_parts_are_those_of_the_file(memory: Any) -> None:
    memory.pipe_file("/a.bin", bytes(range(100)))
    file = FsspecFile("memory://a.bin", QUICK)
    assert (file.size, file.is_near) == (100, False)
    assert pickle.loads(pickle.dumps(file)).read(10, 5) == file.read(10, 5) == bytes(range(10, 15))


def test_shards_are_read_through_it(
    memory: Any, tmp_path: Path, tar_of: Callable[..., Path], png: Any, picture: Any
) -> None:
    files = {f"{n}.{end}": data for n in range(4) for end, data in (("png", png(picture(n))), ("cls", b"%d" % (n % 2)))}
    path = tar_of(tmp_path / "a.tar", files)
    memory.pipe_file("/a.tar", path.read_bytes())
    source = WebDataset("memory://a.tar")
    assert source.fingerprint() == WebDataset(str(path)).fingerprint()
    assert (source.read(3) == picture(3)).all()


def test_failures_are_repeated_and_then_told_without_their_text(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    memory.pipe_file("/a.bin", bytes(100))
    file, tries = FsspecFile("memory://a.bin", QUICK), list[int]()

    class ForeignError(Exception):
        pass

    def fail(path: str, start: int, end: int) -> bytes:
        tries.append(start)
        if len(tries) < 3 or start:
            raise (OSError if len(tries) % 2 else ForeignError)("https://host/?signature=secret")
        return bytes(end - start)

    monkeypatch.setattr(type(file._system), "cat_file", staticmethod(fail))
    assert file.read(0, 10) == bytes(10)
    with pytest.raises(
        DataError, match=r"memory://a\.bin: bytes 5 to 9 cannot be read: 3 tries in .*ForeignError"
    ) as told:
        file.read(5, 5)
    assert "secret" not in str(told.value)
    monkeypatch.setattr(type(file._system), "cat_file", lambda *_, **__: b"short")
    with pytest.raises(DataError, match=r"5 of 10 bytes came \(3 times\)"):
        file.read(0, 10)


def test_a_store_that_hangs_is_given_up(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    memory.pipe_file("/a.bin", bytes(100))
    file = FsspecFile("memory://a.bin", Patience(attempts=2, timeout=0.05, pause=0.001))
    monkeypatch.setattr(type(file._system), "cat_file", lambda *_, **__: threading.Event().wait(1))
    with pytest.raises(DataError, match=r"2 tries in 0\.[0-9] s ended with: no answer within 0\.05 s \(2 times\)"):
        file.read(0, 10)


def test_what_is_not_there_or_not_installed_is_told(memory: Any) -> None:
    with pytest.raises(DataError, match=r"memory://missing\.tar: cannot be read \(FileNotFoundError\)"):
        FsspecFile("memory://missing.tar", QUICK)
    memory.pipe_file("/empty.tar", b"")
    with pytest.raises(DataError, match="is no file with content"):
        FsspecFile("memory://empty.tar", QUICK)
    with pytest.raises(DataError, match=r"nosuch://a\.tar: cannot be opened"):
        FsspecFile("nosuch://a.tar", QUICK)
    if __import__("importlib.util").util.find_spec("adlfs") is None:
        with pytest.raises(ConfigError, match=r"'abfs://a/b\.tar' needs a package .*facelab\[remote\]"):
            FsspecFile("abfs://a/b.tar", QUICK)


@pytest.mark.extras
@pytest.mark.parametrize(
    ("package", "address"), [("huggingface_hub", "hf://datasets/a/b/c.tar"), ("s3fs", "s3://a/b.tar")]
)
def test_a_real_store_that_cannot_be_reached_is_told_in_a_sentence(
    package: str, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(package)
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(DataError, match=r"cannot be read: one try in .* s ended with: "):
        FsspecFile(address, Patience(attempts=1, timeout=20.0))
