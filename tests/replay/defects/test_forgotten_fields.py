"""Keys made of a list of fields: what the list forgot, the cache did not see."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult

import clew
from tests.replay.conftest import LIVE, Caching, live
from tests.replay.defects.provider import Provider, sent


def as_field(name: str, value: Any) -> dict[str, Any]:
    return sent(Provider(**{name: value}))


def as_model_kwarg(name: str, value: Any) -> dict[str, Any]:
    return sent(Provider(model_kwargs={name: value}))


def as_option(name: str, value: Any) -> dict[str, Any]:
    return sent(Provider(), **{name: value})


def bound(name: str, value: Any) -> dict[str, Any]:
    return sent(Provider().bind(**{name: value}))


WAYS = [as_field, as_model_kwarg, as_option, bound]


def differ(caching: Caching, *cases: tuple[str, Any, Any]) -> None:
    """However a setting is given, each value is answered with its own answer; one that is asked again has the one it had."""
    with caching():
        for name, one, other in cases:
            for way in WAYS:
                answers = [way(name, value) for value in (one, other, one)]
                told = [(type(answer[name]), answer[name]) for answer in answers]
                assert told == [(type(value), value) for value in (one, other, one)], (name, way.__name__)
                assert answers[0] == answers[2], (name, way.__name__)


def test_litellm_min_p(caching: Caching) -> None:
    """LiteLLM (litellm#25673 is of the same class): `min_p=0.1` and `min_p=0.9` shared a key."""
    differ(caching, ("min_p", 0.1, 0.9), ("min_p", 0.2, None), ("min_p", 1, 1.0), ("top_a", 1, True), ("top_a", 0, 0.0))


def test_litellm_two_servers_are_two_models(caching: Caching) -> None:
    """LiteLLM: two `api_base` shared a key."""
    servers = [f"https://{host}.example/v1" for host in ("one", "two")]
    with caching():
        for name in ["api_base", "base_url", "endpoint", "azure_endpoint", "deployment", "region_name"]:
            key = "server" if name == "api_base" else name
            assert [sent(Provider(**{name: server}))[key] for server in servers] == servers


def test_dspy_two_servers_with_one_model_name(caching: Caching) -> None:
    """DSPy: its default list of ignored fields holds the address, so two servers with one model name shared a key."""
    with caching():
        for port in (8000, 8001, 8000):
            model = Provider(model="openai/llama-3", api_base=f"http://localhost:{port}/v1")
            assert sent(model)["server"] == f"http://localhost:{port}/v1"
    assert LIVE == {"llm": 2}


def test_litellm_a_file_counts_by_what_is_in_it(caching: Caching, tmp_path: Path) -> None:
    """LiteLLM: a transcription was keyed by the *name* of its file: another recording of that name got the old text."""

    @clew.cached
    def transcribe(audio: Any) -> str:
        live("transcribe")
        return str(audio if isinstance(audio, bytes) else audio.read())

    def recording(content: bytes) -> Any:
        made = io.BytesIO(content)
        made.name = "speech.wav"
        return made

    with caching():
        assert [transcribe(content) for content in (b"one", b"two", b"one")] == ["b'one'", "b'two'", "b'one'"]
        assert LIVE == {"transcribe": 2}
        assert [transcribe(recording(content)) for content in (b"one", b"two")] == ["b'one'", "b'two'"]
        for content in (b"one", b"two"):
            (tmp_path / "speech.wav").write_bytes(content)
            with (tmp_path / "speech.wav").open("rb") as file:
                assert transcribe(file) == str(content)


def test_instructor_2585_temperature_and_seed(caching: Caching) -> None:
    """instructor#2585: neither temperature nor seed was in the key."""
    differ(caching, ("temperature", 0.0, 1.0), ("seed", 1, 2), ("seed", None, 0), ("top_k", 1, 40))


def test_orcarouter_84_what_shapes_the_answer(caching: Caching) -> None:
    """OrcaRouter-Lite#84: of the request six fields counted; whoever asked first answered for all the others."""
    differ(
        caching,
        ("max_tokens", 16, 4000),
        ("top_p", 0.1, 1.0),
        ("stop", ["a"], ["b"]),
        ("tool_choice", "none", "auto"),
        ("presence_penalty", 0.0, 0.5),
        ("frequency_penalty", 0.0, 0.5),
    )


def test_orcarouter_84_a_temperature_that_is_not_given_is_not_zero(caching: Caching) -> None:
    """OrcaRouter-Lite#84: an omitted temperature was taken for 0, though the provider's default is 1: samples were
    replayed as if there were but one."""
    with caching(), clew.run("samples"):
        assert [sent(Provider(temperature=None))["number"] for _ in range(3)] == [1, 2, 3]
        assert [sent(Provider(temperature=0))["number"] for _ in range(3)] == [4, 4, 4]


def test_lunargate_2_all_of_the_request_counts(caching: Caching) -> None:
    """lunargate#2, whose fix is ours: hash the complete request, fields of next year included, and not a list of fields."""
    differ(
        caching,
        ("response_format", {"type": "text"}, {"type": "json_object"}),
        ("logit_bias", {"50256": -100}, {"50256": 100}),
        ("reasoning_effort", "low", "high"),
        ("previous_response_id", "resp_1", "resp_2"),
        ("functions", [{"name": "a"}], [{"name": "b"}]),
        ("a_field_of_next_year", 1, 2),
    )


def test_lunargate_2_the_answer_of_a_fallback_is_not_the_first_models(caching: Caching) -> None:
    """lunargate#2: what the fallback model answered stood under the key of the model that had failed."""

    class Failing(Provider):
        def _generate(self, *args: Any, **kwargs: Any) -> ChatResult:
            if live("failing") == 1:
                raise ConnectionError("down")
            return super()._generate(*args, **kwargs)

    first, second = Failing(model="large"), Provider(model="small")
    with caching():
        assert sent(first.with_fallbacks([second]))["model"] == "small"
        assert sent(first)["model"] == "large"
        assert sent(second)["number"] == 1


def test_lobster_130_a_setting_that_is_changed_is_not_ignored(caching: Caching) -> None:
    """openclaw/lobster#130: one who tuned the temperature saw the same answer at every setting; and one that is omitted
    is not one that is 0."""
    differ(caching, ("temperature", 0.0, 0.7), ("max_output_tokens", 100, 1000), ("max_output_tokens", None, 0))


def test_prefect_15861_half_a_key_is_no_key(caching: Caching) -> None:
    """Prefect#15861: an input that could not be hashed was left out of the key, and the rest answered for it."""

    class Sealed(int):
        pass

    @clew.cached
    def double(number: Any, by: int) -> int:
        return int(number) * by

    with caching():
        assert [double(Sealed(number), 2) for number in (1, 2)] == [2, 4]
        assert [sent(Provider(), seed=1, handle=iter([number]))["number"] for number in (1, 2)] == [1, 2]


def test_the_answer_is_of_the_request_and_not_of_the_model_name(caching: Caching) -> None:
    """All of them, the other way round: two classes of model with equal fields are two models."""

    class Other(Provider):
        def _generate(self, messages: list[Any], *args: Any, **kwargs: Any) -> ChatResult:
            return ChatResult(generations=[ChatGeneration(message=AIMessage("another"))])

    with caching():
        assert Provider().invoke("hello").text != Other().invoke("hello").text == "another"
