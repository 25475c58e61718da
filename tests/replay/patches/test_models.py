"""Patches of models: other fields, or another model in their place, however it is called."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from pydantic import Field

import clew
from tests.replay.conftest import LIVE, Counted
from tests.replay.patches.bed import Recording, Sized, hybrid, recorded, spans


def chain() -> str:
    """A model that is bound, and another one."""
    bound = Sized().bind(tools=[{"type": "function", "function": {"name": "look"}}], temperature=0.5)
    said = bound.invoke("one").text
    return said + Counted().invoke("two").text


def test_a_model_with_other_fields(recording: Recording) -> None:
    with recording() as tracer:
        run = recorded(chain)
        _, certificate, again = hybrid(run, clew.Model("small", top_k=7, temperature=0.25), chain)
        assert LIVE == {"llm": 1}
        assert "model" in certificate.live[0].why
        assert certificate.patches == ["model 'small' (top_k=7, temperature=0.25): 1 time"]
        asked = spans(tracer, again.id, "llm")[0]
        assert asked.attributes["gen_ai.request.temperature"] == 0.25  # though the program's binding says 0.5


@pytest.mark.parametrize("renamed", [{"model_name": "large"}, {"model_name": "large", "says": "other words"}])
def test_a_model_of_another_name_is_asked_where_the_recorded_one_was(
    recording: Recording, renamed: dict[str, Any]
) -> None:
    """A span path ends with the model's name, and so would be another place."""
    body = lambda: Sized().invoke([HumanMessage(Sized().invoke("one").text)]).text  # noqa: E731
    with recording():
        run = recorded(body)
        for mode, same in (("plan", None), ("hybrid", "says" not in renamed)):
            with clew.replay(run, mode=mode, patch=clew.Model("small", **renamed)) as again:
                body()
            live = again.certificate.live
            assert [(one.path, one.name) for one in live] == [("small", "large")] * 2
            assert "model.model: “small” → “large”" in live[0].why
            assert again.certificate.error is None
            assert live[0].same is same


def test_models_of_other_names_are_told_apart_by_their_own(recording: Recording) -> None:
    patch = [clew.Model("small", model_name="large"), clew.Model("tiny", model_name="large")]

    def body() -> list[str]:
        return [Sized(model_name=name).invoke("one").text for name in ("small", "tiny")]

    with recording():
        run = recorded(body)
        with clew.replay(run, mode="plan", patch=patch) as again:
            body()
        assert [one.path for one in again.certificate.live] == ["small", "tiny"]
        with clew.replay(run, mode="plan", patch=clew.Model("smal", top_k=3)) as again:
            body()
        assert (
            "the patch of model 'smal' (top_k=3) met nothing; recorded are calls of small, tiny"
            in again.certificate.notes
        )
        with clew.replay(
            run, mode="plan", patch=[clew.Model("small", model_name="mid"), clew.Model("mid", top_k=3)]
        ) as again:
            body()
        assert [one.path for one in again.certificate.live] == ["small"]
        assert again.certificate.patches == [
            "model 'small' (model_name='mid'): 1 time",
            "model 'mid' (top_k=3): 1 time",
        ]


@pytest.mark.parametrize("way", ["invoke", "ainvoke", "stream", "astream", "batch", "generate"])
def test_another_model_in_its_place_however_it_is_called(recording: Recording, way: str) -> None:
    other = Sized(model_name="large", says="grand words")

    def body() -> str:
        model = Sized()
        match way:
            case "ainvoke":
                return str(asyncio.run(model.ainvoke("x")).content)
            case "stream":
                return "".join(one.text for one in model.stream("x")).strip()
            case "astream":

                async def joined() -> str:
                    return "".join([one.text async for one in model.astream("x")]).strip()

                return asyncio.run(joined())
            case "batch":
                return str(model.batch(["x"])[0].content)
            case "generate":
                return model.generate([[HumanMessage("x")]]).generations[0][0].text
        return str(model.invoke("x").content)

    with recording() as tracer:
        run = recorded(body)
        given, certificate, again = hybrid(run, clew.Model("small", other), body)
        assert given == "grand words"
        assert certificate.patches == ["model 'small' (Sized): 1 time"]
        assert [one.used[1].name for one in spans(tracer, again.id, "llm")] == ["large"]


def test_a_model_in_the_place_of_one_that_it_asks_itself(recording: Recording) -> None:
    class Around(Counted):
        inner: Any = None

        def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> Any:
            return self.inner._generate([HumanMessage(self.inner.invoke(messages).text)])

        _stream = Counted._stream

    with recording():
        run = recorded(lambda: Sized().invoke("x"))
        _, certificate, _ = hybrid(
            run, clew.Model("small", Around(inner=Sized(says="inner"))), lambda: Sized().invoke("x")
        )
        assert certificate.patches == ["model 'small' (Around): 1 time"]


def test_fields_that_a_model_does_not_have(recording: Recording) -> None:
    with recording():
        run = recorded(lambda: Sized().invoke("x"))
        for patch, told in (
            (clew.Model("small", temprature=0), "Sized has no field temprature; it has .*temperature"),
            (clew.Model("Sized", top_k="many"), "the field top_k of Sized cannot be 'many': .*valid integer"),
        ):
            again = clew.replay(run, mode="hybrid", patch=patch)
            with pytest.raises(ValueError, match=told), again:
                Sized().invoke("x")
            assert again.certificate.patches == []  # it took the place of nothing
    assert clew.Model("small", api_key="hidden").title == "model 'small' (api_key=…)"
    with pytest.raises(ValueError, match="by fields, such as temperature=0, or by another instance"):
        clew.Model("small")


class Reached(Sized):
    """A model that holds a client, and whose name has an alias, as a provider's has."""

    model_name: str = Field("small", alias="model")
    client: Any = Field(default_factory=threading.Lock)
    kept: int = 0


def test_fields_by_their_alias_and_the_address_of_a_client(recording: Recording) -> None:
    with recording() as tracer:
        run = recorded(lambda: Reached().invoke("x"))
        _, _, again = hybrid(run, clew.Model("Reached", model="large", kept="3"), lambda: Reached().invoke("x"))
        assert LIVE == {"llm": 1}
        assert spans(tracer, again.id, "llm")[0].attributes["gen_ai.request.model"] == "large"
        patch = clew.Model("Reached", base_url="https://two.example")
        with pytest.raises(ValueError, match="was made with base_url: patch the model by another instance"):  # noqa: SIM117
            with clew.replay(run, mode="hybrid", patch=patch):
                Reached().invoke("x")
