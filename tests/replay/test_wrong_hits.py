"""What an attack on the cache found: each was once answered with the answer to something else."""

from __future__ import annotations

import collections
import datetime
import enum
import functools
import operator
import random
import re
import threading
import zoneinfo
from collections.abc import Iterator
from typing import Annotated, Any

import httpx
import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.messages import AIMessageChunk, ToolMessage
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableConfig, RunnableParallel
from langchain_core.tools import BaseTool, InjectedToolCallId, StructuredTool, tool
from langchain_core.vectorstores import InMemoryVectorStore
from pydantic import BaseModel, PrivateAttr, SecretStr

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
    (np.datetime64(1, "D"), np.datetime64(1, "s")),
    (np.timedelta64(1, "D"), np.timedelta64(1, "h")),
    (np.zeros(1, "i4, i4")[0], np.zeros(1, "i4, f4")[0]),
    (np.zeros(1, [("a", "i4")])[0], np.zeros(1, [("b", "i4")])[0]),
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


# -- how it is reached


class Reached(Counted):
    """A model whose server only its client knows, as where a package reads OPENAI_BASE_URL."""

    client: Any = None
    _session: Any = PrivateAttr(default=None)

    @functools.cached_property
    def _lazy(self) -> httpx.Client:
        return httpx.Client(base_url=self.base_url)


class Default(httpx.Client):
    """As the providers' packages make one of theirs."""


class HTTPTransport(httpx.BaseTransport):
    """Only its name is that of the way to the network."""

    def __init__(self, status: int) -> None:
        self.status = status

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return httpx.Response(self.status)


def two(name: str) -> list[httpx.Client]:
    """Two clients that differ in where they lead, or in what they send along."""
    if name in ("transport", "transport of a provider's client"):
        hear = [httpx.MockTransport(functools.partial(httpx.Response, status)) for status in (200, 201)]
        made = [(httpx.Client if name == "transport" else Default)(transport=one) for one in hear]
        return made if name == "transport" else [within(one) for one in made]
    if name == "transport with a name":
        return [httpx.Client(transport=HTTPTransport(status)) for status in (200, 201)]
    if name in VALUES:
        return [within(httpx.Client(), {"version": one}) for one in VALUES[name]]
    if name == "mount":
        return [httpx.Client(mounts={f"https://{host}": httpx.MockTransport(print)}) for host in "ab"]
    given: dict[str, list[Any]] = {
        "base_url": ["https://one.example", "https://two.example"],
        "params": [{"api-version": "1"}, {"api-version": "2"}],
        "params ": [{"tag": ["a", "b"]}, {"tag": ["a", "c"]}],
        " params": [{"Tag": "1", "tag": "2"}, {"Tag": "2", "tag": "2"}],
        "headers": [{"anthropic-beta": "a"}, {"anthropic-beta": "b"}],
    }
    return [httpx.Client(**{name.strip(): one}) for one in given[name]]


def within(inner: httpx.Client, query: dict[str, Any] | None = None) -> Any:
    """A provider's client around the one that it sends with."""
    made = type("Provider", (), {"__module__": "openai"})()
    made._client, made._custom_query = inner, query or {}
    return made


VALUES: dict[str, Any] = {"number": (1, 2), "list": (["a"], ["b"]), "bytes": (b"a", b"b")}
WAYS = ["base_url", "params", "params ", " params", "headers", "transport", "mount"]
MORE = ["transport of a provider's client", "transport with a name"]


@pytest.mark.parametrize("name", [*WAYS, *MORE, *VALUES])
def test_a_client_counts_by_where_it_leads(caching: Caching, name: str) -> None:
    """DSPy and LiteLLM once more (two servers, one key), where no field of the model says which."""
    clients = two(name)
    with caching():
        for client in (*clients, *clients):
            model = Reached(client=client)
            model._session = httpx.AsyncClient(headers={"x-request-id": str(id(model))})
            model.invoke("hello")
    assert LIVE == {"llm": 2}


@pytest.mark.parametrize("library", ["httpx", "httpx2"])
def test_a_client_has_no_part_in_the_key_but_where_it_leads(caching: Caching, library: str) -> None:
    with caching():
        for _ in range(2):
            Reached(client=pytest.importorskip(library).Client(base_url="https://one.example")).invoke("hello")
    assert LIVE == {"llm": 1}


def test_a_client_that_is_made_when_it_is_needed_changes_nothing(caching: Caching) -> None:
    model = Reached(base_url="https://one.example/")
    with caching():
        model.invoke("hello")
        assert model._lazy.base_url.host == "one.example"
        model.invoke("hello")
        assert LIVE == {"llm": 1}
        model.__dict__["_lazy"] = httpx.Client(base_url="https://two.example")
        model.invoke("hello")
    assert LIVE == {"llm": 2}


# -- what the program reads itself


class Named(Counted):
    """Makes its answer of fields that say nothing elsewhere."""

    def _answer(self, messages: list[Any]) -> Any:
        said = f"{live('named')}: {self.name} {persona(self)}"
        return super()._answer(messages).model_copy(update={"content": said})


def persona(model: Any) -> str:
    return str((model.metadata or {}).get("persona"))


def test_a_field_that_the_programs_own_model_reads_counts(caching: Caching) -> None:
    with caching():
        answers = [Named(name=name).invoke("hello").text for name in ("a", "b", "a")]
        assert answers == ["1: a None", "2: b None", "1: a None"]
        answers = [Named(metadata={"persona": who}).invoke("hello").text for who in ("a", "b")]
        assert answers == ["3: None a", "4: None b"]
        Named(tags=["x"]).invoke("hello", timeout=3)
        Named(tags=["y"]).invoke("hello", timeout=4)
    assert LIVE["named"] == 5


def test_an_option_that_the_programs_own_model_reads_counts(caching: Caching) -> None:
    class Patient(Counted):
        def _generate(self, messages: list[Any], stop: Any = None, run_manager: Any = None, **kwargs: Any) -> Any:
            live(f"timeout {kwargs.get('timeout')}")
            return super()._generate(messages)

    with caching():
        for timeout in (1, 2, 1):
            Patient().invoke("hello", timeout=timeout)
    assert LIVE == {"timeout 1": 1, "timeout 2": 1, "llm": 2}


class Tenant(BaseTool):
    name: str = "tenant"
    description: str = "Whose?"

    def _run(self, x: int) -> str:
        return str((self.metadata or {}).get("tenant"))


class Library(BaseRetriever):
    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        return [Document(str((self.metadata or {}).get("tenant")))]


def test_metadata_that_a_tool_or_retriever_reads_counts(caching: Caching) -> None:
    with caching(clew.Cache(retriever=True, tools={"tenant": "pure"})):
        assert [Tenant(metadata={"tenant": who}).invoke({"x": 1}) for who in "ab"] == ["a", "b"]
        assert [Library(metadata={"tenant": who}).invoke("x")[0].page_content for who in "ab"] == ["a", "b"]


# -- secrets


def test_who_asks_counts_where_a_secret_is_an_argument(caching: Caching) -> None:
    """The mail of one was served to the other."""

    @clew.cached
    def inbox(token: SecretStr) -> str:
        return f"mail number {len(token.get_secret_value())}"

    with caching():
        assert [inbox(SecretStr("x" * size)) for size in (8, 9, 8)] == [
            "mail number 8",
            "mail number 9",
            "mail number 8",
        ]


def test_another_key_to_the_same_model_is_the_same_request(caching: Caching) -> None:
    class Keyed(Counted):
        api_key: SecretStr = SecretStr("")

    with caching():
        assert {Keyed(api_key=SecretStr(one)).invoke("hello").text for one in ("a", "b")} == {"answer 1 to hello"}


# -- forms


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (bytearray(b"x"), ["bytearray", b"x"]),
        (datetime.UTC, ("timezone", "datetime.timezone.utc")),
        ({SecretStr("a"): 1, SecretStr("b"): 2}, {SecretStr("a"): 2, SecretStr("b"): 1}),
        ({Colour.RED: 1, Colour.BLUE: 2}, {Colour.RED: 2, Colour.BLUE: 1}),
        ({Colour.RED}, {Colour.BLUE}),
        ({Colour.RED}, frozenset((Colour.RED,))),
        (
            datetime.datetime(2026, 1, 1, tzinfo=zoneinfo.ZoneInfo("UTC")),
            datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_told_otherwise_is_told_apart(one: Any, other: Any) -> None:
    assert form(one) is not None
    assert form(one) != form(other)


def test_data_that_is_nested_as_deeply_as_schemas_are_has_a_form() -> None:
    nested: Any = "leaf"
    for _ in range(40):
        nested = {"properties": nested}
    assert form(nested) is not None
    for _ in range(40):
        nested = {"properties": nested}
    assert form(nested) is None
