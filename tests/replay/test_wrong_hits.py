"""What an attack on the cache found: each was once answered with the answer to something else."""

from __future__ import annotations

import collections
import functools
import operator
import random
import re
import threading
from collections.abc import Iterator
from typing import Annotated, Any

import pytest
from langchain_core.documents import Document
from langchain_core.messages import AIMessageChunk, ToolMessage
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableConfig, RunnableParallel
from langchain_core.tools import BaseTool, InjectedToolCallId, StructuredTool, tool
from langchain_core.vectorstores import InMemoryVectorStore
from pydantic import BaseModel

import clew
from clew.replay.identity import identity
from clew.store.encoding import encode_key
from clew.store.errors import Unkeyable
from tests.lineage.lineage_bed import BagOfWords
from tests.replay.conftest import LIVE, Caching, Counted, live


class Person(BaseModel):
    name: str
    author: str = ""


class Held:
    def __init__(self, of: Any) -> None:
        self.client = of
        self.max_new_tokens = of


class Slotted:
    __slots__ = ("__hidden",)

    def __init__(self, hidden: Any) -> None:
        self.__hidden = hidden


class Marked(dict[str, Any]):
    pass


def marked(mark: Any) -> Marked:
    made = Marked(a=1)
    made.mark = mark  # type: ignore[attr-defined]
    return made


PAIRS: list[tuple[Any, Any]] = [
    (Person(name="alice"), Person(name="bob")),
    (Person(name="x", author="a"), Person(name="x", author="b")),
    (Held("a"), Held("b")),
    (Held("a").__init__, Held("b").__init__),  # type: ignore[misc]
    (Slotted("a"), Slotted("b")),
    (re.compile("a"), re.compile("b")),
    (re.compile("a"), re.compile("a", re.I)),
    (functools.partial(max, 1), functools.partial(max, 2)),
    (operator.itemgetter(1), operator.itemgetter(2)),
    (random.Random(1), random.Random(2)),
    (collections.deque([1]), collections.deque([2])),
    ({"q": "a"}.get, {"q": "b"}.get),
    (collections.defaultdict(int), collections.defaultdict(str)),
    (collections.OrderedDict(a=1), {"a": 1}),
    (marked(1), marked(2)),
    (b"a", bytearray(b"a")),
    (Document("x", metadata={"v": 1}), Document("x", metadata={"v": 2})),
    (iter([1]), iter([2])),
    (object(), object()),
]


def form(value: Any) -> bytes | None:
    try:
        return encode_key(identity(value))
    except Unkeyable:
        return None


@pytest.mark.parametrize(("one", "other"), PAIRS, ids=lambda value: type(value).__name__)
def test_values_that_differ_have_another_form_or_none(one: Any, other: Any) -> None:
    assert form(one) is None or form(one) != form(other)


def test_a_value_that_is_equal_has_the_same_form() -> None:
    for one in (Person(name="a"), Held([1, {"b": (2,)}]), re.compile("a"), functools.partial(max, 1)):
        assert form(one) is not None
    assert form(Person(name="a")) == form(Person(name="a"))
    assert form(Held([1, {"b": (2,)}])) == form(Held([1, {"b": (2,)}]))


def test_an_argument_that_is_a_model_counts_with_all_its_fields(caching: Caching) -> None:
    @clew.effect("pure")
    @tool
    def greet(person: Person) -> str:
        """Greet."""
        return person.name

    with caching():
        assert [greet.invoke({"person": {"name": name}}) for name in ("alice", "bob")] == ["alice", "bob"]


def test_tools_that_hold_something_else_are_others(caching: Caching) -> None:
    class Asking(BaseTool):
        name: str = "asking"
        description: str = "Ask."
        client: Any = None

        def _run(self, x: int) -> str:
            return f"{self.client.client} {x}"

    with caching(clew.Cache(tools={"asking": "pure", "max": "pure"})):
        assert [Asking(client=Held(of)).invoke({"x": 1}) for of in "ab"] == ["a 1", "b 1"]


def made(says: str) -> type[Counted]:
    class Saying(Counted):
        def _answer(self, messages: list[Any]) -> Any:
            return super()._answer(messages).model_copy(update={"content": says})

    return Saying


def test_a_class_that_a_function_makes_holds_what_it_was_made_with(caching: Caching) -> None:
    with caching():
        assert [made(says)().invoke("hello").text for says in ("a", "b", "a")] == ["a", "b", "a"]


def test_a_method_that_was_replaced_is_another_model(caching: Caching, monkeypatch: pytest.MonkeyPatch) -> None:
    class Patched(Counted):
        pass

    with caching():
        Patched().invoke("hello")
        answer = Patched._answer
        monkeypatch.setattr(Patched, "_answer", lambda self, messages: answer(self, messages))
        Patched().invoke("hello")
    assert LIVE == {"llm": 2}


def test_a_tool_that_sees_the_configuration_is_called(caching: Caching) -> None:
    @clew.effect("pure")
    @tool
    def who(x: int, config: RunnableConfig) -> str:
        """Who asks?"""
        return str(config["configurable"]["user"])

    with caching():
        asked = [who.invoke({"x": 1}, config={"configurable": {"user": user}}) for user in ("alice", "bob")]
    assert asked == ["alice", "bob"]


def test_an_answer_that_holds_the_id_of_its_call_is_for_that_call(caching: Caching) -> None:
    @clew.effect("pure")
    @tool
    def echo(x: int, call: Annotated[str, InjectedToolCallId]) -> Any:
        """Echo."""
        return f"this is {call}"

    @clew.effect("pure")
    @tool
    def say(x: int, tool_call_id: Annotated[str, InjectedToolCallId]) -> Any:
        """Say."""
        live("say")
        return ToolMessage("said", tool_call_id=tool_call_id)

    def call(of: BaseTool, name: str) -> Any:
        return of.invoke({"type": "tool_call", "name": of.name, "args": {"x": 1}, "id": name})

    with caching():
        assert [call(echo, name).content for name in ("id-1", "id-2")] == ["this is id-1", "this is id-2"]
        assert [call(say, name).tool_call_id for name in ("id-1", "id-2")] == ["id-1", "id-2"]
    assert LIVE == {"say": 1}


class Some(BaseRetriever):
    def _get_relevant_documents(self, query: str, *, run_manager: Any, k: int = 1) -> list[Document]:
        return [Document(query)] * k


def test_what_else_a_retriever_is_asked_with_counts(caching: Caching) -> None:
    with caching(clew.Cache(retriever=True)):
        assert [len(Some().invoke("q", k=k)) for k in (1, 3)] == [1, 3]


def test_metadata_is_part_of_what_a_vector_store_holds(caching: Caching) -> None:
    with caching(clew.Cache(retriever=True)):
        store = InMemoryVectorStore(BagOfWords())
        found = []
        for version in (1, 2):
            store.add_documents([Document("meta", id="1", metadata={"v": version})])
            found.append(store.as_retriever().invoke("meta")[0].metadata["v"])
        store.store["1"]["text"] = "atem"
        found.append(store.as_retriever().invoke("meta")[0].page_content)
    assert found == [1, 2, "atem"]


def test_samples_at_two_places_are_two(caching: Caching) -> None:
    model = Counted(temperature=1.0)
    with caching(), clew.run("samples"):
        one = RunnableParallel(a=model, b=model).invoke("hello")
    assert one["a"].text != one["b"].text


def test_a_chunk_that_cannot_be_copied_reaches_the_program(caching: Caching) -> None:
    class Raw(Counted):
        def _stream(self, messages: list[Any], *args: Any, **kwargs: Any) -> Iterator[ChatGenerationChunk]:
            for text in "ab":
                yield ChatGenerationChunk(
                    message=AIMessageChunk(text), generation_info={"raw": threading.Lock()} if text == "a" else None
                )

    with caching():
        assert "".join(chunk.text for chunk in Raw().stream("hello")) == "ab"

    @clew.cached
    def locks() -> Iterator[Any]:
        yield threading.Lock()

    with caching():
        assert [len(list(locks())) for _ in range(2)] == [1, 1]


def test_vectors_come_as_the_model_gives_them(caching: Caching) -> None:
    class Odd(BagOfWords):
        def embed_documents(self, texts: list[str]) -> Any:
            return tuple([1.0] for _ in texts)

    with caching():
        assert [type(Odd().embed_documents(["a", "b", "a"])) for _ in range(2)] == [tuple, tuple]


@pytest.mark.parametrize(
    "answer",
    [b"sk-proj-" + b"aB3dE6gH9jK2" * 4, {1: 2, "password": "hunter2-hunter2"}, {"password": {"v": "hunter2-hunter2"}}],
    ids=["bytes", "mixed keys", "nested"],
)
def test_no_credential_is_kept_in_an_answer(caching: Caching, tmp_path: Any, answer: Any) -> None:
    give = StructuredTool.from_function(
        clew.effect("pure", version="1")(lambda x: answer), name="give", description="x"
    )
    with caching() as tracer:
        assert [give.invoke({"x": 1}) for _ in range(2)] == [answer] * 2
        clew.flush()
    stored = b"".join(path.read_bytes() for path in tracer.folder.path.rglob("catalog.sqlite*"))
    assert b"hunter2" not in stored
    assert b"sk-proj-aB3" not in stored
