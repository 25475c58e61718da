"""Peers of the cache: what a hit of a 10 KB prompt costs with them. Runs in an environment of their own (cache.py).

    python peers.py FOLDER          # "go" on a line: one round, its figures as a line of JSON

CPU microseconds of one hit, by what is asked:

* `langchain_lookup`: `SQLiteCache.lookup` of the prompt as LangChain writes it; making that text is not in it
* `langchain_invoke`: `model.invoke` of a chat model, with that cache
* `langgraph`: `default_cache_key` of a node's input, and `SqliteCache.get`
* `joblib`: a function behind `Memory.cache`
* `diskcache`: a function behind `Cache.memoize`
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

PROMPT = ("lorem ipsum dolor sit amet " * 400)[:10_000]
ANSWER = "answer " + "x" * 200
HITS = 40


def peers(folder: Path) -> dict[str, Callable[[], Any]]:
    """By name, one hit that gives the answer."""
    import diskcache
    import joblib
    from langchain_community.cache import SQLiteCache
    from langchain_core.globals import set_llm_cache
    from langchain_core.language_models import BaseChatModel
    from langchain_core.load import dumps
    from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
    from langchain_core.outputs import ChatGeneration, ChatResult
    from langgraph._internal._cache import default_cache_key
    from langgraph.cache.sqlite import SqliteCache

    class Chat(BaseChatModel):
        temperature: float = 0.0

        @property
        def _llm_type(self) -> str:
            return "bench"

        def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **more: Any) -> ChatResult:
            return ChatResult(generations=[ChatGeneration(message=AIMessage(ANSWER))])

    chain = SQLiteCache(str(folder / "langchain.db"))
    set_llm_cache(chain)
    model = Chat()
    messages = [SystemMessage("You are helpful."), HumanMessage(PROMPT)]
    text = dumps(messages)
    chain.update(text, "model", [ChatGeneration(message=AIMessage(ANSWER))])

    graph = SqliteCache(path=str(folder / "langgraph.db"))
    graph.set({(("bench",), default_cache_key({"messages": PROMPT})): ({"answer": ANSWER}, None)})

    memory = joblib.Memory(folder / "joblib", verbose=0)
    remembered = memory.cache(_answer)
    disk = diskcache.Cache(str(folder / "diskcache"))
    memoized = disk.memoize()(_answer)

    def langgraph() -> Any:
        key = (("bench",), default_cache_key({"messages": PROMPT}))
        return graph.get([key])[key]["answer"]

    return {
        "langchain_lookup": lambda: chain.lookup(text, "model")[0].text,  # type: ignore[index]
        "langchain_invoke": lambda: model.invoke(messages).text,
        "langgraph": langgraph,
        "joblib": lambda: remembered(PROMPT),
        "diskcache": lambda: memoized(PROMPT),
    }


def _answer(prompt: str) -> str:
    return ANSWER


def main(folder: Path) -> None:
    """Rounds, as long as they are asked for."""
    warnings.simplefilter("ignore")
    asked = peers(folder)
    for hit in asked.values():
        for _ in range(5):
            if hit() != ANSWER:
                raise SystemExit("a peer does not give the answer")
    print("ready", flush=True)
    while sys.stdin.readline().strip() == "go":
        found = {}
        for name, hit in asked.items():
            started = time.process_time_ns()
            for _ in range(HITS):
                hit()
            found[name] = (time.process_time_ns() - started) / HITS / 1e3
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
