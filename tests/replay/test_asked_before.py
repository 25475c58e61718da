"""What was asked before, and what a class was made in: the keys are those that a process makes that remembers nothing."""

from __future__ import annotations

import random
import threading
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage

from clew.integrations.langchain import message_exchange
from clew.integrations.langchain.model_exchange import ModelExchange, _model, _models
from clew.replay import key as key_module
from clew.replay.key import AskedBefore, Key, asked_key, key_of
from clew.store.digest import Digest
from clew.tracer.init import Tracer
from tests.replay.conftest import LIVE, Caching, Counted
from tests.replay.remembered_bed import asked

PLACE = ("place", 1)


def exchange(model: Any, text: Any, **options: Any) -> ModelExchange:
    return ModelExchange(model, [SystemMessage("be kind"), HumanMessage(text)], None, options)


def remembered(tracer: Tracer, model: Any, text: Any, place: tuple[str, int] = PLACE, **options: Any) -> Key:
    return asked_key(tracer.gate, "llm", exchange(model, text, **options), place)


def anew(tracer: Tracer, model: Any, text: Any, place: tuple[str, int] = PLACE, **options: Any) -> Key:
    one = exchange(model, text, **options)
    return key_of(tracer.gate, "llm", one, one.parts(), place)


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(message_exchange, "_memo", None)
    _models._kept.clear()
    key_module._plain.clear()


# -- many requests that look alike


@pytest.mark.parametrize("count", [8, 9, 40])
def test_each_of_many_questions_of_one_length_has_its_own_key(
    tracer: Tracer, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    model, texts = Counted(), [f"question {number:04}" for number in range(count)]
    first = [remembered(tracer, model, text) for text in texts]
    assert _models.of(model, _model).asked._count == count
    again = [remembered(tracer, model, text) for text in texts]
    forget(monkeypatch)
    assert first == again == [anew(tracer, model, text) for text in texts]
    assert len({key.digest for key in first}) == count


def test_threads_that_ask_at_once_get_each_its_own(tracer: Tracer) -> None:
    model, texts = Counted(), [f"question {number:04}" for number in range(30)]
    right = {text: anew(tracer, model, text) for text in texts}
    wrong: list[Any] = []
    start = threading.Barrier(4)

    def ask(seed: int) -> None:
        start.wait()
        for text in random.Random(seed).choices(texts, k=300):
            try:
                if remembered(tracer, model, text) != right[text]:
                    wrong.append(text)
            except Exception as error:
                wrong.append(error)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def some_key(number: int) -> Key:
    return Key(Digest(number.to_bytes(32)), Digest(bytes(32)), {})


def test_what_is_kept_is_bounded_and_never_another_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_module, "_REMEMBERED", 50)
    before = AskedBefore()
    for number in range(200):
        told, texts = (number % 3, number % 2), (f"{number:03}", "x" * (number % 2))
        before.keep(told, texts, some_key(number))
        assert before.get(told, texts) == some_key(number)
        assert sum(map(len, before._kept.values())) <= 50
        for other in range(200):
            found = before.get((other % 3, other % 2), (f"{other:03}", "x" * (other % 2)))
            assert found in (None, some_key(other))


def test_what_tells_a_request_counts_among_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_module, "_KEPT_CHARS", 1000)
    before = AskedBefore()
    for number in range(50):
        before.keep((b"%03d" % number * 100,), ("x",), some_key(number))
    assert len(before._kept) < 10


# -- sampled, and not


def test_a_sampled_request_is_remembered_without_its_number(tracer: Tracer, monkeypatch: pytest.MonkeyPatch) -> None:
    model, places = Counted(temperature=None), [("place", 1), ("place", 2), ("other", 1), ("place", 1)]
    first = [remembered(tracer, model, "hello", place) for place in places]
    assert len({key.digest for key in first}) == 3
    assert first[0] == first[3]
    assert {key.request for key in first} == {first[0].request}
    assert first[0].request not in {key.digest for key in first}
    forget(monkeypatch)
    assert first == [anew(tracer, model, "hello", place) for place in places]


def test_a_request_that_is_not_sampled_has_one_key_everywhere(tracer: Tracer) -> None:
    found = [remembered(tracer, Counted(), "hello", place) for place in (PLACE, ("other", 2))]
    assert found[0] == found[1]
    assert found[0].digest == found[0].request


def test_an_option_makes_a_request_sampled_or_not(tracer: Tracer) -> None:
    for temperature, option in ((0.0, 0.7), (0.7, 0), (0.7, 0.0), (None, False), (0.0, None)):
        model = Counted(temperature=temperature)
        for _ in range(2):
            for options in ({}, {"temperature": option}):
                for place in (PLACE, ("other", 2)):
                    key = remembered(tracer, model, "hello", place, **options)
                    assert key == anew(tracer, model, "hello", place, **options)
                    is_sampled = options.get("temperature", temperature) != 0
                    assert (key.digest != key.request) is is_sampled


# -- texts


LIKE_EACH_OTHER: list[Any] = [
    "\ud800", "\\ud800", "\udfff", "\ud83d\ude00", "\U0001f600", "é", "e\u0301", "?", "\ufffd", "a", " a", "a ", "a\0", "A",
    [{"type": "text", "text": "a"}], [{"type": "text", "text": "\ud800"}], ["a"],
]  # fmt: skip


def test_texts_that_look_alike_have_each_its_own_key(tracer: Tracer, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Counted()
    for _ in range(2):  # the second time with all the others known
        found = [remembered(tracer, model, text) for text in LIKE_EACH_OTHER]
        assert len({key.digest for key in found}) == len(LIKE_EACH_OTHER)
        forget(monkeypatch)
        assert found == [anew(tracer, model, text) for text in LIKE_EACH_OTHER]


def test_a_text_that_has_no_utf8_is_answered_from_the_cache(caching: Caching) -> None:
    with caching():
        asked_with: list[Any] = ["\ud800", "\udfff", [{"type": "text", "text": "\ud800"}]]
        for text in asked_with * 2:
            Counted(says="hello").invoke([HumanMessage(text)])
    assert LIVE["llm"] == 3


# -- what a class was made in


def made_beside(local: Any, held: Any = 1) -> type[Any]:
    beside = [local]

    class Inside(Counted):
        def held(self) -> Any:
            return held

    assert beside
    return Inside


def test_a_class_is_the_same_whatever_stood_beside_it(tracer: Tracer) -> None:
    others = [1, 2, "a", AIMessage("a"), object(), threading.Lock(), iter([1]), made_beside]
    assert len({asked(tracer, exchange(made_beside(one)(), "hello")) for one in others}) == 1


def test_what_its_methods_close_over_counts(tracer: Tracer) -> None:
    held = [1, 2, 1.0, True, (1,), [1], "1"]
    assert len({asked(tracer, exchange(made_beside(0, one)(), "hello")) for one in held}) == len(held)
