"""Documents of which one is the beginning of another: the one that stands whole in a prompt is meant."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from langchain_core.messages import HumanMessage

import clew
from clew.lineage.graph import Lineage
from tests.lineage.lineage_bed import Fake, Given, choices, documents, prose, rows_of, traced, used

SHORT = prose("short", 2)
MORE = prose("more", 2)


def asked(folder: Path, between: str, prompt: str) -> Lineage:
    """A run that retrieved SHORT, and SHORT with more behind it, and asked a model with `prompt`."""
    with traced(folder):
        data = [{"id": "short", "body": SHORT}, {"id": "long", "body": f"{SHORT}{between}{MORE}"}]
        clew.dataset("handbook", data)
        with clew.run("ask") as run:
            Given(found=documents(data)).invoke("Which of them is it?")
            run.output(Fake().invoke([HumanMessage(prompt)]).content)
        return clew.why(run)


@pytest.mark.parametrize("between", [" ", "\n\n"])
@pytest.mark.parametrize("frame", ["Sum up: [{}] Be brief.", "Sum up: {}\n\nBe brief.", "Sum up: {} Be brief.", "{}"])
def test_the_shorter_one_is_used_where_only_it_stands_whole(tmp_path: Path, between: str, frame: str) -> None:
    lineage = asked(tmp_path, between, frame.format(SHORT))
    assert used(lineage) == ["short"]
    assert rows_of(lineage, "considered") == ["long"]
    assert choices(lineage) == []


@pytest.mark.parametrize(
    "cut",
    [lambda long: long, lambda long: long[: len(SHORT) + 60], lambda long: long[: len(SHORT) + 12]],
    ids=["whole", "cut late", "cut early"],
)
def test_the_longer_one_is_used_where_more_of_it_stands(tmp_path: Path, cut: Callable[[str], str]) -> None:
    lineage = asked(tmp_path, "\n\n", f"Sum up: [{cut(f'{SHORT}' + chr(10) * 2 + MORE)}] Be brief.")
    assert used(lineage) == ["long"]
    assert rows_of(lineage, "considered") == ["short"]
    assert choices(lineage) == []


def test_where_the_longer_one_stands_whole_as_well_the_other_place_stays_open(tmp_path: Path) -> None:
    lineage = asked(tmp_path, "\n\n", f"Sum up: [{SHORT}\n\n{MORE}] And: [{SHORT}] Be brief.")
    assert used(lineage) == ["long"]
    assert [count for count, _ in choices(lineage)] == [2]
