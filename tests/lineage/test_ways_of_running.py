"""The plain case, and the same lineage whichever way a program runs: graphs, chains, streams, batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypedDict

import pytest
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import PromptTemplate
from langchain_core.runnables import RunnableLambda, RunnableParallel, RunnablePassthrough
from langchain_core.vectorstores import InMemoryVectorStore
from langgraph.graph import START, StateGraph
from pydantic import BaseModel

import clew
from tests.lineage.lineage_bed import (
    PROMPT,
    QUESTION,
    Asked,
    Fake,
    Given,
    Streaming,
    about,
    agent,
    choices,
    documents,
    kinds,
    numbered,
    rows,
    rows_of,
    source_rows,
    traced,
    used,
    vector_store,
)


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
