"""What holds of every comparison: of texts, of values, of fingerprints."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from clew.lineage.difference import wording
from clew.lineage.difference.change import ABSENT, compared
from clew.lineage.difference.fingerprint import fingerprint
from clew.lineage.difference.minted import Renaming

TEXT = st.text(st.sampled_from("ab \n.ü"), max_size=60)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)
NAME = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=12)


@given(TEXT, TEXT)
def test_words_hold_both_texts(a: str, b: str) -> None:
    pieces = wording.words(a, b)
    for text, sign in ((a, "-"), (b, "+")):
        kept = [piece for mark, piece in pieces if mark in (" ", sign)]
        rest = text
        for part in "".join(kept).split("…"):  # what is left out is equal in both
            assert part in rest
            rest = rest[rest.index(part) + len(part) :]
    assert ([mark for mark, _ in pieces if mark != " "] == []) == (a == b)


@given(TEXT, TEXT)
def test_lines_are_empty_only_of_equal_texts(a: str, b: str) -> None:
    assert (wording.lines(a, b) == []) == (a == b)


@given(PLAIN, PLAIN)
def test_values_are_compared_as_their_fingerprints_say(a: Any, b: Any) -> None:
    assert list(compared("answer", "x", a, a)) == []
    assert (list(compared("answer", "x", a, b)) == []) == (fingerprint(a) == fingerprint(b))


def test_types_that_python_takes_for_equal_are_told_apart() -> None:
    for a, b in ((1, True), (1, 1.0), (0, False), ([1], (1,)), ("1", 1), ({"a": 1}, {"a": 1.0})):
        assert fingerprint(a) != fingerprint(b)
        assert list(compared("answer", "x", a, b))


def test_the_smallest_difference_is_told() -> None:
    a = {"items": [{"id": 1, "text": "one"}, {"id": 2, "text": "two"}], "gone": 1}
    b = {"items": [{"id": 0}, {"id": 1, "text": "one"}, {"id": 2, "text": "too"}], "new": 1}
    found = {change.path: (change.a, change.b) for change in compared("answer", "", a, b)}
    assert found == {
        "items[0]": (ABSENT, {"id": 0}),
        "items[2].text": ("two", "too"),
        "gone": (1, ABSENT),
        "new": (ABSENT, 1),
    }


def _conversation(names: list[str], wiring: list[int]) -> list[dict[str, Any]]:
    calls = [{"name": "f", "args": {}, "id": name} for name in names]
    results = [{"role": "tool", "content": str(one), "tool_call_id": names[one % len(names)]} for one in wiring]
    return [{"role": "assistant", "content": "", "id": f"m{names[0]}", "tool_calls": calls}, *results]


@given(
    st.lists(NAME, min_size=1, max_size=4, unique=True), st.lists(NAME, min_size=4, max_size=4, unique=True), st.data()
)
def test_other_ids_are_equal_and_other_references_are_not(
    one: list[str], other: list[str], data: st.DataObject
) -> None:
    wiring = data.draw(st.lists(st.integers(0, len(one) - 1), max_size=5))
    print_of = [fingerprint(Renaming().value(_conversation(names[: len(one)], wiring))) for names in (one, other)]
    assert print_of[0] == print_of[1]
    if wiring and len(one) > 1:
        rewired = [*wiring[:-1], (wiring[-1] + 1) % len(one)]
        again = _conversation(one, rewired)
        again[-1]["content"] = str(wiring[-1])  # only the reference differs
        assert fingerprint(Renaming().value(again)) != print_of[0]
