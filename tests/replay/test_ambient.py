"""Random values while an activation is on: they depend on the seed, the place and the number of the draw alone."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import subprocess
import sys
import tempfile
import textwrap
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import choice, gauss, getrandbits, sample, seed
from random import random as number
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import HumanMessage
from langgraph.graph.message import add_messages
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from pydantic import BaseModel, Field

import clew
from clew.replay.ambient import Ambient, generator
from clew.replay.ambient.activation import UNKNOWN
from clew.replay.ambient.stream import Stream
from clew.tracer.init import Tracer
from tests.replay.conftest import program

EARLY = [choice, gauss, sample, seed, number, getrandbits, uuid4]  # taken before any activation


class Named(BaseModel):
    id: UUID = Field(default_factory=uuid4)


def some_of_all() -> list[Any]:
    """A draw by each way there is."""
    shuffled = list(range(20))
    random.shuffle(shuffled)
    return [
        random.random(), number(), random.getrandbits(70), getrandbits(9), random.randint(1, 10**9), choice(range(10**9)),
        random.choices(range(1000), k=5), sample(range(10**6), 4), shuffled, random.uniform(1, 2), random.randbytes(7),
        random.gauss(0, 1), gauss(0, 1), gauss(0, 1), random.normalvariate(0, 1), random.betavariate(1, 2),
        random.Random().random(), uuid.uuid4(), uuid4(), Named().id,
    ]  # fmt: skip


def at(place: str, seed: bytes = b"seed") -> Ambient:
    return Ambient(seed, place=lambda: place)


def state_of_the_process() -> dict[str, Any]:
    """Whatever an activation touches."""
    held = {}
    for owner in (random, random.Random, uuid, os, np.random, np.random.mtrand, np.random.bit_generator):
        held |= {f"{owner.__name__}.{name}": id(value) for name, value in vars(owner).items()}
    return {
        **held,
        "finders": list(sys.meta_path),
        "class": type(random._inst),
        "code": uuid.uuid4.__code__,
        "early": EARLY,
        "here": [choice, gauss, sample, seed, number, getrandbits, uuid4],
        "state": random.getstate(),
        "numpy state": repr(np.random.get_state()),
    }


def test_two_activations_with_one_seed_give_the_same_values_and_another_seed_or_place_gives_others() -> None:
    def values(place: str, seed: bytes) -> list[Any]:
        with at(place, seed):
            return some_of_all()

    first = values("a/b", b"one")
    assert values("a/b", b"one") == first
    for other in (values("a/b", b"two"), values("a/c", b"one")):
        assert [index for index, (x, y) in enumerate(zip(first, other, strict=True)) if x == y] == []


def test_the_values_are_those_of_ever() -> None:
    """A recorded run is replayed by a later clew, too."""
    assert Stream(b"seed", "uuid4", "", "a/b").take(8).hex() == "dd27fec04481d306"
    with at("a/b"):
        assert str(uuid4()) == "dd27fec0-4481-4306-814d-50dd62948cd8"
        assert random.getrandbits(64) == 3744433792967465174


def test_the_bytes_of_a_stream_do_not_depend_on_how_they_are_taken() -> None:
    whole = Stream(b"s", "a").take(100)
    pieces = Stream(b"s", "a")
    assert pieces.take(1) + pieces.take(64) + pieces.take(35) == whole
    assert Stream(b"s", "a", "bc").take(8) != Stream(b"s", "ab", "c").take(8)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.sampled_from("abc"), max_size=12), st.randoms(use_true_random=False))
def test_what_a_place_draws_does_not_depend_on_what_others_draw_between(
    places: list[str], mixed: random.Random
) -> None:
    def drawn(order: list[str]) -> dict[str, list[Any]]:
        here, found = "", {place: [] for place in "abc"}  # type: ignore[var-annotated]
        with Ambient(b"seed", place=lambda: here):
            for here in order:
                found[here].append((random.gauss(0, 1), choice(range(10**6)), uuid4(), np.random.rand()))
        return found

    shuffled = list(places)
    mixed.shuffle(shuffled)
    assert drawn(shuffled) == drawn(places)


def test_threads_in_any_order_draw_in_their_spans_what_they_drew_before(tracer: Tracer) -> None:
    def run() -> dict[int, list[Any]]:
        found: dict[int, list[Any]] = {}
        ready = threading.Barrier(6)

        def branch(which: int) -> None:
            with clew.trace(f"branch {which}"):
                ready.wait(30)
                found[which] = [some_of_all() for _ in range(5)]

        with Ambient(b"seed"), clew.trace("plan"):
            threads = [
                threading.Thread(target=branch, args=(which,))
                for which in random.Random(os.getpid()).sample(range(6), 6)
            ]
            for one in threads:
                one.start()
            for one in threads:
                one.join(30)
        return found

    first = run()
    assert len({repr(values) for values in first.values()}) == 6
    assert [run() for _ in range(3)] == [first] * 3


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_an_agent_asks_the_same_twice_with_its_random_ids_and_the_time_in_what_it_asks(
    tracer: Tracer, monkeypatch: pytest.MonkeyPatch, is_async: bool
) -> None:
    planner = program("planner_agent")
    monkeypatch.setattr(planner, "NOW", clew.time_ns)
    monkeypatch.setattr(planner, "_rename", lambda text: text)  # `REQUESTS` has the ids as they are
    clew.instrument()

    def run() -> tuple[list[Any], str]:
        planner.REQUESTS.clear()
        graph = planner.build(planner.Config(clock=True), is_async=is_async)
        with Ambient(b"seed", clock=lambda place, n: n):
            asked = {"question": "Q"}
            found = asyncio.run(graph.ainvoke(asked)) if is_async else graph.invoke(asked)
        return sorted(planner.REQUESTS), found["answer"]

    first = run()
    assert len(first[0]) == 29
    assert run() == first


def test_uuids_are_of_version_4_and_differ() -> None:
    made = []
    for place in ("a", "b"):
        with at(place):
            made += [uuid.uuid4() if n % 2 else uuid4() for n in range(500)]
    assert len(set(made)) == 1000
    assert {(one.version, one.variant) for one in made} == {(4, uuid.RFC_4122)}


OWN_SEED = """
    import random, sys
    from random import choice, gauss, seed as plant
    import numpy as np
    def draws():
        return [random.random(), choice(range(10**9)), gauss(0, 1), random.getrandbits(40), random.sample(range(99), 9)]
    def more():
        return [np.random.rand(), np.random.randint(10**9), np.random.permutation(5).tolist(), np.random.normal()]
    def program():
        if WITH: random.random(), gauss(0, 1), np.random.rand()
        random.seed(42); said = [draws()]
        plant("text"); said += [draws(), draws()]
        random.setstate(random.Random(7).getstate()); said.append(draws())
        np.random.seed(0); said += [more(), more()]
        np.random.set_state(np.random.RandomState(5).get_state()); said.append(more())
        said.append([np.random.default_rng(3).random(), random.Random(3).random(), np.random.RandomState(3).rand()])
        return said
"""


def test_a_program_that_seeds_itself_gets_what_the_library_gives(tmp_path: Path) -> None:
    own = textwrap.dedent(OWN_SEED)
    plain = own + "\nWITH = False\nprint(program(), draws(), more())"
    replayed = own + textwrap.dedent(
        """
        from clew.replay.ambient import Ambient, generator
        WITH = True
        with Ambient(b"seed"):
            said = program()
        print(said, draws(), more())  # after the end, too, the program's seed holds
        """
    )
    assert _printed(replayed, tmp_path) == _printed(plain, tmp_path)


def test_a_state_that_the_program_brings_is_a_seed_of_its_own() -> None:
    here = "a"
    with Ambient(b"seed", place=lambda: here):
        random.setstate(random.Random(7).getstate())
        np.random.set_state(np.random.RandomState(5).get_state())
        here = "b"  # it holds everywhere
        got = [random.random(), number(), np.random.rand()]
    real = random.Random(7)
    assert got == [real.random(), real.random(), np.random.RandomState(5).rand()]


def test_a_seed_in_one_thread_holds_in_all_as_it_does_without_clew() -> None:
    def plant() -> None:
        random.seed(5)

    with at("a"):
        thread = threading.Thread(target=plant)
        thread.start()
        thread.join(30)
        got = [random.random(), number(), random.gauss(0, 1)]
    real = random.Random(5)
    assert got == [real.random(), real.random(), real.gauss(0, 1)]


@pytest.mark.parametrize("again", [random.seed, seed, np.random.seed], ids=["random.seed", "seed", "np.random.seed"])
def test_a_seed_from_the_system_is_derived(again: Callable[[], None]) -> None:
    def values() -> list[Any]:
        with at("a"):
            random.seed(1)
            np.random.seed(1)
            again()
            return [random.random(), gauss(0, 1)] if again is not np.random.seed else [np.random.rand()]

    assert values() == values()
    real: Any = random.Random(1) if again is not np.random.seed else np.random.RandomState(1)
    assert values()[0] != (real.random() if again is not np.random.seed else real.rand())


def test_a_program_may_keep_the_state_and_go_back_to_it() -> None:
    with at("a"):
        random.gauss(0, 1)
        kept, kept_numpy = random.getstate(), np.random.get_state()
        first = random.random(), some_of_all()[:16], np.random.rand(3).tolist()
        random.seed(1)
        np.random.seed(1)
        random.setstate(kept)
        np.random.set_state(kept_numpy)
        second = random.random(), some_of_all()[:16], np.random.rand(3).tolist()
        copied = random.Random()
        copied.setstate(kept)
    assert second == first
    assert copied.random() == first[0]


def test_everything_is_as_it_was_in_the_end() -> None:
    before = state_of_the_process()
    with at("a") as ambient:
        some_of_all()
        assert state_of_the_process() != before
        with at("b"):
            some_of_all()
        with ambient:
            some_of_all()
        some_of_all()
    assert state_of_the_process() == before

    def failing() -> None:
        with at("a"):
            some_of_all()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing()
    assert state_of_the_process() == before


def test_activations_may_end_in_any_order_and_the_newest_counts() -> None:
    before = state_of_the_process()
    with at("a", b"2"):
        second_alone = random.random(), np.random.rand()
    one, two = at("a", b"1"), at("a", b"2")
    one.__enter__()
    two.__enter__()
    got = random.random(), np.random.rand()
    one.__exit__(None, None, None)
    random.random()
    two.__exit__(None, None, None)
    assert got == second_alone
    assert state_of_the_process() == before


def test_a_nested_activation_does_not_move_the_outer_one() -> None:
    def values(nested: bool) -> list[Any]:
        with at("a"):
            first = some_of_all()
            if nested:
                with at("a", b"other"):
                    random.seed(3)
                    np.random.seed(3)
                    some_of_all()
            return [first, some_of_all(), np.random.rand()]

    assert values(nested=True) == values(nested=False)


def test_the_ids_that_a_framework_mints_do_not_shift_what_the_program_draws() -> None:
    def values(messages: int) -> tuple[list[Any], list[Any]]:
        with at("a") as ambient:
            minted = [one.id for one in add_messages([], [HumanMessage("x") for _ in range(messages)])]  # type: ignore[arg-type, union-attr, list-item]
            got = some_of_all()
            assert ambient.draws["uuid4"] == 3
            assert ambient.draws.get("uuid4 by langgraph", 0) == messages
        return got, minted

    (none, _), (some, minted) = values(0), values(3)
    assert none == some
    assert values(3)[1] == minted
    assert len({*minted, *map(str, some[-3:])}) == 6


def test_what_must_not_collide_stays_truly_random() -> None:
    def values() -> tuple[int, str]:
        tempfile._name_sequence = None
        with at("a"):
            return RandomIdGenerator().generate_trace_id(), tempfile.mktemp()

    (one, name), (other, other_name) = values(), values()
    assert one != other
    assert name != other_name


def test_what_is_not_derived_is_named_with_who_used_it(tracer: Tracer) -> None:
    with at("a") as ambient, clew.trace("step"):
        some_of_all()
    assert ambient.unseen == [*UNKNOWN]
    with at("a") as ambient:
        assert os.urandom(8) != os.urandom(8)
        secrets.token_hex(4)
        random.SystemRandom().random()
        assert uuid.uuid1().version == 1
    assert ambient.unseen == [
        "os.urandom", "secrets", "random.SystemRandom", "uuid.uuid1", *UNKNOWN,
    ]  # fmt: skip


def test_what_an_executor_is_given_to_call_is_the_programs_own(tracer: Tracer) -> None:
    with at("a") as ambient, clew.trace("step"), ThreadPoolExecutor(1) as pool:
        assert len(pool.submit(os.urandom, 8).result()) == 8
    assert "os.urandom" in ambient.unseen


def test_a_draw_by_a_name_that_cannot_be_reached_is_named_and_repeats() -> None:
    held = {"draw": number}  # in C, and in no module's names

    def values() -> tuple[float, list[str]]:
        with at("a") as ambient:
            value = held["draw"]()
        return value, ambient.unseen

    before = random.getstate()
    value, unseen = values()
    assert generator.MISSED in unseen
    assert values()[0] == value
    assert random.getstate() == before


def test_draws_are_counted_by_source() -> None:
    with at("a") as ambient:
        random.random()
        uuid4()
        uuid4()
        np.random.rand()
        np.random.default_rng()
        random.Random()
    assert ambient.draws == {"random": 1, "uuid4": 2, "numpy": 1, "numpy seed": 1, "random seed": 1}


def test_a_module_that_is_imported_meanwhile_draws_derived_values_and_is_left_with_the_real_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "drawing_late.py").write_text(
        "from random import random\nfrom uuid import uuid4\ndef draw(): return random(), uuid4()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with at("a"):
        import drawing_late  # type: ignore[import-not-found]

        first = drawing_late.draw()
    with at("a"):
        assert drawing_late.draw() == first
    assert drawing_late.random is random.random
    assert drawing_late.draw() != first


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_children_of_a_fork_draw_other_values_each_and_the_same_in_each_replay(tmp_path: Path) -> None:
    program = textwrap.dedent(
        """
        import os, random, sys, uuid
        from clew.replay.ambient import Ambient, generator
        with Ambient(b"seed"):
            print(uuid.uuid4(), random.random(), flush=True)
            for _ in range(2):
                child = os.fork()
                if not child:
                    print(uuid.uuid4(), random.random(), flush=True)
                    os._exit(0)
                os.waitpid(child, 0)
            print(uuid.uuid4(), random.random(), flush=True)
        """
    )
    said = _printed(program, tmp_path)
    assert len(set(said.split())) == 8
    assert _printed(program, tmp_path) == said


def _printed(program: str, folder: Path) -> str:
    (folder / "program.py").write_text(program)
    done = subprocess.run(
        [sys.executable, "program.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(clew.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
