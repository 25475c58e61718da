"""Sharing: a store's actions in a remote as well, so that one machine is answered with what another one asked.

An action that is not here is looked for in the hot tier (tier.py) and then in the remote (remote.py); one that was made
here is uploaded in the background, its blob before it. What the hot tier has of actions carries a seal of this store, as
rows of its database can be planted. Nothing here raises: a remote that does not answer is a miss and one fault, and is
left alone for a while, twice as long each time.

Who can write to the bucket can say what a call was answered. So share a `token`, by which actions are signed, or see to
it that only those can write to it whom you would believe.
"""

from __future__ import annotations

import hmac
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from blake3 import blake3

from clew.store import record
from clew.store.digest import Digest, Domain, digest
from clew.store.errors import ClewError, CorruptBlob, CorruptRecord, MissingExtra, RemoteUnavailable, StoreError
from clew.store.record import Action, RecordType
from clew.store.remote import Remote
from clew.store.tier import HotTier, ReadThrough

PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 30.0, 600.0
ABSENT_SECONDS = 1.0  # for which what the remote did not have is not asked for again
QUEUED, QUEUED_BYTES = 10_000, 64 << 20
_ABSENT = 10_000
_AT_ONCE = 16
_SEAL_BYTES = 32


class Sharing:
    """The remote of one store, in one process. Threads may share it; a forked child makes its own.

    `remote` opens the remote, when it is first needed. `hot` is the folder of the hot tier, `key` a secret of the
    store. `fault` is told what went wrong.
    """

    def __init__(
        self,
        remote: Callable[[], Remote],
        hot: Path,
        key: bytes,
        fault: Callable[[str, Exception | str], object],
        *,
        pause_seconds: float = PAUSE_SECONDS,
    ) -> None:
        self._open_remote = remote
        self._hot = hot
        self._seal_key = blake3(key, derive_key_context="clew 2026 hot tier action v1").digest()
        self._fault = fault
        self._first_pause = self._pause = pause_seconds
        self._closed_until = 0.0
        self._tier: ReadThrough | None = None
        self._lock = threading.RLock()
        self._absent: OrderedDict[bytes, float] = OrderedDict()
        self._queue: deque[tuple[Action, bytes]] = deque()
        self._queued_bytes = 0
        self._uploads = threading.Condition(self._lock)
        self._uploading = False

    # -- what others made

    def look(self, key: bytes, now_ns: int) -> Action | None:
        """The action of `key` that the hot tier or the remote has, if it lasts; None otherwise."""
        tier = self._opened()
        if tier is None:
            return None
        kept = self._kept(tier, key)
        if kept is not None and lasts(kept, now_ns):
            return kept
        if self._is_absent(key) or not self._is_open:
            return None
        found: Action | None = None
        with self._attempt() as attempt:
            shared = tier.action(key)
            if shared is not None:
                found = _action(shared.data, key)
                if found is None or (found.blob and found.blob not in shared.blobs):
                    tier.remote.refusals.add("an action is of another key, or malformed", key.hex())
                    found = None
        if found is not None and lasts(found, now_ns):
            self._keep(tier, key, found)
            return found
        if attempt.done:
            with self._lock:
                self._absent[key] = time.monotonic() + ABSENT_SECONDS
                while len(self._absent) > _ABSENT:
                    self._absent.popitem(last=False)
        return None

    def look_all(self, keys: Iterable[bytes], now_ns: int) -> list[Action]:
        """`look` for many, several at once."""
        wanted = list(keys)
        if len(wanted) < 2:
            return [one for one in (self.look(key, now_ns) for key in wanted) if one is not None]
        with ThreadPoolExecutor(min(_AT_ONCE, len(wanted)), "clew-remote") as pool:
            return [one for one in pool.map(lambda key: self.look(key, now_ns), wanted) if one is not None]

    def blob(self, name: bytes) -> bytes | None:
        """The content of a blob that an action named; None if it is gone or damaged."""
        tier = self._opened()
        if tier is None or not self._is_open:
            return None
        with self._attempt():
            try:
                found = tier.blob(name)
            except CorruptBlob:  # counted by the remote, which replaces it when it is put again
                return None
            return None if found is None else found[1]
        return None

    # -- what was made here

    def give(self, entry: Action, answer: bytes) -> None:
        """Upload an action, in the background. What is too much to wait for, or meets a remote that is away, is not."""
        with self._lock:
            self._absent.pop(entry.key, None)
            if len(self._queue) >= QUEUED or self._queued_bytes + len(answer) > QUEUED_BYTES:
                self._fault("cache upload", "too much is waiting to be uploaded: an answer was not shared")
                return
            self._queue.append((entry, answer))
            self._queued_bytes += len(answer)
            if self._uploading:
                return
            self._uploading = True
        try:
            threading.Thread(target=self._upload, name="clew-upload", daemon=True).start()
        except RuntimeError as error:  # no more threads, or the interpreter ends
            self._drop(error)

    def wait(self, seconds: float) -> None:
        """Until what was given is uploaded, or given up; for so long at most."""
        with self._uploads:
            if not self._uploads.wait_for(lambda: not self._uploading, seconds):
                self._fault("cache upload", f"{len(self._queue) + 1} answers are not uploaded after {seconds:g} s")

    def _drop(self, error: Exception) -> None:
        with self._uploads:
            self._fault("cache upload", error)
            self._queue.clear()
            self._queued_bytes, self._uploading = 0, False
            self._uploads.notify_all()

    def _upload(self) -> None:
        while True:
            with self._uploads:
                if not self._queue:
                    self._uploading = False
                    self._uploads.notify_all()
                    return
                entry, answer = self._queue.popleft()
                self._queued_bytes -= len(answer)
            tier = self._opened()
            if tier is None or not self._is_open:
                self._fault("cache upload", "the remote is away: an answer was not shared")
                continue
            with self._attempt():
                if entry.blob:
                    tier.put_blob(Domain.BYTES, answer)
                blobs = [entry.blob] if entry.blob else []
                tier.put_action(entry.key, record.encode(entry), blobs=blobs, replaces=_has_expired)

    # -- the remote, while it answers

    @property
    def _is_open(self) -> bool:
        return time.monotonic() >= self._closed_until

    def _opened(self) -> ReadThrough | None:
        with self._lock:
            if self._tier is None and self._is_open:
                with self._attempt():
                    self._tier = ReadThrough(self._open_remote(), self._hot_tier())
            return self._tier

    def _hot_tier(self) -> HotTier | None:
        try:
            return HotTier(self._hot)
        except MissingExtra:  # each process asks the remote anew
            return None
        except StoreError as error:
            self._fault("hot tier", error)
            return None

    def _attempt(self) -> _Attempt:
        return _Attempt(self)

    def _answered(self) -> None:
        self._pause = self._first_pause

    def _failed(self, error: Exception) -> None:
        self._fault("cache remote", error)
        if isinstance(error, RemoteUnavailable):
            with self._lock:
                self._closed_until = time.monotonic() + self._pause
                self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)

    def _is_absent(self, key: bytes) -> bool:
        with self._lock:
            return self._absent.get(key, 0.0) > time.monotonic()

    # -- actions in the hot tier

    def _kept(self, tier: ReadThrough, key: bytes) -> Action | None:
        if tier.hot is None:
            return None
        name = _row_name(key)
        row = tier.hot.get(name)
        if row is None:
            return None
        seal, encoded = row[:_SEAL_BYTES], row[_SEAL_BYTES:]
        found = _action(encoded, key) if hmac.compare_digest(seal, self._seal(name, encoded)) else None
        if found is None:
            tier.hot.drop(name, "a kept action does not carry this store's seal")
        return found

    def _keep(self, tier: ReadThrough, key: bytes, entry: Action) -> None:
        if tier.hot is not None:
            name, encoded = _row_name(key), record.encode(entry)
            tier.hot.put(name, self._seal(name, encoded) + encoded)

    def _seal(self, name: bytes, encoded: bytes) -> bytes:
        return blake3(name + encoded, key=self._seal_key).digest()


class _Attempt:
    """Whatever goes wrong within is a fault that is told, and nobody's error. `done`: nothing did."""

    def __init__(self, sharing: Sharing) -> None:
        self._sharing = sharing
        self.done = False

    def __enter__(self) -> _Attempt:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> bool:
        if error is None:
            self.done = True
            self._sharing._answered()
            return False
        if isinstance(error, Exception):
            self._sharing._failed(error)
            return True
        return False


_ALIKE_NS = 10**9  # by how much the clocks of two machines may differ


def lasts(entry: Action, now_ns: int) -> bool:
    """Whether an action may be served now. Of one from the future, as where a clock was set back, nobody knows its age."""
    return entry.expires_ns is None or entry.when_ns - _ALIKE_NS <= now_ns < entry.expires_ns


def is_older(entry: Action, age_ns: int | None, now_ns: int) -> bool:
    """Whether an action is older than its reader wants, whatever its writer said; None wants any."""
    return age_ns is not None and not entry.when_ns - _ALIKE_NS <= now_ns < entry.when_ns + age_ns


def _has_expired(data: bytes) -> bool:
    try:
        found = record.decode(RecordType.ACTION, data)
    except (CorruptRecord, ClewError):
        return True
    return not isinstance(found, Action) or not lasts(found, time.time_ns())


def _action(data: bytes, key: bytes) -> Action | None:
    """The action that was written, if it is one of this key."""
    try:
        found = record.decode(RecordType.ACTION, data)
    except CorruptRecord:
        return None
    return found if isinstance(found, Action) and found.key == key else None


def _row_name(key: bytes) -> Digest:
    """Under which name the hot tier has an action: no digest of content, so that it is no blob's."""
    return digest(Domain.ACTION, b"shared action\0" + key)
