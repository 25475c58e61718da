"""LangGraph: what its graphs do as spans, and a cache for its nodes. It stands on the LangChain integration."""

from clew.integrations.langgraph.observer import LangGraphObserver as LangGraphObserver
from clew.integrations.langgraph.observer import install as install
