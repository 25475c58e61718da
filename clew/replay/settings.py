"""What is cached: said to `clew.init(cache=...)`, by CLEW_CACHE, or for what runs inside `with clew.caching(...)`."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import re
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from datetime import timedelta
from types import MappingProxyType
from typing import Any

from clew.replay.effect import Effect, declared, seconds
from clew.store.errors import RemoteUnavailable
from clew.store.remote import Remote
from clew.tracer import init

KINDS = ("llm", "tool", "retriever", "embedding", "function")
_UNIT_BYTES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
TOKEN = "CLEW_CACHE_TOKEN"
_OF_THE_PROCESS = frozenset(("remote", "token", "options", "max_bytes"))
_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclasses.dataclass(frozen=True)
class Cache:
    """Which kinds of calls are answered from the cache, and what tools do.

    Retrievers are only if you say so: an answer depends on all that is searched. Of a vector store that is in memory (or
    FAISS) each document counts, at each call; of any other, what it holds cannot be seen, and it is asked.
    `tools` says by name what a tool does that does not say it itself (`clew.effect`): `{"search": "pure"}`,
    `{"weather": ("read", "10m")}`. A tool of which nothing is said is never cached. `ttl` bounds the age of every
    answer ("30d", or seconds). `max_bytes` bounds all answers of the store together ("2GB", or bytes): past it, those
    that save least for their size are evicted until a tenth is free.

    `remote` is where answers are shared with other machines: "file:///folder", "s3://bucket/prefix", "gs://...",
    "az://..." (`pip install 'clew[s3,hot-tier]'`). What is not known here is asked for there, what was answered here is
    uploaded in the background, and `clew.flush` waits for it; a remote that does not answer costs misses. Whoever can
    write there says what you are answered: so answers are signed with `token`, a secret of at least 16 bytes that those
    who share them have (default: the variable CLEW_CACHE_TOKEN). Without a token only a folder will do, which no other
    should be able to write to. `options` are further arguments of `obstore.store.from_url` (endpoint, region, ...).
    ValueError, or MissingExtra, for a remote that cannot be used so.
    """

    llm: bool = True
    tool: bool = True
    retriever: bool = False
    embedding: bool = True
    function: bool = True  # those that say `clew.cached`
    tools: Mapping[str, Any] = dataclasses.field(default_factory=lambda: _NOTHING)
    ttl: str | float | None = None
    max_bytes: str | int | None = None
    remote: str | None = None
    token: str | None = dataclasses.field(default=None, repr=False)
    options: Mapping[str, Any] = dataclasses.field(default_factory=lambda: _NOTHING, repr=False)

    def __post_init__(self) -> None:
        if self.remote is not None:
            with contextlib.suppress(RemoteUnavailable):  # it may answer later
                self.open_remote()
        if self.ttl is not None:
            seconds(self.ttl)
        if self.max_bytes is not None:
            size_bytes(self.max_bytes)
        for name in self.tools:
            self.effect_of(name)

    @property
    def ttl_seconds(self) -> float | None:
        """The greatest age of an answer that is served."""
        return None if self.ttl is None else seconds(self.ttl)

    @property
    def bound_bytes(self) -> int | None:
        """The greatest size of all answers of the store."""
        return None if self.max_bytes is None else size_bytes(self.max_bytes)

    def open_remote(self) -> Remote:
        """The remote. RemoteUnavailable where it cannot be reached now, ValueError for what is none."""
        url = str(self.remote)
        options = dict(self.options)
        if not url.startswith(("file:", "memory:")):  # a call waits for it: less patient than an upload could be
            client = {"connect_timeout": timedelta(seconds=3), "timeout": timedelta(seconds=20)}
            options["client_options"] = client | dict(options.get("client_options", {}))
            options.setdefault("retry_config", {"max_retries": 1, "retry_timeout": timedelta(seconds=10)})
        return Remote(url, token=self.token or os.environ.get(TOKEN) or None, options=options)

    @functools.cached_property
    def kinds(self) -> frozenset[str]:
        """The kinds of calls that may be answered from the cache."""
        return frozenset(kind for kind in KINDS if getattr(self, kind))

    def effect_of(self, tool: str) -> Effect | None:
        """What is said here of a tool."""
        said = self.tools.get(tool)
        if said is None or isinstance(said, Effect):
            return said
        return declared(said) if isinstance(said, str) else declared(said[0], ttl=said[1])

    @classmethod
    def of(cls, said: Any) -> Cache | None:
        """What `init` or the environment says: a Cache, True or False, or kinds such as "llm,embedding". ValueError for
        anything else."""
        if isinstance(said, cls):
            return said
        if said is None or isinstance(said, bool):
            return cls() if said else None
        words = [word.strip() for word in str(said).lower().split(",") if word.strip()]
        if words in ([], ["0"], ["off"], ["false"], ["no"]):
            return None
        if words in (["1"], ["on"], ["true"], ["yes"], ["all"]):
            return cls()
        unknown = [word for word in words if word not in KINDS]
        if unknown:
            raise ValueError(f"cache={said!r}: {unknown[0]!r} is no kind of call; there are {', '.join(KINDS)}")
        llm, tool, retriever, embedding, function = (kind in words for kind in KINDS)
        return cls(llm, tool, retriever, embedding, function)


def size_bytes(text: str | int) -> int:
    """A size in bytes: a whole number, or a text with B, kB, MB, GB or TB. ValueError for anything else.

    >>> size_bytes("2GB"), size_bytes("1.5 MB"), size_bytes(4096)
    (2000000000, 1500000, 4096)
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)b?\s*", str(text).lower())
    if match is None or isinstance(text, (bool, float)):
        raise ValueError(f"a size is a number of bytes or a text such as '500MB' or '2GB'; not {text!r}")
    size = int(float(match[1]) * _UNIT_BYTES[match[2]])
    if size < 1:
        raise ValueError(f"a size is at least one byte, not {text!r}")
    return size


_changed: ContextVar[Mapping[str, Any]] = ContextVar("clew-caching", default=_NOTHING)


@contextlib.contextmanager
def caching(enabled: bool = True, **changes: Any) -> Iterator[None]:
    """What runs inside is cached otherwise than `init` said: `with clew.caching(False)`, `with clew.caching(llm=False)`.

    The fields are those of `clew.Cache`, but for its remote, which is the process's, and its size, which is the
    store's. Where `init` said nothing of a
    cache, `clew.caching()` switches it on, with every kind that is not switched off.
    """
    names = {field.name for field in dataclasses.fields(Cache)} - _OF_THE_PROCESS
    if unknown := changes.keys() - names:
        raise TypeError(f"clew.caching has no {min(unknown)!r}; there are {', '.join(sorted(names))}")
    Cache(**changes)  # what makes no sense is said now
    tracer = init.active()
    if enabled and tracer is not None:
        if not tracer.settings.capture:
            raise ValueError("a cache keeps what was answered, and clew.init was told capture=False")
        from clew.replay.stack import use_cache

        use_cache(tracer, None)
    token = _changed.set({**_changed.get(), **changes, "enabled": enabled})
    try:
        yield
    finally:
        _changed.reset(token)


def here(said: Cache | None, *, asked_for: bool = False) -> Cache | None:
    """What is cached at this place, where `init` said `said`. `asked_for`: what the program itself says is cached needs
    no more."""
    changes = _changed.get()
    if asked_for and said is None:
        said = Cache()
    if not changes:
        return said
    if not changes["enabled"]:
        return None
    return dataclasses.replace(said or Cache(), **{name: value for name, value in changes.items() if name != "enabled"})
