"""Process 2 answers: retrieve -> grade -> (rewrite, retrieve again) -> answer, with a tool; then it asks clew why.

python agent.py "How do I guess the MIME type of a file?" ["another question" ...]
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
from typing import Annotated, Any, TypedDict

from build_index import INDEX, MODEL
from embedding import StdlibEmbeddings
from langchain_core.documents import Document
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AnyMessage
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.tools import tool
from langchain_core.vectorstores import InMemoryVectorStore
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.graph.state import CompiledStateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from reader import Reader

import clew

QUESTION = "How do I parse a date string into a datetime?"

GRADE = ChatPromptTemplate.from_messages(
    [
        (
            "system",
            "Grade a document that a search found. "
            'Say "yes" if it covers what is asked for, or "no" if it is deprecated or obsolete.',
        ),
        ("human", "Question: {question}\n\n{document}"),
    ]
)
REWRITE = ChatPromptTemplate.from_messages(
    [
        ("system", "A search found nothing of use. Give keywords for a better one, in the words that docstrings use."),
        ("human", "Question: {question}\n\n{context}"),
    ]
)
ANSWER = ChatPromptTemplate.from_messages(
    [
        (
            "system",
            "Answer the question with one sentence of the context, and name the passage. "
            "Where it asks for the arguments or parameters that a function takes, look at its signature. "
            'If the context does not tell, reply "No docstring that I found answers this."',
        ),
        ("human", "Question: {question}\n\n{context}"),
        MessagesPlaceholder("messages", optional=True),
    ]
)


@tool
def signature(name: str) -> str:
    """The signature of a function: which arguments or parameters it takes, in which order, and their defaults."""
    parts = name.split(".")
    if parts[0] not in sys.stdlib_module_names or parts[0] in {"antigravity", "this"}:
        return f"{name} is not in the standard library."
    found: Any = None
    for part_count in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:part_count]))
        except ImportError:
            continue
        break
    try:
        for part in parts[part_count:]:
            found = getattr(found, part)
        # Without addresses in memory, so that it is equal from run to run.
        return re.sub(r" at 0x[0-9a-f]+", "", f"{name}{inspect.signature(found)}")
    except (AttributeError, TypeError, ValueError) as fault:
        return f"{name} has no signature to show: {fault}"


class State(TypedDict, total=False):
    question: str
    query: str
    tries: int
    found: list[Document]
    kept: list[Document]
    messages: Annotated[list[AnyMessage], add_messages]


def passages(documents: list[Document]) -> str:
    return "\n\n".join(
        "[{}] {name}, {path} line {line}\n{}".format(number, document.page_content, **document.metadata)
        for number, document in enumerate(documents, 1)
    )


def chat_model(embeddings: StdlibEmbeddings) -> BaseChatModel:
    """The extractive reader; with CLEW_EXAMPLE_MODEL=openai:NAME (or another provider's) that model."""
    if name := os.environ.get("CLEW_EXAMPLE_MODEL"):
        from langchain.chat_models import init_chat_model  # needs `langchain` and the provider's package

        return init_chat_model(name, temperature=0)
    return Reader(weights=embeddings.word_weights())


def agent() -> CompiledStateGraph[Any, Any, Any, Any]:
    embeddings = StdlibEmbeddings.load(MODEL)
    retriever = InMemoryVectorStore.load(str(INDEX), embeddings).as_retriever(search_kwargs={"k": 10})
    model = chat_model(embeddings)
    answerer = ANSWER | model.bind_tools([signature])

    def retrieve(state: State) -> State:
        return {"found": retriever.invoke(state.get("query", state["question"])), "tries": state.get("tries", 0) + 1}

    def grade(state: State) -> State:
        question = state.get("query", state["question"])
        asked = [{"question": question, "document": passages([document])} for document in state["found"]]
        verdicts = (GRADE | model).batch(asked)
        graded = zip(state["found"], verdicts, strict=True)
        return {"kept": [document for document, verdict in graded if verdict.text.lower().startswith("yes")]}

    def rewrite(state: State) -> State:
        reply = (REWRITE | model).invoke({"question": state["question"], "context": passages(state["found"])})
        return {"query": reply.text}

    def answer(state: State) -> State:
        asked = {"question": state["question"], "context": passages(state["kept"])}
        return {"messages": [answerer.invoke(asked | {"messages": state.get("messages", [])})]}

    graph = StateGraph(State)
    for node in (retrieve, grade, rewrite, answer):
        graph.add_node(node)
    graph.add_node("tools", ToolNode([signature]))
    graph.add_edge(START, "retrieve")
    graph.add_edge("retrieve", "grade")
    graph.add_conditional_edges(
        "grade", lambda state: "answer" if state["kept"] or state["tries"] > 1 else "rewrite", ["answer", "rewrite"]
    )
    graph.add_edge("rewrite", "retrieve")
    graph.add_conditional_edges("answer", tools_condition, {"tools": "tools", END: END})
    graph.add_edge("tools", "answer")
    return graph.compile(name="StdlibAgent")


def ask(graph: CompiledStateGraph[Any, Any, Any, Any], question: str) -> None:
    with clew.run("answer") as run:
        end = graph.invoke({"question": question})
    print(f"\nQ: {question}")
    if end["tries"] > 1:
        print(f"   (searched again for: {end['query']})")
    for message in end["messages"]:
        for call in getattr(message, "tool_calls", ()):
            print(f"   (called {call['name']}({', '.join(map(repr, call['args'].values()))}))")
    print(f"   ({len(end['kept'])} of {len(end['found'])} documents kept)")
    print(f"A: {end['messages'][-1].text}\n")
    print(clew.why(run), flush=True)


if __name__ == "__main__":
    clew.init(project="why-this-answer")
    clew.instrument()
    stdlib_agent = agent()
    for asked in sys.argv[1:] or [QUESTION]:
        ask(stdlib_agent, asked)
