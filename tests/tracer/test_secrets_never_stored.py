"""Planted credentials are looked for in every byte of the store, decompressed, and stand nowhere."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace

import clew
from clew.lineage.reader import Reader
from clew.tracer.init import Tracer
from tests.tracer.store_bytes import everything

OPENAI = "sk-proj-" + "Zq7XvB2nM4kL9pR1sT6wY8" * 2
AWS_ID = "AKIA" + "Q7ZXV3NMK5LP2RST"
AWS_SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYzQ9kLm2Xv4"
GITHUB = "ghp_" + "a7Bq9Zx3Vn5Mk1Lp8Rs2Tw6Yd4Fg0Hj7Kc3E"
PASSWORD = "k9-Vx2_mQ7tLz4"
GOVERNED = "a value of no known shape 4711"
PLANTED = {
    "openai": OPENAI,
    "aws id": AWS_ID,
    "aws secret": AWS_SECRET,
    "github": GITHUB,
    "password": PASSWORD,
    "governed": GOVERNED,
}
PROSE = (
    f"Use {OPENAI} here. aws_access_key_id={AWS_ID} aws_secret_access_key={AWS_SECRET} then {GITHUB}, "
    f"at postgresql://admin:{PASSWORD}@db.example.com/prod and say {GOVERNED}."
)


def spellings(value: str) -> Iterator[bytes]:
    """The value, and its base64 at each of the three offsets that it may have in a longer text."""
    yield value.encode()
    yield json.dumps(value)[1:-1].encode()
    for before in range(3):
        coded = base64.b64encode(b"\0" * before + value.encode() + b"\0" * 3)
        yield coded[4 if before else 0 :][: len(value)]


def assert_clean(store: Path, planted: dict[str, str] = PLANTED) -> None:
    held = everything(store)
    assert sum(map(len, held.values())) > 1000
    for name, value in planted.items():
        for spelling in spellings(value):
            found = [path for path, data in held.items() if spelling in data]
            assert not found, (name, spelling, found)


@pytest.fixture
def governed(tracer: Tracer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tracer]:
    """A tracer that knows one governed secret; whatever the test did, the store holds none of the planted values."""
    monkeypatch.setenv("CLEW_TEST_GOVERNED", GOVERNED)
    assert clew.secret("CLEW_TEST_GOVERNED").value() == GOVERNED
    yield tracer
    clew.flush()
    faults = dict(tracer.faults.counts)
    clew.shutdown()
    assert_clean(tracer.folder.path)
    assert faults == {}


@clew.trace("take")
def take(*values: Any, **named: Any) -> Any:
    return values[0] if values else None


def test_the_detector_sees_what_is_planted(tracer: Tracer) -> None:
    """The test of the test: without redaction these very checks fail."""
    tracer.gate.cleaner.text = lambda text: text  # type: ignore[method-assign]
    take(PROSE)
    clew.shutdown()
    with pytest.raises(AssertionError, match="openai"):
        assert_clean(tracer.folder.path)


def test_arguments_and_results(governed: Tracer) -> None:
    take(PROSE, nested={"deep": [(PROSE,), {PROSE}, {"key": PROSE}]}, short=OPENAI, data=PROSE.encode())
    for value in PLANTED.values():
        if value not in (AWS_SECRET, PASSWORD):  # these two are secret by what stands before them
            take(value, [value], {value: value})
    take({"password": PASSWORD, "aws_secret_access_key": AWS_SECRET}, api_key=PASSWORD)


def test_a_parameter_that_says_it_is_secret(governed: Tracer) -> None:
    @clew.trace
    def login(user: str, password: str, *, api_key: str) -> str:
        return user

    assert login("ariadne", PASSWORD, api_key=AWS_SECRET) == "ariadne"
    with clew.trace("block") as block:
        block.used(PASSWORD, role="password")


def test_json_text_and_escapes(governed: Tracer) -> None:
    take(json.dumps({"text": PROSE, "nested": json.dumps({"again": PROSE})}))
    take("".join(f"\\u{ord(char):04x}" for char in OPENAI))
    take(PROSE.replace(":", "%3A").replace("/", "%2F").replace("@", "%40"))


def test_base64(governed: Tracer) -> None:
    for before in ("", "a", "ab"):
        take(base64.b64encode((before + PROSE).encode()).decode())
        take(f"Authorization: Basic {base64.b64encode(f'{before}:{OPENAI}'.encode()).decode()}")


def test_rows_and_files_of_a_dataset(governed: Tracer, tmp_path: Path) -> None:
    clew.dataset("rows", [{"id": "1", "text": PROSE, "short": OPENAI, "password": PASSWORD}], text="text", key="id")
    list(clew.dataset("texts", [PROSE, GITHUB]).documents())
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text(PROSE)
    (tmp_path / "docs" / "b.bin").write_bytes(b"\xff\xfe" + PROSE.encode())
    clew.dataset("files", "docs/*")
    clew.artifact("file", tmp_path / "docs" / "a.md", "one file")
    clew.artifact("prompt", PROSE, "prompt")


def test_content_of_more_than_a_megabyte(governed: Tracer) -> None:
    take("word " * 300_000 + PROSE)
    take(b"\xff" + os.urandom(1 << 20) + b" " + PROSE.encode() + b" ")


def test_an_exception_with_its_traceback(governed: Tracer) -> None:
    def fail(prefix: str) -> None:
        raise ValueError(prefix + PROSE)

    for prefix in ("", "x" * 1980):  # where the stored message is cut, no half of a key stays
        with pytest.raises(ValueError, match="Use"), clew.run("fails"):
            clew.trace(fail)(prefix)


@pytest.mark.parametrize("size", [1, 2, 5, 9, 30])
@pytest.mark.parametrize("form", ["text", "bytes", "dict", "object"])
def test_stream_chunks_that_split_a_key(governed: Tracer, size: int, form: str) -> None:
    class Chunk:
        def __init__(self, content: str) -> None:
            self.content = content

    make = {"text": str, "bytes": str.encode, "dict": lambda text: {"delta": {"content": text}}, "object": Chunk}[form]
    text = PROSE.replace(GOVERNED, "nothing") if size > 1 else PROSE
    chunks = [make(text[at : at + size]) for at in range(0, len(text), size)]

    @clew.trace("stream")
    def stream() -> Iterator[Any]:
        yield from chunks

    for _ in stream():
        pass
    take("".join(text[at : at + size] for at in range(0, len(text), size)))
    if form in ("text", "bytes"):
        take(chunks)
    clew.flush()
    with Reader(governed.folder.path) as reader:
        stored = str([slot.value for span in reader.spans() for slot in [*span.used, *span.generated]])
    assert "secret:" in stored


async def test_asynchronous_stream_chunks(governed: Tracer) -> None:
    @clew.trace("stream")
    async def stream() -> AsyncIterator[str]:
        for at in range(0, len(PROSE), 7):
            yield PROSE[at : at + 7]

    assert "".join([chunk async for chunk in stream()]) == PROSE


class Text(str):
    """Somebody's own kind of text."""


def test_what_stands_in_lists_and_bytes_under_a_secrets_name(governed: Tracer) -> None:
    theirs = trace.get_tracer("theirs")

    @clew.trace
    def log_in(password: Any, options: Any) -> None:
        pass

    for value in (PASSWORD, Text(PASSWORD), PASSWORD.encode(), [PASSWORD], ["user", (PASSWORD.encode(), 1)]):
        log_in(value, {"password": value, 1: {"auth_token": value}})
        log_in(None, [{1: 2, "api_key": value}])
        with clew.run("run", seeds={"password": value, "more": {"password": value}}) as run:
            run.output(value, "password")
    with theirs.start_as_current_span("login") as span:
        span.set_attribute("password", [PASSWORD])


def test_names_sessions_seeds_and_attributes(governed: Tracer) -> None:
    theirs = trace.get_tracer("theirs")
    for value in (OPENAI, GITHUB, AWS_ID, GOVERNED):
        with clew.run(f"run {value}", session=f"s-{value}", seeds={value: value}) as run:
            run.output(1, name="answer")
            with clew.trace(f"block {value}"), theirs.start_as_current_span(f"span {value}") as span:
                span.set_attribute("text", value)
                span.set_attribute(f"key {value}", [value])
                span.add_event(f"event {value}", {"v": value})
                span.record_exception(ValueError(value))
                span.set_status(trace.StatusCode.ERROR, value)
        clew.dataset(f"data {value}", ["x"])
        clew.artifact("model", {"a": 1}, f"model {value}")
    governed.faults.add(f"place {OPENAI}", ValueError(PROSE))


def test_a_fault_that_names_a_key(governed: Tracer) -> None:
    with clew.run("run"):
        governed.faults.add(f"place {OPENAI}", PROSE)


def test_the_command_line_code_and_environment_of_a_program(clean_tracing: None, tmp_path: Path) -> None:
    store = tmp_path / "store"
    script = tmp_path / "program" / "main.py"
    script.parent.mkdir()
    script.write_text(
        textwrap.dedent(
            f"""
            import sys, clew
            KEY = "{OPENAI}"
            URL = "postgresql://admin:{PASSWORD}@db.example.com/prod"
            clew.init("tests", store=sys.argv[1])
            with clew.run("run") as run:
                run.output(KEY)
            clew.flush()
            """
        )
    )
    (script.parent / "config.json").write_text(json.dumps({"aws_access_key_id": AWS_ID, "github": GITHUB}))
    (script.parent / ".env").write_text(PROSE)
    arguments = ["--key", GITHUB, f"--url=https://u:{PASSWORD}@host/", "--password", PASSWORD, f"--token={AWS_ID}"]
    environment = {**os.environ, "OPENAI_API_KEY": OPENAI, "CLEW_TEST_TOKEN": GOVERNED, "PYTHONHASHSEED": "1"}
    done = subprocess.run(
        [sys.executable, str(script), str(store), *arguments, GOVERNED],
        capture_output=True,
        text=True,
        check=False,
        cwd=script.parent,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert_clean(store)
    with clew.open(store) as reader:
        (run,) = reader.runs()
        assert reader.spans(run)[0].generated[0].value.startswith("secret:")


def test_two_secrets_stay_two_and_one_stays_one(tracer: Tracer, reader: Reader) -> None:
    other = "sk-proj-" + "Aa1Bb2Cc3Dd4Ee5Ff6Gg7" * 2
    for value in (OPENAI, OPENAI, other):
        take(f"{value} is the key")
    said = [span.used[0].value for span in reader.spans()]
    assert said[0] == said[1] != said[2]
