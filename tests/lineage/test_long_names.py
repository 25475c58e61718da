"""Ids and names of 64 and more characters, which are stored as content of their own, name what shorter ones would."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage

import clew
from clew.store.encoding import REFERENCE_CHARS
from tests.lineage.lineage_bed import Fake, Given, agent, choices, documents, prose, rows, traced, used

LENGTHS = [REFERENCE_CHARS - 1, REFERENCE_CHARS]


def long(name: str, length: int) -> str:
    """An id of so many characters that begins as all others do."""
    return name.rjust(length, "-")


def twins(length: int) -> list[dict[str, Any]]:
    """Two rows of one text and another row."""
    handbook = [{**row, "id": long(row["id"], length)} for row in rows(3)]
    handbook[2]["body"] = handbook[1]["body"]
    return handbook


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("twin", [1, 2])
@pytest.mark.parametrize("by", ["id", "metadata"])
@pytest.mark.parametrize("processes", [1, 2])
def test_a_document_is_told_from_its_twin_by_a_long_id(
    by: str, twin: int, length: int, processes: int, tmp_path: Path
) -> None:
    handbook = twins(length)
    row = handbook[twin]
    document = Document(row["body"], id=row["id"]) if by == "id" else Document(row["body"], metadata={"row": row["id"]})
    with traced(tmp_path):
        clew.dataset("handbook", handbook)
        if processes == 1:
            agent(Given(found=[document])).invoke({"question": "Which of them is it?"})
            lineage = clew.why()
    if processes == 2:
        with traced(tmp_path):
            agent(Given(found=[document])).invoke({"question": "Which of them is it?"})
            lineage = clew.why()
    assert [node.name for node in lineage.find("row")] == [f"dataset/handbook@1[{twin}]"]
    assert choices(lineage) == []


@pytest.mark.parametrize("length", LENGTHS)
def test_a_row_is_shown_with_its_long_key(length: int, tmp_path: Path) -> None:
    handbook = twins(length)
    with traced(tmp_path):
        clew.dataset("handbook", handbook, key="id")
        agent(Given(found=documents(handbook[:1]))).invoke({"question": "Which of them is it?"})
        lineage = clew.why()
    assert json.loads(json.dumps(lineage.to_dict())) == lineage.to_dict()
    [row] = lineage.find("row")
    assert row.detail["key"] == handbook[0]["id"]


@pytest.mark.parametrize("length", LENGTHS)
def test_metadata_with_the_long_name_of_a_file_leads_to_it(
    length: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = long("leave.md", length)
    Path(name).write_text(prose("a file"), encoding="utf-8")
    with traced(tmp_path):
        clew.artifact("file", Path(name), name)
        shown = Document(prose("not what stands in the file"), metadata={"source": name})
        agent(Given(found=[shown])).invoke({"question": "Which of them is it?"})
        lineage = clew.why()
    edges = [edge for edge in lineage.edges if edge.evidence == "inferred"]
    assert [lineage.nodes[edge.cause].name for edge in edges] == [name]


@pytest.mark.parametrize("length", LENGTHS)
def test_a_message_is_known_by_its_long_id_although_it_was_cut(length: int, tmp_path: Path) -> None:
    with traced(tmp_path):
        handbook = rows(2)
        clew.dataset("handbook", handbook)
        answers = [AIMessage(prose("same"), id=long(str(number), length)) for number in range(2)]
        with clew.run("ask") as run:
            for row, answer in zip(handbook, answers, strict=True):
                [found] = Given(found=documents([row])).invoke("x")
                Fake(reply=lambda messages, answer=answer: answer).invoke([HumanMessage(found.page_content)])
            cut = AIMessage(prose("same"), id=long("1", length), name="other")
            run.output(Fake(reply=lambda messages: prose("end")).invoke([cut, HumanMessage("Go on!")]).content)
        lineage = clew.why(run)
    assert used(lineage) == ["h1"]


@pytest.mark.parametrize("length", LENGTHS)
def test_a_tools_result_is_known_by_the_long_id_of_its_call(length: int, tmp_path: Path) -> None:
    from langchain_core.tools import tool

    @tool
    def look_up(query: str) -> str:
        """Look something up."""
        return str(Given(found=documents(handbook[int(query) :][:1])).invoke(query)[0].page_content)

    with traced(tmp_path):
        handbook = rows(2)
        clew.dataset("handbook", handbook)
        calls: list[Any] = [
            {"name": "look_up", "args": {"query": str(number)}, "id": long(str(number), length), "type": "tool_call"}
            for number in range(2)
        ]
        with clew.run("ask") as run:
            Fake(reply=lambda messages: AIMessage("", tool_calls=calls)).invoke([HumanMessage("Well?")])
            results = [look_up.invoke(call) for call in calls]
            assert isinstance(results[1], ToolMessage)
            cut = ToolMessage(results[1].content, name="other", tool_call_id=results[1].tool_call_id)
            run.output(Fake(reply=lambda messages: prose("end")).invoke([HumanMessage("Well?"), cut]).content)
        lineage = clew.why(run)
    assert used(lineage) == ["h1"]


def test_a_model_of_a_long_class_name_is_called_by_it(tmp_path: Path) -> None:
    name = "AModelWhoseMakersThoughtThatItsNameShouldSayAllThatCanBeSaidOfItAndThenSomeMore"
    made: Any = type(name, (Fake,), {"__module__": "a.rather.long.path.to.the.module.of.the.model"})
    with traced(tmp_path):
        clew.dataset("handbook", rows(1))
        agent(Given(found=documents(rows(1))), made()).invoke({"question": "Who is it?"})
        lineage = clew.why()
    assert [node.name for node in lineage.find("model")] == [name]
