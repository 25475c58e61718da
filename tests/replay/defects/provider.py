"""A chat model that answers with the request it was sent, so that an answer to another request shows itself."""

from __future__ import annotations

import json
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from pydantic import ConfigDict, Field

from tests.replay.conftest import live


class Provider(BaseChatModel):
    """Takes any setting, as those of providers do: fields of its own, `model_kwargs`, and options of a call."""

    model_config = ConfigDict(extra="allow")

    model: str = "model-1"
    api_base: str | None = None
    temperature: float | None = 0.0
    model_kwargs: dict[str, Any] = Field(default_factory=dict)

    @property
    def _llm_type(self) -> str:
        return "provider"

    def _generate(self, messages: list[Any], stop: Any = None, run_manager: Any = None, **options: Any) -> ChatResult:
        request = {
            "server": self.api_base,
            "model": self.model,
            "temperature": self.temperature,
            "stop": stop,
            **(self.model_extra or {}),
            **self.model_kwargs,
            **options,
            "messages": [[message.type, message.content] for message in messages],
            "number": live("llm"),
        }
        message = AIMessage(json.dumps(request, default=repr), response_metadata={"finish_reason": "stop"})
        return ChatResult(generations=[ChatGeneration(message=message)])


def sent(model: Any, asked: Any = "hello", **options: Any) -> dict[str, Any]:
    """The request that the answer is an answer to; `number` says which call it was."""
    found: dict[str, Any] = json.loads(model.invoke(asked, **options).text)
    return found
