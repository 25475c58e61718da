"""Lineage: closures in a catalog of a million edges, and a document that a hundred thousand answers used.

    python benchmarks/lineage.py [--json] [--edges 1000000] [--answers 100000] [--seed 7]

The graph is made from a seed: nine layers, every node with four causes near its own place in the next layer, so that a
node's closure is about 1,000 nodes at depth 8; one edge in ten is of a relation that is not walked. Each closure must be
the very set that a breadth-first search in Python finds. Both graphs go in through the catalog's own tables.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
from measure import Bar, Result, check, median, program, report, scratch, spending

from clew.lineage.closure import closure
from clew.lineage.graph import Lineage
from clew.lineage.reader import Reader
from clew.store import catalog
from clew.store.catalog import WALKED, Evidence, Relation, Scope
from clew.store.digest import text_digest
from clew.store.folder import Folder
from clew.store.store import Store

DEPTH = 8
CAUSES = 4
REACH = 27  # how far to either side a node's causes lie
PROBES = 40
PAGE = 10_000


def lineage(edges: int, answers: int, seed: int) -> Result:
    """Fill a catalog, ask it, and ask plain Python the same."""
    with scratch() as folder:
        graph = layered(edges, random.Random(seed))
        with Store(Folder(folder / "layers", create=True)) as store:
            fill(store, graph)
            sizes, walls, cpus = closures(store, graph, edges, random.Random(seed + 1))
        document = hub(folder / "hub", answers)
        first, pages, seconds = impact_pages(folder / "hub", document, answers)
    figures: dict[str, float | int] = {
        "closure_ms": round(median(walls) * 1e3, 3),
        "closure_cpu_ms": round(median(cpus) * 1e3, 3),
        "closure_worst_ms": round(max(walls) * 1e3, 3),
        "closure_nodes": int(median(sizes)),
        "closure_depth": DEPTH,
        "edges": sum(len(causes) for causes in graph.values()),
        "hub_answers": answers,
        "hub_first_page_s": round(first, 3),
        "hub_pages": pages,
        "hub_all_pages_s": round(seconds, 2),
    }
    return Result(figures, {"closure_ms": Bar(5)})


Graph = dict[int, list[tuple[int, Relation]]]


def layered(edges: int, chance: random.Random) -> Graph:
    """Effect -> its causes with the relation. Node `n` is in layer `n % 9`, at place `n // 9`."""
    layers = DEPTH + 1
    width = edges // (DEPTH * CAUSES)
    graph: Graph = {}
    for place in range(width):
        for layer in range(DEPTH):
            near = chance.sample(range(place - REACH, place + REACH + 1), CAUSES)
            relations = (chance.choice(WALKED) if chance.random() < 0.9 else Relation.CHILD for _ in near)
            graph[place * layers + layer + 1] = [
                ((there % width) * layers + layer + 2, relation)
                for there, relation in zip(near, relations, strict=True)
            ]
    return graph


def fill(store: Store, graph: Graph) -> None:
    """Write the graph's edges into the catalog."""
    evidence = int(Evidence.DECLARED)
    rows = ((src, dst, int(relation), -1, evidence) for src, causes in graph.items() for dst, relation in causes)
    with store.write() as connection:
        catalog.insert(connection, catalog.edge, ("src", "dst", "relation", "start", "evidence"), rows)


def closures(
    store: Store, graph: Graph, edges: int, chance: random.Random
) -> tuple[list[int], list[float], list[float]]:
    """Sizes, wall and CPU seconds of the closures of some nodes of the first layer, each checked."""
    found, walls, cpus = {}, [], []
    places = chance.sample(range(edges // (DEPTH * CAUSES)), PROBES)
    with store.read() as connection:
        closure(connection, [1], WALKED)  # compiles the statement
        for place in places:
            start = place * (DEPTH + 1) + 1
            with spending() as spent:
                found[start] = closure(connection, [start], WALKED)
            walls.append(spent.wall)
            cpus.append(spent.cpu)
    for start, nodes in found.items():  # afterwards: a search in Python leaves no cache as it was
        expected, depth = breadth_first(graph, start)
        check(nodes == expected, f"closure of node {start}: {len(nodes)} nodes, a plain search finds {len(expected)}")
        check(depth == DEPTH, f"closure of node {start} has depth {depth}")
    return [len(nodes) for nodes in found.values()], walls, cpus


def breadth_first(graph: Graph, start: int) -> tuple[set[int], int]:
    """What can be reached from `start` over relations that are walked, and in how many steps."""
    reached, frontier, depth = {start}, {start}, -1
    while frontier:
        depth += 1
        frontier = {
            cause for node in frontier for cause, relation in graph.get(node, ()) if relation in WALKED
        } - reached
        reached |= frontier
    return reached, depth


def hub(folder: Path, answers: int) -> str:
    """A store in which every answer of many runs contains one document; returns the document's digest."""
    kinds = {"document": 1, "message": 2, "llm": 3, "answer": 4}
    document = text_digest("the document that everybody uses")
    runs, nodes, spans, edges = [], [(1, bytes(document), int(Scope.GLOBAL), 1, *[None] * 6)], [], []
    for number in range(1, answers + 1):
        span, answer = number * 2, number * 2 + 1
        run_id = number.to_bytes(16, "big")
        nodes.append((answer, b"o" + run_id, int(Scope.VALUE), 2, *[None] * 2, number, *[None] * 3))
        spans.append(
            (span, span.to_bytes(8, "big"), run_id, None, number, 3, 4, number, number + 1, "ok", 1, None, 1, None)
        )
        runs.append(
            (
                number,
                run_id,
                "answer",
                "hub",
                run_id,
                span,
                number,
                number + 1,
                "ok",
                1,
                msgspec.msgpack.encode([answer]),
            )
        )
        edges.append((answer, 1, int(Relation.CONTAINS), 0, 30, int(Evidence.CONTENT), 0, 30, None))
    with Store(Folder(folder, create=True)) as store, store.write() as connection:
        catalog.insert(connection, catalog.word, ("id", "text"), [(number, text) for text, number in kinds.items()])
        catalog.insert(connection, catalog.node, catalog.node.c.keys(), nodes)
        catalog.insert(connection, catalog.span, catalog.span.c.keys(), spans)
        columns = (
            "id",
            "run_id",
            "name",
            "project",
            "process_id",
            "root",
            "started_ns",
            "ended_ns",
            "status",
            "segment",
            "answer",
        )
        catalog.insert(connection, catalog.run, columns, runs)
        catalog.insert(connection, catalog.edge, catalog.edge.c.keys(), edges)
    return str(document)


def impact_pages(folder: Path, document: str, answers: int) -> tuple[float, int, float]:
    """Seconds to the first page of `impact` with its defaults; then pages to the end, and their seconds."""
    with Reader(folder) as reader:
        with spending() as first:
            page = reader.impact(document)
        check(
            not page.complete and page.next is not None, f"the first page of {answers} answers claims to be all of them"
        )
        seen: list[str] = []
        with spending() as spent:
            pages = list(all_pages(reader, document))
        for page in pages:
            seen += [node.run_id for node in page.find("workflow") if node.run_id]
    check(len(seen) == len(set(seen)), "an answer stands on two pages")
    check(
        set(seen) == {number.to_bytes(16, "big").hex() for number in range(1, answers + 1)},
        f"{len(seen)} of {answers} answers are on the pages",
    )
    return first.wall, len(pages), spent.wall


def all_pages(reader: Reader, document: str) -> Iterator[Lineage]:
    """Every page of `impact`."""
    after = None
    while True:
        page = reader.impact(document, limit=PAGE, after=after)
        yield page
        if page.complete:
            return
        after = page.next


if __name__ == "__main__":
    options = program(
        __doc__,
        ("--edges", {"type": int, "default": 1_000_000}),
        ("--answers", {"type": int, "default": 100_000}),
        ("--seed", {"type": int, "default": 7}),
    ).parse_args()
    sys.exit(report("lineage", options.json, lambda: lineage(options.edges, options.answers, options.seed)))
