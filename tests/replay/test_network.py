"""The network guard: whoever reaches for the network is stopped, named and remembered; the machine's own sockets stay."""

from __future__ import annotations

import asyncio
import multiprocessing
import socket
import threading
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

import clew
from clew.replay.network import Blocked, Guard
from clew.store.errors import NetworkBlocked
from clew.tracer.init import Tracer


class Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"reached")

    def log_message(self, *about: Any) -> None:
        pass


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """A server on this machine that answers."""
    server = HTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def fetched(port: int) -> bytes:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{port}", timeout=10) as answer:
        found: bytes = answer.read()
        return found


async def opened(port: int) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.close()
    await writer.wait_closed()


def test_a_connection_is_stopped_and_named_and_allowed_again_afterwards(port: int) -> None:
    assert fetched(port) == b"reached"
    guard = Guard()
    with guard, pytest.raises(NetworkBlocked, match=rf"connect to 127\.0\.0\.1:{port}"):
        fetched(port)
    assert guard.blocked == {Blocked("connect", "127.0.0.1", port, None): 1}
    assert fetched(port) == b"reached"


def test_a_client_does_not_take_it_for_a_failed_connection(port: int) -> None:
    """urllib and httpx make their own errors, which are retried, of every OSError."""
    assert not issubclass(NetworkBlocked, OSError)
    with (
        httpx.Client(transport=httpx.HTTPTransport(retries=3)) as client,
        Guard() as guard,
        pytest.raises(NetworkBlocked),
    ):
        client.get(f"http://127.0.0.1:{port}")
    assert guard.count == 1


def test_the_span_around_it_is_named(tracer: Tracer, port: int) -> None:
    with Guard() as guard, clew.run("answer"), clew.trace("look up", kind="tool"):
        assert stopped(port)
    assert [one.path for one in guard.blocked] == ["answer/look up"]


@pytest.mark.parametrize("host", ["example.invalid", "localhost", b"example.invalid"])
def test_a_name_is_not_looked_up(host: Any) -> None:
    with Guard() as guard:
        with pytest.raises(NetworkBlocked):
            socket.getaddrinfo(host, 443)
        with pytest.raises(NetworkBlocked):
            socket.gethostbyname(host)
        with pytest.raises(NetworkBlocked):
            socket.create_connection((host, 443), timeout=1)
    name = host.decode() if isinstance(host, bytes) else host
    assert guard.blocked == {
        Blocked("getaddrinfo", name, 443, None): 2,
        Blocked("gethostbyname", name, None, None): 1,
    }


def test_addresses_are_looked_up_neither_forwards_nor_backwards() -> None:
    with Guard() as guard:
        assert socket.getaddrinfo("127.0.0.1", 80)
        assert socket.getaddrinfo(None, 80)
        with pytest.raises(NetworkBlocked):
            socket.gethostbyaddr("127.0.0.1")
        with pytest.raises(NetworkBlocked):
            socket.getnameinfo(("127.0.0.1", 80), 0)
    assert {one.what for one in guard.blocked} == {"gethostbyaddr", "getnameinfo"}


def test_datagrams_are_stopped() -> None:
    with Guard() as guard, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for send in (
            lambda: sock.sendto(b"x", ("127.0.0.1", 9)),
            lambda: sock.sendto(b"x", 0, ("127.0.0.1", 9)),
            lambda: sock.sendmsg([b"x"], [], 0, ("127.0.0.1", 9)),
            lambda: sock.connect(("127.0.0.1", 9)),
            lambda: sock.connect_ex(("127.0.0.1", 9)),
        ):
            with pytest.raises(NetworkBlocked, match=r"127\.0\.0\.1:9"):
                send()
    assert guard.count == 5


def stopped(port: int) -> bool:
    with pytest.raises(NetworkBlocked):
        fetched(port)
    return True


def test_threads_and_tasks_are_stopped(port: int) -> None:
    async def together() -> list[Any]:
        loop = asyncio.get_running_loop()
        with socket.socket() as sock:
            sock.setblocking(False)
            return await asyncio.gather(
                opened(port),
                loop.sock_connect(sock, ("127.0.0.1", port)),
                loop.getaddrinfo("example.invalid", 443),
                loop.create_connection(asyncio.Protocol, "example.invalid", 443),
                return_exceptions=True,
            )

    with Guard() as guard, ThreadPoolExecutor() as pool:
        assert all(pool.map(stopped, [port] * 4))
        assert {type(one) for one in asyncio.run(together())} == {NetworkBlocked}
    assert guard.count == 8
    asyncio.run(opened(port))


def doubled(number: int) -> int:
    return 2 * number


def test_the_machines_own_sockets_stay(tmp_path: Path) -> None:
    with Guard() as guard:
        one, other = socket.socketpair()
        with one, other:
            one.sendall(b"x")
            assert other.recv(1) == b"x"
        with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
            place = str(tmp_path / "s")
            server.bind(place)
            server.listen()
            client.connect(place)
        asyncio.run(asyncio.sleep(0))
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            assert pool.map(doubled, [4]) == [8]
    assert guard.count == 0


@pytest.mark.parametrize("allow", ["127.0.0.1", "127.0.0.0/8", "localhost", "LOCALHOST."])
def test_what_is_allowed_is_reached_and_nothing_else(port: int, allow: str) -> None:
    with Guard(allow=[allow]) as guard:
        assert fetched(port) == b"reached"
        with pytest.raises(NetworkBlocked), socket.socket() as sock:
            sock.connect(("192.0.2.1", 80))
        with pytest.raises(NetworkBlocked):
            socket.getaddrinfo("example.invalid", 80)
        assert bool(guard.allows("localhost")) == ("local" in allow.lower())
    assert guard.count == 2


@pytest.mark.parametrize("host", ["::ffff:127.0.0.1", "127.1", "0x7f000001"])
def test_an_address_is_known_however_it_is_written(host: str) -> None:
    assert Guard(allow=["127.0.0.1"]).allows(host)
    assert not Guard(allow=["127.0.0.2"]).allows(host)


def test_the_wildcard_is_loopback_by_another_name(port: int) -> None:
    with Guard() as guard, socket.socket() as sock, pytest.raises(NetworkBlocked):
        sock.connect(("", port))
    assert [one.host for one in guard.blocked] == ["0.0.0.0"]


def test_of_nested_guards_each_must_allow(port: int) -> None:
    with Guard() as outer, Guard(allow=["127.0.0.1"]) as inner:
        with pytest.raises(NetworkBlocked):
            fetched(port)
        with pytest.raises(RuntimeError, match="entered already"), inner:
            pass
    assert (outer.count, inner.count) == (1, 0)
    with inner:
        assert fetched(port) == b"reached"


def test_a_single_text_is_no_list_of_hosts() -> None:
    with pytest.raises(TypeError, match=r"allow=\('127\.0\.0\.1',\)"):
        Guard(allow="127.0.0.1")


def test_what_was_blocked_is_counted_without_end_and_told_apart_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clew.replay.network.REMEMBERED", 3)
    with Guard() as guard:
        for _ in range(5):
            with pytest.raises(NetworkBlocked):
                socket.getaddrinfo("example.invalid", None)
    assert guard.count == 5
    assert guard.blocked == {Blocked("getaddrinfo", "example.invalid", None, None): 3}
    assert next(iter(guard.blocked)).to_dict()["host"] == "example.invalid"
