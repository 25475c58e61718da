"""What stands in the log: one struct for each type of record.

Structs are encoded as MessagePack arrays. A later version may append fields with defaults; it never reorders or removes
one, so every reader reads every log. Unknown record types are kept and skipped.

They hold no cycle, so the garbage collector need not look at them: an indexer holds thousands.

Ids are raw bytes here (trace 16, span 8, run 16) and lower-case hex wherever a person sees them.
"""

from __future__ import annotations

import enum
from typing import Annotated, Any, TypeVar

import msgspec

from clew.store.errors import CorruptRecord

Nanoseconds = Annotated[int, msgspec.Meta(ge=-(1 << 63), le=(1 << 63) - 1)]  # since 1970, as a catalog can hold it


class RecordType(enum.IntEnum):
    """The type byte of a frame. Append, never renumber."""

    SEGMENT = 0
    BLOB = 1
    SPAN_START = 2
    SPAN_END = 3
    RUN = 4
    DERIVATION = 5
    ARTIFACT = 6
    REF = 7
    ANNOTATION = 8
    ACTION = 9
    LOST = 10
    ANSWER = 11
    EVICTED = 12


class Segment(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """First record of every segment: who writes it, so that a reader can tell a dead writer from a living one."""

    format: int
    clew: str
    host: str
    boot_id: str
    pid: int
    pid_started: int  # clock ticks since boot, 0 where the system does not tell
    pid_namespace: str
    created_ns: Nanoseconds
    process_id: bytes  # the process run's id
    project: str = ""


class Slot(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One thing that a span used or generated."""

    role: str  # what it was to the span: "messages", "documents", a channel's name, "model", ...
    kind: str  # artifact kind of the glossary
    domain: int  # how the digest's bytes are encoded (digest.Domain)
    digest: bytes
    name: str | None = None
    info: dict[str, Any] | None = None  # small facts: scores, ranks, ids


class SpanStart(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A span began. What it used is in the log before the traced call goes on."""

    trace_id: bytes
    span_id: bytes
    parent_id: bytes | None
    run_id: bytes
    kind: str
    name: str
    path: str
    start_ns: Nanoseconds
    used: list[Slot] = []
    attributes: dict[str, Any] = {}
    scope: str = "clew"  # the instrumentation scope; other libraries' spans keep theirs


class SpanEnd(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A span ended."""

    trace_id: bytes
    span_id: bytes
    end_ns: Nanoseconds
    status: str
    generated: list[Slot] = []
    used: list[Slot] = []  # what became known only during the call
    attributes: dict[str, Any] = {}
    links: list[tuple[bytes, bytes, str]] = []  # trace, span, link type
    name: str | None = None
    complete: bool = True  # False: a value of an unknown type was captured as an opaque marker
    events: list[Any] = []  # name, time, attributes; of other libraries' spans


class Run(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A run began, or (later record, same id) more became known of it."""

    run_id: bytes
    name: str
    started_ns: Nanoseconds
    process_id: bytes
    session: str | None = None
    trace_id: bytes | None = None
    span_id: bytes | None = None
    parent_run_id: bytes | None = None
    project: str = ""
    facets: dict[str, bytes] = {}  # "code", "environment", "entry", "config" -> digest
    seeds: dict[str, Any] = {}
    answer: list[Slot] = []
    ended_ns: Nanoseconds | None = None
    replay_of: bytes = b""  # the run that this one replays


class Derivation(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Item-to-item lineage that the program or a framework declared: each pair is (from, to, start, end)."""

    trace_id: bytes
    span_id: bytes
    relation: str  # "derived_from", "part_of"
    from_kind: str
    to_kind: str
    pairs: list[tuple[bytes, bytes, int | None, int | None]]
    run_id: bytes = b""


class Artifact(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """An artifact was declared, or facts of it became known: they are merged, first one wins."""

    kind: str
    domain: int
    digest: bytes
    run_id: bytes
    name: str | None = None
    detail: dict[str, Any] = {}
    used: list[Slot] = []


class Ref(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A name was given to an artifact. Version numbers are arbitrated by the catalog before this is written."""

    name: str
    version: int
    kind: str
    digest: bytes
    when_ns: Nanoseconds
    who: str
    run_id: bytes = b""
    alias: bool = False


class Action(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A boundary call was performed: by its key, what it answered. Of several with one key the newest counts."""

    key: bytes
    kind: str  # of the span: "llm", "tool", ...
    operation: str
    when_ns: Nanoseconds
    fields: dict[str, bytes]  # what the key was made of: name -> digest
    answer: bytes  # as its integration encodes it; empty where it is the blob
    trace_id: bytes = b""  # the span that performed it
    span_id: bytes = b""
    run_id: bytes = b""
    occurrence: int = 0
    model: str = ""
    duration_ns: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    expires_ns: Nanoseconds | None = None
    blob: bytes = b""  # digest, in the domain of bytes, of a long answer,
    blob_bytes: int = 0  # and how long that one is


class Evicted(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Actions are not served any more: those with these keys that were performed until then. Later ones are."""

    keys: list[tuple[bytes, Nanoseconds]]


class Answer(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What a run asked of the world, and was answered: so that the run can be replayed. `request` is the digest of what
    was asked, `fields` what it was made of; `path` and `occurrence` say where, and for the how-manieth time there."""

    run_id: bytes
    trace_id: bytes
    span_id: bytes
    kind: str  # of the span: "llm", "tool", ...; "clock", "console" or "thread" of what is no call
    operation: str
    name: str
    path: str  # of the span
    occurrence: int
    request: bytes
    fields: dict[str, bytes]
    started_ns: Nanoseconds
    ended_ns: Nanoseconds
    answer: bytes = b""  # as its integration encodes it; empty where it is the blob, or there is none
    blob: bytes = b""  # digest, in the domain of bytes, of a longer one
    error: bytes = b""  # what was raised (replay/recording/failure.py)
    missing: str = ""  # why no answer was kept
    loose: str = ""  # why no key could be made: then `request` is what can be seen of it
    sampled: bool = False
    redacted: bool = False
    model: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    questions: int = 0  # how many of its graph's task a person had answered when the call ended
    left: str = ""  # "closed" or "cancelled", if the program did not wait for the end of it
    resumed: int = 0  # with how many answers of a person its graph's task was run again
    branches: list[tuple[str, str]] = []  # in which of those that run side by side: span path and name of each


class Lost(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Faults inside the tracer, counted: where, how often, the last error's text."""

    when_ns: Nanoseconds
    counts: dict[str, tuple[int, str]]


TYPES: dict[RecordType, type[msgspec.Struct]] = {
    RecordType.SEGMENT: Segment,
    RecordType.SPAN_START: SpanStart,
    RecordType.SPAN_END: SpanEnd,
    RecordType.RUN: Run,
    RecordType.DERIVATION: Derivation,
    RecordType.ARTIFACT: Artifact,
    RecordType.REF: Ref,
    RecordType.ACTION: Action,
    RecordType.LOST: Lost,
    RecordType.ANSWER: Answer,
    RecordType.EVICTED: Evicted,
}

encode = msgspec.msgpack.Encoder(enc_hook=bytes).encode  # the hook meets only Digest, which is bytes
_decoders = {kind: msgspec.msgpack.Decoder(cls) for kind, cls in TYPES.items()}
NUMBER = {cls: int(kind) for kind, cls in TYPES.items()}
AnyRecord = TypeVar("AnyRecord", bound=msgspec.Struct)


def decode(kind: int, payload: bytes | memoryview) -> msgspec.Struct | None:
    """The struct of a frame; None for a type this version does not know. CorruptRecord where it cannot be one."""
    decoder = _decoders.get(kind)  # type: ignore[call-overload]
    if decoder is None:
        return None
    try:
        entry: msgspec.Struct = decoder.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CorruptRecord(f"a record of type {RecordType(kind).name} cannot be read: {error}") from error
    return entry
