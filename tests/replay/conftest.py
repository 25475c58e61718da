"""A tracer that caches, and a model that counts how often it was really asked."""

from __future__ import annotations

import functools
import importlib.util
import os
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

import clew
from clew.lineage import index
from clew.replay.code import witness
from clew.tracer.init import Tracer

BENCH = Path(os.environ.get("CLEW_BENCH", Path(__file__).parents[3] / "shared" / "bench"))
Caching = Callable[..., AbstractContextManager[Tracer]]
Recorded = Callable[..., AbstractContextManager[Tracer]]


class Counted(BaseChatModel):
    """Answers with the number of the call and what it was asked last; `asked` counts the calls of all instances."""

    temperature: float | None = 0.0
    base_url: str = "https://one.example"
    top_k: int = 1
    finish_reason: str = "stop"
    says: str = ""
    tool: str = ""

    @property
    def _llm_type(self) -> str:
        return "counted"

    def _answer(self, messages: list[Any]) -> AIMessage:
        number = live("llm")
        about = {"finish_reason": self.finish_reason, "id": uuid.uuid4().hex}
        usage = {"input_tokens": 7, "output_tokens": 3, "total_tokens": 10}
        calls = [{"name": self.tool, "args": {"x": 1}, "id": f"call_{uuid.uuid4().hex}"}] if self.tool else []
        text = self.says or f"answer {number} to {messages[-1].text}"
        return AIMessage(text, tool_calls=calls, response_metadata=about, usage_metadata=usage)

    def _generate(self, messages: list[Any], stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self._answer(messages))], llm_output={"about": "it"})

    def _stream(
        self, messages: list[Any], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        answer = self._answer(messages)
        for word in answer.text.split(" "):
            yield ChatGenerationChunk(message=AIMessageChunk(word + " "))
        yield ChatGenerationChunk(
            message=AIMessageChunk("", response_metadata=answer.response_metadata, usage_metadata=answer.usage_metadata)
        )


LIVE: dict[str, int] = {}
_lock = threading.Lock()


def live(kind: str) -> int:
    """One more call of a kind reached the world; how many there were before it."""
    with _lock:
        LIVE[kind] = LIVE.get(kind, 0) + 1
        return LIVE[kind]


@pytest.fixture(autouse=True)
def nothing_asked() -> None:
    LIVE.clear()


@contextmanager
def instrumented(store: Path, **options: Any) -> Iterator[Tracer]:
    """An instrumented process, in which nothing may go wrong inside clew."""
    tracer = clew.init("tests", store=store, **options)
    assert tracer is not None
    clew.instrument()
    try:
        yield tracer
        assert not tracer.faults.counts
    finally:
        clew.shutdown()
        index.forget(tracer.folder)


@pytest.fixture
def caching(clean_tracing: None, tmp_path: Path) -> Caching:
    """`with caching(cache) as tracer`: an instrumented process with a cache, always on the same store."""
    return lambda cache=True: instrumented(tmp_path / "store", cache=cache)


@pytest.fixture
def recorded(clean_tracing: None, tmp_path: Path) -> Recorded:
    """`with recorded() as tracer`: an instrumented process that records, always in the same store."""
    return functools.partial(instrumented, tmp_path / "store", record=True)


@pytest.fixture(params=["versions", "addresses", "identities"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also as it is where Python has no versions of classes, and keeps its tuples otherwise."""
    if request.param != "versions":
        monkeypatch.setattr(witness, "version_of", lambda cls: None)
    if request.param == "identities":
        monkeypatch.setattr(witness, "addresses", witness._counted)


def program(name: str) -> ModuleType:
    """A program of the bench; the test is skipped, aloud, where the checkout has none beside it."""
    path = BENCH / f"{name}.py"
    if not path.exists():
        pytest.skip(f"{name}.py is not at {path}; CLEW_BENCH names its folder")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
