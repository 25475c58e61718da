"""What the truth tests of lineage share: rows of prose, a fake model, a small RAG agent, and how a graph is read."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import textwrap
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypedDict

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.vectorstores import InMemoryVectorStore
from langgraph.graph import END, START, StateGraph
from pydantic import Field

import clew
from clew.lineage.graph import Lineage, Node

ROOT = Path(__file__).parent.parent.parent
QUESTION = "Who decides on remote work and fire drills?"
SUBJECTS = [
    "parental leave", "remote work", "travel expenses", "security badges", "laptop repair", "office plants",
    "fire drills", "meeting rooms", "bicycle racks", "night shifts", "visitor parking", "printer paper",
]  # fmt: skip
_WORDS = [
    "desk",
    "board",
    "letter",
    "appeal",
    "writing",
    "office",
    "answer",
    "request",
    "decision",
    "within",
    "before",
    "after",
    "keeps",
    "goes",
    "sends",
    "signs",
    "pays",
    "returns",
    "checks",
    "accepts",
    "refuses",
    "monday",
    "friday",
    "spring",
    "autumn",
    "copy",
    "form",
    "stamp",
    "drawer",
    "floor",
    "building",
    "team",
    "manager",
    "budget",
    "quarter",
    "receipt",
    "ticket",
    "window",
    "folder",
    "archive",
    "kitchen",
    "garden",
    "corridor",
    "lamp",
    "chair",
    "table",
    "screen",
]
PROMPT = ChatPromptTemplate.from_messages(
    [("system", "Answer from the context alone."), ("human", "{question}\n---\n{context}")]
)
SENTENCE = re.compile(r"(?<=\.)\s+")


# -- data


def prose(seed: object, sentences: int = 3, subject: str = "") -> str:
    """Sentences of random words: no two seeds share 32 characters."""
    source = random.Random(str(seed))
    made = []
    for _ in range(sentences):
        words = source.choices(_WORDS, k=9)
        words[2:2] = subject.split()
        made.append(" ".join(words).capitalize() + ".")
    return " ".join(made)


def rows(count: int = 8, name: str = "h") -> list[dict[str, Any]]:
    """Rows of a handbook: `id`, a short `title`, and a `body` that names its subject."""
    return [
        {"id": f"{name}{number}", "title": subject.title(), "body": prose((name, number), subject=subject)}
        for number, subject in enumerate(SUBJECTS[:count])
    ]


def documents(of: Iterable[dict[str, Any]]) -> list[Document]:
    """A document of each row's body, that says which row it is by metadata and id."""
    return [Document(row["body"], metadata={"row": row["id"]}, id=row["id"]) for row in of]


class BagOfWords(Embeddings):
    """Hashed bag of words."""

    def embed_query(self, text: str) -> list[float]:
        vector = [0.0] * 256
        for word in re.findall(r"[a-z0-9]+", text.lower()):
            vector[zlib.crc32(word.encode()) % 256] += 1.0
        return vector

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]


def vector_store(of: Sequence[Document]) -> InMemoryVectorStore:
    store = InMemoryVectorStore(BagOfWords())
    store.add_documents(list(of))
    return store


class Given(BaseRetriever):
    """Brings the documents it was given, whatever the query."""

    found: list[Document] = Field(default_factory=list)

    def _get_relevant_documents(self, query: str, *, run_manager: Any = None) -> list[Document]:
        return list(self.found)


class Stripped(BaseRetriever):
    """Brings what another retriever brings, without metadata and ids."""

    inner: BaseRetriever

    def _get_relevant_documents(self, query: str, *, run_manager: Any = None) -> list[Document]:
        return [Document(one.page_content) for one in self.inner.invoke(query)]


# -- the fake model


def first_sentence(messages: list[BaseMessage]) -> str:
    """What the fake model says by default: the last sentence of its prompt, in other words."""
    return f"It is said that {SENTENCE.split(str(messages[-1].content))[-1].lower()}"


class Fake(BaseChatModel):
    """Answers with what `reply` makes of its messages: a text or a message."""

    reply: Callable[[list[BaseMessage]], str | AIMessage] = first_sentence

    @property
    def _llm_type(self) -> str:
        return "fake"

    def _generate(self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **_: Any) -> ChatResult:
        said = self.reply(messages)
        return ChatResult(
            generations=[ChatGeneration(message=said if isinstance(said, AIMessage) else AIMessage(said))]
        )

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        from langchain_core.utils.function_calling import convert_to_openai_tool

        return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools], **kwargs)


class Streaming(Fake):
    """The same, a word at a time."""

    def _stream(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **_: Any
    ) -> Iterator[ChatGenerationChunk]:
        for word in re.findall(r"\S+\s*", str(self.reply(messages))):
            yield ChatGenerationChunk(message=AIMessageChunk(word))


# -- a small agent


class Asked(TypedDict, total=False):
    question: str
    found: list[Document]
    kept: list[Document]
    answer: str


def numbered(found: Sequence[Document]) -> str:
    return "\n\n".join(f"[{number}] {one.page_content}" for number, one in enumerate(found, 1))


def agent(
    retriever: BaseRetriever,
    model: BaseChatModel | None = None,
    *,
    render: Callable[[Sequence[Document]], str] = numbered,
    keep: Callable[[Document], bool] = lambda document: True,
    prompt: Any = PROMPT,
) -> Any:
    """retrieve -> choose -> answer."""
    chain = prompt | (model or Fake())

    def retrieve(state: Asked) -> Asked:
        return {"found": retriever.invoke(state["question"])}

    def choose(state: Asked) -> Asked:
        return {"kept": [one for one in state["found"] if keep(one)]}

    def answer(state: Asked) -> Asked:
        return {"answer": chain.invoke({"question": state["question"], "context": render(state["kept"])}).content}

    graph = StateGraph(Asked)
    for node in (retrieve, choose, answer):
        graph.add_node(node)
    graph.add_edge(START, "retrieve")
    graph.add_edge("retrieve", "choose")
    graph.add_edge("choose", "answer")
    graph.add_edge("answer", END)
    return graph.compile(name="Desk")


def about(subject: str) -> Callable[[Document], bool]:
    """For `agent`: keep the documents that name a subject."""
    return lambda document: subject in document.page_content


# -- a process of its own

PROGRAM = """
import sys
import clew
clew.init(project="own", store=sys.argv[1])
clew.instrument()
from langchain_core.messages import HumanMessage, SystemMessage
from tests.lineage.lineage_bed import Fake, Given, documents, rows
{body}
clew.flush()
"""


def in_a_process(folder: Path, body: str) -> str:
    """Run a traced program whose store is `folder/store`; what it printed."""
    program = folder / "program.py"
    program.write_text(PROGRAM.format(body=textwrap.dedent(body)), encoding="utf-8")
    process = subprocess.run(
        [sys.executable, str(program), str(folder / "store")],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


# -- reading


@contextmanager
def traced(folder: Path) -> Iterator[Path]:
    """A traced process, as far as the store can tell: what is done inside has its own process run."""
    store = folder / "store"
    tracer = clew.init(project="truth", store=store)
    assert tracer is not None
    clew.instrument()
    tracer.process.wait()
    try:
        yield store
        assert not tracer.faults.counts
    finally:
        clew.shutdown()


def key(node: Node) -> str:
    return str(node.detail["fields"]["id"])


def rows_of(lineage: Lineage, role: str = "lineage") -> list[str]:
    return sorted(key(node) for node in lineage.find("row", role=role))


def reached(lineage: Lineage) -> set[str]:
    """The ids that the JSON leads to from its root over edges that are neither inferred nor coarse."""
    answer = lineage.to_dict()
    causes: dict[str, list[str]] = {}
    for edge in answer["edges"]:
        if edge["evidence"] != "inferred" and not edge.get("coarse"):
            causes.setdefault(edge["from"], []).append(edge["to"])
    seen: set[str] = set()
    todo = [answer["root"]]
    while todo:
        here = todo.pop()
        if here not in seen:
            seen.add(here)
            todo += causes.get(here, ())
    return seen


def used(lineage: Lineage) -> list[str]:
    """The rows of role lineage; that the edges alone say the same is checked on the way."""
    listed = rows_of(lineage)
    firm = reached(lineage)
    assert listed == sorted(key(node) for node in lineage.nodes.values() if node.kind == "row" and node.id in firm)
    assert all(lineage.nodes[name].role == "possible" for name in lineage.possible)
    assert all(lineage.nodes[name].role == "considered" for name in lineage.considered)
    return listed


def choices(lineage: Lineage) -> list[tuple[int | None, list[str]]]:
    """What stands as one of several: how many, and their names."""
    return [(edge.candidate_count, edge.candidates) for edge in lineage.edges if edge.candidates is not None]


def kinds(lineage: Lineage) -> set[str]:
    return {node.kind for node in lineage.find()}


def source_rows(found: Iterable[Document]) -> list[str]:
    """The program's own word for which rows some documents are from."""
    return sorted({one.metadata["row"] for one in found})
