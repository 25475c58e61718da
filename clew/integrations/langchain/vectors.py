"""The vectors that a store holds: of two stores with equal documents, they decide which are found.

Lists of numbers are told by their numbers, and remembered by comparison: numbers cannot change, and those that are still
the same objects are equal at a glance. An index of FAISS lies outside of Python and says nothing of its changes: its
bytes are compared each time.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable
from itertools import chain
from typing import Any

from clew.replay.code.witness import Witness
from clew.replay.identity import identity
from clew.store.digest import Domain, digest
from clew.store.encoding import qualified_name
from clew.store.errors import Unkeyable

_FLOATS = ("float16", "float32", "float64")  # of numpy: each is exactly a float of Python's
_FLAT = ("IndexFlat", "IndexFlatL2", "IndexFlatIP")
_HELD = {"this", "referenced_objects"}  # what FAISS itself keeps in an index's dictionary
_INNER = ("hnsw", "quantizer", "index", "base_index", "refine_index")
# How it is searched, where that is not written with it.
_SEARCHED = (
    "nprobe", "max_codes", "parallel_mode", "check_relative_distance", "search_bounded_queue", "efSearch", "k_factor",
    "search_type", "polysemous_ht", "use_precomputed_table", "scan_table_threshold",
)  # fmt: skip
_ELSEWHERE = b"ilod"  # as FAISS marks lists that it keeps in a file
_DEPTH = 4


def vectors_of(store: Any, witness: Witness) -> Any:
    """The vectors of a store and how they are searched, as data. Raises Unkeyable where they cannot be read."""
    records = getattr(store, "store", None)
    if type(records) is dict:
        return _listed([record.get("vector") for record in records.values()], witness)
    return _indexed(getattr(store, "index", None), witness)


def _listed(vectors: list[Any], witness: Witness) -> Any:
    if any(type(one) is not list for one in vectors) or (kind := _kind(vectors)) is None:
        return [identity(one, witness=witness) for one in vectors]
    if not witness.blind:
        copies = [*map(list, vectors)]  # of the same numbers
        witness.add_read(None, lambda _: [_are_equal(vectors, copies)])
    numbers = array("d", chain.from_iterable(vectors)).tobytes()
    return [kind, [*map(len, vectors)], bytes(digest(Domain.BYTES, numbers))]


def _kind(vectors: list[Any]) -> str | None:
    """The one type of all numbers, where each of them is exactly what `array` makes of it."""
    kinds = {*map(type, chain.from_iterable(vectors))} or {float}
    kind = kinds.pop()
    known = kind is float or (kind.__module__ == "numpy" and kind.__name__ in _FLOATS)
    return kind.__name__ if known and not kinds else None


def _are_equal(vectors: list[Any], copies: list[Any]) -> bool:
    try:
        return vectors == copies
    except Exception:  # an array was put in, which has no one truth
        return False


def _indexed(index: Any, witness: Witness) -> Any:
    cls = type(index)
    if not qualified_name(cls).startswith("faiss.") or not vars(index).keys() <= _HELD:
        raise Unkeyable(f"the vectors in a {qualified_name(cls)} cannot be seen")
    witness.add_instance(index)
    written, searched = _written(index), _searched(index)
    if cls.__name__ not in _FLAT and _ELSEWHERE in written.tobytes():
        raise Unkeyable("the vectors of an index of FAISS stand in a file of their own")
    if not witness.blind:  # that a class was not changed says no version here: FAISS changes them itself
        same = _compared(index, written)
        witness.add_read(cls, lambda cls: [cls.search, cls.reconstruct])
        witness.add_read(None, lambda _: [same() and _searched(index) == searched])
    return [identity(cls), bytes(digest(Domain.BYTES, memoryview(written))), searched]


def _written(index: Any) -> Any:
    """An index as FAISS writes it: an array of bytes."""
    try:
        return sys.modules["faiss"].serialize_index(index)
    except Exception as error:
        raise Unkeyable(f"an index of FAISS cannot be written: {error}") from error


def _compared(index: Any, written: Any) -> Callable[[], bool]:
    """Whether an index is still as it was written. A flat one is compared where it lies, which takes a fifth of the time."""
    equal = sys.modules["numpy"].array_equal
    if type(index).__name__ not in _FLAT or not index.ntotal:
        return lambda: bool(equal(_written(index), written))
    header, codes = _header(index), _codes(index).copy()
    return lambda: _header(index) == header and bool(equal(_codes(index), codes))


def _header(index: Any) -> list[Any]:
    return [index.d, index.ntotal, index.metric_type, index.metric_arg, index.is_trained, index.codes.size()]


def _codes(index: Any) -> Any:
    """The vectors of a flat index, in its own memory."""
    return sys.modules["faiss"].rev_swig_ptr(index.codes.data(), index.codes.size()).view("u4")


def _searched(index: Any, depth: int = 0) -> dict[str, Any]:
    """How an index that is not flat is searched, as far as that is not written."""
    if type(index).__name__ in _FLAT or depth > _DEPTH:
        return {}
    found = {name: value for name in _SEARCHED if type(value := getattr(index, name, None)) in (int, float, bool)}
    for name in _INNER:
        inner = getattr(index, name, None)
        if inner is not None and (told := _searched(_exactly(inner), depth + 1)):
            found[name] = told
    return found


def _exactly(part: Any) -> Any:
    """A part of an index, as one of its own class if it is an index itself."""
    faiss = sys.modules["faiss"]
    return faiss.downcast_index(part) if isinstance(part, faiss.Index) else part
