"""Lists of names that are taken for noise: an argument of that name was no part of the request.

agenttape 0.1.8 drops `date`, `timestamp`, `created`, `nonce` and more by name: recorded weather(Oslo, 2026-01-01), asked
for July, got January. Each test asks by every name, wherever a name can stand.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.language_models import BaseLLM
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.outputs import Generation, LLMResult
from langchain_core.retrievers import BaseRetriever
from langchain_core.tools import BaseTool, StructuredTool
from pydantic import create_model

import clew
from tests.replay.conftest import Caching, live
from tests.replay.defects.provider import Provider, sent

# Those of agenttape's list, and what is transport, tracing or an id on a model or a message: anywhere else it is a word.
NAMES = [
    "date", "timestamp", "created", "created_at", "updated_at", "time", "now", "nonce", "uuid", "id", "request_id",
    "run_id", "trace_id", "session_id", "user", "seed", "token", "cursor", "page", "timeout", "tags", "metadata",
    "stream", "retries", "max_retries", "usage", "headers", "tool_call_id", "callback", "callbacks", "config", "verbose",
    "cache", "name", "kind", "type", "effect", "value", "tool", "arguments", "version", "query", "messages", "prompt",
    "prompts", "system_fingerprint", "client", "proxy", "host", "url", "args", "kwargs", "self_",
]  # fmt: skip
DAYS = ["2026-01-01", "2026-07-01", "2026-01-01"]


def answered(ask: Callable[[str, str], str], names: list[str], calls: int = 2) -> None:
    """By each name: another value gets another answer, the same one the answer it had."""
    wrong = {}
    for name in names:
        answers = [ask(name, day) for day in DAYS]
        if not all(day in answer for day, answer in zip(DAYS, answers, strict=True)) or len({*answers}) != calls:
            wrong[name] = answers
    assert wrong == {}


def without(*taken: str) -> list[str]:
    return [name for name in NAMES if name not in taken]


def weather(name: str) -> Any:
    """`weather(city, <name>)`, by an argument of any name."""
    space: dict[str, Any] = {"live": live}
    exec(f"def weather(city, {name}):\n    return f'{{live(\"weather\")}}: {{city}} on {{{name}}}'", space)
    return space["weather"]


def test_agenttape_an_argument_of_a_function(caching: Caching) -> None:
    """agenttape 0.1.8, for `clew.cached`."""
    functions = {name: clew.cached(version="1", name=name)(weather(name)) for name in NAMES}
    with caching():
        answered(lambda name, day: str(functions[name]("Oslo", **{name: day})), NAMES)


def test_agenttape_an_argument_of_a_tool(caching: Caching) -> None:
    """agenttape 0.1.8, for a tool made of a function. (LangChain takes `config` and `callbacks` for itself there.)"""

    def ask(name: str, day: str) -> str:
        schema: Any = create_model("Schema", city=(str, ...), **{name: (str, ...)})
        function = clew.effect("pure", version="1")(weather(name))
        made = StructuredTool.from_function(function, name="weather", description="Weather.", args_schema=schema)
        return str(made.invoke({"city": "Oslo", name: day}))

    with caching():
        answered(ask, without("config", "callbacks"))


class Weather(BaseTool):
    name: str = "weather"
    description: str = "Weather."

    def _run(self, **given: Any) -> str:
        return f"{live('weather')}: {given}"


def test_agenttape_an_argument_of_a_tool_class(caching: Caching) -> None:
    """agenttape 0.1.8, for a tool that is a class, whose arguments may have any name."""

    def ask(name: str, day: str) -> str:
        schema: Any = create_model("Schema", city=(str, ...), **{name: (str, ...)})
        return str(Weather(args_schema=schema).invoke({"city": "Oslo", name: day}))

    with caching(clew.Cache(tools={"weather": "pure"})):
        answered(ask, without("callbacks"))
        answered(ask, ["callbacks"], calls=3)  # what LangChain filters by name has no key


def test_agenttape_an_option_of_a_model(caching: Caching) -> None:
    """agenttape 0.1.8, for what a model is asked with. (Some names LangChain takes for itself or for transport.)"""
    taken = (
        "config",
        "callbacks",
        "tags",
        "metadata",
        "run_id",
        "stream",
        "timeout",
        "max_retries",
        "messages",
        "prompts",
        "type",
    )

    def chat(name: str, day: str) -> str:
        return str(sent(Provider(), **{name: day}))

    with caching():
        answered(chat, without(*taken))


class Text(BaseLLM):
    temperature: float = 0.0

    @property
    def _llm_type(self) -> str:
        return "text"

    def _generate(self, prompts: list[str], stop: Any = None, run_manager: Any = None, **options: Any) -> LLMResult:
        return LLMResult(generations=[[Generation(text=f"{live('text')}: {options}")] for _ in prompts])


def test_agenttape_an_option_of_a_completion_model(caching: Caching) -> None:
    """agenttape 0.1.8, for a model that completes."""
    taken = ("config", "callbacks", "tags", "metadata", "run_id", "stream", "timeout", "max_retries", "prompts", "name")
    with caching():
        answered(lambda name, day: str(Text().invoke("hello", **{name: day})), without(*taken))


def test_agenttape_a_field_in_what_is_said(caching: Caching) -> None:
    """agenttape 0.1.8, inside the content of a message: there is no noise in what a model reads."""

    def ask(name: str, day: str) -> str:
        return str(sent(Provider(), [HumanMessage([{"type": "text", "text": "weather?", name: day}])]))

    def ask_of_a_call(name: str, day: str) -> str:
        call = {"name": "weather", "args": {name: day, "of": {name: [day]}}, "id": "call_1"}
        return day + str(sent(Provider(), [AIMessage("", tool_calls=[call])])["number"])

    def ask_of_a_block(name: str, day: str) -> str:
        block = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {name: day}}
        return str(sent(Provider(), [AIMessage([block])]))

    with caching():
        for way in (ask, ask_of_a_call, ask_of_a_block):
            answered(way, NAMES)


def test_agenttape_an_option_of_a_retriever(caching: Caching) -> None:
    """agenttape 0.1.8, for a search."""

    class Shelf(BaseRetriever):
        def _get_relevant_documents(self, query: str, *, run_manager: Any, **options: Any) -> list[Document]:
            return [Document(f"{live('shelf')}: {options}")]

    def ask(name: str, day: str) -> str:
        return str(Shelf().invoke("x", **{name: day})[0].page_content)

    with caching(clew.Cache(retriever=True)):
        answered(ask, without("config", "query", "run_id", "tags", "metadata", "callbacks"))


@pytest.mark.parametrize("name", ["page_content", "id", "metadata"])
def test_agenttape_a_field_of_a_document(caching: Caching, name: str) -> None:
    """agenttape 0.1.8, for what is handed on whole: an id of a document is no id that was minted for the call."""

    @clew.cached
    def tell(document: Document) -> str:
        return f"{live('tell')}: {document!r}"

    def ask(name: str, day: str) -> str:
        fields: dict[str, Any] = {"page_content": "x", name: {"date": day} if name == "metadata" else day}
        return str(tell(Document(**fields)))

    with caching():
        answered(ask, [name])
