from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.lineage.containment import attribute
from clew.lineage.piece import Piece, PieceIndex, Pieces


def prose(seed: int, length: int) -> str:
    """Words of random letters: no two seeds share 32 characters."""
    source = random.Random(seed)
    words = ("".join(source.choices("abcdefghijklmnopqrstuvwxyz", k=source.randint(2, 9))) for _ in range(length))
    return " ".join(words)[:length]


@pytest.fixture(scope="module")
def index() -> PieceIndex:
    index = PieceIndex()
    for number in range(300):
        index.add(Piece(number, prose(number, 32 + number)))
    return index


def test_a_whole_piece_is_a_candidate_wherever_it_stands(index: PieceIndex) -> None:
    for number in range(300):
        text = f"{'#' * (number % 40)}{prose(number, 32 + number)}!"
        assert [piece.key for piece in index.candidates(text)] == [number]


@given(st.integers(100, 299), st.data())
def test_sixty_three_characters_of_a_piece_make_it_a_candidate(
    index: PieceIndex, number: int, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, 32 + number - 63))
    text = "(" + prose(number, 32 + number)[start : start + 63] + ")"
    candidates = index.candidates(text)
    assert [piece.key for piece in candidates] == [number]
    assert attribute(text, candidates).matches[0].candidates == ((candidates[0], start, start + 63),)


def test_candidates_come_in_the_order_added_and_once_each(index: PieceIndex) -> None:
    text = " ".join(prose(number, 32 + number) for number in (200, 7, 150, 7))
    assert [piece.key for piece in index.candidates(text)] == [7, 150, 200]


def test_a_text_that_shares_nothing_has_no_candidates(index: PieceIndex) -> None:
    assert index.candidates(prose(1000, 5000)) == []
    assert index.candidates("too short") == []
    assert index.candidates("") == []
    assert len(index) == 300


def test_pieces_that_share_their_head_are_all_candidates() -> None:
    index = PieceIndex()
    licence = prose(1, 64)
    for number in range(5):
        index.add(Piece(number, licence + prose(100 + number, 50)))
    assert [piece.key for piece in index.candidates(f"// {licence}")] == [0, 1, 2, 3, 4]


def test_a_piece_under_the_minimum_is_never_a_candidate() -> None:
    index = PieceIndex()
    index.add(Piece("short", "Remote Work", short_ok=True))
    index.add(Piece("31", prose(1, 31)))
    assert index.candidates(f"Remote Work, {prose(1, 31)} and much more text") == []


def test_wide_blanks_alone_make_no_candidate_but_the_words_beside_them_do() -> None:
    index = PieceIndex()
    code = "if the condition holds:\n" + " " * 100 + "raise error"
    index.add(Piece("code", code))
    assert index.candidates("for x in y:\n" + " " * 120 + "pass") == []
    for start in range(len(code) - 110):
        assert index.candidates("#" + code[start : start + 120] + "#"), start


def test_a_piece_prints_as_what_the_caller_gave() -> None:
    piece = Piece("k", "text", 2, short_ok=True)
    piece.seeds(32)
    assert repr(piece) == "Piece(key='k', text='text', rank=2, short_ok=True)"


@pytest.mark.parametrize("count", [7, 400])
def test_among_few_and_many_pieces_all_that_a_text_holds_are_near_in_the_order_added(count: int) -> None:
    pieces = Pieces()
    for number in range(count):
        pieces.add(Piece(number, prose(number, 200)))
        pieces.add(Piece(f"short {number}", f"item {number:04}", short_ok=True))
    text = f"{prose(6, 200)[77:109]} item 0003 {prose(4, 200)[168:]} x {prose(2, 200)}"
    near = pieces.near(text)
    held = [2, "short 3", 4, 6]
    assert [piece.key for piece in near.pieces if piece.key in held] == held
    assert attribute(text, near.pieces) == attribute(text, [piece for piece in near.pieces if piece.key in held])
    assert near.all
    assert count == 7 or len(near.pieces) == 4
    assert 4 in pieces
    assert count not in pieces


@pytest.fixture(scope="module")
def many() -> Pieces:
    pieces = Pieces()
    for number in range(200):
        pieces.add(Piece(number, prose(number, 200)))
    return pieces


@given(st.integers(0, 199), st.integers(0, 168), st.integers(0, 40))
def test_every_run_of_thirty_two_characters_is_near(many: Pieces, number: int, start: int, before: int) -> None:
    text = "#" * before + prose(number, 200)[start : start + 32] + "#"
    assert number in [piece.key for piece in many.near(text).pieces]


def test_of_a_crowd_those_are_near_that_share_most_with_the_text() -> None:
    pieces = Pieces()
    shared = "a line that each of them holds, word for word, as answers do"
    for number in range(5000):
        pieces.add(Piece(number, f"{prose(number, 100)} {shared}"))
    near = pieces.near(f"{prose(77, 100)[20:]} {shared}")
    assert not near.all
    assert len(near.pieces) <= Pieces.CROWD
    match = attribute(f"{prose(77, 100)[20:]} {shared}", near.pieces).matches[0]
    assert [piece.key for piece, _, _ in match.candidates] == [77]
    assert match.end == 80 + 1 + len(shared)
    assert pieces.near(shared).pieces[0].key == 0
    assert 4999 in pieces
