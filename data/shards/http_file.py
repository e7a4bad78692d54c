"""Places of a file on a web server, by range requests of the standard library."""

import base64
import http.client
import io
import netrc
import os
import re
import socket
import ssl
import threading
import time
import urllib.request
import zlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit

from facelab.data.shards.address import shown
from facelab.data.shards.patience import FailedError, Patience
from facelab.data.shards.ranged_file import RangedFile
from facelab.errors import DataError
from facelab.version import __version__

REDIRECTS = frozenset((301, 302, 303, 307, 308))
MOST_REDIRECTS = 5
FOR_A_WHILE = frozenset((408, 425, 429, 500, 502, 503, 504))
"""Answers that may be others a moment later; any other is the last word."""
CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})")
CLOSED = (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError)
PORTS = {"http": 80, "https": 443}
SENT = "/?%:@!$&'()*+,;=~"
PIECE = 1 << 16
ANSWER = 1 << 20
"""Bytes that an answer may have beside twice those that were asked for: its headers, and what parts it into chunks."""


class HttpFile(RangedFile):
    """A file on a web server that gives parts of files (status 206).

    Every answer must be for the place that was asked for, of a file of the size and version (``ETag``, or else
    ``Last-Modified``) that it had when it was opened. User and password, in the address or in ``~/.netrc``, go to its
    own server alone.

    Args:
        address: ``http://`` or ``https://``.
        patience: How often and how long it is asked for.

    Raises:
        DataError: If it cannot be had, or the server gives whole files only.
    """

    def __init__(self, address: str, patience: Patience | None = None) -> None:
        self.address, self.name = address, shown(address)
        self.patience = patience or Patience()
        self._connections = _Connections()
        self.size, self.version = 0, ""
        self.read(0, 1)

    def __getstate__(self) -> dict[str, Any]:
        """All but the open connections."""
        return {key: value for key, value in vars(self).items() if key != "_connections"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """The same file; connections are made when something is read."""
        vars(self).update(state, _connections=_Connections())

    def read(self, offset: int, size: int) -> bytes:
        """``size`` bytes from ``offset``."""
        if not size:
            return b""
        key = zlib.crc32(f"{self.address} {offset}".encode())
        what = f"{self.name}: bytes {offset} to {offset + size - 1}"
        return self.patience.of(lambda deadline: self._try(offset, size, deadline), what, key)

    def _try(self, offset: int, size: int, deadline: float) -> bytes:
        try:
            return self._exchange(self.address, offset, size, deadline)
        except TimeoutError:
            self._connections.drop()
            raise FailedError(f"no answer within {self.patience.timeout:g} s") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            # http.client and the encoding of hosts answer what makes no sense with a ValueError.
            self._connections.drop()
            raise FailedError(_reason(error)) from None
        except BaseException:
            # What is left of an answer would be taken for the next one.
            self._connections.drop()
            raise

    def _exchange(self, address: str, offset: int, size: int, deadline: float) -> bytes:
        for _ in range(MOST_REDIRECTS + 1):
            url = _checked(address)
            if url.scheme != "https" and self.address.startswith("https:"):
                raise DataError(f"{self.name}: is sent on from https to http, where anybody could change it.")
            limits = _Limits(deadline, 2 * size + ANSWER)
            answer = self._connections.ask(url, self._headers(url, offset, size), limits)
            if answer.status not in REDIRECTS:
                return self._content(answer, offset, size)
            self._connections.drop()
            address = urljoin(address, answer.headers.get("Location", ""))
        raise DataError(f"{self.name}: is sent on more than {MOST_REDIRECTS} times.")

    def _headers(self, url: SplitResult, offset: int, size: int) -> dict[str, str]:
        headers = {
            "Range": f"bytes={offset}-{offset + size - 1}",
            "Accept-Encoding": "identity",
            "User-Agent": f"facelab/{__version__}",
        }
        own = urlsplit(self.address)
        user = (unquote(own.username), unquote(own.password or "")) if own.username else _user_of(own.hostname or "")
        if user and (url.scheme, url.hostname, url.port) == (own.scheme, own.hostname, own.port):
            headers["Authorization"] = f"Basic {base64.b64encode(':'.join(user).encode()).decode()}"
        return headers

    def _content(self, answer: http.client.HTTPResponse, offset: int, size: int) -> bytes:
        if answer.status == 200:
            raise FailedError("the server gave the whole file instead of a part (status 200)")
        if answer.status in FOR_A_WHILE:
            raise FailedError(f"status {answer.status}", wait=_asked_wait(answer))
        if answer.status == 416:
            raise DataError(f"{self.name}: has no byte {offset}; it is empty or has changed since it was opened.")
        if answer.status != 206:
            raise DataError(f"{self.name}: cannot be read (status {answer.status} {answer.reason[:80]}).")
        self._check_range(answer, offset, size)
        if answer.length not in (None, size):
            raise FailedError(f"the answer announces {answer.length} bytes instead of {size}")
        data = b"".join(_pieces(answer, size))
        if len(data) != size or answer.read(1):
            more = "more" if len(data) == size else f"{len(data)}"
            raise FailedError(f"the answer had {more} of {size} bytes")
        return data

    def _check_range(self, answer: http.client.HTTPResponse, offset: int, size: int) -> None:
        """Refuse what is not the part that was asked for, of the file that was opened."""
        said = answer.headers.get("Content-Range", "")
        found = CONTENT_RANGE.fullmatch(said)
        if found is None or (int(found[1]), int(found[2])) != (offset, offset + size - 1):
            raise FailedError(f"the server gave another part ({said[:80]!r})")
        if answer.headers.get("Content-Encoding", "identity") != "identity":
            raise FailedError("the server gave the part compressed")
        total = int(found[3])
        # A weak mark may stay while bytes change, and copies of one file on several machines may have different times.
        version = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
        if not self.size:
            self.size, self.version = total, version
        elif (total, version) != (self.size, self.version):
            raise DataError(
                f"{self.name}: has changed since it was opened: {_file(self.size, self.version)} then, "
                f"{_file(total, version)} now."
            )


@cache
def _user_of(host: str) -> tuple[str, str] | None:
    """User and password of a server in the file that ``NETRC`` names, else ``~/.netrc``; None if it has none.

    Raises:
        DataError: If the file is there and cannot be read.
    """
    path = Path(os.environ.get("NETRC") or Path.home() / ".netrc")
    if not path.is_file():
        return None
    try:
        found = netrc.netrc(path).hosts.get(host)
    except (OSError, netrc.NetrcParseError, UnicodeDecodeError) as error:
        line = getattr(error, "lineno", None)
        raise DataError(f"{path}: cannot be read{f' (line {line})' if line else ''}.") from None
    return (found[0], found[2]) if found and found[0] and found[2] else None


def _file(size: int, version: str) -> str:
    return f"{size} bytes, version {version[:80] or 'unknown'}"


def _checked(address: str) -> SplitResult:
    try:
        url = urlsplit(address)
        sound = url.scheme in PORTS and url.hostname and url.port != 0
    except ValueError:  # of a port that is no number, or a bracket that is not closed
        sound = False
    if not sound:
        raise DataError(f"{shown(address)}: is no address of a web server.")
    return url


def _reason(error: Exception) -> str:
    """What went wrong with a connection, in a few words."""
    if isinstance(error, CLOSED):
        return "the connection was closed without an answer"
    if isinstance(error, http.client.IncompleteRead):
        return "the answer was cut off"
    if isinstance(error, http.client.HTTPException):
        return f"the answer is no HTTP ({type(error).__name__})"
    if isinstance(error, ValueError):  # its text may have the address, and so a password
        return f"address or answer makes no sense ({type(error).__name__})"
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def _asked_wait(answer: http.client.HTTPResponse) -> float:
    """Seconds of ``Retry-After``; a date is not looked at."""
    said = answer.headers.get("Retry-After", "").strip()
    return float(said) if re.fullmatch(r"[0-9]{1,6}", said) else 0.0


def _pieces(answer: http.client.HTTPResponse, size: int) -> list[bytes]:
    """Up to ``size`` bytes of an answer; memory is taken for what came, not for what was announced."""
    pieces, left = [], size
    while left and (piece := answer.read(min(left, PIECE))):
        pieces.append(piece)
        left -= len(piece)
    return pieces


class _Connections(threading.local):
    """The open connection of each thread: a new one costs several times the way there and back."""

    def __init__(self) -> None:
        self.kept: _Connection | None = None

    def ask(self, url: SplitResult, headers: dict[str, str], limits: "_Limits") -> http.client.HTTPResponse:
        """The answer to a request for a part of a file, its content not yet read.

        Raises:
            OSError: If the connection fails; `TimeoutError` past the deadline.
            http.client.HTTPException: If the answer is none.
        """
        # With the process: a child that was forked must not talk through its parent's connection.
        place = url.scheme, url.hostname or "", url.port or PORTS[url.scheme], os.getpid()
        if self.kept is not None and self.kept.place == place:
            try:
                return self.kept.ask(url, headers, limits)
            except CLOSED:
                pass  # servers close what was idle for a while; that is no failure
        self.drop()
        self.kept = _Connection(place, limits.deadline)
        return self.kept.ask(url, headers, limits)

    def drop(self) -> None:
        """Close the connection, if there is one."""
        if self.kept is not None:
            self.kept.close()
            self.kept = None


class _Connection:
    """A connection to one server."""

    def __init__(self, place: tuple[str, str, int, int], deadline: float) -> None:
        self.place = place
        scheme, host, port, _ = place
        left = max(deadline - time.monotonic(), 0.001)
        proxy = _proxy(scheme, host)
        self._to_proxy = proxy is not None and scheme == "http"
        near, near_port = (host, port) if proxy is None else proxy
        if scheme == "https":
            self._http: http.client.HTTPConnection = http.client.HTTPSConnection(
                near, near_port, timeout=left, context=ssl.create_default_context()
            )
            if proxy is not None:
                self._http.set_tunnel(host, port)
        else:
            self._http = http.client.HTTPConnection(near, near_port, timeout=left)

    def ask(self, url: SplitResult, headers: dict[str, str], limits: "_Limits") -> http.client.HTTPResponse:
        """The answer to a request, its content not yet read."""
        # Blanks and letters of other alphabets are sent as %20 and so on; what was written so stays as it is.
        target = quote((url.path or "/") + (f"?{url.query}" if url.query else ""), safe=SENT)
        if self._to_proxy:
            target = f"http://{url.netloc.rpartition('@')[2]}{target}"
        self._http.response_class = _response_within(limits)
        if self._http.sock is not None:
            self._http.sock.settimeout(max(limits.deadline - time.monotonic(), 0.001))
        self._http.request("GET", target, headers=headers)
        return self._http.getresponse()

    def close(self) -> None:
        """Close it."""
        self._http.close()


def _proxy(scheme: str, host: str) -> tuple[str, int] | None:
    """Host and port of the proxy that the environment names for a server."""
    address = urllib.request.getproxies().get(scheme)
    if not address or urllib.request.proxy_bypass(host):
        return None
    proxy = urlsplit(address if "://" in address else f"http://{address}")
    return (proxy.hostname, proxy.port or PORTS["http"]) if proxy.hostname else None


@dataclass(frozen=True)
class _Limits:
    """Of an answer: when it must have come, and its most bytes."""

    deadline: float
    size: int


def _response_within(limits: _Limits) -> type[http.client.HTTPResponse]:
    """Answers that must have come completely by a time, and end."""

    class Response(http.client.HTTPResponse):
        def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
            super().__init__(sock, *args, **kwargs)
            self.fp = io.BufferedReader(_Limited(self.fp.detach(), sock, limits))

    return Response


class _Limited(io.RawIOBase):
    """What comes through a socket: a server that sends a byte now and then, or without end, does not hold a reader."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, limits: _Limits) -> None:
        self._raw, self._sock, self._deadline = raw, sock, limits.deadline
        self._left = limits.size

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Any) -> int | None:
        """Read what is there, at most as much as fits."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._sock.settimeout(left)
        count = self._raw.readinto(buffer)
        self._left -= count or 0
        if self._left < 0:
            raise OSError("the answer does not end")
        return count

    def close(self) -> None:
        """Close it, so that the socket is let go."""
        if not self.closed:
            self._raw.close()
        super().close()
