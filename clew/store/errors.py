"""Every error that clew raises.

    ClewError
    ├── StoreError                what is on disk cannot be used as asked
    │   ├── StoreNotFound         no store at this path
    │   ├── StoreFormatError      made by a newer clew, or not a store at all
    │   ├── CorruptBlob           the bytes do not have the digest they are named by (quarantined)
    │   ├── CorruptSegment        a log segment is damaged before its tail
    │   ├── CorruptRecord         a record says what no record of its type can say
    │   ├── StoreUnwritable       no space, read-only, or no permission
    │   └── RemoteUnavailable     the object store does not answer, or not to this process
    ├── NotFound                  no artifact, span, run or ref of that name (says what was close)
    │   └── Ambiguous             a prefix that fits several
    ├── EncodingError             a value has no canonical key form (names the path and the type)
    ├── BrokenStream              a stream shared with another caller broke off, and computed again it differed
    ├── Unkeyable                 no key can be made of a call (says what has no canonical form)
    ├── Unstorable                an answer cannot be kept so that it comes back as it was
    ├── NotRecorded               a run of which no answers were kept cannot be replayed
    ├── ReplayMiss                a strict replay was asked what the recorded run was not (says what differs)
    ├── Unpatchable               (also ValueError) a patch does not fit the program's own thing (says what that has)
    ├── OverBudget                a replay was about to cost more than it may
    ├── ReplayedError             (also RuntimeError) what a recorded call raised, of a class that is not loaded
    ├── NotReplayable             a recorded program cannot be run again as it was (says what to do instead)
    ├── ReplayTimeout             (also TimeoutError) a replayed program took longer than it was given
    ├── NetworkBlocked            the network was reached for where a strict replay forbids it
    ├── NotInitialized            clew.init() has not been called
    ├── AlreadyInitialized        clew.init() was called before with other arguments
    └── MissingExtra              (also ImportError) a framework is not installed; names the extra

A fault inside the tracer is none of these: it is counted, logged once and shown by `clew doctor`.
"""

from __future__ import annotations


class ClewError(Exception):
    """Root of every error that clew raises on purpose."""


class StoreError(ClewError):
    """What is on disk cannot be used as asked."""


class StoreNotFound(StoreError):
    """There is no store at this path."""


class StoreFormatError(StoreError):
    """The folder was made by a newer clew, or is not a store."""


class CorruptBlob(StoreError):
    """Stored bytes do not have the digest they are named by."""


class CorruptSegment(StoreError):
    """A log segment is damaged before its tail; what stands before the damage was kept."""


class CorruptRecord(StoreError):
    """A record is whole and says what no record of its type can say."""


class StoreUnwritable(StoreError):
    """The store cannot take another byte: disk full, read-only or no permission."""


class RemoteUnavailable(StoreError):
    """The object store does not answer, refuses, or cannot be used in this process. The message has no credentials."""


class NotFound(ClewError, LookupError):
    """Nothing in the store has that id, prefix or name."""


class Ambiguous(NotFound):
    """A prefix or name fits several things."""


class EncodingError(ClewError, TypeError):
    """A value has no canonical key form; the message names the path to it and its type."""


class BrokenStream(ClewError, RuntimeError):
    """A stream shared with another caller broke off, and computed again it began with other chunks."""


class Unkeyable(ClewError):
    """No key can be made of a call: something that may decide its answer has no canonical form. Says what."""


class Unstorable(ClewError):
    """An answer cannot be kept so that it comes back as it was. Says why."""


class NotRecorded(ClewError):
    """Of this run no answers were kept: `clew.init(record=True)`, or CLEW_RECORD=1, keeps them."""


class ReplayMiss(ClewError):
    """A replay was asked what the recorded run was not, and may not ask the world. The message says what differs."""


class Unpatchable(ClewError, ValueError):
    """A patch of a replay asks what the program's own thing does not have, or cannot be. Says what it has."""


class OverBudget(ClewError):
    """A replay was about to cost more than it was allowed to."""


class ReplayedError(ClewError, RuntimeError):
    """A recorded call raised this, and its class is not loaded or does not come back from data."""


class NotReplayable(ClewError):
    """A recorded program cannot be run again as it was. Says what is in the way and what to do instead."""


class ReplayTimeout(ClewError, TimeoutError):
    """A replayed program took longer than it was given, and was ended."""


class NetworkBlocked(ClewError):
    """The network was reached for where a strict replay forbids it; names host, port and the enclosing span's path.

    It is no OSError: what retries or falls back on a failed connection must not take it for one.
    """


class NotInitialized(ClewError, RuntimeError):
    """`clew.init()` has not been called in this process."""


class AlreadyInitialized(ClewError, ValueError):
    """`clew.init()` was called before with other arguments."""


class MissingExtra(ClewError, ImportError):
    """An optional dependency is not installed; the message names the extra that brings it."""
