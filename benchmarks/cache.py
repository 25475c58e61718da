"""Cache: what a hit costs, beside a floor and beside other caches, and how often the same is computed at once.

    python benchmarks/cache.py [--json] [--rounds 15] [--runs 60] [--bench FOLDER] [--peers FOLDER | --no-peers]

All figures of one kind are of one run, in turns, and medians of CPU microseconds. Floors and hits take turns call by call,
as a program does something else between two calls; `warm_*` are of each many times in a row. All that is asked is made
anew each time, texts as well, for the floors and for the hits.

* `floor_us`: a chat request with a 10 KB prompt, as a dict -> canonical MessagePack -> BLAKE3 -> one prepared read of SQLite ->
  the answer decoded to a dict. Nothing of a framework, and nothing remembered. Canonical is what tells every type from
  every other (store/encoding.py); `plain_floor_us` is the same in msgspec's own encoding with sorted keys, which takes a
  tuple or a set for a list.
* `hit_us`: `CachePolicy.call` of the same request to a LangChain chat model: everything between the boundary and the answer,
  which is the key of model, parameters, options and messages, the look-up, the `ChatResult` put together, and what
  the span is told. The action stands in memory, as after the first hit in a process; `hit_catalog_us` reads it from the
  catalog each time.
* `invoke_us`: `model.invoke` of a hit, with LangChain's own work, the span and its payload; `peer_*` are in peers.py.
* `chain_key_us`: the whole key of turn 80 of a conversation (160 messages, 218 KB) just after that of turn 79; each message
  of turn 79 is looked at again, whether it changed. `whole_key_us`: the same key with nothing remembered, every text
  searched for credentials and every message in canonical encoding and hashed. `whole_typed_us`: all messages as one value in
  canonical encoding, and BLAKE3 over it; nothing is searched for. `whole_plain_us`: the same in msgspec's own.
* `computations`: four processes of eight threads ask for 40 keys, each of 20 ms work, at once.
* `hits_*`, `record_*`, `recorded_*`, `traced_*`: the reference agent, cached and recorded (agents.py).
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import gc
import json
import os
import random
import sqlite3
import subprocess
import sys
import threading
import time
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agents import agents
from measure import ROOT, Bar, CheckFailed, Companion, Result, check, median, program, report, scratch
from peers import ANSWER, PROMPT

HITS = 40  # in one turn of a round
CALLS = 200  # of each in a round, where they take turns call by call
TURNS = 80
PROCESSES, THREADS, KEYS = 4, 8, 40
WORK_SECONDS = 0.02
WARM_UP = 30
PEERS = [
    "langchain-core",
    "langchain-community",
    "langgraph",
    "langgraph-checkpoint",
    "langgraph-checkpoint-sqlite",
    "joblib",
    "diskcache",
]


def cache(options: Any) -> Result:
    """Everything, one after the other."""
    figures: dict[str, Any] = {}
    with scratch() as folder:
        figures |= hits(folder, options.rounds, None if options.no_peers else options.peers)
        figures |= flights(folder)
    figures |= agents(options.bench, max(1, options.rounds // 5), options.runs)
    bars = {
        "hit_ratio_to_floor": Bar(1.6),
        "chain_key_ratio": Bar(0.1),
        "computations": Bar(KEYS),
        "hits_wall_ratio_sync": Bar(2.0),
        "hits_wall_ratio_async": Bar(2.0),
    }
    return Result({name: round(value, 3) for name, value in figures.items()}, bars)


# -- a hit


@dataclasses.dataclass(slots=True)
class Asked:
    """One thing that is asked, new in all that it holds: as a call, and as the floor takes it."""

    call: Any
    span: Any
    request: dict[str, Any]


def hits(folder: Path, rounds: int, peers: Path | None) -> dict[str, float]:
    """Floor, clew and peers in turns."""
    ours = Companion(__file__, "--hits", folder / "hits")
    python = None if peers is None else peer_python(peers)
    theirs = [Companion(Path(__file__).with_name("peers.py"), folder, python=python)] if python is not None else []
    seen: dict[str, list[float]] = collections.defaultdict(list)
    for _ in range(rounds):
        for one in (ours, *theirs):
            one.say("go")
            for name, value in json.loads(one.hear()).items():
                seen[name if one is ours else f"peer_{name}_us"].append(value)
    for one in (ours, *theirs):
        one.say("end")
        one.end()

    def ratio(name: str, over: str) -> float:
        return median([mine / other for mine, other in zip(seen[name], seen[over], strict=True)])

    return {
        "hit_ratio_to_floor": ratio("hit_us", "floor_us"),
        "hit_ratio_to_plain_floor": ratio("hit_us", "plain_floor_us"),
        "warm_hit_ratio_to_floor": ratio("warm_hit_us", "warm_floor_us"),
        "warm_hit_ratio_to_plain_floor": ratio("warm_hit_us", "warm_plain_floor_us"),
        "hit_catalog_ratio_to_floor": ratio("hit_catalog_us", "floor_us"),
        "chain_key_ratio": ratio("chain_key_us", "whole_key_us"),
        "chain_key_ratio_to_typed": ratio("chain_key_us", "whole_typed_us"),
        "chain_key_ratio_to_plain": ratio("chain_key_us", "whole_plain_us"),
        **{name: median(values) for name, values in seen.items()},
    }


def peer_python(folder: Path) -> Path | None:
    """The interpreter of an environment with the peers, made where it is not there; None where they cannot be had."""
    python = folder / "bin" / "python"
    marker = folder / "peers.txt"
    if marker.is_file() and marker.read_text() == " ".join(PEERS):
        return python
    try:
        venv.create(folder, with_pip=True, clear=True)
        command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PEERS]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=900)
    except (OSError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        print(f"no peers: they cannot be installed: {said[-1] if said else error}", file=sys.stderr)
        return None
    marker.write_text(" ".join(PEERS))
    return python


def measured_hits(store: str) -> None:
    """One process: rounds of the floor, of hits and of keys, as long as they are asked for."""
    import msgspec
    from blake3 import blake3
    from chat import Chat
    from langchain_core.messages import AIMessage, HumanMessage, SystemMessage

    import clew
    from clew.integrations.langchain import message_exchange
    from clew.integrations.langchain.model import _exchange
    from clew.replay.key import key_of
    from clew.store.digest import VALUE, raw_digest
    from clew.store.encoding import encode_key
    from clew.store.sink import Digester
    from clew.tracer.boundary import Call
    from clew.tracer.capture import Batch
    from clew.tracer.span import OpenSpan

    tracer = clew.init("cache", store=store, cache=True)
    assert tracer is not None
    clew.instrument()
    model = Chat()
    policy: Any = tracer.policy
    policy = getattr(tracer.policies, "cache", None) or policy

    def messages() -> list[Any]:
        return [SystemMessage("You are helpful."), HumanMessage(PROMPT[:9] + PROMPT[9:])]

    def asked() -> Asked:
        given = messages()
        span = OpenSpan(tracer, "llm", "m-1", parent=None, used=[("messages", "message", given)])
        exchange = functools.partial(_exchange, model, "chat", (given,), {})
        system, user = given
        request = {
            "model": "m-1",
            "temperature": 0.0,
            "max_tokens": 512,
            "messages": [{"role": "system", "content": system.content}, {"role": "user", "content": user.content}],
        }
        return Asked(Call("llm", "chat", model, name="m-1", span=span, exchange=exchange), span, request)

    def performed() -> Any:
        raise CheckFailed("a hit was performed")

    def hit(asked: Asked) -> None:
        found = policy.call(asked.call, performed)
        if found.generations[0].message.content != ANSWER:
            raise CheckFailed("a hit gives another answer")

    def hit_catalog(asked: Asked) -> None:
        policy.actions.forget()
        hit(asked)

    encode, decode = msgspec.msgpack.Encoder(order="sorted").encode, msgspec.msgpack.Decoder().decode
    database = sqlite3.connect(f"{store}-floor.db", isolation_level=None)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("CREATE TABLE action (id INTEGER PRIMARY KEY, key BLOB UNIQUE, answer BLOB)")
    answer = {"content": ANSWER, "model_name": "m-1", "finish_reason": "stop", "tokens": [2500, 50]}

    def canonical(request: Any) -> bytes:
        return raw_digest(VALUE, encode_key(request, Digester()))

    def plain(request: Any) -> bytes:
        return blake3(encode(request)).digest()

    cursor = database.cursor()
    for key_of_request in (canonical, plain):
        cursor.execute(
            "INSERT INTO action (key, answer) VALUES (?, ?)", (key_of_request(asked().request), encode(answer))
        )

    def floor(asked: Asked, key: Callable[[Any], bytes] = canonical) -> None:
        row = cursor.execute("SELECT answer FROM action WHERE key = ?", (key(asked.request),)).fetchone()
        if decode(row[0])["content"] != ANSWER:
            raise CheckFailed("the floor gives another answer")

    plain_floor = functools.partial(floor, key=plain)

    def conversation(number: int) -> list[Any]:
        """All texts are new, and in the log as each is when its turn is asked."""
        found: list[Any] = []
        for turn in range(TURNS):
            about = {"model_name": "m-1", "finish_reason": "stop", "id": f"{number}-{turn}"}
            usage = {"input_tokens": turn, "output_tokens": turn, "total_tokens": 2 * turn}
            found.append(HumanMessage(f"{number} q{turn} " + "lorem ipsum dolor " * 75))
            text = f"{number} a{turn} " + "lorem ipsum dolor " * 76
            found.append(AIMessage(text, id=f"run-{number}-{turn}", response_metadata=about, usage_metadata=usage))
        batch = Batch(tracer.gate)
        batch.slots([("messages", "message", found)])
        batch.commit()
        return found

    def key(given: list[Any]) -> bytes:
        exchange = _exchange(model, "chat", (given,), {})
        return bytes(key_of(tracer.gate, "llm", exchange, exchange.parts(), ("", 0)).digest)

    def chain(number: int) -> dict[str, float]:
        given = conversation(number)
        key(given[:-2])
        chained, one = timed(lambda: key(given))
        forget(message_exchange)
        tracer.gate.forget()
        whole, other = timed(lambda: key(given))
        check(one == other, "the key of a turn depends on what was asked before")
        as_data = [[type(message).__name__, message.__dict__] for message in given]
        typed, _ = timed(lambda: canonical(as_data))
        bare, _ = timed(lambda: plain(as_data))
        return {"chain_key_us": chained, "whole_key_us": whole, "whole_typed_us": typed, "whole_plain_us": bare}

    model.invoke(messages())
    for _ in range(WARM_UP):
        hit(asked())
        model.invoke(messages())
    for number in range(3):
        chain(-1 - number)
    print("ready", flush=True)
    number = 0
    while sys.stdin.readline().strip() == "go":
        number += 1
        chains = [chain(10 * number + at) for at in range(5)]
        calls = [asked() for _ in range(HITS)]
        gc.collect()
        found = {
            "warm_hit_us": each(hit, calls),
            "warm_floor_us": each(floor, calls),
            "warm_plain_floor_us": each(plain_floor, calls),
            **turns({"hit_us": hit, "floor_us": floor, "plain_floor_us": plain_floor}, asked),
            **turns({"hit_catalog_us": hit_catalog}, asked),
            "invoke_us": each(model.invoke, [messages() for _ in range(HITS)]),
            **{name: median([one[name] for one in chains]) for name in chains[0]},
        }
        print(json.dumps(found), flush=True)
    clew.shutdown()


def forget(messages: Any) -> None:
    """Nothing is remembered of any message."""
    messages._memo = None


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """CPU microseconds of a call, and what it gives."""
    started = time.thread_time_ns()
    found = call()
    return (time.thread_time_ns() - started) / 1e3, found


def each(call: Callable[[Any], Any], given: list[Any]) -> float:
    """CPU microseconds of one of several calls."""
    started = time.thread_time_ns()
    for one in given:
        call(one)
    return (time.thread_time_ns() - started) / len(given) / 1e3


def turns(tried: dict[str, Callable[[Asked], Any]], asked: Callable[[], Asked]) -> dict[str, float]:
    """Median CPU microseconds of a call of each, which take turns; each call is made just before it is asked."""
    spent: dict[str, list[int]] = {name: [] for name in tried}
    for _ in range(CALLS):
        for name, call in tried.items():
            given = asked()
            started = time.thread_time_ns()
            call(given)
            ended = time.thread_time_ns()
            spent[name].append(2 * ended - started - time.thread_time_ns())  # less what it takes to read the clock
            given.span.end()
    return {name: median(times) / 1e3 for name, times in spent.items()}


# -- computed at once


def flights(folder: Path) -> dict[str, float]:
    """Several processes ask for the same."""
    store, counted = folder / "flights", folder / "computations"
    counted.touch()
    alone = folder / "alone"
    alone.mkdir()
    everybody = [Companion(__file__, "--flight", store, counted, number, folder=alone) for number in range(PROCESSES)]
    started = time.perf_counter()
    for one in everybody:
        one.say("go")
    for one in everybody:
        check(one.hear() == "right", "a follower got another answer")
    wall = time.perf_counter() - started
    for one in everybody:
        one.end()
    return {"computations": counted.stat().st_size, "flights_wall_s": wall}


def flight(store: str, counted: str, number: str) -> None:
    """One process of them: each of its threads asks for all keys, in an order of its own."""
    import clew

    clew.init("flights", store=store)

    @clew.cached(version="1")
    def work(key: int) -> str:
        with open(counted, "ab", buffering=0) as file:
            file.write(b"x")
        time.sleep(WORK_SECONDS)
        return f"answer {key}"

    wrong: list[Any] = []

    def thread(at: int) -> None:
        keys = list(range(KEYS))
        random.Random(int(number) * THREADS + at).shuffle(keys)
        wrong.extend(found for key in keys if (found := work(key)) != f"answer {key}")

    print("ready", flush=True)
    sys.stdin.readline()
    threads = [threading.Thread(target=thread, args=(at,)) for at in range(THREADS)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    print("wrong" if wrong else "right", flush=True)
    clew.shutdown()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--hits", store]:
            measured_hits(store)
        case ["--flight", store, counted, number]:
            flight(store, counted, number)
        case _:
            home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
            told = program(
                __doc__,
                ("--rounds", {"type": int, "default": 15}),
                ("--runs", {"type": int, "default": 60}),
                (
                    "--bench",
                    {"type": Path, "default": ROOT.parent / "shared" / "bench", "help": "folder of reference_agent.py"},
                ),
                (
                    "--peers",
                    {"type": Path, "default": home / "clew-benchmarks", "help": "folder of the peers' environment"},
                ),
                ("--no-peers", {"action": "store_true", "help": "leave the peers out"}),
            ).parse_args()
            sys.exit(report("cache", told.json, lambda: cache(told)))
