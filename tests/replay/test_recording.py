"""What recording leaves as it is, and what it keeps of an answer."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.embeddings import Embeddings
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

import clew
from clew.lineage.reader import Reader
from clew.replay.answer import pack
from clew.replay.recording import recording, redact
from clew.store import answers
from clew.tracer.capture import Batch
from clew.tracer.init import Tracer
from tests.replay.conftest import Caching, Counted, Recorded, live

KEY = "sk-proj-" + "a1B2c3D4" * 5


class Named(Counted):
    """A model whose provider names each answer."""

    def _generate(self, messages: list[Any], *args: Any, **kwargs: Any) -> ChatResult:
        message = self._answer(messages)
        message.id = "provider-1"
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _stream(self, messages: list[Any], *args: Any, **kwargs: Any) -> Any:
        self._answer(messages)
        for word in ("one ", "two"):
            yield ChatGenerationChunk(message=AIMessageChunk(content=word, id="provider-1"))


def invoked(model: Any) -> list[Any]:
    return [model.invoke("hello")]


def awaited(model: Any) -> list[Any]:
    return [asyncio.run(model.ainvoke("hello"))]


def streamed(model: Any) -> list[Any]:
    return list(model.stream("hello"))


@pytest.mark.parametrize("way", [invoked, awaited, streamed])
def test_a_response_keeps_the_id_that_its_provider_gave_it(
    recorded: Recorded, caching: Caching, way: Callable[[Any], list[AIMessage]]
) -> None:
    with recorded():
        found = way(Named())
    with caching():
        performed = way(Named())
    assert {one.id for one in found[:2]} == {one.id for one in performed[:2]} == {"provider-1"}


_texts = st.sampled_from(["", "word", "api_key", "password", "hunter22x9", KEY, f"of {KEY} " + "x" * 80, "é", "a" * 70])
_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _texts | _texts.map(str.encode),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(_texts, inner, max_size=3)
        | st.dictionaries(st.integers() | _texts, inner, max_size=2)
        | _texts.map(lambda text: AIMessage(text, additional_kwargs={"password": text}, id=text or None))
    ),
    max_leaves=8,
)


def test_an_answer_is_redacted_wherever_a_credential_stands_in_it(recorded: Recorded) -> None:
    @settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
    @given(_values)
    def redacted_as_a_whole(value: Any) -> None:
        data, batch = pack(value), Batch(tracer.gate)
        whole = redact._cleaned(data, tracer.gate.cleaner)
        assert redact.redacted(data, batch) == (whole, whole != data)

    with recorded() as tracer:
        redacted_as_a_whole()


def kept(tracer: Tracer, run: Any) -> list[tuple[bool, bytes]]:
    clew.flush()
    with Reader(tracer.folder.path) as reader:
        return [(one.redacted, answers.content(reader.store, one)) for one in recording.load(reader, run).calls]


def test_an_answer_that_was_kept_before_its_secret_was_known_is_redacted_from_then_on(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_DOOR", "the open sesame of the cave")
    model = Counted(says="lorem ipsum " * 40 + os.environ["TEST_DOOR"])
    with recorded() as tracer:
        with clew.run("before") as before:
            model.invoke("hello")
            model.invoke("hello")
        clew.secret("TEST_DOOR").value()
        with clew.run("after") as after:
            model.invoke("hello")
        assert [(changed, b"open sesame" in data) for changed, data in kept(tracer, before)] == [(False, True)] * 2
        assert [(changed, b"open sesame" in data) for changed, data in kept(tracer, after)] == [(True, False)]


class Vectors(Embeddings):
    def __init__(self) -> None:
        self.scale = 1.0

    def embed_documents(self, texts: list[str], **more: Any) -> list[list[float]]:
        live("embedding")
        return [[self.scale, float(len(text))] for text in texts]

    def embed_query(self, text: str, **more: Any) -> list[float]:
        return self.embed_documents([text])[0]


def test_an_embedding_model_that_changed_or_is_asked_with_more_asks_something_else(recorded: Recorded) -> None:
    model = Vectors()
    with recorded() as tracer:
        with clew.run("embeds") as run:
            for _ in range(2):
                model.embed_query("a text")
            model.embed_query("a text", dimensions=2)
            model.scale = 2.0
            model.embed_query("a text")
            model.scale = 1.0
            model.embed_query("a text")
        clew.flush()
        with Reader(tracer.folder.path) as reader:
            asked = [one.request for one in recording.load(reader, run).calls]
    assert asked[0] == asked[1] == asked[4]
    assert len(set(asked)) == 3
