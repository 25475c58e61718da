"""Process 1 builds the index: docstrings -> documents -> chunks -> embeddings -> a vector store, saved to disk."""

from __future__ import annotations

import time
from pathlib import Path

from corpus import Row, stdlib_rows
from embedding import StdlibEmbeddings
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_text_splitters import RecursiveCharacterTextSplitter

import clew

BUILT = Path(__file__).parent / "built"
MODEL, INDEX = BUILT / "model", BUILT / "index.json"


def text_of(row: Row) -> str:
    return f"{row['id']}{row['signature']}\n\n{row['doc']}"


def build() -> None:
    started = time.perf_counter()

    def say(what: str) -> None:
        print(f"  {time.perf_counter() - started:5.1f} s  {what}", flush=True)

    rows = clew.dataset("python-stdlib", stdlib_rows(), key="id")
    documents = [
        document.to_langchain()
        for document in rows.documents(
            text=text_of,
            id=lambda row: row["id"],
            metadata=lambda row: {"name": row["id"], "path": row["path"], "line": row["line"]},
        )
    ]
    say(f"{len(documents)} docstrings read")

    chunks = RecursiveCharacterTextSplitter(chunk_size=400, chunk_overlap=50).split_documents(documents)
    say(f"{len(chunks)} chunks cut")

    embeddings = StdlibEmbeddings.fit(document.page_content for document in documents)
    BUILT.mkdir(exist_ok=True)
    (BUILT / ".gitignore").write_text("*\n")
    embeddings.save(MODEL)
    clew.artifact("model", MODEL, name="stdlib-lsa")
    say(f"embedding model fitted: {len(embeddings.vocabulary)} words")

    store = InMemoryVectorStore(embeddings)
    store.add_documents(chunks)
    say(f"{len(store.store)} chunks embedded")
    store.dump(str(INDEX))
    say(f"saved, {INDEX.stat().st_size / 1e6:.0f} MB")


if __name__ == "__main__":
    clew.init(project="why-this-answer")
    clew.instrument()
    with clew.run("build index"):
        build()
