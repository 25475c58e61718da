"""Writes the golden segments, which every later version must read. They are made once for each format of the log:

python -m tests.store.golden.make tests/store/golden/format_1
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import msgspec

from clew.store import segment
from clew.store.chain import EMPTY, link_bytes
from clew.store.digest import Domain, digest, text_digest
from clew.store.encoding import encode_key
from clew.store.log import blob_frame, framed
from clew.store.record import Artifact, Derivation, Lost, Ref, Run, Segment, Slot, SpanEnd, SpanStart

TEXT = "Whoever holds the thread finds the way back, however many turns the labyrinth has."
VALUE = {"b": [1, 2.5, None, True, b"\0"], "a": ("tuple", {"set"})}
TRACE, SPAN, RUN, PROCESS = b"T" * 16, b"S" * 8, b"R" * 16, b"P" * 16
LINK = link_bytes(EMPTY, Domain.TEXT, text_digest(TEXT))
SLOT = Slot("question", "value", int(Domain.TEXT), text_digest(TEXT), "name", {"rank": 1})
RECORDS: list[msgspec.Struct] = [
    Segment(1, "0.1.0", "host", "boot", 42, 7, "pid:[1]", 1_800_000_000_000_000_000, PROCESS, "golden"),
    Run(RUN, "answer", 1, PROCESS, "s-1", TRACE, SPAN, None, "golden", {"code": b"c" * 32}, {"numpy": 1}, [SLOT]),
    SpanStart(TRACE, SPAN, None, RUN, "workflow", "answer", "answer", 1, [SLOT], {"clew.kind": "workflow"}),
    Derivation(TRACE, SPAN, "derived_from", "chunk", "document", [(b"c" * 32, b"d" * 32, 0, 80)], RUN),
    Artifact("model", int(Domain.VALUE), b"m" * 32, RUN, "reader", {"parameters": 1}, [SLOT]),
    Ref("model/reader", 1, "model", b"m" * 32, 2, "ariadne", RUN, False),
    Lost(3, {"start of llm span": (2, "OSError: disk full")}),
    SpanEnd(TRACE, SPAN, 4, "ok", [SLOT], [], {"n": 1}, [(TRACE, SPAN, "link")], None, True, [["event", 3, {}]]),
]


def make(stem: Path) -> None:
    """Write the same records as an open and as a sealed segment."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    frames = [framed(entry) for entry in RECORDS]
    frames[1:1] = [
        blob_frame(Domain.TEXT, text_digest(TEXT), TEXT.encode()),
        blob_frame(Domain.VALUE, digest(Domain.VALUE, encode_key(VALUE)), encode_key(VALUE)),
        blob_frame(Domain.CHAIN, digest(Domain.CHAIN, LINK), LINK),
        segment.frame_bytes(200, b"a record of a later version", version=9),
    ]
    opened = stem.with_name(stem.name + segment.OPEN_SUFFIX)
    opened.write_bytes(segment.MAGIC + b"".join(frames))
    copy = stem.with_name(stem.name + "_copy")
    shutil.copy(opened, copy.with_name(copy.name + segment.OPEN_SUFFIX))
    sealed = segment.seal(copy)
    assert sealed is not None
    sealed.rename(stem.with_name(stem.name + segment.SEALED_SUFFIX))


if __name__ == "__main__":
    make(Path(sys.argv[1]))
