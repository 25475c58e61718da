"""Graphs of cached nodes."""

from __future__ import annotations

import operator
from typing import Annotated, Any, TypedDict

from langgraph.graph import START, StateGraph
from langgraph.types import CachePolicy

import clew
from tests.replay.conftest import live

POLICY = CachePolicy(key_func=clew.node_key)


class State(TypedDict, total=False):
    question: str
    found: Annotated[list[Any], operator.add]
    answer: Any


def graph(*nodes: Any, state: Any = State, policy: Any = POLICY, cache: Any = None, **compiled: Any) -> Any:
    """A chain of cached nodes, named by their functions."""
    builder = StateGraph(state)
    for node in nodes:
        builder.add_node(node.__name__, node, cache_policy=policy)
    for one, other in zip([START, *(node.__name__ for node in nodes)], [node.__name__ for node in nodes], strict=False):
        builder.add_edge(one, other)
    return builder.compile(cache=cache or clew.NodeCache(), **compiled)


def answering(state: State) -> State:
    return {"answer": f"answer {live('node')} to {state['question']}", "found": [1]}
