"""Shards of tar, and a web server on this machine that misbehaves as it is told."""

import io
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

Files = Mapping[str, bytes]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of caches of this test."""
    monkeypatch.setenv("FACELAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def tar_of() -> Callable[..., Path]:
    """A function that writes files, given by name or as pairs, into a tar archive."""

    def write(path: Path, files: Files | list[tuple[str, bytes]], form: int = tarfile.PAX_FORMAT) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, "w", format=form) as archive:
            for name, content in files.items() if isinstance(files, Mapping) else files:
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        return path

    return write


class Server:
    """A web server that gives parts of the files of a folder.

    Attributes:
        folder: Its files.
        faults: What goes wrong with the next answers, one each; see `_Handler`.
        always: What goes wrong with all others.
        asked: Path and range of each request.
        headers: Headers of each request.
        etag: The version of all files; empty if the server says none.
        modified: The time of all files; empty if the server says none.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.faults: list[str] = []
        self.always = ""
        self.asked: list[tuple[str, str]] = []
        self.headers: list[dict[str, str]] = []
        self.etag, self.modified = '"1"', ""
        handler = type("Handler", (_Handler,), {"told": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        self.host = f"127.0.0.1:{self._http.server_port}"
        self.url = f"http://{self.host}"

    def close(self) -> None:
        """Refuse connections from now on."""
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    told: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or each answer waits 40 ms

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        told = self.told
        told.asked.append((self.path, self.headers.get("Range", "")))
        told.headers.append(dict(self.headers))
        fault = told.faults.pop(0) if told.faults else told.always
        path = told.folder / self.path.partition("?")[0].strip("/")
        if fault == "drop":
            self.close_connection = True
            return
        if fault.isdigit():
            self._answer(int(fault), b"", {"Retry-After": "0"})
        elif fault.startswith("to "):
            self._answer(302, b"", {"Location": fault.removeprefix("to ")})
        elif not path.is_file():
            self._answer(404, b"")
        else:
            self._part(path.read_bytes(), fault)

    def _part(self, data: bytes, fault: str) -> None:
        first, last = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
        if first >= len(data):
            self._answer(416, b"")
            return
        if fault == "whole":
            self._answer(200, data)
            return
        part, total = data[first : last + 1], len(data)
        said = f"bytes {first}-{first + len(part) - 1}/{total}"
        if fault == "other part":
            said = f"bytes {first + 1}-{first + len(part)}/{total}"
        if fault == "huge":
            said = f"bytes {first}-{first + len(part) - 1}/{10**17}"
        marks = {"ETag": self.told.etag, "Last-Modified": self.told.modified}
        headers = {"Content-Range": said, **{name: mark for name, mark in marks.items() if mark}}
        headers["Content-Length"] = str(len(part))
        if fault == "more":
            part, headers["Content-Length"] = part + b"x" * 10, str(len(part) + 10)
        if fault == "announces":
            headers["Content-Length"] = str(10**15)
        if fault == "packed":
            headers["Content-Encoding"] = "gzip"
        if fault == "cut":
            part, self.close_connection = part[: len(part) // 2], True
        if fault == "slow":
            time.sleep(0.4)
        if fault in ("-1", "-5"):  # the size of a chunk
            self.wfile.write(f"HTTP/1.1 206 .\r\nContent-Range: {said}\r\nETag: {self.told.etag}\r\n".encode())
            self.wfile.write(f"Transfer-Encoding: chunked\r\n\r\n{fault}\r\n".encode())
            with suppress(OSError):  # until whoever asked has left
                for _ in range(1000):
                    self.wfile.write(bytes(1 << 16))
            self.close_connection = True
            return
        if fault == "no http":
            self.wfile.write(b"hello\r\n\r\n")
            self.close_connection = True
            return
        try:
            self.send_response(206)
            for key, value in headers.items():
                self.send_header(key, value)
            self.end_headers()
            for number in range(len(part) if fault == "drip" else 0):
                self.wfile.write(part[number : number + 1])
                time.sleep(0.02)
            self.wfile.write(b"" if fault == "drip" else part)
        except OSError:
            self.close_connection = True  # whoever asked has left

    def _answer(self, status: int, content: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        try:
            self.wfile.write(content)
        except OSError:
            self.close_connection = True


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A web server with the files of the folder ``served``."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "served").mkdir()
    running = Server(tmp_path / "served")
    yield running
    running.close()
