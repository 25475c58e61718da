"""What is remembered between two keys is what still is so: whatever is changed in between, however deep, changes the key."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import StructuredTool
from langchain_core.vectorstores import InMemoryVectorStore

import clew
from clew.integrations.langchain import message_exchange, model_exchange, retriever_exchange
from clew.integrations.langchain.model_exchange import ModelExchange
from clew.integrations.langchain.retriever_exchange import RetrieverExchange
from clew.integrations.langchain.tool_exchange import ToolExchange
from clew.replay.code import version, witness
from clew.replay.key import asked_key
from clew.store.errors import Unkeyable
from clew.tracer.init import Tracer
from tests.lineage.lineage_bed import BagOfWords
from tests.replay import remembered_bed
from tests.replay.conftest import Counted, live
from tests.replay.remembered_bed import (
    CLIENT,
    MODEL,
    WORDS,
    Change,
    Hears,
    Part,
    asked,
    changes,
    client,
    made,
    reached,
    wrapped,
)


class Below(Counted):
    pass


class Lowest(Below):
    part: Any = None


def of_model(tracer: Tracer, model: Any, messages: list[Any] | None = None) -> bytes:
    return asked(tracer, ModelExchange(model, messages or [HumanMessage("hello")], None, {}))


def test_versions_of_classes_can_be_read_here() -> None:
    assert version.works()
    assert witness.addresses is witness._addresses


# -- models


@pytest.mark.parametrize("change", MODEL.values(), ids=MODEL.keys())
def test_what_a_model_is_made_of(tracer: Tracer, way: None, change: Change) -> None:
    model = made(Counted, 1)(part=Part(), stops={"a": [1]})
    model.part.inner = {"a": [1, {"b": 2}]}
    assert changes(lambda: of_model(tracer, model), lambda: change(model))


class Slotted:
    __slots__ = ("left", "right")


def test_a_value_that_goes_to_another_slot(tracer: Tracer, way: None) -> None:
    part = Slotted()
    part.left = 1

    def change() -> None:
        part.right = part.left
        del part.left

    model = made(Counted, 1)(part=part)
    assert changes(lambda: of_model(tracer, model), change)


@pytest.mark.parametrize("change", CLIENT.values(), ids=CLIENT.keys())
def test_where_a_client_leads(tracer: Tracer, way: None, change: Change, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Hears, "handle_request", Hears.handle_request)
    inner = client(base_url="https://one.example", headers={"tenant": "one"}, mounts={"all://": Hears()})
    model = reached(Counted)(client=wrapped(inner))
    assert changes(lambda: of_model(tracer, model), lambda: change(model))


def test_a_client_without_mounts_gets_one(tracer: Tracer, way: None) -> None:
    model = reached(Counted)(client=wrapped(client(base_url="https://one.example")))
    assert not model.client._client._mounts
    change = lambda: model.client._client._mounts.update({"all://": Hears()})  # noqa: E731
    assert changes(lambda: of_model(tracer, model), change)


def test_the_way_to_the_network_becomes_one_of_the_program(tracer: Tracer, way: None) -> None:
    model = reached(Counted)(client=wrapped(client(base_url="https://one.example")))
    for _ in range(3):
        of_model(tracer, model)
    model.client._client._transport.__class__ = type("Loud", (httpx.HTTPTransport,), {})
    with pytest.raises(Unkeyable, match="Loud"):
        of_model(tracer, model)


class Sending(httpx.Client):
    """A client of the program's own."""

    tenant = "one"

    def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        request.headers["tenant"] = self.tenant
        return super().send(request, **options)


SENDING: dict[str, Change] = {
    "what it reads": lambda client: setattr(client, "tenant", "two"),
    "its class": lambda client: setattr(client, "__class__", type("Other", (Sending,), {})),
    "a method": lambda client: setattr(Sending, "send", lambda self, request, **options: httpx.Response(200)),
    "an attribute of its class": lambda client: setattr(Sending, "tenant", "two"),
}


@pytest.mark.parametrize("change", SENDING.values(), ids=SENDING.keys())
def test_a_client_of_the_program(tracer: Tracer, way: None, change: Change, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("send", "tenant"):
        monkeypatch.setattr(Sending, name, getattr(Sending, name))
    model = reached(Counted)(client=wrapped(Sending(base_url="https://one.example")))
    assert changes(lambda: of_model(tracer, model), lambda: change(model.client._client))


def test_a_client_that_is_made_when_it_is_needed(tracer: Tracer, way: None) -> None:
    model = reached(Counted)(client=wrapped(client()), base_url="https://one.example", headers={"tenant": "one"})
    assert not changes(lambda: of_model(tracer, model), lambda: model.lazy)
    assert changes(lambda: of_model(tracer, model), lambda: model.headers.update(tenant="two"))


def test_where_a_client_leads_is_not_asked_again(tracer: Tracer) -> None:
    model = reached(Counted)(client=wrapped(client(base_url="https://one.example")))
    for _ in range(2):  # httpx finds out how its headers are encoded when they are first read
        of_model(tracer, model)
    assert model_exchange._models.of(model, pytest.fail).reached is not None


@pytest.mark.parametrize("owner", [Below, Counted], ids=lambda cls: cls.__name__)
def test_a_method_of_a_class_above(tracer: Tracer, way: None, monkeypatch: pytest.MonkeyPatch, owner: Any) -> None:
    model = Lowest()
    change = lambda: monkeypatch.setattr(owner, "another", lambda self: 1, raising=False)  # noqa: E731
    assert changes(lambda: of_model(tracer, model), change)


def test_a_method_of_an_installed_class(tracer: Tracer, way: None, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Lowest()
    change = lambda: monkeypatch.setattr(BaseMessage, "pretty_print", lambda self: None)  # noqa: E731
    held = SimpleNamespace(of=HumanMessage("x"))
    model.part = held.of
    assert changes(lambda: of_model(tracer, model), change)


@pytest.mark.parametrize(
    ("name", "value"), [("LIMIT", 4), ("WORDS", ["b"]), ("helped", lambda of: of + 1)], ids=lambda one: str(one)[:8]
)
def test_what_a_module_holds(tracer: Tracer, way: None, monkeypatch: pytest.MonkeyPatch, name: str, value: Any) -> None:
    model = made(Counted, 1)(stops={"a": [1]})
    assert changes(lambda: of_model(tracer, model), lambda: monkeypatch.setattr(remembered_bed, name, value))


def test_a_list_of_a_module(tracer: Tracer, way: None) -> None:
    model = made(Counted, 1)(stops={"a": [1]})
    try:
        assert changes(lambda: of_model(tracer, model), lambda: WORDS.append("b"))
    finally:
        WORDS[:] = ["a"]


def test_a_change_that_is_taken_back_is_none(tracer: Tracer, way: None) -> None:
    model = made(Counted, 1)(stops={"a": [1]})
    before = of_model(tracer, model)
    model.top_k, model.stops["a"][0] = 2, 5
    assert of_model(tracer, model) != before
    model.top_k, model.stops["a"][0] = 1, 1
    assert of_model(tracer, model) == before


def test_what_a_model_says_of_itself_is_asked_each_time(tracer: Tracer) -> None:
    said = {"mode": "one"}

    class Saying(Counted):
        @property
        def _identifying_params(self) -> dict[str, Any]:
            return dict(said)

    model = Saying()
    assert changes(lambda: of_model(tracer, model), lambda: said.update(mode="two"))


def test_what_a_model_says_of_itself_is_asked_once(tracer: Tracer) -> None:
    """Of one that says another thing each time is remembered what it said, not what it said next."""

    class Turning(Counted):
        @property
        def _identifying_params(self) -> dict[str, Any]:
            return {"mode": live("said") % 2}

    model, keys = Turning(), []
    for _ in range(4):
        keys.append(asked_key(tracer.gate, "llm", ModelExchange(model, [HumanMessage("hello")], None, {}), ("", 0)))
    assert keys[:2] == keys[2:]
    assert keys[0] != keys[1]


# -- messages


def conversation(turns: int = 6) -> list[Any]:
    found: list[Any] = [SystemMessage("be kind")]
    for turn in range(turns):
        call = {"name": "calc", "args": {"x": [turn]}, "id": f"call-{turn}"}
        found += [
            HumanMessage(f"question {turn}", additional_kwargs={"a": {"b": [1]}}),
            AIMessage("", id=f"run-{turn}", tool_calls=[call], response_metadata={"model": "m", "deep": {"a": 1}}),
            ToolMessage("9", tool_call_id=f"call-{turn}", artifact={"x": 1}),
            AIMessage([{"type": "text", "text": f"answer {turn}"}]),
        ]
    return found


def message(of: list[Any], cls: type) -> Any:
    return next(one for one in of[4:] if type(one) is cls)


MESSAGE: dict[str, Change] = {
    "content": lambda of: setattr(message(of, HumanMessage), "content", "another"),
    "a block of content": lambda of: of[4].content[0].update(text="another"),
    "one more block": lambda of: of[4].content.append({"type": "text", "text": "more"}),
    "an argument": lambda of: of[2].response_metadata["deep"].update(a=2),
    "a value of another type": lambda of: of[2].response_metadata["deep"].update(a=True),
    "a list in an argument": lambda of: of[2].tool_calls[0]["args"]["x"].append(1),
    "a dict deep inside": lambda of: message(of, HumanMessage).additional_kwargs["a"]["b"].append(2),
    "a name": lambda of: setattr(message(of, HumanMessage), "name", "bob"),
    "an artifact": lambda of: message(of, ToolMessage).artifact.update(x=2),
    "a status": lambda of: setattr(message(of, ToolMessage), "status", "error"),
    "which call is answered": lambda of: setattr(message(of, ToolMessage), "tool_call_id", "call-4"),
    "the id of a call": lambda of: of[2].tool_calls[0].update(id="another"),
    "the class": lambda of: object.__setattr__(of[1], "__class__", SystemMessage),
    "a field that no class has": lambda of: of[1].__dict__.update(foo=1),
    "a field's name": lambda of: of[1].__dict__.update(nome=of[1].__dict__.pop("name")),
    "the last field's name": lambda of: of[1].__dict__.update(foo=of[1].__dict__.pop("id")),
    "an extra": lambda of: of[1].__pydantic_extra__.update(x=1),
    "another message": lambda of: of.__setitem__(3, ToolMessage("8", tool_call_id="call-0")),
    "two messages in another order": lambda of: of.__setitem__(slice(1, 9), of[5:9] + of[1:5]),
    "one message less": lambda of: of.pop(1),
    "one message more": lambda of: of.append(HumanMessage("one more")),
    "an empty dict": lambda of: of[0].additional_kwargs.update(a=1),
    "an empty list": lambda of: of[4].tool_calls.append({"name": "x", "args": {}, "id": "y"}),
    "a key in a dict": lambda of: of[1].additional_kwargs.update(c=of[1].additional_kwargs.pop("a")),
    "a dict's content, moved on": lambda of: (
        of[1].additional_kwargs.clear(), of[1].response_metadata.update(a={"b": [1]})
    ),
}  # fmt: skip


@pytest.mark.parametrize("turns", [2, 6], ids=["few", "many"])
@pytest.mark.parametrize("change", MESSAGE.values(), ids=MESSAGE.keys())
def test_what_messages_are_made_of(tracer: Tracer, change: Change, turns: int) -> None:
    model, asked_with = Counted(), conversation(turns)
    assert changes(lambda: of_model(tracer, model, asked_with), lambda: change(asked_with))


QUESTION: dict[str, Change] = {
    "its text": lambda one: setattr(one, "content", "another"),
    "a name": lambda one: setattr(one, "name", "bob"),
    "a dict deep inside": lambda one: one.additional_kwargs["a"].append(2),
    "a number of another type": lambda one: one.additional_kwargs.update(b=True),
    "a tuple for a list": lambda one: one.additional_kwargs.update(a=(1,)),
    "a field more": lambda one: one.__pydantic_extra__.update(more=1),
    "its class": lambda one: setattr(one, "__class__", SystemMessage),
}


@pytest.mark.parametrize("change", QUESTION.values(), ids=QUESTION.keys())
def test_a_question_of_texts_alone(tracer: Tracer, change: Change) -> None:
    """It is known by content, whatever else is the same."""
    model, one = Counted(), HumanMessage("hello", additional_kwargs={"a": [1], "b": 1})
    assert changes(lambda: of_model(tracer, model, [SystemMessage("system"), one]), lambda: change(one))


@pytest.mark.parametrize("change", MESSAGE.values(), ids=MESSAGE.keys())
def test_what_is_remembered_of_messages_is_what_they_would_be_told_as(
    tracer: Tracer, monkeypatch: pytest.MonkeyPatch, change: Change
) -> None:
    model, asked_with = Counted(), conversation()
    for length in range(1, len(asked_with)):
        of_model(tracer, model, asked_with[:length])
    change(asked_with)
    warm = of_model(tracer, model, asked_with)
    monkeypatch.setattr(message_exchange, "_memo", None)
    assert of_model(tracer, model, asked_with) == warm


def test_a_conversation_that_branches(tracer: Tracer, monkeypatch: pytest.MonkeyPatch) -> None:
    model, common = Counted(), conversation()
    ends = [[*common, HumanMessage(text)] for text in "abab"]
    warm = [of_model(tracer, model, one) for one in ends]
    assert warm[:2] == warm[2:]
    assert warm[0] != warm[1]
    monkeypatch.setattr(message_exchange, "_memo", None)
    assert [of_model(tracer, model, one) for one in ends] == warm


def test_a_conversation_that_goes_on_is_not_told_again(tracer: Tracer, monkeypatch: pytest.MonkeyPatch) -> None:
    model, asked_with = Counted(), conversation()
    of_model(tracer, model, asked_with)
    told: list[Any] = []
    apart = message_exchange._apart
    monkeypatch.setattr(message_exchange, "_apart", lambda one: (told.append(one), apart(one))[1])
    new = [HumanMessage("and"), AIMessage("so")]
    of_model(tracer, model, [*asked_with, *new])
    assert told == new
    asked_with[2].tool_calls[0]["args"]["x"].append(1)
    of_model(tracer, model, [*asked_with, *new])
    assert len(told) > len(asked_with)


def test_a_new_secret_changes_what_is_remembered(tracer: Tracer) -> None:
    model = Counted(says="hunter2-hunter2")
    asked_with = [HumanMessage("my word is hunter2-hunter2, you know, and this is long enough for a digest")]
    before = of_model(tracer, model, asked_with)
    assert of_model(tracer, model, asked_with) == before
    tracer.gate.secrets.add("hunter2-hunter2")
    assert of_model(tracer, model, asked_with) != before


# -- tools and stores


class Holding:
    def __init__(self) -> None:
        self.words = ["a"]

    def say(self, x: int) -> str:
        return self.words[0]


TOOL: dict[str, Change] = {
    "its description": lambda tool: setattr(tool, "description", "another"),
    "its function": lambda tool: setattr(tool, "func", lambda x: x),
    "what its function is bound to": lambda tool: tool.func.__self__.words.append("b"),
}


@pytest.mark.parametrize("change", TOOL.values(), ids=TOOL.keys())
def test_what_a_tool_is_made_of(tracer: Tracer, way: None, change: Change) -> None:
    tool = StructuredTool.from_function(Holding().say, name="say", description="Say.")
    assert changes(lambda: asked(tracer, ToolExchange(tool, {"x": 1}, {}, False), "tool"), lambda: change(tool))


def test_the_version_that_is_said_of_a_tool(tracer: Tracer) -> None:
    def say(x: int) -> str:
        return "a"

    tool = StructuredTool.from_function(say, name="say", description="Say.")
    for one, other in (("1", "2"), ("2", "1")):
        clew.effect("pure", version=one)(tool)
        assert changes(
            lambda: asked(tracer, ToolExchange(tool, {"x": 1}, {}, False), "tool"),
            lambda version=other: clew.effect("pure", version=version)(tool),
        )


STORE: dict[str, Change] = {
    "a document's text": lambda store: store.store["1"].update(text="another"),
    "a document's metadata": lambda store: store.store["1"]["metadata"]["tags"].append("new"),
    "a document": lambda store: store.add_documents([Document("more", id="2")]),
    "one less": lambda store: store.delete(["1"]),
    "the model": lambda store: setattr(store.embedding, "scale", 2),
    "a vector": lambda store: store.store["1"].update(vector=[0.5] * 4),
    "a number in a vector": lambda store: store.store["1"]["vector"].__setitem__(0, 0.5),
}
DOCUMENTS = [Document("one", id="0"), Document("two", id="1", metadata={"tags": ["old"]})]


def faiss() -> Any:
    pytest.importorskip("faiss")
    community = pytest.importorskip("langchain_community.vectorstores.faiss")
    return community.FAISS.from_documents(copy.deepcopy(DOCUMENTS), BagOfWords())


def in_memory() -> Any:
    store = InMemoryVectorStore(BagOfWords())
    store.add_documents(copy.deepcopy(DOCUMENTS))
    return store


def of_store(tracer: Tracer, store: Any) -> bytes:
    return asked(tracer, RetrieverExchange(store.as_retriever(), "q", {}), "retriever")


@pytest.mark.parametrize("change", STORE.values(), ids=STORE.keys())
def test_what_a_store_holds(tracer: Tracer, way: None, change: Change) -> None:
    store = in_memory()
    assert changes(lambda: of_store(tracer, store), lambda: change(store))


def in_faiss(store: Any, name: str) -> Any:
    return store.docstore._dict[name]


def indexed_otherwise(index: Any) -> None:
    """As many vectors, which are others."""
    vectors = index.reconstruct_n(0, index.ntotal)
    index.reset()
    index.add(vectors[::-1].copy())


FAISS: dict[str, Change] = {
    "a document's text": lambda store: setattr(in_faiss(store, "1"), "page_content", "another"),
    "a document's metadata": lambda store: in_faiss(store, "1").metadata["tags"].append("new"),
    "another document under its name": lambda store: store.docstore._dict.update({"1": Document("another", id="1")}),
    "a document": lambda store: store.add_documents([Document("more", id="2")]),
    "one less": lambda store: store.delete(["1"]),
    "a document that is gone": lambda store: store.docstore._dict.pop("1"),
    "their vectors": lambda store: indexed_otherwise(store.index),
    "vectors that are gone": lambda store: store.index.reset(),
    "their places": lambda store: setattr(
        store, "index_to_docstore_id", {1 - place: name for place, name in store.index_to_docstore_id.items()}
    ),
    "their order": lambda store: store.index_to_docstore_id.update({0: "1", 1: "0"}),
    "the model": lambda store: setattr(store.embedding_function, "scale", 2),
    "how documents are found": lambda store: setattr(store.docstore, "search", lambda name: in_faiss(store, "0")),
}


@pytest.mark.parametrize("change", FAISS.values(), ids=FAISS.keys())
def test_what_faiss_holds(tracer: Tracer, way: None, change: Change) -> None:
    store = faiss()
    assert changes(lambda: of_store(tracer, store), lambda: change(store))


@pytest.mark.parametrize("make", [in_memory, faiss], ids=lambda make: make.__name__)
def test_what_a_store_holds_is_read_once(tracer: Tracer, monkeypatch: pytest.MonkeyPatch, make: Any) -> None:
    store = make()
    retriever, found = store.as_retriever(), store.similarity_search("one")
    of_store(tracer, store)
    monkeypatch.setattr(retriever_exchange, "_entries", pytest.fail)
    asked_again = RetrieverExchange(retriever, "q", {})
    asked(tracer, asked_again, "retriever")
    assert asked_again.load(asked_again.dump(found, None)) == found


def test_how_documents_are_found_in_faiss(tracer: Tracer, way: None, monkeypatch: pytest.MonkeyPatch) -> None:
    store = faiss()
    first = in_faiss(store, "0")
    change = lambda: monkeypatch.setattr(type(store.docstore), "search", lambda self, name: first)  # noqa: E731
    assert changes(lambda: of_store(tracer, store), change)
