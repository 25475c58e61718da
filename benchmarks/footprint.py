"""Footprint: the bytes that a traced, checkpointed chat leaves in the store folder.

    python benchmarks/footprint.py [--json] [--turns 50]

Fifty turns of one thread through a graph of three nodes with a checkpointer, 50 KB in 100 messages. The chat is a
small project in a folder of its own, whose code capture counts. Every file of the store counts, catalog and
write-ahead log included, less an empty store made the same way. Afterwards every message is read back and compared.
"""

from __future__ import annotations

import json
import os
import random
import sys
from pathlib import Path

from measure import Bar, Result, check, child, program, report, scratch

SESSION = "footprint"
CHAT = '''"""A chat of three nodes: note the topic, answer, count the turns."""

import json
import sys

from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph

import clew

SCRIPT, STORE, SESSION = sys.argv[1:]
TURNS = json.load(open(SCRIPT))


class Chat(MessagesState):
    topic: str
    turns: int


class Scripted(BaseChatModel):
    """Says what its script says for the turn it is asked in."""

    @property
    def _llm_type(self):
        return "scripted"

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        answer = AIMessage(TURNS[len(messages) // 2][1])
        return ChatResult(generations=[ChatGeneration(message=answer)])


clew.init(project="footprint", store=STORE)
clew.instrument()
model = Scripted()
graph = StateGraph(Chat)
graph.add_node("note", lambda state: {"topic": state["messages"][-1].content.split(".")[0]})
graph.add_node("answer", lambda state: {"messages": [model.invoke(state["messages"])]})
graph.add_node("count", lambda state: {"turns": state.get("turns", 0) + 1})
graph.add_edge(START, "note")
graph.add_edge("note", "answer")
graph.add_edge("answer", "count")
graph.add_edge("count", END)
chat = graph.compile(checkpointer=InMemorySaver(), name="Chat")
for question, _ in TURNS:
    chat.invoke({"messages": [("user", question)]}, {"configurable": {"thread_id": SESSION}})
clew.flush()
clew.why()
clew.shutdown()
print("{}")
'''
EMPTY = """import sys

import clew

clew.init(project="footprint", store=sys.argv[1])
clew.shutdown()
clew.open(sys.argv[1]).runs()
print("{}")
"""


def footprint(turns: int) -> Result:
    """Trace the chat, count the bytes, read the messages back."""
    script = made_up(turns)
    with scratch() as folder:
        chat = project(folder / "chat", "chat.py", CHAT)
        (folder / "script.json").write_text(json.dumps(script))
        child(chat, folder / "script.json", folder / "store", SESSION, folder=chat.parent)
        closed = size_bytes(folder / "store")
        child(__file__, "--child", folder / "store", folder / "script.json", folder=folder)
        empty = project(folder / "nothing", "nothing.py", EMPTY)
        child(empty, folder / "empty", folder=empty.parent)
        size, none = max(closed, size_bytes(folder / "store")), size_bytes(folder / "empty")
        parts = {part: size_bytes(folder / "store", part) for part in ("catalog", "log")}
    figures: dict[str, float | int] = {
        "store_bytes": size - none,
        "empty_bytes": none,
        "content_bytes": sum(len(text.encode()) for turn in script for text in turn),
        "catalog_bytes": parts["catalog"],
        "log_bytes": parts["log"],
    }
    return Result(figures, {"store_bytes": Bar(500_000, 300_000), "empty_bytes": Bar(250_000)})


def made_up(turns: int) -> list[tuple[str, str]]:
    """Questions of about 300 characters and answers of about 700, no two alike, from words that do not exist."""
    chance = random.Random(50)
    syllables = [a + b for a in "bdfgklmnprstvz" for b in ("a", "e", "i", "o", "u", "an", "er", "is")]
    words = ["".join(chance.choices(syllables, k=chance.randint(1, 4))) for _ in range(4000)]

    def text(characters: int) -> str:
        found = ""
        while len(found) < characters:
            found += " ".join(chance.choices(words, k=chance.randint(6, 14))).capitalize() + ". "
        return found[:characters].strip()

    return [(text(300), text(700)) for _ in range(turns)]


def project(folder: Path, name: str, source: str) -> Path:
    """A program in a folder of its own."""
    folder.mkdir()
    path = folder / name
    path.write_text(source)
    return path


def size_bytes(folder: Path, beginning: str = "") -> int:
    """Bytes of all files below a folder whose path in it begins like this."""
    files = (Path(root) / name for root, _, names in os.walk(folder) for name in names)
    return sum(file.stat().st_size for file in files if str(file.relative_to(folder)).startswith(beginning))


def read_back(store: str, script: list[list[str]]) -> None:
    """Another process finds every message, verbatim and in order, in the last turn's state."""
    import clew

    with clew.open(store) as reader:
        graph = [span for span in reader.spans() if span.kind == "workflow"]
        check(len(graph) == len(script), f"{len(graph)} turns in the store, {len(script)} were made")
        state = next(slot for slot in graph[-1].generated if slot.role == "messages").value
        found = [(one["role"], one["content"]) for one in state]
    said = [(role, text) for turn in script for role, text in zip(("user", "assistant"), turn, strict=True)]
    check(found == said, f"the messages read back are not those of the chat: {len(found)} of {len(said)}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        read_back(sys.argv[2], json.loads(Path(sys.argv[3]).read_text()))
        print("{}")
        sys.exit()
    options = program(__doc__, ("--turns", {"type": int, "default": 50})).parse_args()
    sys.exit(report("footprint", options.json, lambda: footprint(options.turns)))
