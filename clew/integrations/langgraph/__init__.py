"""LangGraph: its graphs as spans, a cache for its nodes, and replays of its interrupts and threads. It stands on the
LangChain integration."""

from clew.integrations.langgraph.hooks import install as install
from clew.integrations.langgraph.observer import LangGraphObserver as LangGraphObserver
