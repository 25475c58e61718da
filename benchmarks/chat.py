"""The chat model that cache.py asks: a class of the program's own, which answers always the same."""

from __future__ import annotations

from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from peers import ANSWER
from pydantic import SecretStr


class Chat(BaseChatModel):
    model: str = "m-1"
    temperature: float = 0.0
    max_tokens: int = 512
    base_url: str = "https://api.example/v1"
    api_key: SecretStr = SecretStr("x" * 20)

    @property
    def _llm_type(self) -> str:
        return "bench"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model": self.model, "temperature": self.temperature, "max_tokens": self.max_tokens}

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **more: Any) -> ChatResult:
        about = {"model_name": "m-1", "finish_reason": "stop"}
        usage = {"input_tokens": 2500, "output_tokens": 50, "total_tokens": 2550}
        message = AIMessage(ANSWER, response_metadata=about, usage_metadata=usage)
        return ChatResult(generations=[ChatGeneration(message=message)])
