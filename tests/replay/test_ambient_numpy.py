"""numpy and torch while an activation is on; torch's tests are skipped, aloud, where it is not installed."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.random import RandomState, default_rng, rand, randint

import clew
from clew.replay.ambient import Ambient


def at(place: str, seed: bytes = b"seed") -> Ambient:
    return Ambient(seed, place=lambda: place)


def some_of_all() -> list[Any]:
    """A draw by each way there is."""
    shuffled = np.arange(50)
    np.random.shuffle(shuffled)
    made = [
        np.random.rand(2), rand(2), np.random.randn(2), np.random.randint(10**9, size=2), randint(10**9, size=2),
        np.random.choice(10**6, 2), np.random.normal(size=2), np.random.permutation(50), np.random.random(2),
        np.random.random_sample(2), np.random.ranf(2), np.random.sample(2), np.random.uniform(size=2), shuffled,
        np.random.mtrand._rand.rand(2), default_rng().random(2), np.random.default_rng().random(2), RandomState().rand(2),
        np.random.Generator(np.random.PCG64()).random(2), np.random.SeedSequence().generate_state(2),
    ]  # fmt: skip
    return [np.asarray(one).tolist() for one in made] + [np.random.bytes(8)]


def test_each_way_to_draw_depends_on_the_seed_and_the_place() -> None:
    def values(place: str, seed: bytes) -> list[Any]:
        with at(place, seed):
            return some_of_all()

    first = values("a", b"one")
    assert values("a", b"one") == first
    for other in (values("a", b"two"), values("b", b"one")):
        assert [index for index, (x, y) in enumerate(zip(first, other, strict=True)) if x == y] == []


def test_a_generator_with_a_seed_of_its_own_is_left_alone() -> None:
    want = [default_rng(3).random(), RandomState(3).rand(), np.random.SeedSequence(3).generate_state(1).item()]
    with at("a") as ambient:
        got = [default_rng(3).random(), RandomState(3).rand(), np.random.SeedSequence(3).generate_state(1).item()]
    assert got == want
    assert "numpy" not in ambient.draws


def test_what_asks_numpy_for_its_global_state_gets_that_of_the_place() -> None:
    """As scikit-learn, scipy and pandas do where they are given no `random_state`."""
    from sklearn.utils import check_random_state, shuffle

    def values() -> list[Any]:
        with at("a") as ambient:
            found = [check_random_state(None).rand(), shuffle(list(range(50)))]
            assert ambient.draws["numpy by sklearn"] >= 1
        return found

    first = values()
    with at("b"):
        shuffle(list(range(50)))
        assert shuffle(list(range(50))) != first[1]
    assert values() == first


def test_the_newer_form_of_the_state_can_be_kept_too() -> None:
    with at("a"):
        kept = np.random.get_state(legacy=False)
        first = np.random.rand(3).tolist()
        np.random.seed(1)
        np.random.set_state(kept)
        assert np.random.rand(3).tolist() == first


def test_numpy_imported_meanwhile_is_derived_too(tmp_path: Path) -> None:
    program = """
        from clew.replay.ambient import Ambient
        import sys
        assert "numpy" not in sys.modules
        said = []
        for _ in range(2):
            with Ambient(b"seed", place=lambda: "a"):
                import numpy as np
                from numpy.random import rand
                said.append([np.random.rand(), rand(), np.random.default_rng().random()])
        assert said[0] == said[1]
        assert rand is np.random.rand and type(np.random.mtrand._rand) is np.random.RandomState
        assert not [one for one in sys.meta_path if type(one).__name__ == "LateImport"]
        print(said)
    """
    assert _printed(program, tmp_path) == _printed(program, tmp_path)


def test_torch_is_seeded_once_for_the_process_and_left_as_it_was() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")

    def values(seed: bytes) -> list[Any]:
        with at("a", seed) as ambient:
            found = [torch.rand(2).tolist(), torch.randperm(9).tolist(), torch.nn.Linear(2, 1).weight.tolist()]
            torch.seed()  # a seed from the system is derived
            found.append(torch.rand(1).item())
        assert ambient.draws["torch"] == 1
        assert any(one.startswith("torch: one seed for the process") for one in ambient.unseen)
        return found

    before, functions = torch.get_rng_state(), (torch.manual_seed, torch.seed, torch.random.manual_seed)
    first = values(b"one")
    assert values(b"one") == first
    assert all(x != y for x, y in zip(values(b"two"), first, strict=True))
    assert torch.equal(torch.get_rng_state(), before)
    assert (torch.manual_seed, torch.seed, torch.random.manual_seed) == functions


def test_torch_counts_only_where_something_was_drawn() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    with at("a") as outer:
        with at("a") as inner:
            pass
        torch.ones(2)
    for ambient in (outer, inner):
        assert "torch" not in ambient.draws
        assert not [one for one in ambient.unseen if "torch" in one]
    with at("a") as outer:
        torch.rand(1)
        with at("a") as inner:
            pass
    assert outer.draws["torch"] == 1
    assert "torch" not in inner.draws


def test_draws_of_torch_before_another_activation_that_ends_later_count() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    one, other = at("a"), at("a")
    with contextlib.ExitStack() as stack:
        stack.enter_context(one)
        torch.rand(1)
        with contextlib.ExitStack() as later:
            later.enter_context(other)
            stack.close()
    assert one.draws["torch"] == 1
    assert "torch" not in other.draws


def test_a_program_that_seeds_torch_keeps_its_seed() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    torch.manual_seed(42)
    want = torch.rand(3).tolist()
    with at("a"):
        torch.manual_seed(42)
        got = torch.rand(2).tolist()
    assert [*got, torch.rand(1).item()] == want


def test_torch_imported_meanwhile_is_seeded_too(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    program = """
        from clew.replay.ambient import Ambient
        with Ambient(b"seed"):
            import torch
            said = torch.rand(3).tolist()
        with Ambient(b"seed"):
            assert said == torch.rand(3).tolist()
        print(said)
    """
    assert _printed(program, tmp_path) == _printed(program, tmp_path)


def _printed(program: str, folder: Path) -> str:
    (folder / "program.py").write_text(textwrap.dedent(program))
    paths = [str(Path(clew.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "program.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
