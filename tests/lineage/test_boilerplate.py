"""Boilerplate: text that the program and its documents share comes from the program."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda

import clew
from tests.lineage.lineage_bed import (
    QUESTION,
    Given,
    agent,
    documents,
    in_a_process,
    prose,
    rows,
    rows_of,
    traced,
    used,
)

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
