"""Lineage says the truth: small programs of which is known what they used, and what `why` makes of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from operator import add
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate, PromptTemplate
from langchain_core.runnables import RunnableLambda, RunnableParallel, RunnablePassthrough
from langchain_core.tools import tool
from langchain_core.vectorstores import InMemoryVectorStore
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Send
from pydantic import BaseModel

import clew
from tests.lineage.lineage_bed import (
    PROMPT,
    Asked,
    BagOfWords,
    Fake,
    Given,
    Streaming,
    Stripped,
    agent,
    choices,
    documents,
    kinds,
    numbered,
    prose,
    rows,
    rows_of,
    source_rows,
    traced,
    used,
    vector_store,
)

ROOT = Path(__file__).parent.parent.parent
QUESTION = "Who decides on remote work and fire drills?"


def about(subject: str) -> Any:
    return lambda document: subject in document.page_content


# -- the plain case, and the same answer by other ways


def test_the_rows_in_the_last_prompt_are_used_and_the_others_that_were_found_are_considered(tmp_path: Path) -> None:
    with traced(tmp_path):
        handbook, payroll = rows(), rows(4, "p")
        clew.dataset("handbook", handbook)
        clew.dataset("payroll", payroll)
        vector_store(documents(payroll)).similarity_search("parental leave")
        retriever = vector_store(documents(handbook)).as_retriever(search_kwargs={"k": 4})
        end = agent(retriever, keep=about("remote work")).invoke({"question": QUESTION})
        lineage = clew.why()
    assert used(lineage) == source_rows(end["kept"]) == ["h1"]
    assert rows_of(lineage, "considered") == sorted(set(source_rows(end["found"])) - {"h1"})
    assert rows_of(lineage, "possible") == []
    assert choices(lineage) == []
    assert kinds(lineage) >= {
        "row",
        "dataset",
        "document",
        "index",
        "model",
        "prompt",
        "code",
        "environment",
        "llm",
        "retriever",
    }
    assert [node.name for node in lineage.find("model")] == ["BagOfWords", "Fake"]
    assert [node.name for node in lineage.find("dataset", role=None)] == ["dataset/handbook@1"]
    assert not any(node.name.startswith("dataset/payroll") for node in lineage.nodes.values())


@pytest.mark.parametrize("way", ["invoke", "stream", "ainvoke", "astream", "streaming model", "batch"])
async def test_every_way_of_running_a_graph_gives_the_same_lineage(way: str, tmp_path: Path) -> None:
    with traced(tmp_path):
        handbook = rows()
        clew.dataset("handbook", handbook)
        retriever = vector_store(documents(handbook)).as_retriever(search_kwargs={"k": 3})
        graph = agent(retriever, Streaming() if way == "streaming model" else None, keep=about("remote work"))
        question: Asked = {"question": QUESTION}
        if way == "ainvoke":
            await graph.ainvoke(question)
        elif way == "astream":
            assert [one async for one in graph.astream(question, stream_mode=["messages", "updates"])]
        elif way in ("stream", "streaming model"):
            assert list(graph.stream(question, stream_mode=["messages", "values"]))
        elif way == "batch":
            graph.batch([question])
        else:
            graph.invoke(question)
        lineage = clew.why()
    assert used(lineage) == ["h1"]
    assert len(rows_of(lineage, "considered")) == 2
    assert rows_of(lineage, "possible") == []
    assert kinds(lineage) >= {"dataset", "index", "model", "prompt", "code", "environment", "llm"}


def test_an_index_made_by_one_process_leads_to_the_rows_that_it_declared(tmp_path: Path) -> None:
    with traced(tmp_path):
        handbook = rows()
        clew.dataset("handbook", handbook)
        store = vector_store(documents(handbook))
        store.dump(str(tmp_path / "index.json"))
    with traced(tmp_path):
        loaded = InMemoryVectorStore.load(str(tmp_path / "index.json"), store.embedding)
        agent(loaded.as_retriever(search_kwargs={"k": 3}), keep=about("remote work")).invoke({"question": QUESTION})
        lineage = clew.why()
    assert used(lineage) == ["h1"]
    assert {node.name for node in lineage.find("model")} == {"BagOfWords", "Fake"}
    assert len(lineage.find("index")) == 1
    assert len(rows_of(lineage, "considered")) == 2


def test_a_chain_without_a_graph_leads_to_its_rows(tmp_path: Path) -> None:
    with traced(tmp_path):
        handbook = rows()
        clew.dataset("handbook", handbook)
        retriever = vector_store(documents(handbook)).as_retriever(search_kwargs={"k": 2})
        found: list[Document] = []

        def render(of: list[Document]) -> str:
            found.extend(of)
            return "\n\n".join(one.page_content for one in of)

        chain = {"context": retriever | render, "question": RunnablePassthrough()} | PROMPT | Fake() | StrOutputParser()
        chain.invoke(QUESTION)
        lineage = clew.why()
    assert used(lineage) == source_rows(found)
    assert len(found) == 2
    assert rows_of(lineage, "possible") == []
    assert kinds(lineage) >= {"dataset", "index", "model", "prompt", "code", "environment", "llm"}


def test_a_chain_of_parallel_branches_leads_to_the_rows_of_the_branch_that_reached_the_prompt(tmp_path: Path) -> None:
    with traced(tmp_path):
        handbook = rows()
        clew.dataset("handbook", handbook)
        first, second = Given(found=documents(handbook[:2])), Given(found=documents(handbook[2:4]))
        chain = (
            RunnableParallel(first=first, second=second, question=RunnablePassthrough())
            | RunnablePassthrough.assign(context=lambda it: numbered(it["second"]))
            | RunnableLambda(lambda it: {"question": it["question"], "context": it["context"]})
            | PROMPT
            | Fake()
            | StrOutputParser()
        )
        chain.invoke(QUESTION)
        lineage = clew.why()
    assert used(lineage) == ["h2", "h3"]
    assert rows_of(lineage, "considered") == ["h0", "h1"]
    assert rows_of(lineage, "possible") == []


def test_a_completion_prompt_of_one_text_leads_to_its_rows(tmp_path: Path) -> None:
    with traced(tmp_path):
        handbook = rows(4)
        clew.dataset("handbook", handbook)
        prompt = PromptTemplate.from_template("Use what follows.\n{context}\nQ: {question}\nA:")
        chain = (
            {"context": Given(found=documents(handbook[:2])) | numbered, "question": RunnablePassthrough()}
            | prompt
            | Fake(reply=lambda messages: "So be it, says the board of directors.")
        )
        chain.invoke(QUESTION)
        lineage = clew.why()
    assert used(lineage) == ["h0", "h1"]
    assert "prompt" in kinds(lineage)


def test_one_node_that_retrieves_and_answers_leads_to_what_its_prompt_held(tmp_path: Path) -> None:
    with traced(tmp_path):
        handbook = rows()
        clew.dataset("handbook", handbook)
        retriever, model = Given(found=documents(handbook[:3])), Fake()

        def everything(state: Asked) -> Asked:
            kept = retriever.invoke(state["question"])[1:2]
            said = model.invoke([SystemMessage("Answer."), HumanMessage(f"{state['question']}\n{numbered(kept)}")])
            return {"answer": str(said.content)}

        graph = StateGraph(Asked).add_node("everything", everything).add_edge(START, "everything").compile()
        graph.invoke({"question": QUESTION})
        lineage = clew.why()
    assert used(lineage) == ["h1"]
    assert rows_of(lineage, "considered") == ["h0", "h2"]
    assert rows_of(lineage, "possible") == []


class Judged(TypedDict, total=False):
    question: str
    verdict: Any


class Verdict(BaseModel):
    """What the board says."""

    verdict: str
    reason: str


def test_a_structured_answer_leads_to_the_rows_in_its_prompt(tmp_path: Path) -> None:
    with traced(tmp_path):
        handbook = rows(4)
        clew.dataset("handbook", handbook)

        def reply(messages: list[Any]) -> AIMessage:
            arguments = {"verdict": "yes", "reason": "because the board has always said so on such days"}
            return AIMessage("", tool_calls=[{"name": "Verdict", "args": arguments, "id": "call-1"}])

        model, retriever = Fake(reply=reply).with_structured_output(Verdict), Given(found=documents(handbook[:2]))

        def judge(state: dict[str, Any]) -> dict[str, Any]:
            return {
                "verdict": (PROMPT | model).invoke({"question": "May I?", "context": numbered(retriever.invoke("x"))})
            }

        graph = StateGraph(Judged).add_node("judge", judge)
        graph.add_edge(START, "judge").compile().invoke({"question": "May I?"})
        lineage = clew.why()
    assert used(lineage) == ["h0", "h1"]


# -- tools


def tool_agent(reply: Any, *tools: Any) -> Any:
    model = Fake(reply=reply).bind_tools(list(tools))

    def ask(state: MessagesState) -> dict[str, Any]:
        return {"messages": [model.invoke(state["messages"])]}

    graph = StateGraph(MessagesState).add_node("ask", ask).add_node("tools", ToolNode(list(tools)))
    graph.add_edge(START, "ask").add_edge("tools", "ask")
    graph.add_conditional_edges(
        "ask", lambda state: "tools" if state["messages"][-1].tool_calls else END, ["tools", END]
    )
    return graph.compile(name="Tooled")


def calls(*names_and_arguments: tuple[str, dict[str, Any]]) -> AIMessage:
    return AIMessage(
        "",
        tool_calls=[
            {"name": name, "args": arguments, "id": f"call-{number}"}
            for number, (name, arguments) in enumerate(names_and_arguments)
        ],
    )


def test_a_tool_that_retrieves_leads_to_the_rows_in_its_result(tmp_path: Path) -> None:
    with traced(tmp_path):
        handbook = rows()
        clew.dataset("handbook", handbook)
        retriever = Given(found=documents(handbook[:3]))

        @tool
        def look_up(query: str) -> str:
            """Look something up in the handbook."""
            return retriever.invoke(query)[2].page_content

        def reply(messages: list[Any]) -> Any:
            if isinstance(messages[-1], ToolMessage):
                return "The handbook says that the desk decides on it, always."
            return calls(("look_up", {"query": "fire drills"}))

        tool_agent(reply, look_up).invoke({"messages": [HumanMessage(QUESTION)]})
        lineage = clew.why()
    assert used(lineage) == ["h2"]
    assert rows_of(lineage, "considered") == ["h0", "h1"]
    assert kinds(lineage) >= {"tool", "llm", "model", "row", "dataset"}
    assert any(node.span_id is None and node.name == "look_up" for node in lineage.find("tool"))


def test_a_tool_that_returns_documents_as_its_artifact_leads_to_their_rows(tmp_path: Path) -> None:
    with traced(tmp_path):
        handbook = rows()
        clew.dataset("handbook", handbook)
        retriever = Given(found=documents(handbook[:2]))

        @tool(response_format="content_and_artifact")
        def look_up(query: str) -> Any:
            """Look something up in the handbook."""
            found = retriever.invoke(query)
            return numbered(found), found

        def reply(messages: list[Any]) -> Any:
            return "The desk decides." if isinstance(messages[-1], ToolMessage) else calls(("look_up", {"query": "x"}))

        tool_agent(reply, look_up).invoke({"messages": [HumanMessage(QUESTION)]})
        lineage = clew.why()
    assert used(lineage) == ["h0", "h1"]


def test_two_calls_with_equal_results_are_told_apart_by_their_ids(tmp_path: Path) -> None:
    with traced(tmp_path):

        @tool
        def weather(place: str) -> str:
            """What the weather is like."""
            return "Sunny spells, with a light wind from the west, and no rain at all."

        def reply(messages: list[Any]) -> Any:
            if isinstance(messages[-1], ToolMessage):
                return "It is sunny in both."
            return calls(("weather", {"place": "Athens"}), ("weather", {"place": "Knossos"}))

        tool_agent(reply, weather).invoke({"messages": [HumanMessage("How is the weather there, in both places?")]})
        lineage = clew.why()
    assert len([node for node in lineage.find("tool") if node.span_id]) == 2
    assert choices(lineage) == []


# -- twins


def twins(*, key: str | None = None) -> list[dict[str, Any]]:
    """Eight rows, the last of which says the same as the second."""
    handbook = rows(7)
    handbook.append({"id": "h7", "title": "Remote Work (copy)", "body": handbook[1]["body"]})
    clew.dataset("handbook", handbook, key=key)
    return handbook


@pytest.mark.parametrize("twin", [1, 7])
@pytest.mark.parametrize("by", ["id", "metadata"])
def test_a_twin_is_told_from_its_double_by_id_or_metadata(by: str, twin: int, tmp_path: Path) -> None:
    with traced(tmp_path):
        made = [
            Document(row["body"], id=row["id"]) if by == "id" else Document(row["body"], metadata={"row": row["id"]})
            for row in twins()
        ]
        vector_store(made)
        agent(Given(found=[made[twin], made[0]])).invoke({"question": QUESTION})
        lineage = clew.why()
    assert used(lineage) == ["h0", f"h{twin}"]
    assert choices(lineage) == []
    assert rows_of(lineage, "considered") == []


@pytest.mark.parametrize("twin", ["h1", "h7"])
def test_of_twins_that_were_both_found_the_wrong_one_is_never_said_to_be_used(twin: str, tmp_path: Path) -> None:
    """Their text stands in the prompt once, and nothing in it says whose it is."""
    with traced(tmp_path):
        retriever = vector_store(documents(twins())).as_retriever(search_kwargs={"k": 4})
        agent(retriever, keep=lambda document: document.id == twin).invoke({"question": QUESTION})
        lineage = clew.why()
    assert used(lineage) in ([], [twin])
    assert used(lineage) or ONE_OF_TWO in [(count, sorted(names)) for count, names in choices(lineage)]


def test_of_twins_that_both_stand_in_the_prompt_both_are_used(tmp_path: Path) -> None:
    with traced(tmp_path):
        store = vector_store(documents(twins()))
        agent(store.as_retriever(search_kwargs={"k": 4}), keep=about("remote work")).invoke({"question": QUESTION})
        lineage = clew.why()
    assert used(lineage) == ["h1", "h7"]


ONE_OF_TWO = (2, ["dataset/handbook@1[1]", "dataset/handbook@1[7]"])


def test_twins_whose_metadata_the_retriever_drops_are_shown_as_one_of_two(tmp_path: Path) -> None:
    with traced(tmp_path):
        retriever = vector_store(documents(twins())).as_retriever(search_kwargs={"k": 1})
        agent(Stripped(inner=retriever)).invoke({"question": "remote work"})
        lineage = clew.why()
    assert used(lineage) == []
    assert ONE_OF_TWO in [(count, sorted(names)) for count, names in choices(lineage)]
    assert rows_of(lineage, "possible") == []


def test_twins_indexed_without_metadata_or_ids_are_shown_as_one_of_two(tmp_path: Path) -> None:
    with traced(tmp_path):
        store = vector_store([Document(row["body"]) for row in twins()])
        agent(store.as_retriever(search_kwargs={"k": 1})).invoke({"question": "remote work"})
        lineage = clew.why()
    assert used(lineage) == []
    assert ONE_OF_TWO in [(count, sorted(names)) for count, names in choices(lineage)]


def test_a_row_beside_twins_without_metadata_is_still_found(tmp_path: Path) -> None:
    with traced(tmp_path):
        handbook = twins()
        retriever = Given(found=[Document(handbook[1]["body"]), Document(handbook[3]["body"])])
        agent(retriever).invoke({"question": QUESTION})
        lineage = clew.why()
    assert used(lineage) == ["h3"]
    assert ONE_OF_TWO in [(count, sorted(names)) for count, names in choices(lineage)]


def test_a_row_that_stands_twice_in_its_dataset_is_one_row_of_two_places(tmp_path: Path) -> None:
    with traced(tmp_path):
        handbook = rows(4)
        handbook.append(dict(handbook[1]))
        clew.dataset("handbook", handbook)
        agent(Given(found=[Document(handbook[1]["body"])])).invoke({"question": QUESTION})
        lineage = clew.why()
    assert used(lineage) == ["h1"]
    [row] = lineage.find("row")
    assert row.name == "dataset/handbook@1[1]"
    assert row.detail["places"] == 2


def test_a_short_field_that_is_equal_by_chance_joins_nothing(tmp_path: Path) -> None:
    with traced(tmp_path):
        handbook = rows(4)
        clew.dataset("handbook", handbook)
        clew.dataset("cities", [{"id": "c0", "name": "Parental Leave"}, {"id": "c1", "name": "Remote Work"}])
        agent(Given(found=[Document("Remote Work"), *documents(handbook[2:3])])).invoke({"question": "Whither?"})
        lineage = clew.why()
    assert used(lineage) == ["h2"]
    assert choices(lineage) == []
    assert not any("cities" in node.name for node in lineage.nodes.values())


def test_a_short_field_joins_where_the_row_key_agrees(tmp_path: Path) -> None:
    with traced(tmp_path):
        clew.dataset("cities", [{"id": "c0", "name": "Athens"}, {"id": "c1", "name": "Knossos"}], key="id")
        agent(Given(found=[Document("Knossos", id="c1")])).invoke({"question": "Whither shall we go?"})
        lineage = clew.why()
    assert used(lineage) == ["c1"]


class Bare(InMemoryVectorStore):
    """Finds documents and drops their ids."""

    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        return [Document(one.page_content) for one in super().similarity_search(query, k, **kwargs)]


@pytest.mark.parametrize("answering", ["handbook", "mirror"])
def test_a_text_of_two_datasets_is_that_of_the_index_that_answered(answering: str, tmp_path: Path) -> None:
    with traced(tmp_path):
        handbook = rows(4)
        mirror = [{**row, "id": f"m{row['id']}", "title": "Mirror"} for row in handbook]
        stores = {"handbook": Bare(BagOfWords()), "mirror": Bare(BagOfWords())}
        declared = {name: clew.dataset(name, data) for name, data in (("handbook", handbook), ("mirror", mirror))}
        for name, data in declared.items():
            stores[name].add_documents([one.to_langchain() for one in data.documents("body", id="id")])
        agent(stores[answering].as_retriever(search_kwargs={"k": 1})).invoke({"question": "remote work"})
        lineage = clew.why()
    assert used(lineage) == ["h1" if answering == "handbook" else "mh1"]
    assert choices(lineage) == []


def test_a_text_of_two_datasets_that_a_retriever_of_the_users_stripped_is_never_said_to_be_the_wrong_one(
    tmp_path: Path,
) -> None:
    with traced(tmp_path):
        handbook = rows(4)
        mirror = [{**row, "id": f"m{row['id']}", "title": "Mirror"} for row in handbook]
        clew.dataset("handbook", handbook)
        store = vector_store([one.to_langchain() for one in clew.dataset("mirror", mirror).documents("body", id="id")])
        agent(Stripped(inner=store.as_retriever(search_kwargs={"k": 1}))).invoke({"question": "remote work"})
        lineage = clew.why()
    assert used(lineage) in ([], ["mh1"])
    assert used(lineage) or any("dataset/mirror@1[1]" in names for _, names in choices(lineage))


def test_a_text_of_two_datasets_without_an_index_is_one_of_two(tmp_path: Path) -> None:
    with traced(tmp_path):
        handbook = rows(4)
        clew.dataset("handbook", handbook)
        clew.dataset("mirror", [{**row, "id": f"m{row['id']}", "title": "Mirror"} for row in handbook])
        agent(Given(found=[Document(handbook[1]["body"])])).invoke({"question": "remote work"})
        lineage = clew.why()
    assert used(lineage) == []
    assert (2, ["dataset/handbook@1[1]", "dataset/mirror@1[1]"]) in [
        (n, sorted(names)) for n, names in choices(lineage)
    ]


# -- what programs make of texts


def test_a_chunk_cut_to_a_hundred_characters_is_found(tmp_path: Path) -> None:
    with traced(tmp_path):
        handbook = rows()
        clew.dataset("handbook", handbook)
        retriever = Given(found=documents(handbook[:4]))
        agent(
            retriever,
            render=lambda found: "\n".join(f"* {one.page_content[:100]}..." for one in found),
            keep=lambda document: document.id in ("h0", "h2"),
        ).invoke({"question": QUESTION})
        lineage = clew.why()
    assert used(lineage) == ["h0", "h2"]
    assert rows_of(lineage, "considered") == ["h1", "h3"]
    lengths = [
        edge.offsets[3] - edge.offsets[2]
        for edge in lineage.edges
        if edge.offsets and len(edge.offsets) == 4 and lineage.nodes[edge.cause].kind == "document"
    ]
    assert lengths == [100, 100]


def test_a_context_in_capitals_makes_rows_possible_and_none_used(tmp_path: Path) -> None:
    with traced(tmp_path):
        handbook = rows()
        clew.dataset("handbook", handbook)
        retriever = Given(found=documents(handbook[:3]))
        agent(retriever, render=lambda found: numbered(found).upper()).invoke({"question": QUESTION})
        lineage = clew.why()
    assert used(lineage) == []
    assert rows_of(lineage, "possible") == ["h0", "h1", "h2"]
    assert "dataset" in {node.kind for node in lineage.find(role="possible")}
    assert any(edge.coarse for edge in lineage.edges)


def test_a_prompt_half_in_capitals_has_one_row_used_and_the_others_possible(tmp_path: Path) -> None:
    with traced(tmp_path):
        handbook = rows()
        clew.dataset("handbook", handbook)

        def render(found: Any) -> str:
            return f"{found[0].page_content}\n\n{found[1].page_content.upper()}"

        agent(Given(found=documents(handbook[:3])), render=render).invoke({"question": QUESTION})
        lineage = clew.why()
    assert used(lineage) == ["h0"]
    assert rows_of(lineage, "possible") == ["h1", "h2"]


def test_a_question_that_the_model_rewrote_leads_on_from_the_query(tmp_path: Path) -> None:
    with traced(tmp_path):
        handbook = rows()
        clew.dataset("handbook", handbook)
        retriever = Given(found=documents(handbook[:1]))
        rewriter = Fake(reply=lambda messages: "rule on remote work, fire drills and the office plants")

        def rewrite(state: Asked) -> Any:
            return {"question": rewriter.invoke([HumanMessage(state["question"])]).content}

        def answer(state: Asked) -> Any:
            found = retriever.invoke(state["question"])
            return {"answer": Fake().invoke([HumanMessage(numbered(found))]).content}

        graph = StateGraph(Asked).add_node("rewrite", rewrite).add_node("answer", answer)
        graph.add_edge(START, "rewrite").add_edge("rewrite", "answer").compile().invoke({"question": QUESTION})
        lineage = clew.why()
    assert used(lineage) == ["h0"]
    assert len([node for node in lineage.find("llm") if node.span_id]) == 2


BOILERPLATE = (
    "This handbook is confidential and is meant for members of staff alone. It may not be copied, lent, sold or shown to "
    "others without the written consent of the board. Members of staff who find a mistake in it are asked to tell the "
    "office without delay, in writing, and to keep a copy of what they wrote. The board may change the handbook at any "
    "time, and what was changed holds from the day on which it was made known. Where the handbook and the law differ, "
    "the law is right."
)


@pytest.mark.parametrize("way", ["template", "message", "f-string"])
def test_boilerplate_that_a_system_prompt_and_a_document_share_makes_no_edge(way: str, tmp_path: Path) -> None:
    assert len(BOILERPLATE) > 450
    with traced(tmp_path):
        handbook = rows(4)
        handbook[3]["body"] = f"{handbook[3]['body']} {BOILERPLATE} {prose('end')}"
        clew.dataset("handbook", handbook)
        retriever = Given(found=documents(handbook[:4]))
        instruction = f"You are careful. {BOILERPLATE} Answer from the context alone."
        if way == "template":
            prompt: Any = ChatPromptTemplate.from_messages(
                [("system", instruction), ("human", "{question}\n{context}")]
            )
        elif way == "message":
            prompt = RunnableLambda(
                lambda it: [SystemMessage(BOILERPLATE), HumanMessage(f"{it['question']}\n{it['context']}")]
            )
        else:
            prompt = RunnableLambda(
                lambda it: [HumanMessage(f"You are {len(it)}. {BOILERPLATE} Now: {it['question']}\n{it['context']}")]
            )
        agent(retriever, keep=lambda document: document.id == "h0", prompt=prompt).invoke({"question": QUESTION})
        lineage = clew.why()
    assert used(lineage) == ["h0"]
    assert rows_of(lineage, "considered") == ["h1", "h2", "h3"]
    assert rows_of(lineage, "possible") == []


def test_a_document_with_boilerplate_that_is_used_is_found_all_the_same(tmp_path: Path) -> None:
    with traced(tmp_path):
        handbook = rows(4)
        handbook[3]["body"] = f"{handbook[3]['body']} {BOILERPLATE} {prose('end')}"
        clew.dataset("handbook", handbook)
        prompt = ChatPromptTemplate.from_messages(
            [("system", f"Be careful. {BOILERPLATE}"), ("human", "{question}\n{context}")]
        )
        agent(Given(found=documents(handbook)), keep=lambda it: it.id == "h3", prompt=prompt).invoke(
            {"question": QUESTION}
        )
        lineage = clew.why()
    assert used(lineage) == ["h3"]


def test_an_answer_that_stands_word_for_word_in_a_rejected_document_is_not_from_it(tmp_path: Path) -> None:
    with traced(tmp_path):
        handbook = rows(4)
        sentence = handbook[2]["body"].split(". ")[0] + "."
        clew.dataset("handbook", handbook)
        model = Fake(reply=lambda messages: sentence)
        agent(Given(found=documents(handbook)), model, keep=lambda it: it.id == "h0").invoke({"question": QUESTION})
        lineage = clew.why()
    assert used(lineage) == ["h0"]
    assert rows_of(lineage, "considered") == ["h1", "h2", "h3"]


def test_a_document_that_only_a_grader_read_is_considered(tmp_path: Path) -> None:
    with traced(tmp_path):
        handbook = rows(4)
        clew.dataset("handbook", handbook)
        grader = ChatPromptTemplate.from_messages([("system", "Say yes or no."), ("human", "{document}")]) | Fake(
            reply=lambda messages: "yes" if "remote work" in str(messages[-1].content) else "no"
        )

        def keep(document: Document) -> bool:
            return grader.invoke({"document": document.page_content}).content == "yes"

        agent(Given(found=documents(handbook)), keep=keep).invoke({"question": QUESTION})
        lineage = clew.why()
    assert used(lineage) == ["h1"]
    assert rows_of(lineage, "considered") == ["h0", "h2", "h3"]


# -- state, sessions and runs


class Chat(MessagesState, total=False):
    found: list[Document]


def chat(retrievers: dict[str, Given], reply: Any, checkpointer: Any) -> Any:
    model = Fake(reply=reply)

    def retrieve(state: Chat) -> Any:
        return {"found": retrievers[str(state["messages"][-1].content)].invoke("x")}

    def answer(state: Chat) -> Any:
        system = SystemMessage("Use the context.\n" + numbered(state["found"]))
        return {"messages": [model.invoke([system, *state["messages"]])]}

    graph = StateGraph(Chat).add_node("retrieve", retrieve).add_node("answer", answer)
    return (
        graph.add_edge(START, "retrieve").add_edge("retrieve", "answer").compile(checkpointer=checkpointer, name="Chat")
    )


def test_a_second_turn_leads_through_the_first_turns_answer_to_its_rows(tmp_path: Path) -> None:
    with traced(tmp_path):
        handbook = rows()
        clew.dataset("handbook", handbook)
        graph = chat(
            {"First?": Given(found=documents(handbook[:1])), "Second?": Given(found=documents(handbook[1:2]))},
            lambda messages: f"Answer number {len(messages)} of the desk, which is final.",
            InMemorySaver(),
        )
        here: Any = {"configurable": {"thread_id": "t-1"}}
        graph.invoke({"messages": [HumanMessage("First?")]}, here)
        assert used(clew.why()) == ["h0"]
        graph.invoke({"messages": [HumanMessage("Second?")]}, here)
        lineage = clew.why()
    assert used(lineage) == ["h0", "h1"]
    assert len({node.run_id for node in lineage.find("llm") if node.span_id}) == 2
    assert rows_of(lineage, "possible") == []


def test_a_second_turn_of_another_process_leads_to_the_first(tmp_path: Path) -> None:
    handbook = rows()
    saver = InMemorySaver()
    here: Any = {"configurable": {"thread_id": "t-1"}}
    for number, question in enumerate(("First?", "Second?")):
        with traced(tmp_path):
            clew.dataset("handbook", handbook)
            graph = chat(
                {question: Given(found=documents(handbook[number : number + 1]))},
                lambda messages: f"Answer number {len(messages)} of the desk, which is final.",
                saver,
            )
            graph.invoke({"messages": [HumanMessage(question)]}, here)
            lineage = clew.why()
    assert used(lineage) == ["h0", "h1"]
    assert len({node.run_id for node in lineage.find("llm") if node.span_id}) == 2


def test_a_second_turn_that_leaves_the_first_out_of_its_prompt_does_not_lead_to_it(tmp_path: Path) -> None:
    with traced(tmp_path):
        handbook = rows()
        clew.dataset("handbook", handbook)
        model = Fake(reply=lambda messages: "Said by the desk, and by nobody else at all.")
        retrievers = {"First?": Given(found=documents(handbook[:1])), "Second?": Given(found=documents(handbook[1:2]))}

        def answer(state: Chat) -> Any:
            question = str(state["messages"][-1].content)
            context = numbered(retrievers[question].invoke("x"))
            return {"messages": [model.invoke([SystemMessage(context), HumanMessage(question)])]}

        graph = (
            StateGraph(Chat).add_node("answer", answer).add_edge(START, "answer").compile(checkpointer=InMemorySaver())
        )
        here: Any = {"configurable": {"thread_id": "t-1"}}
        graph.invoke({"messages": [HumanMessage("First?")]}, here)
        graph.invoke({"messages": [HumanMessage("Second?")]}, here)
        lineage = clew.why()
    assert used(lineage) == ["h1"]


@pytest.mark.parametrize("threads", [None, ("t-1", "t-2")])
def test_two_runs_whose_messages_are_both_ok_are_not_linked(threads: Any, tmp_path: Path) -> None:
    with traced(tmp_path):
        handbook = rows()
        clew.dataset("handbook", handbook)
        graph = chat(
            {"ok": Given(found=documents(handbook[:1])), "ok ": Given(found=documents(handbook[1:2]))},
            lambda messages: "ok",
            InMemorySaver() if threads else None,
        )
        for number, question in enumerate(("ok", "ok ")):
            config: Any = {"configurable": {"thread_id": threads[number]}} if threads else None
            graph.invoke({"messages": [HumanMessage(question)]}, config)
        runs = [run.run_id for run in clew.open(tmp_path / "store").runs()]
        newer, older = clew.why(runs[0]), clew.why(runs[1])
    assert used(older) == ["h0"]
    assert used(newer) == ["h1"]
    for lineage, other in ((newer, runs[1]), (older, runs[0])):
        assert other not in {node.run_id for node in lineage.nodes.values()}


def test_two_processes_whose_messages_are_both_ok_are_not_linked(tmp_path: Path) -> None:
    handbook = rows()
    for number in range(2):
        with traced(tmp_path):
            clew.dataset("handbook", handbook)
            retrievers = {"ok": Given(found=documents(handbook[number : number + 1]))}
            chat(retrievers, lambda messages: "ok", None).invoke({"messages": [HumanMessage("ok")]})
    with clew.open(tmp_path / "store") as store:
        runs = [run.run_id for run in store.runs()]
        newer, older = store.why(runs[0]), store.why(runs[1])
    assert used(older) == ["h0"]
    assert used(newer) == ["h1"]
    assert runs[1] not in {node.run_id for node in newer.nodes.values()}
    assert runs[0] not in {node.run_id for node in older.nodes.values()}


class Fanned(TypedDict, total=False):
    topics: list[str]
    parts: Annotated[list[str], add]
    answer: str


class Topic(TypedDict):
    topic: str


def test_sends_that_make_equal_texts_lead_to_the_rows_of_all_or_stand_as_one_of_several(tmp_path: Path) -> None:
    with traced(tmp_path):
        handbook = rows()
        clew.dataset("handbook", handbook)
        same = "The desk decides on this matter, as on all others."
        by_id = {row["id"]: Given(found=documents([row])) for row in handbook}

        def work(state: Topic) -> Any:
            prompt = [HumanMessage(numbered(by_id[state["topic"]].invoke("x")))]
            return {"parts": [str(Fake(reply=lambda messages: same).invoke(prompt).content)]}

        def answer(state: Fanned) -> Any:
            return {"answer": Fake().invoke([HumanMessage("\n".join(state["parts"]))]).content}

        graph = StateGraph(Fanned).add_node("work", work).add_node("answer", answer)
        graph.add_conditional_edges(
            START, lambda state: [Send("work", {"topic": one}) for one in state["topics"]], ["work"]
        )
        graph.add_edge("work", "answer").add_edge("answer", END)
        graph.compile().invoke({"topics": ["h0", "h1"]})
        lineage = clew.why()
    rows_used = used(lineage)
    assert rows_used in (["h0", "h1"], [])
    assert rows_used or any(count == 2 for count, _ in choices(lineage))


def test_sends_that_make_different_texts_lead_to_the_row_of_the_one_that_was_chosen(tmp_path: Path) -> None:
    with traced(tmp_path):
        handbook = rows()
        clew.dataset("handbook", handbook)
        by_id = {row["id"]: Given(found=documents([row])) for row in handbook}

        def work(state: Topic) -> Any:
            prompt = [HumanMessage(numbered(by_id[state["topic"]].invoke("x")))]
            return {"parts": [str(Fake(reply=lambda messages: prose(state["topic"])).invoke(prompt).content)]}

        def answer(state: Fanned) -> Any:
            return {"answer": Fake().invoke([HumanMessage(f"Sum up: {state['parts'][1]}")]).content}

        graph = StateGraph(Fanned).add_node("work", work).add_node("answer", answer)
        graph.add_conditional_edges(
            START, lambda state: [Send("work", {"topic": one}) for one in state["topics"]], ["work"]
        )
        graph.add_edge("work", "answer").add_edge("answer", END)
        graph.compile().invoke({"topics": ["h0", "h1", "h2"]})
        lineage = clew.why()
    assert used(lineage) == ["h1"]
    assert rows_of(lineage, "considered") == ["h0", "h2"]


@pytest.mark.parametrize("said", [True, False])
def test_a_run_around_two_graphs_answers_with_what_it_said_or_with_the_last_graph(said: bool, tmp_path: Path) -> None:
    with traced(tmp_path):
        handbook = rows()
        clew.dataset("handbook", handbook)
        with clew.run("both") as run:
            first = agent(Given(found=documents(handbook[:1]))).invoke({"question": "First of all?"})
            agent(Given(found=documents(handbook[1:2]))).invoke({"question": "Second of all?"})
            if said:
                run.output(first["answer"])
        lineage = clew.why(run)
    assert lineage.root == run.id
    assert used(lineage) == (["h0"] if said else ["h1"])


def test_a_run_without_a_graph_answers_with_its_last_response(tmp_path: Path) -> None:
    with traced(tmp_path):
        handbook = rows()
        clew.dataset("handbook", handbook)
        with clew.run("plain") as run:
            found = Given(found=documents(handbook[:2])).invoke("x")
            Fake().invoke([HumanMessage(numbered(found[1:]))])
        lineage = clew.why(run)
    assert used(lineage) == ["h1"]
    assert rows_of(lineage, "considered") == ["h0"]


def test_what_was_retrieved_outside_any_run_is_found_in_the_runs_prompt(tmp_path: Path) -> None:
    with traced(tmp_path):
        handbook = rows()
        clew.dataset("handbook", handbook)
        found = Given(found=documents(handbook[:2])).invoke("x")
        with clew.run("later") as run:
            Fake().invoke([HumanMessage(numbered(found[:1]))])
        lineage = clew.why(run)
    assert used(lineage) == ["h0"]


# -- datasets


def test_a_document_that_met_no_dataset_says_so_with_the_remedy(tmp_path: Path) -> None:
    with traced(tmp_path):
        agent(Given(found=documents(rows(2)[:1]))).invoke({"question": QUESTION})
        lineage = clew.why()
    [document] = lineage.find("document")
    assert "clew.dataset(" in document.detail["note"]
    assert lineage.find("row", role=None) == []


def test_documents_made_of_several_fields_lead_to_their_rows(tmp_path: Path) -> None:
    with traced(tmp_path):
        handbook = clew.dataset("handbook", rows(), key="id")
        made = [
            one.to_langchain()
            for one in handbook.documents(text=lambda row: f"{row['title'].upper()}: {row['body'].upper()}")
        ]
        store = vector_store(made)
        agent(store.as_retriever(search_kwargs={"k": 3}), keep=lambda it: "REMOTE WORK" in it.page_content).invoke(
            {"question": QUESTION}
        )
        lineage = clew.why()
    assert used(lineage) == ["h1"]
    assert any(edge.relation == "derived_from" and edge.evidence == "declared" for edge in lineage.edges)


def test_documents_of_two_fields_lead_to_their_rows_without_a_word(tmp_path: Path) -> None:
    with traced(tmp_path):
        handbook = rows()
        clew.dataset("handbook", handbook)
        made = [Document(f"{row['title']}\n\n{row['body']}") for row in handbook]
        agent(Given(found=made[:3]), keep=about("remote work")).invoke({"question": QUESTION})
        lineage = clew.why()
    assert used(lineage) == ["h1"]
    assert rows_of(lineage, "considered") == ["h0", "h2"]


def test_files_of_a_glob_are_rows_that_their_documents_lead_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docs = tmp_path / "docs" / "deep"
    docs.mkdir(parents=True)
    for row in rows(4):
        (docs / f"{row['id']}.md").write_text(f"# {row['title']}\n\n{row['body']}\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with traced(tmp_path):
        clew.dataset("notes", "docs/**/*.md")
        loaded = [
            Document(path.read_text(encoding="utf-8"), metadata={"source": str(path)})
            for path in sorted(docs.glob("*.md"))
        ]
        agent(Given(found=loaded), keep=about("remote work")).invoke({"question": QUESTION})
        lineage = clew.why()
        by_path = clew.impact("docs/deep/h1.md")
    [row] = lineage.find("row")
    assert row.name == "dataset/notes@1[1]"
    assert row.detail["fields"]["path"] == "docs/deep/h1.md"
    assert lineage.root in by_path.nodes


def test_a_row_is_named_by_the_version_that_was_current_when_the_run_began(tmp_path: Path) -> None:
    with traced(tmp_path):
        handbook = rows()
        clew.dataset("handbook", handbook)
        retriever = Given(found=documents(handbook[1:2]))
        agent(retriever).invoke({"question": QUESTION})
        clew.dataset("handbook", [*rows(1, "n"), *handbook])
        agent(retriever).invoke({"question": QUESTION})
        newer, older = [clew.why(run.run_id) for run in clew.open(tmp_path / "store").runs()]
    assert [node.name for node in older.find("row")] == ["dataset/handbook@1[1]"]
    assert [node.name for node in newer.find("row")] == ["dataset/handbook@2[2]"]
    assert [node.name for node in newer.find("dataset")] == ["dataset/handbook@2"]


def test_an_index_of_the_first_version_leads_to_it_after_the_second_was_declared(tmp_path: Path) -> None:
    with traced(tmp_path):
        handbook = rows()
        clew.dataset("handbook", handbook)
        store = vector_store(documents(handbook))
        changed = [dict(row) for row in handbook]
        changed[1]["body"] = prose("new", subject="remote work")
        clew.dataset("handbook", changed)
        agent(store.as_retriever(search_kwargs={"k": 1})).invoke({"question": "remote work"})
        lineage = clew.why()
    assert used(lineage) == ["h1"]
    [row] = lineage.find("row")
    assert row.name == "dataset/handbook@1[1]"


# -- processes of their own

PROGRAM = """
import sys
import clew
clew.init(project="own", store=sys.argv[1])
clew.instrument()
from langchain_core.messages import HumanMessage, SystemMessage
from tests.lineage.lineage_bed import Fake, Given, documents, rows
{body}
clew.flush()
"""


def in_a_process(folder: Path, body: str) -> str:
    program = folder / "program.py"
    program.write_text(PROGRAM.format(body=textwrap.dedent(body)), encoding="utf-8")
    process = subprocess.run(
        [sys.executable, str(program), str(folder / "store")],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


def test_boilerplate_in_a_script_and_in_a_document_makes_no_edge(tmp_path: Path) -> None:
    body = f"""
    TEXT = {BOILERPLATE!r}
    data = rows(3)
    data[2]["body"] += " " + TEXT + " And so on, for ever and ever."
    clew.dataset("handbook", data)
    with clew.run("asked"):
        found = Given(found=documents(data)).invoke("x")
        Fake().invoke([SystemMessage("Be careful. " + TEXT), HumanMessage("Well? " + found[0].page_content)])
    """
    in_a_process(tmp_path, body)
    with clew.open(tmp_path / "store") as store:
        lineage = store.why()
    assert used(lineage) == ["h0"]
    assert rows_of(lineage, "considered") == ["h1", "h2"]


def test_rows_declared_by_one_process_are_reached_from_another_without_an_id(tmp_path: Path) -> None:
    in_a_process(tmp_path, 'clew.dataset("handbook", rows())')
    body = """
    with clew.run("asked"):
        found = Given(found=documents(rows(3))).invoke("x")
        Fake().invoke([HumanMessage("Well? " + found[1].page_content)])
    """
    in_a_process(tmp_path, body)
    with clew.open(tmp_path / "store") as store:
        lineage = store.why("asked")
        assert json.loads(json.dumps(lineage.to_dict())) == lineage.to_dict()
    assert used(lineage) == ["h1"]
    assert rows_of(lineage, "considered") == ["h0", "h2"]
    assert {node.kind for node in lineage.find()} >= {"code", "environment"}
