"""The gate of one process: what may be stored of content, and what of it is in the log already.

What was written is remembered, so that a text met again costs one dictionary lookup.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from clew.store.digest import storable
from clew.store.log import Log
from clew.store.record import Slot
from clew.store.sink import Packed
from clew.tracer.constant import Fixed
from clew.tracer.credential import names_a_secret
from clew.tracer.memo import ItemMemo, ListMemo, Look
from clew.tracer.secret import SecretRegistry

REMEMBERED = 8192
_MEMO_CHARS = 64 << 20
_KNOWN = 1 << 19


class Clean(str):
    """An attribute's text that a framework or clew made itself, such as a task id: there is nothing to redact in it."""

    __slots__ = ()


class Cleaner(Protocol):
    """What redacts (redaction.Redactor)."""

    @property
    def secrets(self) -> SecretRegistry: ...
    def text(self, text: str) -> str: ...
    def named(self, name: str, value: Any) -> Any: ...
    def data(self, data: bytes) -> bytes: ...
    def after_fork(self) -> None: ...


class News:
    """What a batch brings that the gate did not know: remembered once it is in the log."""

    __slots__ = ("fresh", "items", "links", "texts")

    def __init__(self) -> None:
        self.fresh: set[bytes] = set()
        self.texts: list[tuple[str, bytes]] = []
        self.items: list[tuple[Look, bytes]] = []
        self.links: dict[bytes, bytes] = {}


class Written(Protocol):
    """What is written at once (capture.Batch)."""

    frames: list[bytes]
    news: News | None

    @property
    def current(self) -> bool: ...


class Gate:
    """The gate of one process. `content=False` keeps digests and structure, and stores no content."""

    def __init__(self, log: Log, cleaner: Cleaner, blob_folder: Path, *, content: bool = True) -> None:
        self.log = log
        self.cleaner = cleaner
        self.blob_folder = blob_folder
        self.content = content
        self.known: set[bytes] = set()
        self.texts: dict[str, bytes] = {}
        self.text_chars = 0
        self.inlines: dict[str, str] = {}
        self.text_lists: dict[tuple[str, ...], bytes] = {}  # short ones that are in the log, with their texts
        self.names: dict[str, str] = {}
        self.innocent: set[str] = set()  # names that do not say that what stands under them is secret
        self.keys: dict[Any, str] = {}  # of attributes that say neither that nor that they are content
        self.fixed: dict[int, tuple[Fixed, dict[str, Any]]] = {}  # by identity: an entry holds what was cleaned
        self.packed: dict[bytes, Packed] = {}  # small dicts of plain values, by what marshal makes of them
        self.items = ItemMemo()
        self.lists = ListMemo(self.items)
        self.links: dict[bytes, bytes] = {}
        self.slots: dict[tuple[Any, ...], Slot] = {}  # of texts and constants that are in the log
        self.secrets = cleaner.secrets
        self.version = self.secrets.version  # of the secrets, when what is remembered was found clean
        self.rested = True  # nothing was written since it was set
        self._written: Callable[[], None] = lambda: None

    def tell(self, written: Callable[[], None]) -> None:
        """Call `written` at the next write, and at the first one after each time that `rested` is set."""
        self._written = written
        self.rested = True

    def refresh(self) -> None:
        """Forget what was found clean: there are new secrets, and it may hold them."""
        self.version = self.secrets.version
        self.forget()

    def name(self, name: str) -> str:
        """A name of a span, run, session or artifact as it may be stored and shown: redacted, printable."""
        names = self.names
        if name in names:
            return names[name]
        if len(names) >= REMEMBERED:
            names = self.names = {}  # not cleared: other threads are looking there
        names[name] = clean = storable(self.cleaner.text(name))
        return clean

    def named(self, name: str, value: Any) -> Any:
        """`value` as it may go on where it stands under `name`: a name can say that it is secret."""
        if names_a_secret(name):
            return self.cleaner.named(name, value)
        if len(self.innocent) >= REMEMBERED:
            self.innocent.clear()
            self.keys.clear()
        self.innocent.add(name)
        return value

    def forget(self) -> None:
        """Forget what was written (after a fork, or when the log was lost): it will be written again."""
        self.known, self.texts, self.inlines, self.items, self.links = set(), {}, {}, ItemMemo(), {}
        self.names, self.keys, self.text_lists, self.slots, self.fixed, self.packed = {}, {}, {}, {}, {}, {}
        self.lists = ListMemo(self.items)
        self.text_chars = 0

    def keep(self, given: tuple[Any, ...], slot: Slot) -> None:
        """Remember the slot of a constant, or of a text that counts among `texts`, that is in the log."""
        if len(self.slots) >= REMEMBERED:
            self.slots = {}
        self.slots[given] = slot

    def commit(self, batch: Written) -> None:
        """Write a batch. Raises StoreUnwritable; then nothing of it counts as written."""
        if not batch.frames:
            return
        known = self.known
        self.log.append(batch.frames)
        if batch.news is not None:
            # Where a secret became known meanwhile, or the segment before this one was deleted, only what was written
            # itself is sure.
            self._remember(batch.news, batch.current and self.known is known)
        batch.frames = []
        if self.rested:
            self.rested = False
            self._written()

    def _remember(self, news: News, whole: bool) -> None:
        if len(self.known) > _KNOWN:
            self.forget()
        self.known |= news.fresh
        if not whole:
            return
        for text, name in news.texts:
            self.text_chars += len(text)
            if self.text_chars > _MEMO_CHARS:
                self.texts, self.slots, self.text_chars = {}, {}, len(text)
            self.texts[text] = name
        if len(self.links) > _KNOWN:
            self.links = {}
        self.links.update(news.links)
        for look, name in news.items:
            self.items.keep(look, name)
