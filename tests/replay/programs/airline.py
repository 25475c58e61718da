"""A tool-calling agent whose model and tools answer once from recorded traces: `airline.py TRACES COUNT OUT`.

The world, a folder, knows which trace is being lived; the requests do not say it. Each answer is given for its history
alone, once. OUT gets the messages of each trace.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, SystemMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import StructuredTool
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.prebuilt import ToolNode

import clew

SYSTEM = "You are an agent of an airline. Follow its policy."


WORLD = (
    "AIRLINE_WORLD"  # the folder of what really happened: `trace.json`, `told` so far, and `silent` if it says nothing
)


def told(at: int | None, asked: Any) -> dict[str, Any]:
    """The message that followed a history of `at` messages; of a tool call, the next one."""
    world = Path(os.environ[WORLD])
    with (world / "asked").open("a") as file:
        file.write("x")
    if (world / "silent").exists():
        raise AssertionError("the world was asked")
    trace, before = json.loads((world / "trace.json").read_text()), json.loads((world / "told").read_text())
    if at is None:
        at = before[-1] + 1
        assert asked == plain(trace[at - 1])["calls"][0], "another call"
    else:
        assert [plain(one) for one in trace[:at]] == asked, "asked with another history"
    assert at not in before, "asked twice"
    (world / "told").write_text(json.dumps([*before, at]))
    return trace[at]  # type: ignore[no-any-return]


def how_often() -> int:
    """How often the world was asked."""
    file = Path(os.environ[WORLD]) / "asked"
    return len(file.read_text()) if file.exists() else 0


def plain(message: dict[str, Any]) -> dict[str, Any]:
    """A message of a trace without ids."""
    calls = [
        [one["function"]["name"], json.loads(one["function"]["arguments"])] for one in message.get("tool_calls") or []
    ]
    return {"role": message["role"], "content": message.get("content") or "", "calls": calls}


def history(messages: list[AnyMessage]) -> list[dict[str, Any]]:
    """The same of messages of LangChain."""
    roles = {"human": "user", "ai": "assistant", "tool": "tool"}
    return [
        {
            "role": roles[one.type],
            "content": one.text,
            "calls": [[call["name"], call["args"]] for call in getattr(one, "tool_calls", [])],
        }
        for one in messages
        if one.type != "system"
    ]


class Recorded(BaseChatModel):
    """Answers what the recorded model did."""

    @property
    def _llm_type(self) -> str:
        return "recorded"

    def _generate(self, messages: list[Any], stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        asked = history(messages)
        answer = told(len(asked), asked)
        calls = [
            {"name": one["function"]["name"], "args": json.loads(one["function"]["arguments"]), "id": one["id"]}
            for one in answer.get("tool_calls") or []
        ]
        usage = {"input_tokens": sum(len(one.text) for one in messages) // 4, "output_tokens": 9, "total_tokens": 0}
        message = AIMessage(answer.get("content") or "", tool_calls=calls, usage_metadata=usage)
        return ChatResult(generations=[ChatGeneration(message=message)])


class State(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]
    turns: list[str]
    length: int


def _tool(name: str) -> StructuredTool:
    def call(**arguments: Any) -> str:
        return str(told(None, [name, arguments])["content"])

    schema = {"type": "object", "title": name, "properties": {}, "additionalProperties": True}
    return StructuredTool.from_function(call, name=name, description=f"{name} of the airline", args_schema=schema)


def build(names: list[str]) -> Any:
    """The agent's graph."""
    tools = [_tool(name) for name in names]
    model, node = Recorded(), ToolNode(tools)

    def agent(state: State) -> dict[str, Any]:
        return {"messages": [model.invoke([SystemMessage(SYSTEM), *state["messages"]])]}

    def use(state: State) -> dict[str, Any]:
        return node.invoke(state)  # type: ignore[no-any-return]

    def user(state: State) -> dict[str, Any]:
        return {"messages": [HumanMessage(state["turns"][0])], "turns": state["turns"][1:]}

    def after(state: State) -> str:
        last = state["messages"][-1]
        if isinstance(last, AIMessage) and last.tool_calls:
            return "use"
        return "user" if state["turns"] else END

    def goes_on(state: State) -> str:
        """A trace may end with a tool's answer or a turn of the user."""
        return END if len(state["messages"]) >= state["length"] else "agent"

    graph = StateGraph(State)
    graph.add_node("agent", agent)
    graph.add_node("use", use)
    graph.add_node("user", user)
    graph.add_edge(START, "user")
    graph.add_conditional_edges("agent", after, ["use", "user", END])
    graph.add_conditional_edges("use", goes_on, ["agent", END])
    graph.add_conditional_edges("user", goes_on, ["agent", END])
    return graph.compile(name="airline")


def traces(path: Path, count: int) -> list[dict[str, Any]]:
    """The first traces of the file."""
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for _, line in zip(range(count), file, strict=False)]


def tool_names(found: list[dict[str, Any]]) -> list[str]:
    """Every tool that they call."""
    return sorted(
        {
            one["function"]["name"]
            for trace in found
            for message in trace["messages"]
            for one in message.get("tool_calls") or []
        }
    )


def live(graph: Any, trace: dict[str, Any]) -> list[dict[str, Any]]:
    """Live through one trace; its messages."""
    world = Path(os.environ[WORLD])
    (world / "trace.json").write_text(json.dumps(trace["messages"]))
    (world / "told").write_text("[]")
    turns = [one["content"] for one in trace["messages"] if one["role"] == "user"]
    made = graph.invoke({"messages": [], "turns": turns, "length": len(trace["messages"])}, {"recursion_limit": 200})
    return history(made["messages"])


def main(path: str, count: str, out: str) -> None:
    found = traces(Path(path), int(count))
    graph = build(tool_names(found))
    with Path(out).open("w", encoding="utf-8") as file:
        for trace in found:
            with clew.run("conversation", session=trace["_id"]):
                file.write(json.dumps(live(graph, trace)) + "\n")


if __name__ == "__main__":
    clew.init("airline")
    clew.instrument()
    main(*sys.argv[1:])
