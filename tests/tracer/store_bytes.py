"""Every byte that a store holds, decompressed, so that a test can look for what must not be there."""

from __future__ import annotations

from pathlib import Path

from clew.store.segment import OPEN_SUFFIX, SEALED_SUFFIX, SegmentFile, zstd


def everything(store: Path) -> dict[str, bytes]:
    """File by file: segments by their logical bytes, blob files unpacked, all others as they are."""
    found = {}
    for path in store.rglob("*"):
        if not path.is_file():
            continue
        data = path.read_bytes()
        if path.suffix in (OPEN_SUFFIX, SEALED_SUFFIX):
            segment = SegmentFile(path.with_suffix(""))
            data = segment.read(0, segment.size)
            segment.close()
        elif path.parent.parent.name == "blob" and data[1:2] == b"\1":
            data = zstd.decompress(data[2:])
        found[str(path.relative_to(store))] = data
    return found
