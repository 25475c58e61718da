from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clew.lineage.containment import Attribution, attribute
from clew.lineage.piece import LITERAL, Piece

WARRANTY = "The warranty covers battery defects for two years from purchase."  # 64 characters
LEAVE = "Parental leave is sixteen weeks, taken within the first year after birth."  # 73 characters
TEMPLATE = "You are a careful assistant. Answer only from the context below."  # 64 characters


def found(attribution: Attribution) -> list[tuple[int, int, list[object]]]:
    return [(match.start, match.end, [piece.key for piece, _, _ in match.candidates]) for match in attribution.matches]


def ranges(attribution: Attribution) -> list[tuple[int, int]]:
    return [(start, end) for match in attribution.matches for _, start, end in match.candidates]


def assert_sound(text: str, attribution: Attribution, minimum: int = 32) -> None:
    stretches = sorted([(match.start, match.end) for match in attribution.matches] + list(attribution.gaps))
    for (_, end), (start, _) in itertools.pairwise(stretches):
        assert end <= start
    for match in attribution.matches:
        assert match.candidates
        assert match.short == (match.end - match.start < minimum)
        for piece, start, end in match.candidates:
            assert text[match.start : match.end] == piece.text[start:end]
        assert match.whole == any(end - start == len(piece.text) for piece, start, end in match.candidates)


# -- one piece


def test_a_whole_piece_is_found_with_both_offsets() -> None:
    piece = Piece("w", WARRANTY)
    text = f"Context: {WARRANTY} Answer."
    [match] = attribute(text, [piece]).matches
    assert (match.start, match.end) == (9, 73)
    assert match.candidates == ((piece, 0, 64),)
    assert match.whole
    assert not match.short


def test_every_occurrence_of_a_piece_is_found() -> None:
    attribution = attribute(f"{WARRANTY}\n\n{LEAVE}\n\n{WARRANTY}", [Piece("w", WARRANTY)])
    # 64 + 2 + 73 + 2 = 141
    assert found(attribution) == [(0, 64, ["w"]), (141, 205, ["w"])]
    assert attribution.gaps == ((64, 141),)


@pytest.mark.parametrize(
    ("start", "end"),
    [(0, 32), (0, 40), (32, 64), (20, 64), (10, 42), (11, 50), (13, 45), (7, 39), (1, 33), (31, 63)],
)
def test_a_piece_truncated_anywhere_is_found_with_the_range_that_matched(start: int, end: int) -> None:
    for indent in range(21):  # every phase of the two grids
        text = "#" * indent + WARRANTY[start:end] + "##"
        attribution = attribute(text, [Piece("w", WARRANTY)])
        assert found(attribution) == [(indent, indent + end - start, ["w"])]
        assert ranges(attribution) == [(start, end)]
        assert not attribution.matches[0].whole


def test_every_run_of_exactly_the_minimum_is_found_and_none_below_it() -> None:
    for start in range(64 - 32 + 1):
        text = "#" + WARRANTY[start : start + 32] + "#"
        assert found(attribute(text, [Piece("w", WARRANTY)])) == [(1, 33, ["w"])]
        assert not attribute("#" + WARRANTY[start : start + 31] + "#", [Piece("w", WARRANTY)]).matches


def test_a_piece_cut_in_the_middle_is_found_as_two_runs() -> None:
    # the first 36 characters, an ellipsis, the last 37
    attribution = attribute(LEAVE[:36] + "[...]" + LEAVE[-37:], [Piece("l", LEAVE)])
    assert found(attribution) == [(0, 36, ["l"]), (41, 78, ["l"])]
    assert ranges(attribution) == [(0, 36), (36, 73)]


def test_a_match_is_case_sensitive() -> None:
    attribution = attribute(WARRANTY.upper(), [Piece("w", WARRANTY)])
    assert attribution.matches == ()
    assert attribution.gaps == ((0, 64),)


def test_an_empty_text_and_no_pieces_are_fine() -> None:
    assert attribute("", [Piece("w", WARRANTY), Piece("", "", short_ok=True)]) == Attribution((), ())
    assert attribute(WARRANTY, []) == Attribution((), ((0, 64),))


def test_a_minimum_under_8_is_refused() -> None:
    with pytest.raises(ValueError, match="minimum is 7"):
        attribute(WARRANTY, [], minimum=7)


# -- what does not count


@pytest.mark.parametrize("filler", ["-" * 40, " " * 40, "\n" * 40, "=-" * 30, "| --- " * 12, "_" * 50, "\u2014" * 40])
def test_a_run_of_blanks_and_punctuation_does_not_count_and_is_no_gap(filler: str) -> None:
    assert attribute(f"Summary\n{filler}\nend", [Piece("f", f"Other{filler}thing")]).matches == ()
    assert attribute(filler, [Piece("f", filler)]) == Attribution((), ())


def test_indentation_before_one_word_does_not_count() -> None:
    attribution = attribute("x:\n" + " " * 40 + "return 1", [Piece("code", "if y:\n" + " " * 40 + "return 2")])
    assert attribution.matches == ()  # 41 blanks and "return " are equal, and that is 6 letters


def test_a_run_across_a_wide_blank_is_found_although_its_windows_are_blank() -> None:
    code = "if condition is met:" + "\n" + " " * 60 + "raise"
    for indent in range(21):
        text = "#" * indent + code[12:] + "!"
        attribution = attribute(text, [Piece("code", code + " ValueError")])
        # " met:" up to "raise": 8 letters, 61 blanks
        assert found(attribution) == [(indent, indent + 74, ["code"])]


def test_a_long_piece_under_the_minimum_without_leave_to_be_short_never_matches() -> None:
    assert attribute(f"{WARRANTY[:31]} {LEAVE[:31]}", [Piece("w", WARRANTY[:31]), Piece("l", "Parental")]).matches == ()


# -- who gets a stretch


def test_a_template_literal_comes_before_a_longer_source() -> None:
    source = Piece("handbook", f"{TEMPLATE} {LEAVE}")
    attribution = attribute(f"{TEMPLATE} {LEAVE}", [source, Piece("template", TEMPLATE, LITERAL)])
    # the literal takes its 64 characters, the source keeps the blank and the 73 that follow
    assert found(attribution) == [(0, 64, ["template"]), (64, 138, ["handbook"])]
    assert ranges(attribution) == [(0, 64), (64, 138)]


def test_boilerplate_of_a_template_makes_no_match_with_a_document_that_shares_it() -> None:
    boilerplate = " ".join(f"Clause {number} binds both parties." for number in range(16))  # 500 characters
    document = Piece("contract", f"Contract of sale.\n{boilerplate}\nSigned in Delft.")
    attribution = attribute(f"{boilerplate} What is due?", [document, Piece("system", boilerplate, LITERAL)])
    assert found(attribution) == [(0, len(boilerplate), ["system"])]


def test_a_piece_whose_middle_a_literal_took_keeps_its_head_and_tail() -> None:
    text = LEAVE + TEMPLATE + WARRANTY
    attribution = attribute(text, [Piece("page", text), Piece("template", TEMPLATE, LITERAL)])
    assert found(attribution) == [(0, 73, ["page"]), (73, 137, ["template"]), (137, 201, ["page"])]
    assert ranges(attribution) == [(0, 73), (0, 64), (137, 201)]


def test_what_a_literal_leaves_of_a_piece_counts_only_from_the_minimum_on() -> None:
    text = LEAVE[:31] + TEMPLATE + WARRANTY[:32]
    attribution = attribute(text, [Piece("page", text), Piece("template", TEMPLATE, LITERAL)])
    assert found(attribution) == [(31, 95, ["template"]), (95, 127, ["page"])]
    assert attribution.gaps == ()


def test_the_longest_match_comes_first_and_the_shorter_is_clipped() -> None:
    document = f"{WARRANTY} {LEAVE} Bicycles may be leased through the employer."
    first, second = Piece(1, document[:100]), Piece(2, document[60:])  # they overlap in 60..100
    attribution = attribute(document, [first, second])
    # second is 125 characters long and wins the overlap
    assert found(attribution) == [(0, 60, [1]), (60, len(document), [2])]


def test_a_strictly_longer_explanation_wins_alone() -> None:
    text = f"See: {WARRANTY} {LEAVE}"
    attribution = attribute(text, [Piece("chunk", WARRANTY), Piece("document", f"{WARRANTY} {LEAVE}")])
    assert found(attribution) == [(5, 143, ["document"])]


def test_pieces_that_explain_the_same_stretch_are_all_candidates_in_the_order_given() -> None:
    chunk, document = Piece("chunk", WARRANTY), Piece("document", f"# Terms\n{WARRANTY}\n{LEAVE}")
    [match] = attribute(f"<{WARRANTY}>", [document, chunk]).matches
    assert match.candidates == ((document, 8, 72), (chunk, 0, 64))
    assert match.whole  # the chunk is


def test_a_piece_that_says_it_twice_is_one_candidate_where_it_says_it_first() -> None:
    piece = Piece("twice", f"{WARRANTY}+{WARRANTY}-")
    assert attribute(f"({WARRANTY})", [piece]).matches[0].candidates == ((piece, 0, 64),)


def test_as_many_occurrences_as_equal_pieces_give_each_its_own_and_further_ones_carry_all() -> None:
    pieces = [Piece(key, WARRANTY) for key in "ab"]
    two = attribute(f"{WARRANTY}\n{WARRANTY}", pieces)
    assert found(two) == [(0, 64, ["a"]), (65, 129, ["b"])]
    three = attribute(f"{WARRANTY}\n{WARRANTY}\n{WARRANTY}", pieces)
    assert found(three) == [(0, 64, ["a"]), (65, 129, ["b"]), (130, 194, ["a", "b"])]


def test_fewer_occurrences_than_equal_pieces_carry_all_as_candidates() -> None:
    pieces = [Piece(key, WARRANTY) for key in "abc"]
    attribution = attribute(f"{WARRANTY}\n{WARRANTY}", pieces)
    assert found(attribution) == [(0, 64, ["a", "b", "c"]), (65, 129, ["a", "b", "c"])]


def test_a_truncated_occurrence_of_equal_pieces_carries_all_and_does_not_count_as_one() -> None:
    pieces = [Piece(key, WARRANTY) for key in "ab"]
    attribution = attribute(f"{WARRANTY}\n{WARRANTY[:40]}", pieces)
    assert found(attribution) == [(0, 64, ["a", "b"]), (65, 105, ["a", "b"])]


def test_one_key_given_twice_is_one_candidate() -> None:
    assert found(attribute(WARRANTY, [Piece("a", WARRANTY), Piece("a", WARRANTY)])) == [(0, 64, ["a"])]


def test_equal_texts_of_two_ranks_go_to_the_lower_rank() -> None:
    attribution = attribute(WARRANTY, [Piece("late", WARRANTY, 2), Piece("early", WARRANTY, 1)])
    assert found(attribution) == [(0, 64, ["early"])]


# -- short pieces


def test_a_short_piece_matches_whole_between_non_word_characters() -> None:
    name = Piece("name", "Remote Work", short_ok=True)
    [match] = attribute("Title: Remote Work, page 2", [name]).matches
    assert (match.start, match.end, match.candidates, match.short, match.whole) == (7, 18, ((name, 0, 11),), True, True)
    assert found(attribute("Remote Work", [name])) == [(0, 11, ["name"])]
    for text in ("remote work", "Remote Works", "xRemote Work", "_Remote Work", "Remote Work2", "Remote Wor"):
        assert not attribute(text, [name]).matches, text


def test_a_combining_mark_belongs_to_the_word_before_it() -> None:
    assert not attribute("le cafe\u0301 noir", [Piece("cafe", "le cafe", short_ok=True)]).matches


def test_an_occurrence_within_a_word_does_not_hide_the_next_one() -> None:
    # "ana" stands at 1 and 3 of "banana" within a word, then alone at 7
    assert found(attribute("banana ana", [Piece("ana", "ana", short_ok=True)])) == [(7, 10, ["ana"])]


def test_the_longest_short_piece_takes_its_stretch_first() -> None:
    pieces = [Piece("a", "Remote Work", short_ok=True), Piece("b", "Remote Work (copy)", short_ok=True)]
    attribution = attribute("Remote Work (copy); Remote Work", pieces)
    assert found(attribution) == [(0, 18, ["b"]), (20, 31, ["a"])]


def test_short_pieces_take_only_what_is_still_free() -> None:
    attribution = attribute(f"{WARRANTY} battery", [Piece("b", "battery", short_ok=True), Piece("w", WARRANTY)])
    assert found(attribution) == [(0, 64, ["w"]), (65, 72, ["b"])]


def test_short_twins_follow_the_same_rule_as_long_ones() -> None:
    pieces = [Piece(key, "Remote Work", short_ok=True) for key in "ab"]
    assert found(attribute("Remote Work, Remote Work", pieces)) == [(0, 11, ["a"]), (13, 24, ["b"])]
    assert found(attribute("Remote Work.", pieces)) == [(0, 11, ["a", "b"])]


@pytest.mark.parametrize("text", ["", " ", "\n\n", "a", "(a)", "7", "2024", "-1.5", "1,000", "12 345", "--", "()"])
def test_blank_single_letter_and_bare_number_pieces_never_match(text: str) -> None:
    assert not attribute(f"x {text} y {text}", [Piece("p", text, short_ok=True)]).matches


def test_a_date_is_no_bare_number() -> None:
    assert found(attribute("on 2024-05-17.", [Piece("d", "2024-05-17", short_ok=True)])) == [(3, 13, ["d"])]


def test_short_template_literals_match_whole_from_eight_characters_on() -> None:
    literals = [Piece(0, "Context:\n", LITERAL), Piece(1, "\nQ:", LITERAL), Piece(2, "\nAnswer: ", LITERAL)]
    text = "Context:\nsnow\nQ:why\nAnswer: "
    assert found(attribute(text, literals)) == [(0, 9, [0]), (19, 28, [2])]
    assert found(attribute(text, literals, literal_minimum=3)) == [(0, 9, [0]), (13, 16, [1]), (19, 28, [2])]


def test_short_template_literals_come_before_short_sources() -> None:
    pieces = [Piece("s", "Context", short_ok=True), Piece("t", "Context: ", LITERAL)]
    assert found(attribute("Context: snow", pieces)) == [(0, 9, ["t"])]


def test_a_short_template_literal_does_not_cut_a_chunk_that_says_the_same() -> None:
    faq = "Question: May I work abroad?\nAnswer: Yes, for ten days a year."
    text = f"Question: How long?\n{faq}"
    attribution = attribute(text, [Piece("faq", faq), Piece("t", "Question: ", LITERAL)])
    assert found(attribution) == [(0, 10, ["t"]), (20, 82, ["faq"])]


# -- gaps


def test_gaps_are_the_stretches_of_the_minimum_that_nothing_explains() -> None:
    text = "g" * 32 + WARRANTY + "g" * 31 + LEAVE + "g" * 40
    assert attribute(text, [Piece("w", WARRANTY), Piece("l", LEAVE)]).gaps == ((0, 32), (200, 240))


def test_another_minimum_holds_for_matches_and_gaps() -> None:
    attribution = attribute("abcdefgh--ijklmnopq", [Piece("p", "xxabcdefghyy")], minimum=8)
    assert found(attribution) == [(0, 8, ["p"])]
    assert attribution.gaps == ((8, 19),)


@pytest.mark.parametrize("minimum", range(8, 49))
def test_a_run_of_exactly_the_minimum_is_found_at_any_phase_whatever_the_minimum(minimum: int) -> None:
    for start in range(len(WARRANTY) - minimum + 1):
        for indent in range(3):
            text = "#" * indent + WARRANTY[start : start + minimum] + "#"
            assert found(attribute(text, [Piece("w", WARRANTY)], minimum=minimum)) == [
                (indent, indent + minimum, ["w"])
            ]


# -- Unicode


@pytest.mark.parametrize("extra", ["é", "№", "🦔", "\ud800"])
def test_offsets_are_those_of_python_strings(extra: str) -> None:
    text = extra * 5 + WARRANTY + extra
    assert found(attribute(text, [Piece("w", WARRANTY)])) == [(5, 69, ["w"])]
    chunk = extra.join(["wide", "range", "of", "letters", "kept", "as", "they", "are"])  # 40 - 1 + 7 > 32 characters
    assert found(attribute(f"- {chunk}", [Piece("c", f"{chunk}{extra}")])) == [(2, 2 + len(chunk), ["c"])]


def test_a_text_without_blanks_is_found() -> None:
    chunk = "保修期为自购买之日起两年内的电池缺陷不包括因使用不当造成的损坏以及自然磨损请保留发票"
    assert found(attribute(f"背景:{chunk[:35]}", [Piece("c", chunk)])) == [(3, 38, ["c"])]


def test_nul_characters_in_a_piece_match_only_nul_characters() -> None:
    piece = Piece("nul", "\0" * 40 + WARRANTY)
    text = f"{WARRANTY} " * 60 + "\0" * 40 + WARRANTY
    attribution = attribute(text, [piece, Piece("w", WARRANTY, LITERAL)])
    assert_sound(text, attribution)
    assert len(attribution.matches) == 61  # the literal took them all; 40 NULs alone prove nothing


# -- periods and size: the work is bounded, and the answer still right


def test_fifty_periodic_pieces_in_a_long_periodic_text_tile_it() -> None:
    period = "lorem ipsum dolor sit amet "  # 27 characters
    text = period * 3800
    pieces = [Piece(number, period * (number + 2)) for number in range(50)]  # up to 51 periods
    attribution = attribute(text, pieces)
    assert_sound(text, attribution)
    assert attribution.gaps == ()
    # 74 times the longest piece, then the 26 periods that are left, which 26 periods and longer ones say
    assert found(attribution)[:74] == [(27 * 51 * i, 27 * 51 * (i + 1), [49]) for i in range(74)]
    assert [match.end - match.start for match in attribution.matches[74:]] == [27 * 26]
    assert [piece.key for piece, _, _ in attribution.matches[74].candidates] == list(range(24, 50))


def test_ten_thousand_equal_characters_are_one_match() -> None:
    pieces = [Piece(number, "a" * (10_000 + number)) for number in range(20)]
    attribution = attribute("a" * 10_000, pieces)
    assert found(attribution) == [(0, 10_000, list(range(20)))]


def test_fifty_pieces_of_one_character_tile_a_hundred_thousand_of_it() -> None:
    pieces = [Piece(number, "a" * (100 + 100 * number)) for number in range(50)]
    attribution = attribute("a" * 100_000, pieces)
    assert found(attribution) == [(start, start + 5000, [49]) for start in range(0, 100_000, 5000)]


def test_a_chunk_that_stands_five_hundred_times_is_found_each_time() -> None:
    text = f"{WARRANTY} | " * 500
    assert found(attribute(text, [Piece("w", WARRANTY)])) == [(67 * i, 67 * i + 64, ["w"]) for i in range(500)]


def test_a_truncated_chunk_that_stands_four_hundred_times_is_found_each_time() -> None:
    attribution = attribute(f"{WARRANTY[:40]}|" * 400, [Piece("w", WARRANTY)])
    assert found(attribution) == [(41 * i, 41 * i + 40, ["w"]) for i in range(400)]
    assert set(ranges(attribution)) == {(0, 40)}


def test_a_run_across_the_blocks_of_a_long_text_is_one_match() -> None:
    chunk = " ".join(str(number) + "th" for number in range(60_000))
    text = f"start:{chunk[1000:-1000]}: end"
    attribution = attribute(text, [Piece("c", chunk)])
    assert len(text) > 300_000
    assert found(attribution) == [(6, len(text) - 5, ["c"])]
    assert ranges(attribution) == [(1000, len(chunk) - 1000)]


def test_rows_of_one_form_are_told_apart() -> None:
    rows = [f'{{"id": "row-{n:03}", "title": "Guide number {n * 7919 % 1000}", "lang": "en"}}' for n in range(100)]
    text = ",\n".join(rows)
    attribution = attribute(text, [Piece(number, row) for number, row in enumerate(rows)])
    assert [match.candidates[0][0].key for match in attribution.matches] == list(range(100))
    assert all(match.whole and len(match.candidates) == 1 for match in attribution.matches)


# -- properties

_words = st.sampled_from(
    ["warranty", "covers", "battery", "defects", "parental", "leave", "of", "a", "12", "é", "第一"]
)


@st.composite
def distinct_pieces(draw: st.DrawFn) -> list[Piece]:
    """Pieces of which no two share a run: each word carries its piece's letter."""
    lists = draw(st.lists(st.lists(_words, min_size=8, max_size=60), min_size=1, max_size=8))
    return [
        Piece(number, " ".join(f"{word}{chr(65 + number)}{place}" for place, word in enumerate(words)))
        for number, words in enumerate(lists)
    ]


@given(st.data())
def test_exactly_the_pieces_that_a_text_was_made_of_are_found(data: st.DataObject) -> None:
    pieces = data.draw(distinct_pieces())
    parts: list[str] = []
    expected = []
    length = 0
    for piece in data.draw(st.lists(st.sampled_from(pieces), max_size=12)):
        start = data.draw(st.integers(0, len(piece.text) - 32))
        end = data.draw(st.one_of(st.just(len(piece.text)), st.integers(start + 32, len(piece.text))))
        if not re.search(r"(?:[\W_]*[^\W_]){8}", piece.text[start:end]):
            continue
        separator = data.draw(st.sampled_from(["\x01", "\n\n\x01\n\n", "\x01---\x01", "\x01 * \x01"]))
        parts += [separator, piece.text[start:end], "\x01"]
        length += len(separator)
        expected.append((length, length + end - start, piece.key, start, end))
        length += end - start + 1
    text = "".join(parts)
    attribution = attribute(text, pieces)
    assert_sound(text, attribution)
    assert [
        (match.start, match.end, piece.key, start, end)
        for match in attribution.matches
        for piece, start, end in match.candidates
    ] == expected
    assert attribution.gaps == ()


def attribute_by_definition(text: str, pieces: Sequence[Piece], minimum: int) -> list[tuple[int, int, list[object]]]:
    """The rules for long pieces with different texts, word by word and without any care for time."""
    needed = 2 * max(2, minimum // 8)
    free = [True] * len(text)
    matches: list[tuple[int, int, list[object]]] = []
    for rank in sorted({piece.rank for piece in pieces}):
        of_rank = [piece for piece in pieces if piece.rank == rank]
        while True:
            best: tuple[int, int] | None = None
            for start in range(len(text)):
                for end in range(len(text), start + minimum - 1, -1):
                    stretch = text[start:end]
                    if best and end - start <= best[1] - best[0]:
                        break
                    if all(free[start:end]) and any(stretch in piece.text for piece in of_rank):
                        if sum(character.isalnum() for character in stretch) >= needed:
                            best = start, end
                        break
            if best is None:
                break
            start, end = best
            free[start:end] = [False] * (end - start)
            matches.append((start, end, [piece.key for piece in of_rank if text[start:end] in piece.text]))
    return sorted(matches)


@settings(max_examples=300)
@given(st.data())
def test_it_agrees_with_the_definition(data: st.DataObject) -> None:
    minimum = data.draw(st.sampled_from([8, 9, 10, 12, 16]))
    words = st.sampled_from(["abcd", "efg", "hijkl", "mn", "--", "   ", "op q", "r", "stuvwxyz"])
    texts = st.lists(words, max_size=14).map("".join)
    body = data.draw(texts)
    pieces = [
        Piece(number, text, data.draw(st.integers(0, 2)))
        for number, text in enumerate(data.draw(st.lists(texts, max_size=5, unique=True)))
        if len(text) >= minimum
    ]
    attribution = attribute(body, pieces, minimum=minimum)
    assert_sound(body, attribution, minimum)
    assert found(attribution) == attribute_by_definition(body, pieces, minimum)
    again = attribute(body, pieces, minimum=minimum)
    assert again == attribution
