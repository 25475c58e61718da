"""LangGraph's classes in answers: how they are taken apart, and put together again."""

from __future__ import annotations

from langgraph.types import Command, Overwrite, Send

from clew.replay.answer import register_answer

register_answer(
    Send, lambda send: [send.node, send.arg, getattr(send, "timeout", None)], lambda data: Send(data[0], data[1])
)
register_answer(Overwrite, lambda one: one.value, Overwrite)
register_answer(
    Command,
    lambda one: {"graph": one.graph, "update": one.update, "resume": one.resume, "goto": one.goto},
    lambda data: Command(**data),
)
