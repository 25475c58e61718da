"""Programs to compare runs of: a team whose branches run in parallel, and an assistant that calls tools in a loop."""

from __future__ import annotations

import operator
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langchain_core.documents import Document
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_core.tools import tool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Send

import clew
from clew.lineage.difference.alignment import Pair
from clew.lineage.difference.result import Difference
from tests.lineage.lineage_bed import Fake, Given, prose

BRANCHES = 6
PROMPT = "You are a careful researcher of the handbook."


def echo(messages: list[BaseMessage]) -> str:
    """An answer that depends on every word that was asked."""
    return prose(tuple(str(message.content) for message in messages), 1)


class Work(TypedDict, total=False):
    question: str
    number: int
    notes: Annotated[list[tuple[int, str]], operator.add]
    answer: str


def team(
    prompts: dict[int, str] | None = None,
    *,
    model: BaseChatModel | None = None,
    order: Sequence[int] = range(BRANCHES),
    documents: dict[int, str] | None = None,
    final: str = "Merge the notes.",
    review: bool = False,
    turn: Callable[[int], None] = lambda number: None,
) -> Any:
    """plan -> six branches [retrieve, ask] -> (review) -> merge. `turn(number)` is called by a branch before it ends."""
    brain = model or Fake(reply=echo)

    def plan(state: Work) -> Work:
        brain.invoke([SystemMessage("Plan."), HumanMessage(state["question"])])
        return {}

    def fan(state: Work) -> list[Send]:
        return [Send("research", {"question": state["question"], "number": number}) for number in order]

    def research(state: Work) -> Work:
        number = state["number"]
        text = (documents or {}).get(number) or prose(("document", number))
        found = Given(found=[Document(text, id=f"d{number}")]).invoke(f"{state['question']} {number}")
        asked = [SystemMessage((prompts or {}).get(number, PROMPT)), HumanMessage(f"{number}: {found[0].page_content}")]
        said = brain.invoke(asked).content
        turn(number)
        return {"notes": [(number, str(said))]}

    def judge(state: Work) -> Work:
        brain.invoke([SystemMessage("Review."), HumanMessage(str(sorted(state["notes"])))])
        return {}

    def merge(state: Work) -> Work:
        notes = "\n".join(text for _, text in sorted(state["notes"]))
        return {"answer": str(brain.invoke([SystemMessage(final), HumanMessage(notes)]).content)}

    graph = StateGraph(Work)
    for node in (plan, research, merge):
        graph.add_node(node)
    graph.add_edge(START, "plan")
    graph.add_conditional_edges("plan", fan, ["research"])
    if review:
        graph.add_node("review", judge)
        graph.add_edge("research", "review")
        graph.add_edge("review", "merge")
    else:
        graph.add_edge("research", "merge")
    graph.add_edge("merge", END)
    return graph.compile(name="Team")


@tool
def price(item: str) -> str:
    """The price of an item."""
    return f"{item} costs {len(item)} crowns"


def minted() -> str:
    return f"call_{uuid.uuid4().hex}"


def buyer(items: Sequence[str], name: Callable[[], str] = minted) -> Callable[[list[BaseMessage]], AIMessage]:
    """A model that asks for the price of one item after the other, then tells all. `name` mints ids of tool calls."""

    def reply(messages: list[BaseMessage]) -> AIMessage:
        known = sum(message.type == "tool" for message in messages)
        usage = {"input_tokens": uuid.uuid4().int % 1000, "output_tokens": 1, "total_tokens": 1}
        if known < len(items):
            call = {"name": "price", "args": {"item": items[known]}, "id": name()}
            return AIMessage("", tool_calls=[call], usage_metadata=usage, id=f"run-{uuid.uuid4()}")
        told = "; ".join(str(message.content) for message in messages if message.type == "tool")
        return AIMessage(told, usage_metadata=usage, response_metadata={"id": uuid.uuid4().hex, "created": known})

    return reply


def assistant(model: BaseChatModel, tools: Sequence[Any] = (price,)) -> Any:
    """think -> act -> think -> ... until no tool is called."""
    thinker = model.bind_tools(list(tools))

    def think(state: MessagesState) -> Any:
        return {"messages": [thinker.invoke(state["messages"])]}

    def more(state: MessagesState) -> str:
        return "act" if state["messages"][-1].tool_calls else END  # type: ignore[union-attr]

    graph = StateGraph(MessagesState)
    graph.add_node("think", think)
    graph.add_node("act", ToolNode(list(tools)))
    graph.add_edge(START, "think")
    graph.add_conditional_edges("think", more, ["act", END])
    graph.add_edge("act", "think")
    return graph.compile(name="Assistant")


def run(store: Path, graph: Any, state: Any = None) -> str:
    """The id of a run of a graph."""
    graph.invoke(state if state is not None else {"question": "Who decides?"})
    return newest(store)


def newest(store: Path) -> str:
    return str(clew.open(store).runs(limit=1)[0].run_id)


def parted(difference: Difference) -> list[tuple[str, str, str]]:
    """State, kind and path of the steps where two runs part."""
    return [(pair.state, pair.step.kind, pair.step.span.path) for pair in difference.divergences]


def of_kind(difference: Difference, *kinds: str) -> list[Pair]:
    return [pair for pair in difference.pairs() if pair.step.kind in kinds]


def states(pairs: list[Pair]) -> dict[str, int]:
    found: dict[str, int] = {}
    for pair in pairs:
        found[pair.state] = found.get(pair.state, 0) + 1
    return found


def foreign(name: str) -> Any:
    """A span of another library."""
    from opentelemetry import trace

    told = {"gen_ai.operation.name": "chat"}
    return trace.get_tracer("other").start_as_current_span(name, attributes=told)


def changes_of(pair: Pair) -> Any:
    """What is another in the one than in the other."""
    from clew.lineage.difference.role import changes

    return changes(pair)
