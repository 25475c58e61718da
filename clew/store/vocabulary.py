"""The words of the glossary that writer and reader share: kinds of artifacts and spans, and what a span's kind implies."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

GLOBAL_KINDS = frozenset((
    "code", "chunk", "dataset", "document", "embedding", "environment", "file", "index", "model", "prompt", "row", "tool",
))  # fmt: skip
"""Artifacts that are the same wherever they are met: their content is their identity."""

SCOPED_KINDS = frozenset(("message", "value"))
"""Artifacts that are one with their content only in the run, or the span, that they stand in."""

OPENINFERENCE_KIND = {
    "workflow": "CHAIN",
    "node": "CHAIN",
    "agent": "AGENT",
    "llm": "LLM",
    "tool": "TOOL",
    "retriever": "RETRIEVER",
    "reranker": "RERANKER",
    "embedding": "EMBEDDING",
    "prompt": "PROMPT",
    "eval": "EVALUATOR",
}
OPERATION = {
    "workflow": "invoke_workflow",
    "node": "invoke_node",
    "agent": "invoke_agent",
    "llm": "chat",
    "tool": "execute_tool",
    "retriever": "retrieval",
    "embedding": "embeddings",
    "prompt": "render_prompt",
    "reranker": "rerank",
    "train": "train",
    "eval": "evaluate",
}

_NAMES = {  # attributes that repeat the name of a span of this kind
    "node": ("graph.node.name", "gen_ai.node.name"),
    "workflow": ("gen_ai.workflow.name",),
}
_CONTENT = frozenset((
    "db.query.text", "db.statement", "exception.message", "exception.stacktrace", "gen_ai.completion",
    "gen_ai.event.content", "gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.prompt",
    "gen_ai.retrieval.documents", "gen_ai.retrieval.query.text", "gen_ai.system_instructions",
    "gen_ai.tool.call.arguments", "gen_ai.tool.call.result", "gen_ai.tool.definitions", "input.value", "metadata",
    "output.value", "retrieval.documents", "tool.parameters",
))  # fmt: skip
_CONTENT_BELOW = (
    "llm.input_messages", "llm.output_messages", "llm.prompt", "gen_ai.prompt.", "gen_ai.completion.",
    "embedding.embeddings", "retrieval.documents.", "reranker.input_documents", "reranker.output_documents",
    "reranker.query", "traceloop.entity.",
)  # fmt: skip


_NAMESPACE = "langgraph.checkpoint_ns"
_TASK_ID = re.compile(r":([^:|]*)(?=\||$)")  # of "outer:id|1|inner:id"


def implied_attributes(
    kind: str, name: str, run_id: str, session: str | None, own: Mapping[str, Any]
) -> dict[str, Any]:
    """What a span of clew's has by its kind, name, run and `own` attributes: exported and shown, and not logged with each
    span.

    What the span's record says itself comes over them.
    """
    found: dict[str, Any] = {
        "clew.kind": kind,
        "clew.run.id": run_id,
        "openinference.span.kind": OPENINFERENCE_KIND.get(kind, "CHAIN"),
        "gen_ai.operation.name": OPERATION.get(kind, kind),
    }
    found.update(dict.fromkeys(_NAMES.get(kind, ()), name))
    if session is not None:
        found["session.id"] = found["gen_ai.conversation.id"] = session
    if namespace := own.get(_NAMESPACE):
        *above, found["graph.node.id"] = _TASK_ID.findall(str(namespace)) or [""]
        if above:
            found["graph.node.parent_id"] = above[-1]
    return found


def is_content(attribute: str) -> bool:
    """Whether the conventions say that an attribute holds content: where content is not captured its digest stands there."""
    return attribute in _CONTENT or attribute.startswith(_CONTENT_BELOW)
