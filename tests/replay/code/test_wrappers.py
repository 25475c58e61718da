"""Clew's own wrappers, which `clew.instrument` puts over methods, and the digest of the code that they stand in."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.vectorstores import InMemoryVectorStore

from clew.replay.code import callable as code_module
from clew.replay.code import code_of
from clew.store.digest import Digest
from tests.replay.conftest import Caching, Counted

WORDS = ["a"]


def patched(self: Any, messages: list[Any], stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
    return ChatResult(generations=[ChatGeneration(message=AIMessage(f"patched {WORDS[0]}"))])


class Own(Counted):
    def _generate(self, messages: list[Any], stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        """Answer."""
        return super()._generate(messages, stop, run_manager, **kwargs)


class Inherits(FakeListChatModel):
    temperature: float = 0.0


class Alias(FakeListChatModel):
    _generate = FakeListChatModel._generate


class Store(InMemoryVectorStore):
    @classmethod
    def from_texts(cls, texts: Any, embedding: Any, metadatas: Any = None, **kwargs: Any) -> Any:
        return super().from_texts(texts, embedding, metadatas, **kwargs)


def digest(cls: type) -> Digest:
    """As it is remembered, which is as it is made anew."""
    remembered = code_of(cls).digest
    code_module._known.clear()
    assert code_of(cls).digest == remembered
    return remembered


@pytest.mark.parametrize("patch", [False, True], ids=["as it is", "patched"])
@pytest.mark.parametrize("cls", [Own, Inherits, Alias, Store], ids=lambda cls: str(cls.__name__))
def test_a_class_has_the_same_digest_before_and_after(
    caching: Caching, monkeypatch: pytest.MonkeyPatch, cls: type, patch: bool
) -> None:
    if patch:
        monkeypatch.setattr(FakeListChatModel, "_generate", patched)
    before = digest(cls)
    with caching():
        assert digest(cls) == before
    assert digest(cls) == before


def test_what_is_patched_into_an_installed_class_counts_behind_a_wrapper(
    caching: Caching, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeListChatModel, "_generate", patched)
    with caching():
        model = Inherits(responses=["unused"])
        assert model.invoke("hello").text == "patched a"
        monkeypatch.setattr("tests.replay.code.test_wrappers.WORDS", ["b"])
        assert model.invoke("hello").text == "patched b"


def test_what_is_patched_into_it_at_a_prompt_counts(caching: Caching, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its code has no file, as that of a dataclass's methods has none."""
    prompt = {"__name__": __name__}
    exec(compile("def said(self, *args, **kwargs): return WORD", "<stdin>", "exec"), prompt)
    monkeypatch.setattr(FakeListChatModel, "_call", prompt["said"])
    model = Inherits(responses=["unused"])
    with caching():
        for word in ("a", "b"):
            prompt["WORD"] = word
            assert model.invoke("hello").text == word


def over(method: Any, word: str) -> Any:
    """The program's own wrapper: `functools.wraps` copies the mark of clew's."""

    @functools.wraps(method)
    def generate(self: Any, *args: Any, **kwargs: Any) -> Any:
        found = method(self, *args, **kwargs)
        return ChatResult(generations=[ChatGeneration(message=AIMessage(f"{word} {found.generations[0].text}"))])

    return generate


def test_a_wrapper_of_the_program_over_it_counts(caching: Caching) -> None:
    with caching():

        class Inside(Own):
            def _generate(self, *args: Any, **kwargs: Any) -> ChatResult:
                return super()._generate(*args, **kwargs)

        ours, model, said = Inside._generate, Inside(says="hello"), []
        digests = [digest(Inside)]
        for word in "aba":
            Inside._generate = over(ours, word)  # type: ignore[method-assign]
            digests.append(digest(Inside))
            said.append(model._generate(["x"]).generations[0].text)
    assert said == ["a hello", "b hello", "a hello"]
    assert len({*digests}) == 3
    assert digests[1] == digests[3]


SET: dict[str, Callable[[Any], object]] = {
    "an attribute": lambda method: setattr(method, "factor", 1),
    "another value of one": lambda method: setattr(method, "limit", 2),
    "one less": lambda method: delattr(method, "limit"),
    "the docstring": lambda method: setattr(method, "__doc__", "Say."),
    "the name": lambda method: setattr(method, "__name__", "say"),
    "the annotations": lambda method: setattr(method, "__annotations__", {"return": int}),
    "a default": lambda method: setattr(method, "__kwdefaults__", {"stop": 1}),
    "what it says that it wraps": lambda method: setattr(method, "__wrapped__", patched),
    "an attribute of what it wraps": lambda method: setattr(method.__wrapped__, "limit", 2),
    "the code of what it wraps": lambda method: setattr(method.__wrapped__, "__code__", patched.__code__),
}


@pytest.mark.parametrize("change", SET.values(), ids=SET.keys())
def test_what_the_program_sets_on_a_method_counts(caching: Caching, way: None, change: Callable[[Any], object]) -> None:
    with caching():

        class Inside(Counted):
            def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
                return ChatResult(generations=[ChatGeneration(message=AIMessage("hello"))])

            _generate.limit = 1  # type: ignore[attr-defined]

        before = digest(Inside)
        assert "__clew_wrapped__" in Inside._generate.__dict__
        change(Inside._generate)
        assert digest(Inside) != before


def test_a_method_that_reads_what_was_set_on_it_is_asked_again(caching: Caching) -> None:
    class Scaled(Counted):
        def _generate(self, *args: Any, **kwargs: Any) -> ChatResult:
            factor = getattr(type(self)._generate, "factor", 0)
            return ChatResult(generations=[ChatGeneration(message=AIMessage(f"times {factor}"))])

    with caching():
        said = [Scaled().invoke("hello").text]
        for factor in (1, 2, 2):
            Scaled._generate.factor = factor  # type: ignore[attr-defined]
            said.append(Scaled().invoke("hello").text)
    assert said == ["times 0", "times 1", "times 2", "times 2"]


@pytest.mark.parametrize("mark", [None, 1, (), (1, 2), (len, len)], ids=repr)
def test_a_mark_of_the_programs_own_is_none_of_ours(mark: Any) -> None:
    def marked() -> int:
        return 1

    before = code_of(marked).digest
    marked.__clew_wrapped__ = mark  # type: ignore[attr-defined]
    assert code_of(marked).digest == before
