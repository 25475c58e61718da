"""The answer of a call that returns a value, or yields several: a tool, a retriever, a function."""

from __future__ import annotations

from typing import Any


class ValueExchange:
    """What is the same for all of them (tracer/exchange.py); `parts` says what is asked."""

    model = ""
    sampled = False

    def __init__(self, operation: str) -> None:
        self.operation = operation

    def dump(self, response: Any, chunks: list[tuple[int, Any]] | None) -> Any:
        return {"value": response} if chunks is None else {"chunks": [list(one) for one in chunks]}

    def load(self, data: Any) -> Any:
        return data["value"] if "value" in data else [chunk for _, chunk in data["chunks"]]

    def load_chunks(self, data: Any) -> list[tuple[int, Any]]:
        if "chunks" not in data:
            return [(0, chunk) for chunk in data["value"]]
        return [(after_ns, chunk) for after_ns, chunk in data["chunks"]]

    def made(self, value: Any, recorded: Any) -> Any:
        return value

    def refused(self, response: Any, chunks: list[tuple[int, Any]] | None) -> str | None:
        return None

    def usage(self, data: Any) -> tuple[int, int]:
        return 0, 0
