"""What holds of every comparison: of texts, of values, of fingerprints."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.lineage.difference import wording
from clew.lineage.difference.change import ABSENT, Change, compared
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


@given(st.text(max_size=200) | PLAIN, st.text(max_size=200) | PLAIN, st.text(max_size=300))
def test_two_values_never_read_alike_on_their_line(a: Any, b: Any, around: str) -> None:
    pairs = [(a, b)]
    if isinstance(a, str) and isinstance(b, str):
        pairs += [(around + a, around + b), (a + around, b + around)]
    for one, other in pairs:
        for change in compared("request", "x", one, other):
            told, says = change.told()
            assert told != says
            assert str(change).endswith(f": {told} → {says}")
            assert len(str(change).splitlines()) == 1
            str(change).encode()  # no lone surrogates


@pytest.mark.parametrize(
    ("a", "b", "told"),
    [
        ("hello", "goodbye", "“hello” → “goodbye”"),
        ("Be kind.\nBe short.", "Be kind.\nBe long.", "“Be kind. Be short.” → “Be kind. Be long.”"),
        ("a b", "a  b", "“a b” → “a  b”"),
        ("a b", "a\xa0b", r"“a b” → “a\xa0b”"),
        ("one\n", "one", r"“one\n” → “one”"),
        ("caf\xe9", "cafe\u0301", r"“caf\xe9” → “cafe\u0301”"),
        ("\x1b[31mred", "\ud800", r"“\x1b[31mred” → “\ud800”"),
        ("1", 1, "“1” → 1"),
        ([1], (1,), "[1] → (1,)"),
        ({"b", "a"}, {"c", "b", "a"}, '["a", "b"] → ["a", "b", "c"]'),
        (None, ABSENT, "null → nothing"),
        ("w " * 300 + "old" + " z" * 300, "w " * 300 + "new" + " z" * 300,
         "“…" + "w " * 8 + "old" + " z" * 8 + "…” → “…" + "w " * 8 + "new" + " z" * 8 + "…”"),
        ("a" * 1000 + "b", "a" * 1000 + "c", "“…" + "a" * 80 + "b” → “…" + "a" * 80 + "c”"),
        (b"a" * 400 + b"x", b"a" * 400 + b"y", None),
    ],
)  # fmt: skip
def test_a_change_is_told_on_a_line_by_what_differs(a: Any, b: Any, told: str | None) -> None:
    one, other = Change("answer", "", a, b).told()
    assert one != other
    assert max(len(one), len(other)) <= wording.ROOM + 2
    assert told is None or str(Change("answer", "", a, b)) == told


def test_a_number_with_more_digits_than_python_prints_is_told_in_hexadecimal() -> None:
    told = str(Change("answer", "x", 16**5000, 16**5000 + 1))
    assert told == f"x: …{'0' * 83} → …{'0' * 82}1"
    assert str(Change("answer", "x", [16**5000], ABSENT)) == "x: list[…] → nothing"


def test_not_a_number_is_what_it_is_and_an_item_more_shifts_no_other() -> None:
    assert not list(compared("answer", "x", {"score": float("nan")}, {"score": float("nan")}))
    zeros = [0] * 3000
    assert [str(one) for one in compared("answer", "x", zeros, [*zeros[:7], 1, *zeros[7:]])] == ["x[7]: nothing → 1"]


def test_a_line_that_begins_as_a_header_does_is_told() -> None:
    assert wording.lines("-- a comment\nselect 1", "++ 2\nselect 1")[1:] == ["--- a comment", "+++ 2", " select 1"]
    assert wording.lines("one\ntwo\n", "one\ntwo")[1:] == [r" 'one\n'", r"-'two\n'", "+'two'"]


def test_a_sign_of_a_script_without_spaces_is_a_word() -> None:
    pieces = wording.words("東京は日本の首都です", "東京は韓国の首都です")
    assert pieces == [(" ", "東京は"), ("-", "日本"), ("+", "韓国"), (" ", "の首都です")]


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
