"""Ways to ask a model, tools that count their calls, and the spans that they leave."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain_core.tools import BaseTool, tool

import clew
from clew.lineage.view import SpanView
from clew.tracer.init import Tracer
from tests.replay.conftest import live


def invoked(model: Any, asked: Any, **more: Any) -> str:
    return str(model.invoke(asked, **more).text)


def awaited(model: Any, asked: Any, **more: Any) -> str:
    return str(asyncio.run(model.ainvoke(asked, **more)).text)


def streamed(model: Any, asked: Any, **more: Any) -> str:
    return "".join(chunk.text for chunk in model.stream(asked, **more)).strip()


def streamed_async(model: Any, asked: Any, **more: Any) -> str:
    async def whole() -> str:
        return "".join([chunk.text async for chunk in model.astream(asked, **more)])

    return asyncio.run(whole()).strip()


WAYS = [invoked, awaited, streamed, streamed_async]
ways = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
other_ways = pytest.mark.parametrize("other", WAYS, ids=lambda way: way.__name__)


def spans(tracer: Tracer, kind: str = "llm") -> list[SpanView]:
    clew.flush()
    with clew.open(tracer.folder.path) as reader:
        return [span for span in reader.spans() if span.kind == kind]


def counting(name: str, effect: Any = None, **more: Any) -> BaseTool:
    @tool(name)
    def count(x: int) -> str:
        """Count."""
        return f"{live(name)} for {x}"

    return clew.effect(effect, **more)(count) if effect else count
