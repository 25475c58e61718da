"""The network guard of strict replay: what reaches for the network in this process raises, and is remembered.

Python tells of every connection that its own sockets make, and of every name they look up, by audit events
(`sys.addaudithook`), whichever library asks, in any thread and any event loop. Blocked are connections, datagrams and
lookups by name; sockets of the machine itself (AF_UNIX, pairs) stay, and so do addresses that were allowed.

Not seen, and so not blocked: sockets that C, C++ or Rust code opens for itself (grpc, obstore, libpq, libcurl, uvloop,
NCCL); child processes, unless they replay too; a connection that was open before; servers that wait for others to connect;
and the lookup, not the connection, where a name is given to `socket.connect` itself.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import socket
import sys
import threading
from collections import Counter
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self

from clew.store.errors import NetworkBlocked
from clew.tracer import context

REMEMBERED = 10_000

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# They stay on this machine: Netlink and ALG are the Linux kernel's, SYSTEM is macOS's.
_LOCAL = {
    int(number) for name in ("AF_UNIX", "AF_NETLINK", "AF_ALG", "AF_SYSTEM") if (number := getattr(socket, name, None))
}
_CONNECTIONS = ("socket.connect", "socket.sendto", "socket.sendmsg")
_LOOKUPS = ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo")


@dataclasses.dataclass(frozen=True)
class Blocked:
    """What was blocked: "connect", "sendto", "sendmsg" or a lookup; `port` is None where none was named, `path` is of the
    span around it, None outside of any."""

    what: str
    host: str
    port: int | None
    path: str | None

    @property
    def address(self) -> str:
        """Host and port."""
        return (
            self.host
            if self.port is None
            else f"[{self.host}]:{self.port}"
            if ":" in self.host
            else f"{self.host}:{self.port}"
        )

    def to_dict(self) -> dict[str, Any]:
        """As it stands in the JSON."""
        return dataclasses.asdict(self)


class Guard:
    """While it is entered, the network is out of reach for all threads of this process: NetworkBlocked.

    `allow` names hosts, addresses ("127.0.0.1") and networks ("10.0.0.0/8") that stay; loopback is blocked unless it is
    named. A stream's socket is closed when it is blocked. A host's addresses are looked up once, on entering. Guards may be nested: each must allow. May be entered again
    after it was left; `blocked` goes on counting.
    """

    def __init__(self, *, allow: Iterable[str] = ()) -> None:
        if isinstance(allow, str):
            raise TypeError(f"allow is a list of hosts: allow=({allow!r},)")
        self._names: set[str] = set()
        self._networks: list[Network] = []
        for one in allow:
            try:
                self._networks.append(ipaddress.ip_network(one, strict=False))
            except ValueError:
                if not one.strip() or set(one) & set("/: "):
                    raise ValueError(
                        f"{one!r} is no host: name one (api.example.com), an address or a network (10.0.0.0/8), without a "
                        "scheme or a port"
                    ) from None
                self._names.add(_name(one))
        self._addresses: set[Address] = set()
        self._blocked: list[Blocked] = []
        self._beyond = 0
        self._entered = False

    def __repr__(self) -> str:
        return f"<network guard, {'on' if self._entered else 'off'}, {self.count} blocked>"

    @property
    def blocked(self) -> dict[Blocked, int]:
        """What was blocked, and how often. The first 10,000 are told apart."""
        return dict(Counter(list(self._blocked)))

    @property
    def count(self) -> int:
        """How often something was blocked."""
        return len(self._blocked) + self._beyond

    def __enter__(self) -> Self:
        if self._entered:
            raise RuntimeError(f"{self!r} is entered already")
        for name in self._names:
            self._addresses.update(_addresses(name))
        self._entered = True
        _enter(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._entered = False
        _leave(self)

    def allows(self, host: str) -> bool:
        """Whether a host, by name or address, may be reached."""
        address = _address(host)
        if address is None:
            return _name(host) in self._names
        return address in self._addresses or any(address in network for network in self._networks)

    def block(self, blocked: Blocked) -> None:
        """Remember, and raise NetworkBlocked."""
        if len(self._blocked) < REMEMBERED:
            self._blocked.append(blocked)
        else:
            self._beyond += 1
        where = f" in {blocked.path}" if blocked.path else ""
        raise NetworkBlocked(
            f"a strict replay reaches no network, and {blocked.what} to {blocked.address}{where} would. What the recording "
            "has no answer for needs mode='hybrid'; a host that is no part of the answer can be allowed by its name"
        )


_active: tuple[Guard, ...] = ()
_lock = threading.Lock()
_hooked = False


def _enter(guard: Guard) -> None:
    global _active, _hooked
    with _lock:
        _active = (*_active, guard)
        if not _hooked:
            sys.addaudithook(_hook)  # it stays for good, and looks at what is active
            _hooked = True


def _leave(guard: Guard) -> None:
    global _active
    with _lock:
        _active = tuple(one for one in _active if one is not guard)


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if event[:7] != "socket." or not _active:
        return
    target = _target(event, arguments)
    if target is None:
        return
    host, port = target
    for guard in _active:
        if not guard.allows(host):
            if event == "socket.connect" and arguments[0].type == socket.SOCK_STREAM:
                arguments[0].close()  # who opened it closes it on an OSError, which this is not
            guard.block(Blocked(event.removeprefix("socket."), host, port, _path()))


def _target(event: str, arguments: tuple[Any, ...]) -> tuple[str, int | None] | None:
    """Host and port that an event is about; None for what reaches no network."""
    if event in _CONNECTIONS:
        return _destination(*arguments[:2])
    if event not in _LOOKUPS:
        return None
    host, port = arguments[0], arguments[1] if event == "socket.getaddrinfo" else None
    if event == "socket.getnameinfo":
        host, port = arguments[0][:2]
    host = _text(host)
    if not host:
        return None  # the wildcard or loopback: nothing is looked up
    if event in ("socket.getaddrinfo", "socket.gethostbyname") and _address(host) is not None:
        return None  # an address names itself
    return host, _port(port)


def _destination(sock: socket.socket, address: Any) -> tuple[str, int | None] | None:
    if address is None or sock.family in _LOCAL:
        return None  # a datagram on a socket that is connected, or no network
    if sock.family in (socket.AF_INET, socket.AF_INET6) and isinstance(address, tuple) and len(address) > 1:
        return _text(address[0]) or "0.0.0.0", _port(address[1])
    return f"{socket.AddressFamily(sock.family).name} {address!r}", None


def _text(host: Any) -> str:
    if isinstance(host, bytes | bytearray):
        return bytes(host).decode("ascii", "backslashreplace")
    return "" if host is None else str(host)


def _port(port: Any) -> int | None:
    if isinstance(port, bytes):
        port = port.decode("ascii", "replace")
    if isinstance(port, str) and port.isdecimal():
        return int(port)
    return port if isinstance(port, int) else None


def _name(host: str) -> str:
    """A host's name as names are compared."""
    return host.rstrip(".").lower()


def _address(host: str) -> Address | None:
    """The address that a text is; an IPv4 address written as IPv6 is the former. None for a name."""
    try:
        found = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        try:  # `127.1`, `0x7f000001`: what the C library takes for an address
            return (
                ipaddress.IPv4Address(socket.inet_aton(host)) if not host.strip("0123456789abcdefxABCDEFX.") else None
            )
        except (OSError, UnicodeError):
            return None
    return getattr(found, "ipv4_mapped", None) or found


def _addresses(name: str) -> set[Address]:
    try:
        found = socket.getaddrinfo(name, None)
    except OSError:
        return set()
    return {address for one in found if (address := _address(str(one[4][0]))) is not None}


def _path() -> str | None:
    span = context.enclosing()
    return span.path if span is not None else None
