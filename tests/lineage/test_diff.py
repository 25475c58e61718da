"""Two runs are compared by what their steps were asked, and part where nothing before explains the difference."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.runnables import RunnableLambda

import clew
from clew.store.errors import NotFound
from tests.lineage.diff_bed import (
    BRANCHES,
    PROMPT,
    assistant,
    buyer,
    changes_of,
    echo,
    foreign,
    newest,
    of_kind,
    parted,
    price,
    run,
    states,
    team,
)
from tests.lineage.lineage_bed import Fake, Given, Streaming, agent, documents, prose, rows, traced

ASKED = {"messages": [HumanMessage("What do a pen and paper cost?")]}


@pytest.fixture
def store(clean_tracing: None, tmp_path: Path) -> Iterator[Path]:
    with traced(tmp_path) as folder:
        yield folder


# -- equal


def test_the_same_program_twice_did_the_same(store: Path) -> None:
    found = clew.diff(run(store, team()), run(store, team()), store=store)
    assert found.equal
    assert found.answer.equal
    assert not found.divergences
    assert states(found.pairs()) == {"equal": len(found.pairs())}
    assert all(pair.a.span.path == pair.b.span.path for pair in found.pairs() if pair.a and pair.b)


def test_a_run_is_equal_to_itself(store: Path) -> None:
    name = run(store, team())
    found = clew.diff(name, name, store=store)
    assert found.equal
    assert all(facet.equal for facet in found.facets)
    assert "the same run" in found.text()


def test_branches_that_are_sent_in_another_order_are_aligned_by_what_they_were_asked(store: Path) -> None:
    found = clew.diff(run(store, team()), run(store, team(order=[3, 5, 0, 4, 2, 1])), store=store)
    calls = of_kind(found, "llm", "retriever")
    assert states(calls) == {"equal": 2 + 2 * BRANCHES}
    assert not any(pair.moved for pair in found.pairs())
    assert found.answer.equal


def test_branches_that_end_in_another_order_are_equal(store: Path) -> None:
    def waiting_for_the_others() -> Any:
        ended = threading.Barrier(BRANCHES - 1)
        rest = threading.Event()

        def turn(number: int) -> None:
            if number == 0:
                assert rest.wait(30)
            elif ended.wait(30) == 0:
                rest.set()

        return turn

    first = run(store, team())
    config = {"max_concurrency": BRANCHES}
    team(turn=waiting_for_the_others()).invoke({"question": "Who decides?"}, config)
    found = clew.diff(first, newest(store), store=store)
    assert found.equal
    assert not any(pair.moved for pair in found.pairs())


def test_other_ids_and_counts_of_tokens_are_no_difference(store: Path) -> None:
    def once() -> str:
        return run(store, assistant(Fake(reply=buyer(["pen", "paper"]))), ASKED)

    found = clew.diff(once(), once(), store=store)
    assert found.equal, found.text()
    assert states(of_kind(found, "tool")) == {"equal": 2}
    counted = [pair for pair in of_kind(found, "llm") if pair.a and pair.b]
    assert any(pair.a.tokens != pair.b.tokens for pair in counted if pair.a and pair.b)


def test_an_answer_to_another_call_is_a_difference_though_only_ids_tell(store: Path) -> None:
    def asked(first: str, second: str) -> str:
        calls = [
            {"name": "price", "args": {"item": item}, "id": name}
            for item, name in (("a", "call_one_1"), ("b", "call_two_2"))
        ]
        messages = [
            AIMessage("", tool_calls=calls),
            ToolMessage("1", tool_call_id=first),
            ToolMessage("2", tool_call_id=second),
        ]
        with clew.run("asked"):
            Fake(reply=lambda _: "ok").invoke(messages)
        return newest(store)

    found = clew.diff(asked("call_one_1", "call_two_2"), asked("call_two_2", "call_one_1"), store=store)
    (change, other) = found.divergences[0].step and changes_of(found.divergences[0])
    assert [change.path, other.path] == ["messages[1].tool_call_id", "messages[2].tool_call_id"]
    assert [str(change.a), str(change.b)] == ["#0", "#1"]


def test_a_short_id_is_not_taken_for_one_elsewhere(store: Path) -> None:
    def asked(word: str) -> str:
        with clew.run("asked"):
            Fake(reply=lambda _: "ok").invoke([HumanMessage(word, id="yes"), HumanMessage("x", id="no")])
        return newest(store)

    assert not clew.diff(asked("yes"), asked("no"), store=store).equal


def test_a_stream_an_await_and_a_call_are_the_same_run(store: Path) -> None:
    model = Streaming(reply=echo)
    called = run(store, team(model=model))
    list(team(model=model).stream({"question": "Who decides?"}, stream_mode="messages"))
    streamed = newest(store)
    asyncio.run(team(model=model).ainvoke({"question": "Who decides?"}))
    awaited = newest(store)
    assert clew.diff(called, streamed, store=store).equal
    assert clew.diff(called, awaited, store=store).equal


def test_what_was_answered_from_the_cache_is_equal_and_marked(clean_tracing: None, tmp_path: Path) -> None:
    clew.init("tests", store=tmp_path / "store", cache=True)
    clew.instrument()
    first, second = (run(tmp_path / "store", team()) for _ in range(2))
    found = clew.diff(first, second, store=tmp_path / "store")
    assert found.equal
    sides = [step["b"] for step in found.to_dict()["steps"] if step["kind"] == "llm"]
    assert all(side["cached"] for side in sides)
    clew.shutdown()


# -- where they part


def test_a_changed_prompt_in_one_branch_parts_there_and_nowhere_else(store: Path) -> None:
    found = clew.diff(run(store, team()), run(store, team({2: f"{PROMPT} Doubt it."})), store=store)
    assert parted(found) == [("asked otherwise", "llm", "Team/research[2]/Fake")]
    (where,) = found.divergences
    assert [(change.side, change.path) for change in changes_of(where)] == [
        ("request", "messages[0].content"),
        ("answer", "message.content"),
    ]
    assert "handbook.{+ Doubt it.+}" in found.text()
    branches = {pair.step.place: pair.state for pair in of_kind(found, "node") if pair.step.name == "research"}
    assert branches == {f"research[{number}]": "within" if number == 2 else "equal" for number in range(BRANCHES)}
    merge = next(pair for pair in found.pairs() if pair.step.name == "merge")
    assert merge.state == "asked otherwise"
    assert merge.follows is not None
    assert merge.follows.step.place == "research[2]"
    assert all(inner.follows is not None and not inner.own for inner in merge.within())
    assert found.answer.equal is False


def test_a_prompt_that_changes_no_answer_changes_nothing_else(store: Path) -> None:
    model = Fake(reply=lambda messages: echo(messages[1:]))
    found = clew.diff(run(store, team(model=model)), run(store, team({2: "Doubt it."}, model=model)), store=store)
    assert parted(found) == [("asked otherwise", "llm", "Team/research[2]/Fake")]
    assert states(of_kind(found, "llm")) == {"asked otherwise": 1, "equal": 1 + BRANCHES}
    assert found.answer.equal
    assert not found.equal


def test_a_second_change_further_on_is_told_though_it_follows(store: Path) -> None:
    changed = team({2: "Doubt it."}, final="Merge the notes into a poem.")
    found = clew.diff(run(store, team()), run(store, changed), store=store)
    assert parted(found) == [("asked otherwise", "llm", "Team/research[2]/Fake")]
    last = of_kind(found, "llm")[-1]
    assert last.follows is not None
    assert last.own == ["system message"]


def test_a_system_message_that_holds_an_earlier_answer_is_no_change_of_its_own(store: Path) -> None:
    def once(word: str) -> str:
        with clew.run("two"):
            model = Fake(reply=echo)
            said = model.invoke([HumanMessage(word)]).content
            model.invoke([("system", f"Context: {said}"), ("human", "go on")])
        return newest(store)

    found = clew.diff(once("this"), once("that"), store=store)
    first, second = of_kind(found, "llm")
    assert first.first
    assert second.follows is first
    assert second.own == []


def test_a_model_that_answers_otherwise_is_where_they_part(store: Path) -> None:
    count = itertools.count()

    def fickle(messages: list[Any]) -> str:
        return f"{echo(messages)} {next(count)}" if "4:" in str(messages[-1].content) else echo(messages)

    first, second = (run(store, team(model=Fake(reply=fickle))) for _ in range(2))
    found = clew.diff(first, second, store=store)
    assert parted(found) == [("answered otherwise", "llm", "Team/research[4]/Fake")]
    assert states(of_kind(found, "retriever")) == {"equal": BRANCHES}


def test_branches_that_differ_each_for_itself_part_each_for_itself(store: Path) -> None:
    found = clew.diff(run(store, team()), run(store, team({1: "Doubt it.", 4: "Believe it."})), store=store)
    assert parted(found) == [
        ("asked otherwise", "llm", f"Team/research[{number}]/Fake") for number in (1, 4)
    ] or parted(found) == [("asked otherwise", "llm", f"Team/research[{number}]/Fake") for number in (4, 1)]


def test_another_document_parts_at_the_retriever(store: Path) -> None:
    found = clew.diff(run(store, team()), run(store, team(documents={3: prose("new")})), store=store)
    assert parted(found) == [("answered otherwise", "retriever", "Team/research[3]/Given")]
    assert [change.path for change in changes_of(found.divergences[0])] == ["documents.text"]


def test_a_document_more_does_not_shift_the_others(store: Path) -> None:
    few, many = documents(rows(3)), documents(rows(5))
    found = clew.diff(run(store, agent(Given(found=few))), run(store, agent(Given(found=[many[4], *few]))), store=store)
    (where,) = found.divergences
    (change,) = changes_of(where)
    assert change.path == "documents[0]"
    assert change.b["text"] == many[4].page_content


def test_uuids_that_an_index_gave_its_documents_are_no_difference(store: Path) -> None:
    import uuid

    def once(name: Any) -> str:
        return run(store, agent(Given(found=[Document(prose(1), id=str(name))])))

    assert clew.diff(once(uuid.uuid4()), once(uuid.uuid4()), store=store).equal
    named = [uuid.uuid5(uuid.NAMESPACE_URL, word) for word in ("one", "two")]  # digests of something: not by chance
    assert not clew.diff(once(named[0]), once(named[1]), store=store).equal


def test_another_question_parts_at_the_run_itself(store: Path) -> None:
    found = clew.diff(run(store, team()), run(store, team(), {"question": "Who pays?"}), store=store)
    assert parted(found) == [("asked otherwise", "workflow", "Team")]
    assert next(change.path for change in changes_of(found.divergences[0])) == "question"


def test_another_model_and_other_parameters_are_named(store: Path) -> None:
    class Warm(Fake):
        temperature: float = 0.0

        @property
        def _identifying_params(self) -> dict[str, Any]:
            return {"temperature": self.temperature}

    first, second = (run(store, team(model=Warm(reply=echo, temperature=heat))) for heat in (0.0, 0.7))
    found = clew.diff(first, second, store=store)
    assert parted(found)[0] == ("asked otherwise", "llm", "Team/plan/Warm")
    changed = changes_of(found.divergences[0])
    assert [(change.path, change.a, change.b) for change in changed] == [("model.parameters.temperature", 0.0, 0.7)]


def test_a_node_whose_own_code_answers_otherwise(store: Path) -> None:
    def once(suffix: str) -> str:
        return run(store, agent(Given(found=documents(rows(2))), render=lambda found: suffix + str(len(found))))

    found = clew.diff(once("a"), once("a"), store=store)
    assert found.equal
    kept = [
        run(store, agent(Given(found=documents(rows(2))), keep=keep))
        for keep in (lambda one: True, lambda one: one.id == "h0")
    ]
    found = clew.diff(*kept, store=store)
    assert parted(found) == [("answered otherwise", "node", "Desk/choose")]


# -- steps more or less


def test_an_added_node_shifts_nothing(store: Path) -> None:
    found = clew.diff(run(store, team()), run(store, team(review=True)), store=store)
    assert parted(found) == [("added", "node", "Team/review")]
    rest = [pair for pair in found.pairs() if not pair.one_sided and pair.step.kind != "workflow"]
    assert states(rest) == {"equal": len(rest)}
    back = clew.diff(found.b.run_id, found.a.run_id, store=store)
    assert parted(back) == [("removed", "node", "Team/review")]
    assert "only in a" in back.text()


def test_a_turn_more_in_a_loop_follows_from_the_model_that_asked_for_it(store: Path) -> None:
    first = run(store, assistant(Fake(reply=buyer(["pen", "paper"]))), ASKED)
    second = run(store, assistant(Fake(reply=buyer(["pen", "ink", "paper"]))), ASKED)
    found = clew.diff(first, second, store=store)
    assert parted(found) == [("answered otherwise", "llm", "Assistant/think/Fake")]
    assert found.divergences[0] is of_kind(found, "llm")[1]
    tools = of_kind(found, "tool")
    assert sorted((pair.state, pair.follows is not None) for pair in tools) == [
        ("added", True),
        ("equal", False),
        ("equal", False),
    ]


def test_a_call_that_was_put_into_another_step_is_met_there(store: Path) -> None:
    def once(wrapped: bool) -> str:
        model = Fake(reply=echo)
        step = RunnableLambda(lambda word: model.invoke([HumanMessage(word)]).content).with_config(run_name="wrap")
        with clew.run("one"):
            step.invoke("this") if wrapped else model.invoke([HumanMessage("this")])
        return newest(store)

    found = clew.diff(once(False), once(True), store=store)
    (call,) = of_kind(found, "llm")
    assert call.state == "equal"
    assert call.elsewhere
    assert parted(found) == [("added", "workflow", "one/wrap")]


def test_steps_that_changed_places_are_equal_and_marked(store: Path) -> None:
    def once(words: str) -> str:
        with clew.run("in turn") as turns:
            for word in words:
                Fake(reply=echo).invoke([HumanMessage(word)])
            turns.output("done")
        return newest(store)

    found = clew.diff(once("abcd"), once("bcda"), store=store)
    assert found.counts["equal"] == len(found.pairs())
    assert any(pair.moved for pair in found.pairs())
    assert "in another order" in found.text()


def test_an_error_and_its_message_are_what_differs(store: Path) -> None:
    def failing(messages: list[Any]) -> str:
        if "3:" in str(messages[-1].content):
            raise ValueError("no such page")
        return echo(messages)

    good = run(store, team())
    with pytest.raises(ValueError, match="no such page"):
        team(model=Fake(reply=failing)).invoke({"question": "Who decides?"}, {"max_concurrency": 1})
    found = clew.diff(good, newest(store), store=store)
    assert parted(found)[0] == ("answered otherwise", "llm", "Team/research[3]/Fake")
    changed = {change.path: (str(change.a), str(change.b)) for change in changes_of(found.divergences[0])}
    assert changed["status"] == ("ok", "error")
    assert changed["exception.message"] == ("absent", "no such page")
    assert any(pair.state == "removed" and pair.follows is not None for pair in found.pairs())


def test_two_different_programs_are_compared_as_far_as_it_goes(store: Path) -> None:
    other = run(store, assistant(Fake(reply=buyer(["pen"]))), ASKED)
    found = clew.diff(run(store, team()), other, store=store)
    assert not found.equal
    assert {pair.state for pair in found.pairs()} <= {"added", "removed", "asked otherwise"}
    assert found.text()
    json.dumps(found.to_dict(content=True))


# -- what is compared, and how it is told


def test_a_replay_is_compared_with_its_original(store: Path) -> None:
    original = run(store, team())
    root = clew.open(store).spans(original)[0]
    with clew.run("Team") as replay:
        assert replay._span is not None
        replay._span.link(bytes.fromhex(root.trace_id), bytes.fromhex(root.span_id), "replay_of")
    found = clew.diff(replay, store=store)
    assert (found.a.run_id, found.b.run_id) == (original, replay.id)
    with clew.run("Team") as noted:
        assert noted._span is not None
        noted._span.run.replay_of = bytes.fromhex(original)
    assert clew.diff(noted, store=store).a.run_id == original
    with pytest.raises(NotFound, match="no replay"):
        clew.diff(original, store=store)


def test_what_is_no_run_is_refused(store: Path) -> None:
    name = run(store, team())
    span = clew.open(store).spans(name)[0].span_id
    with pytest.raises(NotFound, match="not a run"):
        clew.diff(name, span, store=store)
    with pytest.raises(NotFound):
        clew.diff(name, "nothing of that name", store=store)


def test_a_run_that_is_still_running_says_so(store: Path) -> None:
    def one(model: Fake) -> None:
        model.invoke([HumanMessage("this")])

    model = Fake(reply=echo)
    with clew.run("one") as whole:
        one(model)
        one(model)
    with clew.run("one") as half:
        one(model)
        found = clew.diff(whole, half, store=store)
    assert any("still running" in note for note in found.notes)
    assert any(pair.state == "removed" for pair in of_kind(found, "llm"))
    assert "not ended" in found.text()


def test_seeds_and_session_are_facets(store: Path) -> None:
    names = []
    for number in (1, 2):
        with clew.run("one", session=f"s{number}", seeds={"numpy": number}) as made:
            pass
        names.append(made)
    found = {facet.name: facet for facet in clew.diff(*names, store=store).facets}
    assert [(change.path, change.a, change.b) for change in found["seeds"].changes] == [("numpy", 1, 2)]
    assert [(change.path, change.a, change.b) for change in found["session"].changes] == [("session", "s1", "s2")]
    assert found["code"].equal
    assert found["environment"].equal


def test_without_content_runs_are_compared_by_digest(clean_tracing: None, tmp_path: Path) -> None:
    clew.init("tests", store=tmp_path / "store", capture=False)
    clew.instrument()
    first, second, third = (run(tmp_path / "store", team(prompts)) for prompts in ({}, {}, {2: "Doubt it."}))
    found = clew.diff(first, third, store=tmp_path / "store")
    changed = [pair for pair in of_kind(found, "llm") if pair.state == "asked otherwise"]
    assert "Team/research[2]/Fake" in [pair.step.span.path for pair in changed]
    assert any("no content" in note for note in found.notes)
    assert found.text()
    assert states(of_kind(clew.diff(first, second, store=tmp_path / "store"), "retriever")) == {"equal": BRANCHES}
    clew.shutdown()


def test_a_span_of_another_library_is_compared_by_what_it_says(store: Path) -> None:
    def once(prompt: str, said: str) -> str:
        with clew.run("one"), foreign("chat") as span:
            span.set_attribute("gen_ai.request.model", "m")
            span.set_attribute("gen_ai.input.messages", prompt)
            span.set_attribute("gen_ai.output.messages", said)
            span.set_attribute("gen_ai.usage.input_tokens", len(said))
        return newest(store)

    same, other = once("hello", "hi"), once("hello", "hello!")
    assert clew.diff(same, once("hello", "hi"), store=store).equal
    assert parted(clew.diff(same, other, store=store)) == [("answered otherwise", "llm", "one/chat")]
    assert parted(clew.diff(same, once("bye", "hi"), store=store)) == [("asked otherwise", "llm", "one/chat")]


def test_the_json_has_the_fields_that_are_documented(store: Path) -> None:
    found = clew.diff(run(store, team()), run(store, team({2: "Doubt it."}, review=True)), store=store)
    told = found.to_dict()
    json.dumps(told)
    documented = str(type(found).to_dict.__doc__)
    for value in (told, *told["steps"], *told["facets"]):
        assert all(f'"{key}"' in documented for key in value)
    numbers = [step["number"] for step in told["steps"]]
    assert numbers == list(range(1, len(numbers) + 1))
    assert told["divergences"] == [step["number"] for step in told["steps"] if step["divergence"]]
    assert all("changes" in step for step in told["steps"] if step["divergence"] and step["a"] and step["b"])
    whole = found.to_dict(content=True)
    assert all("changes" in step for step in whole["steps"] if step.get("differs"))


def test_equal_steps_are_folded_unless_all_are_asked_for(store: Path) -> None:
    found = clew.diff(run(store, team()), run(store, team({2: "Doubt it."})), store=store)
    assert "equal steps" in found.text()
    assert "research[1]" not in found.text()
    assert "research[1]" in found.text(everything=True)


def test_a_tool_with_another_definition_is_named(store: Path) -> None:
    from langchain_core.tools import StructuredTool

    other = StructuredTool.from_function(price.func, name="price", description="The price of an item, in crowns.")
    first, second = (run(store, assistant(Fake(reply=buyer(["pen"])), [tool]), ASKED) for tool in (price, other))
    found = clew.diff(first, second, store=store)
    assert parted(found)[0] == ("asked otherwise", "llm", "Assistant/think/Fake")
    assert [change.path for change in changes_of(found.divergences[0])] == ["tools.function.description"]
