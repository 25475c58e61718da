"""What programs make of texts: cut, put in capitals, rewritten, graded. What still stands there is found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from langchain_core.documents import Document
from langchain_core.messages import HumanMessage
from langchain_core.prompts import ChatPromptTemplate
from langgraph.graph import START, StateGraph

import clew
from tests.lineage.lineage_bed import (
    QUESTION,
    Asked,
    Fake,
    Given,
    agent,
    documents,
    numbered,
    rows,
    rows_of,
    traced,
    used,
)


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
