"""Places of files on a web server: retried where that may help, then one sentence; never other bytes than asked for."""

import pickle
import re
import threading
from pathlib import Path
from typing import Any

import pytest

from facelab.data.shards import http_file
from facelab.data.shards.http_file import HttpFile
from facelab.data.shards.patience import Patience
from facelab.errors import DataError

CONTENT = bytes(range(256)) * 40
QUICK = Patience(attempts=3, timeout=5.0, pause=0.001)


@pytest.fixture
def url(server: Any) -> str:
    (server.folder / "a.tar").write_bytes(CONTENT)
    return f"{server.url}/a.tar"


def test_parts_are_those_of_the_file_over_one_connection(server: Any, url: str) -> None:
    file = HttpFile(url, QUICK)
    assert (file.size, file.version, file.is_near) == (len(CONTENT), '"1"', False)
    for offset, size in ((0, 10), (300, 1), (1000, 9240), (5, 0)):
        assert file.read(offset, size) == CONTENT[offset : offset + size]
    assert [part for _, part in server.asked] == ["bytes=0-0", "bytes=0-9", "bytes=300-300", "bytes=1000-10239"]
    copy = pickle.loads(pickle.dumps(file))
    assert copy.read(7, 5) == CONTENT[7:12]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("drop", "the connection was closed without an answer"),
        ("cut", "the answer had 50 of 100 bytes"),
        ("whole", "the server gave the whole file instead of a part (status 200)"),
        ("more", "the answer announces 110 bytes instead of 100"),
        ("announces", "the answer announces 1000000000000000 bytes instead of 100"),
        ("other part", "the server gave another part ('bytes 51-150/10240')"),
        ("packed", "the server gave the part compressed"),
        ("503", "status 503"),
        ("429", "status 429"),
        ("no http", "the answer is no HTTP (BadStatusLine)"),
        ("-1", "the answer does not end"),
        ("-5", "address or answer makes no sense (ValueError)"),
        (f"to http://{'a' * 70}.com/", "address or answer makes no sense (UnicodeError)"),
        ("to http://[", "address or answer makes no sense (ValueError)"),
    ],
)
def test_a_fault_that_passes_is_not_noticed_and_one_that_stays_is_told(
    server: Any, url: str, fault: str, reason: str
) -> None:
    file = HttpFile(url, QUICK)
    server.faults = [fault, fault]
    assert file.read(50, 100) == CONTENT[50:150]
    server.always = fault
    with pytest.raises(DataError) as caught:
        file.read(50, 100)
    told = re.sub(r"[0-9.]+ s ended", "T ended", str(caught.value))
    assert told == f"{url}: bytes 50 to 149 cannot be read: 3 tries in T ended with: {reason} (3 times)."
    server.always = ""
    assert file.read(50, 100) == CONTENT[50:150]


@pytest.mark.parametrize("fault", ["slow", "drip"])
def test_a_server_that_is_too_slow_is_given_up(server: Any, url: str, fault: str) -> None:
    file = HttpFile(url, Patience(attempts=2, timeout=0.1, pause=0.001))
    server.always = fault
    with pytest.raises(DataError, match=r"2 tries in 0\.[0-9] s ended with: no answer within 0\.1 s \(2 times\)\."):
        file.read(0, 100)


def test_what_a_server_says_for_good_is_not_asked_again(server: Any, url: str) -> None:
    file = HttpFile(url, QUICK)
    for status in ("401", "403", "404", "410"):
        server.asked.clear()
        server.faults = [status]
        with pytest.raises(DataError, match=rf"a\.tar: cannot be read \(status {status} "):
            file.read(0, 10)
        assert len(server.asked) == 1
    with pytest.raises(DataError, match="has no byte 99999"):
        file.read(99999, 1)


def test_another_size_or_version_is_another_file(server: Any, url: str) -> None:
    file = HttpFile(url, QUICK)
    server.faults = ["huge"]
    with pytest.raises(DataError, match=r'has changed since it was opened: 10240 bytes, version "1" then, 1000+ bytes'):
        file.read(0, 10)
    server.etag = '"2"'
    with pytest.raises(DataError, match=r'version "1" then, 10240 bytes, version "2" now\.'):
        file.read(0, 10)


@pytest.mark.parametrize(
    ("etag", "modified", "version"), [('"1"', "Mon", '"1"'), ("", "Mon", "Mon"), ("", "", "unknown")]
)
def test_a_version_is_the_mark_or_else_the_time_or_unknown(
    server: Any, url: str, etag: str, modified: str, version: str
) -> None:
    server.etag, server.modified = etag, modified
    file = HttpFile(url, QUICK)
    assert file.read(3, 4) == CONTENT[3:7]
    server.modified = "Tue" if modified and etag else modified  # copies of one file may have different times
    assert file.read(3, 4) == CONTENT[3:7]
    (server.folder / "a.tar").write_bytes(CONTENT + b"more")
    with pytest.raises(
        DataError, match=re.escape(f"{len(CONTENT)} bytes, version {version} then, {len(CONTENT) + 4} ")
    ):
        file.read(3, 4)


def test_a_server_that_is_gone_is_told(server: Any, url: str) -> None:
    file = HttpFile(url, QUICK)
    server.close()
    file = pickle.loads(pickle.dumps(file))  # without its connection
    with pytest.raises(DataError, match=r"bytes 0 to 9 cannot be read: 3 tries in .* s ended with: .*refused"):
        file.read(0, 10)


def test_an_empty_file_and_a_strange_address_are_refused(server: Any) -> None:
    (server.folder / "empty.tar").write_bytes(b"")
    with pytest.raises(DataError, match=r"empty\.tar: has no byte 0; it is empty"):
        HttpFile(f"{server.url}/empty.tar", QUICK)
    for address in ("http:///a.tar", "http://host:port/a.tar", "http://[/a.tar"):
        with pytest.raises(DataError, match="is no address of a web server"):
            HttpFile(address, QUICK)


def test_it_follows_where_it_is_sent_and_tells_nobody_else_the_password(server: Any, url: str) -> None:
    file = HttpFile(url.replace("//", "//ann:s%40cret@"), QUICK)
    assert server.headers[-1]["Authorization"] == "Basic YW5uOnNAY3JldA=="
    server.faults = [f"to http://localhost:{server.host.split(':')[1]}/a.tar?signed=yes"]
    assert file.read(3, 4) == CONTENT[3:7]
    assert server.asked[-1] == ("/a.tar?signed=yes", "bytes=3-6")
    assert "Authorization" not in server.headers[-1]
    server.always = f"to {url}"
    with pytest.raises(DataError, match="is sent on more than 5 times") as caught:
        file.read(3, 4)
    assert "cret" not in str(caught.value)
    assert "cret" not in file.name
    server.always = ""
    assert HttpFile(f"{url}?signature=secret", QUICK).name == f"{url}?…"


def test_names_of_other_letters_are_asked_for(server: Any) -> None:
    (server.folder / "M%C3%BCller%201.tar").write_bytes(CONTENT)  # as the server here takes what is asked for
    for name in ("Müller 1.tar", "M%C3%BCller%201.tar"):
        assert HttpFile(f"{server.url}/{name}", QUICK).read(3, 4) == CONTENT[3:7]
    assert [path for path, _ in server.asked] == ["/M%C3%BCller%201.tar"] * 4


def test_users_are_found_in_netrc(server: Any, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "netrc"
    path.write_text("machine 127.0.0.1 login ann password secret\n")
    path.chmod(0o600)
    monkeypatch.setenv("NETRC", str(path))
    http_file._user_of.cache_clear()
    HttpFile(url, QUICK)
    assert server.headers[-1]["Authorization"] == "Basic YW5uOnNlY3JldA=="
    path.write_text("machine a\nsecret x y z\n")
    http_file._user_of.cache_clear()
    with pytest.raises(DataError, match=r"netrc: cannot be read \(line \d\)") as told:
        HttpFile(url, QUICK)
    assert "secret" not in str(told.value)
    http_file._user_of.cache_clear()


def test_a_proxy_of_the_environment_is_used(server: Any, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(DataError, match=r"elsewhere\.example/a\.tar: cannot be read \(status 404"):
        HttpFile("http://elsewhere.example/a.tar", QUICK)
    assert server.asked[-1][0] == "http://elsewhere.example/a.tar"


def test_many_threads_read_at_once(url: str) -> None:
    file, wrong = HttpFile(url, QUICK), []

    def read(offset: int) -> None:
        for start in range(offset, offset + 6):
            if file.read(start, 50) != CONTENT[start : start + 50]:
                wrong.append(start)

    threads = [threading.Thread(target=read, args=(100 * number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
