"""A program that asks what other caches, asked again in another process, do not know again. It prints, for each case, the
answer and how often the world was reached."""

from __future__ import annotations

import copy
import dataclasses
import enum
import json
import sys
import uuid
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypedDict

import httpx
from langchain_core.language_models import BaseChatModel, BaseLLM
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult, Generation, LLMResult
from langchain_core.tools import StructuredTool, tool
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.prebuilt import ToolNode, tools_condition
from pydantic import BaseModel, Field, PrivateAttr, SecretStr

import clew

LIVE = [0]


def reached() -> int:
    LIVE[0] += 1
    return LIVE[0]


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclasses.dataclass
class Query:
    text: str
    colours: set[Colour]


class Answer(BaseModel):
    """An answer, and how sure it is."""

    text: str
    score: float = Field(ge=0, le=1)


class Client(BaseChatModel):
    """A model as providers' packages make them: clients beside the settings, and made anew in each process."""

    model: str = "model-1"
    temperature: float = 0.0
    api_key: SecretStr = SecretStr("key")
    base_url: str = "https://api.example/v1"
    client: Any = None
    helper: Any = None
    _session: Any = PrivateAttr(default=None)

    def model_post_init(self, context: Any, /) -> None:
        self.client = httpx.Client(base_url=self.base_url, headers={"x-request-id": uuid.uuid4().hex})
        self._session = httpx.AsyncClient(base_url=self.base_url)

    @property
    def _llm_type(self) -> str:
        return "client"

    def bind_tools(self, tools: Any, **options: Any) -> Any:
        from langchain_core.utils.function_calling import convert_to_openai_tool

        return self.bind(tools=[convert_to_openai_tool(one) for one in tools], **options)

    def _generate(self, messages: list[Any], stop: Any = None, run_manager: Any = None, **options: Any) -> ChatResult:
        number, tools = reached(), options.get("tools")
        calls: list[Any] = []
        if tools and not isinstance(messages[-1], ToolMessage):
            name = tools[0]["function"]["name"]
            known = {"Answer": {"text": "yes", "score": 1}, "look": {"place": "here", "sorts": ["a"]}}
            calls = [{"name": name, "args": known[name], "id": f"call_{uuid.uuid4().hex}"}]
        about = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": number, "finish_reason": "stop"}
        message = AIMessage(f"answer {number}", tool_calls=calls, id=uuid.uuid4().hex, response_metadata=about)
        return ChatResult(generations=[ChatGeneration(message=message)])


class Text(BaseLLM):
    """A completion model."""

    temperature: float = 0.0

    @property
    def _llm_type(self) -> str:
        return "text"

    def _generate(self, prompts: list[str], stop: Any = None, run_manager: Any = None, **options: Any) -> LLMResult:
        return LLMResult(generations=[[Generation(text=f"{prompt} {reached()}")] for prompt in prompts])


@clew.effect("pure")
@tool
def look(place: Annotated[str, "where"], sorts: set[Literal["a", "b"]], depth: int | None = None) -> str:
    """Look at a place.

    Args:
        place: where to look
    """
    return f"{place} {sorted(sorts)} {reached()}"


@clew.cached
def listed(values: Any) -> str:
    return f"{reached()}"


@clew.cached
def found(query: Any, **options: Any) -> str:
    return f"{reached()}"


@clew.cached
def twice(value: Any) -> str:
    return listed(value) + listed([value])


def nested() -> Any:
    return [twice("nested"), listed("nested"), twice("nested")]


def shared_and_separate() -> Any:
    part = {"a": ["x" * 5]}
    return [listed([part, part]), listed([part, copy.deepcopy(part)]), listed(json.loads(json.dumps([part, part])))]


def sets() -> Any:
    words = {f"word {number}" for number in range(50)}
    return [
        listed(words), listed(frozenset(words)), listed({("a", 1), ("b", 2)}), listed({Colour.RED, Colour.BLUE}),
        found(Query("x", {Colour.BLUE, Colour.RED})), found({Colour.RED: 1, Colour.BLUE: {2, 3}}), found(words, of=words),
    ]  # fmt: skip


def message_ids() -> Any:
    asked = [
        HumanMessage("hello", id=str(uuid.uuid4())),
        AIMessage("hi", id=f"run-{uuid.uuid4()}"),
        HumanMessage("and?"),
    ]
    return Client().invoke(asked).text


class State(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]


def agent() -> Any:
    """A graph whose messages get an id each, with a tool call whose id the provider made."""
    model = Client().bind_tools([look])
    graph = StateGraph(State)
    graph.add_node("model", lambda state: {"messages": [model.invoke(state["messages"])]})
    graph.add_node("tools", ToolNode([look]))
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", tools_condition, {"tools": "tools", END: END})
    graph.add_edge("tools", "model")
    return [message.text for message in graph.compile().invoke({"messages": [HumanMessage("go")]})["messages"]]


def object_option() -> Any:
    """An option that is an object: its repr is `<... object at 0x7f...>`."""
    return Client().invoke("hello", query=Query("x", {Colour.RED}), kind=Colour.RED, check=len, parser=sets).text


def object_field() -> Any:
    return Client(helper=Query("y", {Colour.RED})).invoke("hello").text


def rebuilt() -> Any:
    return [Client().invoke("hello").text, Client(model="model-1").invoke("hello").text, Client().invoke("hello").text]


def tool_schema() -> Any:
    made = StructuredTool.from_function(func=look.func, name="look", description="Look.")  # type: ignore[attr-defined]
    return Client().bind_tools([look, made, Answer]).invoke("hello").tool_calls[0]["name"]


def structured() -> Any:
    return Client().with_structured_output(Answer).invoke("sure?").model_dump()  # type: ignore[union-attr]


def completion() -> Any:
    return Text().invoke("once upon")


def tool_call() -> Any:
    call = {"name": "look", "args": {"place": "here", "sorts": ["b", "a"]}, "id": uuid.uuid4().hex, "type": "tool_call"}
    return look.invoke(call).content


def keywords() -> Any:
    """Arguments and dicts in any order: as a set is walked, and so otherwise in each process."""
    names = [*{"alpha", "beta", "gamma", "delta", "epsilon"}]
    options = {name: dict.fromkeys(names, name) for name in names}
    return [
        found("x", **options), found("x", **dict(reversed(options.items()))), found(options),
        Client().invoke("hello", **options).text, Client().bind(**dict(reversed(options.items()))).invoke("hello").text,
    ]  # fmt: skip


CASES: list[Callable[[], Any]] = [
    shared_and_separate, sets, message_ids, agent, object_option, object_field, rebuilt, tool_schema, structured,
    completion, tool_call, keywords, nested,
]  # fmt: skip

if __name__ == "__main__":
    clew.init("defects", store=sys.argv[1], cache=True)
    clew.instrument()
    told = {}
    for case in CASES:
        LIVE[0] = 0
        with clew.run(case.__name__):
            told[case.__name__] = [case(), LIVE[0]]
    clew.shutdown()
    print(json.dumps(told))
