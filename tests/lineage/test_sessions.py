"""A conversation that goes on in another process: what the first turn knew is read back from its log."""

from __future__ import annotations

from pathlib import Path

from langchain_core.messages import HumanMessage

import clew
from clew.lineage import index
from clew.store.folder import Folder
from tests.lineage.lineage_bed import Fake, Given, documents, rows, rows_of, traced, used


def first_turn(handbook: list[dict[str, str]]) -> str:
    clew.dataset("handbook", handbook)
    with clew.run("turn", session="s-1") as run:
        found = Given(found=documents(handbook[:2])).invoke("x")
        answer = str(Fake().invoke([HumanMessage(f"Well? {found[0].page_content}")]).content)
        run.output(answer)
    return answer


def test_a_second_turn_in_another_process_leads_through_the_first_answer(tmp_path: Path) -> None:
    with traced(tmp_path):
        answer = first_turn(rows(3))
        before = clew.why().to_dict()
    clew.shutdown()
    index.forget(Folder(tmp_path / "store"))  # as another process, which remembers nothing
    with traced(tmp_path):
        with clew.run("turn", session="s-1") as run:
            run.output(Fake().invoke([HumanMessage(f"You said: {answer} Why is that so, if I may ask?")]).content)
        lineage = clew.why(run)
        assert used(lineage) == ["h0"]
        assert rows_of(lineage, "possible") == []
        first = next(one for one in clew.open(tmp_path / "store").runs() if one.run_id != run.id)
        again = clew.why(first).to_dict()
    assert again == before  # reading the first turn again added nothing to it


def test_the_same_words_in_another_session_lead_nowhere(tmp_path: Path) -> None:
    with traced(tmp_path):
        answer = first_turn(rows(3))
        with clew.run("turn", session="s-2") as run:
            run.output(Fake().invoke([HumanMessage(f"You said: {answer} Why is that so, if I may ask?")]).content)
        lineage = clew.why(run)
    assert used(lineage) == []
