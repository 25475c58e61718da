"""Explanations: which field tells a call from the nearest one that is stored, and what the cache did with it."""

from __future__ import annotations

import time
from typing import Any

import pytest
from langchain_core.embeddings import Embeddings
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool

import clew
from clew.lineage import index
from clew.lineage.view import SpanView
from clew.replay.difference import changes
from clew.replay.explain import Explanation, explain
from clew.replay.settings import Cache
from clew.store import action, segment
from clew.store.errors import Ambiguous, NotFound
from clew.store.gc import collect
from clew.store.record import Action
from clew.tracer.init import Tracer
from tests.replay.conftest import Caching, Counted


class Letters(Embeddings):
    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [[float(len(text))] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return [float(len(text))]


def spans(tracer: Tracer, kind: str = "llm") -> list[SpanView]:
    clew.flush()
    with clew.open(tracer.folder.path) as reader:
        return [span for span in reader.spans() if span.kind == kind]


def explained(tracer: Tracer, what: Any) -> Explanation:
    with clew.open(tracer.folder.path) as reader:
        return explain(reader, what)


def last(tracer: Tracer, kind: str = "llm") -> Explanation:
    """Why the last call of a kind was answered as it was."""
    return explained(tracer, spans(tracer, kind)[-1])


def lines_of(found: Explanation) -> dict[str, list[str]]:
    """The fields that differ from the nearest, with how."""
    assert found.nearest is not None
    return {", ".join(one.fields): one.lines for one in found.nearest.differs}


# -- what differs


def test_a_changed_message_is_shown_as_a_diff(caching: Caching) -> None:
    with caching() as tracer:
        for rule in ("Be kind.\nBe short.\nBe right.", "Be kind.\nBe long.\nBe right."):
            Counted().invoke([SystemMessage(rule), HumanMessage("hello")])
        found = last(tracer)
    assert (found.outcome, found.reason) == ("miss", "nobody had asked this before")
    assert lines_of(found)["messages"] == [
        "message 0 differs",
        "--- the other",
        "+++ this one",
        "@@ -1,5 +1,5 @@",
        " [system]",
        " Be kind.",
        "-Be short.",
        "+Be long.",
        " Be right.",
        " [user]",
    ]
    assert found.nearest is not None
    assert found.nearest.equal == ["model", "reached", "parameters", "stop", "options"]
    assert "  differs: messages\n    message 0 differs\n" in str(found)


def test_a_conversation_that_went_on_is_compared_to_what_was_asked_first(caching: Caching) -> None:
    asked = [HumanMessage("what is it?")]
    with caching() as tracer:
        Counted().invoke(asked)
        Counted().invoke([*asked, AIMessage("It is a clew."), HumanMessage("and what is that?")])
        found = lines_of(last(tracer))["messages"]
    assert found[0] == "the first message is equal; this one goes on"
    assert [line for line in found if line.startswith("+")][1:] == [
        "+[assistant]",
        "+It is a clew.",
        "+[user]",
        "+and what is that?",
    ]


def test_ids_that_were_minted_are_no_difference(caching: Caching) -> None:
    def asked(call: str, result: str) -> list[Any]:
        calls = [{"name": "calc", "args": {"x": 1}, "id": call}]
        return [HumanMessage("go"), AIMessage("", tool_calls=calls), ToolMessage(result, tool_call_id=call)]

    with caching() as tracer:
        Counted().invoke(asked("call_1", "one"))
        Counted().invoke(asked("call_2", "two"))
        found = lines_of(last(tracer))["messages"]
    changed = [line for line in found if line[0] in "+-" and line[:3] not in ("+++", "---")]
    assert changed == ["-one", "+two"]


def test_a_changed_parameter_is_told_with_both_values(caching: Caching) -> None:
    with caching() as tracer:
        Counted(temperature=0.0).invoke("hello")
        Counted(temperature=0.2).invoke("hello")
        assert lines_of(last(tracer)) == {"model": ["temperature: 0.0 → 0.2"]}
        Counted().invoke("hello", stop=["END"])
        found = last(tracer)
    assert any("END" in line for line in lines_of(found)["stop"])


def test_a_changed_tool_of_a_model_is_named(caching: Caching) -> None:
    def bound(description: str) -> dict[str, Any]:
        return {"type": "function", "function": {"name": "calc", "description": description}}

    with caching() as tracer:
        Counted().invoke("hello", tools=[bound("Adds.")])
        Counted().invoke("hello", tools=[bound("Adds two.")])
        assert lines_of(last(tracer)) == {"options": ["tools.calc.function.description: “Adds.” → “Adds two.”"]}


def test_tools_in_another_order_are_a_difference_and_a_stream_is_none(caching: Caching) -> None:
    def bound(*names: str) -> list[Any]:
        return [{"type": "function", "function": {"name": name, "description": "Adds."}} for name in names]

    with caching() as tracer:
        Counted().invoke("hello", tools=bound("a", "b"))
        list(Counted().stream("hello", tools=bound("b", "a")))
        assert lines_of(last(tracer)) == {"options": ["order of tools: “a, b” → “b, a”"]}


def test_what_no_span_records_is_told_as_a_digest_that_differs(caching: Caching) -> None:
    with caching() as tracer:
        Counted(says="one").invoke("hello")
        Counted(says="two").invoke("hello")
        found = last(tracer)
    assert lines_of(found) == {"model": []}
    assert found.nearest is not None
    assert found.nearest.differs[0].reason.startswith("only the digest differs")
    assert "only the digest differs" in str(found)


def test_a_tools_arguments_are_compared(caching: Caching) -> None:
    @tool
    def calc(x: int, why: str) -> int:
        """Adds one."""
        return x + 1

    with caching(Cache(tools={"calc": "pure"})) as tracer:
        calc.invoke({"x": 1, "why": "first"})
        calc.invoke({"x": 2, "why": "first"})
        found = last(tracer, "tool")
    assert lines_of(found) == {"arguments": ["x: 1 → 2"]}
    assert found.nearest is not None
    assert found.nearest.equal == ["tool"]


def test_a_functions_arguments_are_compared_and_its_code_by_its_digest(caching: Caching) -> None:
    def made(number: int) -> Any:
        @clew.cached(name="score")
        def score(text: str, weight: int = 1) -> int:
            return len(text) * weight + number

        return score

    with caching() as tracer:
        made(1)("a text")
        made(1)("a text", weight=3)
        assert lines_of(last(tracer, "chain")) == {"arguments": ["weight: 1 → 3"]}
        made(2)("a text")
        found = last(tracer, "chain")
    assert lines_of(found) == {"tool": []}


def test_the_text_of_an_embedding_is_compared(caching: Caching) -> None:
    with caching() as tracer:
        Letters().embed_query("the first text")
        Letters().embed_query("the second text")
        found = last(tracer, "embedding")
    assert lines_of(found)["text"] == ["“the first text” → “the second text”"]


def test_the_nearest_is_the_one_with_most_equal_fields_and_of_several_the_newest(caching: Caching) -> None:
    with caching() as tracer:
        Counted(top_k=1).invoke("one")
        Counted(top_k=1).invoke("two")
        Counted(top_k=2).invoke("three")
        Counted(top_k=1).invoke("four")
        Counted(top_k=3).invoke("nothing like it")
        asked = spans(tracer)
        found = explained(tracer, asked[3])
    assert found.nearest is not None
    assert found.nearest.span_id == asked[1].span_id


def test_a_sampled_call_says_that_its_place_differs(caching: Caching) -> None:
    with caching() as tracer:
        with clew.run("first"):
            Counted(temperature=0.7).invoke("hello")
            Counted(temperature=0.7).invoke("hello")
        found = last(tracer)
    assert found.place is not None
    assert (found.place.path, found.place.occurrence) == ("first/Counted", 1)
    text = str(found)
    assert (
        "the request is equal, but its place differs: place: first/Counted, number 1 → first/Counted, number 2" in text
    )
    assert lines_of(found) == {}


def test_a_call_of_another_model_is_the_nearest_where_there_is_no_other(caching: Caching) -> None:
    class Other(Counted):
        @property
        def _llm_type(self) -> str:
            return "other"

    with caching() as tracer:
        Other().invoke("hello")
        Letters().embed_query("hello")
        assert last(tracer).nearest is None
        assert "nothing else of this kind and operation is stored" in str(last(tracer))
        Counted().invoke("hello")
        found = last(tracer)
    assert found.nearest is not None
    assert (found.model, found.nearest.model) == ("counted", "other")
    assert "  of another model: other\n" in str(found)


# -- what became of it


def test_a_hit_names_the_call_that_was_asked(caching: Caching) -> None:
    with caching() as tracer:
        Counted().invoke("hello")
        Counted().invoke("hello")
        first, second = spans(tracer)
        found = explained(tracer, second)
    assert found.outcome == "hit"
    assert f"asked by span {first.span_id}" in found.reason
    assert found.performed is not None
    assert found.performed["span_id"] == first.span_id
    assert found.nearest is None


def test_a_key_tells_what_it_is_made_of_by_any_prefix(caching: Caching) -> None:
    with caching() as tracer:
        Counted().invoke("hello")
        (span,) = spans(tracer)
        key = span.attributes["clew.cache.key"]
        for prefix in (key, key[:12], f"b3:{key[:8]}".upper().replace("B3:", "b3:")):
            found = explained(tracer, prefix)
            assert (found.outcome, found.key) == ("stored", key)
    assert list(found.fields) == ["model", "reached", "parameters", "stop", "options", "messages"]
    assert found.performed is not None
    assert found.performed["span_id"] == span.span_id


def test_a_bypass_says_why(caching: Caching) -> None:
    @tool
    def unknown(x: int) -> int:
        """Nobody knows."""
        return x

    with caching() as tracer:
        unknown.invoke({"x": 1})
        found = last(tracer, "tool")
    assert found.outcome == "bypass"
    assert "nothing says what the tool 'unknown' does" in str(found)


def test_an_answer_that_was_refused_leaves_nothing_to_compare_and_says_so(caching: Caching) -> None:
    with caching() as tracer:
        for _ in range(2):
            Counted(finish_reason="length").invoke("hello")
        first, second = spans(tracer)
        found = explained(tracer, first)
        assert found.outcome == "refused"
        assert "it ended by length" in found.reason
        assert "is not known" in found.reason
        found = explained(tracer, second)
        assert (
            f"span {first.span_id} had asked the same, and its answer was not kept: it ended by length" in found.reason
        )
        gone = explained(tracer, found.key)
        assert gone.outcome == "gone"
        assert "it ended by length" in gone.reason


def test_an_answer_that_expired_is_the_reason_of_the_next_miss(caching: Caching) -> None:
    with caching(Cache(ttl=0.05)) as tracer:
        Counted().invoke("hello")
        time.sleep(0.1)
        Counted().invoke("hello")
        first, second = spans(tracer)
        found = explained(tracer, second)
        assert found.outcome == "miss"
        assert found.reason == f"span {first.span_id} had asked the same, and its answer had expired"
        time.sleep(0.1)
        assert explained(tracer, found.key).outcome == "expired"


def test_the_nearest_is_found_where_it_has_expired_too(caching: Caching) -> None:
    with caching(Cache(ttl=0.05)) as tracer:
        Counted().invoke("hello")
        time.sleep(0.1)
        Counted().invoke("hallo")
        first, second = spans(tracer)
        found = explained(tracer, second)
    assert found.nearest is not None
    assert found.nearest.span_id == first.span_id


def evict_all(tracer: Tracer, before_ns: int | None = None) -> None:
    opened, indexer = index.shared(tracer.folder)
    stems = segment.stems(tracer.folder.log)
    bound = 1 if before_ns is None else None
    collect(opened, before_ns, catch_up=lambda: indexer.catch_up(stems), max_bytes=bound)
    index.forget(tracer.folder)


def test_an_answer_that_was_evicted_is_told_from_the_log(caching: Caching) -> None:
    with caching() as tracer:
        Counted().invoke("hello")
    evict_all(tracer)
    with caching() as tracer:
        Counted().invoke("another")
        Counted().invoke("hello")
        first, _, third = spans(tracer)
        found = explained(tracer, third)
        assert found.reason == f"span {first.span_id} had asked the same, and its answer was not in the cache any more"
    evict_all(tracer)
    found = explained(tracer, first.attributes["clew.cache.key"])
    assert found.outcome == "gone"
    assert "evicted" in found.reason
    assert set(found.fields) == {"model", "reached", "parameters", "stop", "options", "messages"}


def test_a_batch_tells_how_many_were_served_and_which_were_not(caching: Caching) -> None:
    with caching() as tracer:
        Letters().embed_documents(["one", "two"])
        Letters().embed_documents(["one", "two", "three"])
        found = last(tracer, "embedding")
        assert found.outcome == "batch"
        assert found.reason.startswith("3 things were asked at once")
        assert "2 were answered from the cache" in found.reason
        assert len(found.keys) == 1
        key = explained(tracer, found.keys[0])
    assert lines_of(key)["text"] == ["“two” → “three”"]


def test_what_a_collected_process_asked_is_known_by_its_digests_alone(caching: Caching) -> None:
    with caching() as tracer:
        Letters().embed_documents(["one", "two"])
    limit = time.time_ns()
    with caching() as tracer:
        Letters().embed_documents(["one", "two"])
    evict_all(tracer, limit)
    with caching() as tracer:
        Letters().embed_documents(["three"])
        (key,) = last(tracer, "embedding").keys
        found = explained(tracer, key)
    assert found.nearest is not None
    assert [(one.fields, one.lines) for one in found.nearest.differs] == [(["text"], [])]
    assert "collected" in found.nearest.differs[0].reason


# -- what makes no sense


def test_a_span_that_asked_nothing_of_the_cache_says_so(caching: Caching) -> None:
    class Broken(Counted):
        def _answer(self, messages: list[Any]) -> AIMessage:
            raise RuntimeError("no network")

    with caching(Cache(llm=False)) as tracer:
        Counted().invoke("hello")
        with pytest.raises(NotFound, match="asked nothing of the cache"):
            last(tracer)
    with caching() as tracer:
        with pytest.raises(RuntimeError):
            Broken().invoke("hello")
        with pytest.raises(NotFound, match=r"did not come to an end \(error\)"):
            last(tracer)


@pytest.mark.parametrize("wrong", ["", "abc", "no-such-thing", "zzzzzz"])
def test_what_is_no_name_is_said_to_be_none(caching: Caching, wrong: str) -> None:
    with caching() as tracer, pytest.raises(NotFound, match="4 hex digits"):
        explained(tracer, wrong)


def test_an_unknown_key_is_not_found_and_an_ambiguous_one_lists_what_fits(caching: Caching) -> None:
    with caching() as tracer:
        with pytest.raises(NotFound, match="no key of the cache and no span begins with 'abcdef012345'"):
            explained(tracer, "abcdef012345")
        made = [Action(bytes.fromhex(key), "llm", "chat", 1, {}, b"") for key in ("11" * 32, "1111" + "22" * 30)]
        with index.shared(tracer.folder)[0].write() as connection:
            action.insert(connection, [(one, "none", 0) for one in made])
        with pytest.raises(Ambiguous, match="fits several: key 1111"):
            explained(tracer, "1111")


def test_long_lines_are_compared_sentence_by_sentence() -> None:
    text = "This is the first sentence of a prompt. This is the second one, which is changed. And this is the last one of all."
    found = list(changes(text, text.replace("is changed", "was changed")))
    assert [line for line in found if line[0] in "+-"][2:] == [
        "-This is the second one, which is changed.",
        "+This is the second one, which was changed.",
    ]


def test_a_message_that_was_put_in_is_told_alone_and_a_line_break_at_an_end_is_told() -> None:
    asked = [{"role": "user", "content": f"{number}"} for number in range(4)]
    found = list(changes(asked, [*asked[:2], {"role": "tool", "content": "new"}, *asked[2:]]))
    assert found[0] == "message 2 differs (2 before it are equal)"
    assert [line for line in found[3:] if line[0] in "+-"] == ["+[tool]", "+new"]
    longer = [{"role": "user", "content": "0\n"}, *asked[1:]]
    assert [line for line in list(changes(asked, longer))[3:] if line[0] in "+-"] == ["+"]


def test_what_only_one_has_and_what_is_of_another_type_is_told_apart() -> None:
    one = {"top_k": None, "size": 1, "stops": ["a", "b", "c"]}
    other = {"size": "1", "stops": ["a", "x", "b", "c"]}
    assert list(changes(one, other)) == ["top_k: null → nothing", "size: 1 → “1”", "stops[1]: nothing → “x”"]


@pytest.mark.parametrize(("one", "other"), [(0, False), (1, 1.0), ("", None), ([], {}), ({"a": 1}, {"a": True})])
def test_values_of_different_types_are_different(one: Any, other: Any) -> None:
    assert list(changes(one, other))
    assert not list(changes(one, one))
