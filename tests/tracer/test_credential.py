"""What credentials look like: text that only resembles them passes untouched, and no text is slow to judge."""

from __future__ import annotations

import ast
import asyncio
import base64
import email
import http
import importlib.metadata
import json
import os
import random
import string
import urllib
import uuid
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clew.tracer.credential import Pattern, looks_random
from clew.tracer.redaction import Redactor

KEY = bytes(range(32))


@settings(deadline=None)
@given(st.text(st.sampled_from(string.ascii_letters + " \n.,;!?'()-äöüλ漢"), max_size=400))
def test_clean_text_is_returned_as_the_same_object(text: str) -> None:
    assert Redactor(KEY).text(text) is text


CLEAN = [
    "The token: the model reads one at a time. A password: the thing you forget. Secret: nobody knows.",
    "max_tokens=100, temperature=0.2, top_p=0.95, seed=1234567890, api_version=2024-10-21",
    "token: str = field(default='')\npassword: Optional[str] = None\nsecret: bytes\ntoken: uint64_t",
    "token = get_token()\npassword = getpass.getpass('Password: ')\nsecret = secrets.token_hex(32)",
    'api_key = os.environ["OPENAI_API_KEY"]\napi_key=settings.openai_key_2\ntoken=tokens[0]\ntoken=self.token2',
    'headers = {"Authorization": f"Bearer {token}"}\npassword="${DB_PASSWORD_1}"\ntoken: <your-token-1>',
    '{"pad_token": "<|endoftext|>", "token": "hello world 12", "total_tokens": 123456, "token_type": "bearer"}',
    "the key-value store, sk-learn, sk-estimator-doc-link-fitted-and-more, a task-force-of-many-people-in-2024",
    "secret=base64_encode, password=sha512_crypt1, token=2024-10-21T10:00:00, password=********",
    "mailto:somebody@example.org https://user@example.org/ https://host:8080/a@b http://joe:password@example.com/",
    "git@github.com:langchain-ai/langgraph.git rev 4f0c1d2e3a4b5c6d7e8f90123456789012345678",
    "A PEM file starts with -----BEGIN RSA PRIVATE KEY----- and ends with -----END RSA PRIVATE KEY-----.",
    '{"next_page_token": "CAUQAA2x9Tz8k", "continuation-token": "0a1b2c3d4e5f"}',
    'token = r"[-!#$%&*+.^_`|~0-9a-zA-Z]+" password: AuthAwsSandboxesSandboxAwsMountSecretAccessKey',
    "AAEAAAAAwAaAKIAAQAAAAAABAAHAM0AAQAAAAA",
    "/usr/lib/python3.11/site-packages/langchain_core/language_models/chat_models.py:123",
    'Content-Type: application/json; charset=utf-8\r\nETag: W/"5f3-18a2b3c4d5e"\r\nX-Request-Id: 0f1e2d3c',
    "100%25 of %7Busers%7D said%20so; C:\\\\new\\u0041 \\/ path",
]


@pytest.mark.parametrize("text", CLEAN)
def test_prose_and_code_that_only_speak_of_secrets_pass(text: str) -> None:
    assert Redactor(KEY).text(text) is text


def test_identifiers_digests_and_images_pass() -> None:
    redactor = Redactor(KEY)
    chooser = random.Random(3)
    for _ in range(500):
        plain = uuid.UUID(int=chooser.getrandbits(128))
        digest = chooser.randbytes(32).hex()
        text = json.dumps(
            {"id": str(plain), "hex": plain.hex, "digest": f"b3:{digest}", "sha": digest[:40], "run": f"run-{plain}"}
        )
        assert redactor.text(text) is text
    image = "data:image/png;base64," + base64.b64encode(chooser.randbytes(1 << 20)).decode()
    assert redactor.text(image) is image
    small = base64.b64encode(chooser.randbytes(300)).decode()
    assert redactor.text(small) is small
    vector = chooser.randbytes(1 << 16)
    assert redactor.data(vector) is vector


def test_base64_of_ordinary_text_passes() -> None:
    encoded = base64.b64encode(b"The quick brown fox jumps over the lazy dog. " * 20).decode()
    assert Redactor(KEY).text(encoded) is encoded


def test_the_standard_library_passes_untouched() -> None:
    """Over all 799 files (12.6 MB) of CPython 3.11 outside its tests there was no hit; these few run in each test."""
    redactor = Redactor(KEY)
    files = [
        path
        for module in (json, http, email, asyncio, urllib, importlib.metadata)
        for path in sorted(Path(module.__file__ or "").parent.glob("*.py"))
    ]
    files += [Path(ast.__file__), Path(os.__file__), Path(uuid.__file__), Path(random.__file__)]
    assert len(files) > 50
    for path in files:
        redactor.text(path.read_text("utf-8"))
    assert redactor.count == 0


@pytest.mark.parametrize(
    "piece",
    [
        "password=", 'password="', "token: ", '"secret": "', "sk-", "eyJ", "eyJ.", "xoxb-", "://", "://a:", "://a:b@",
        "@", "-", "--", "-----BEGIN PRIVATE KEY-----", "-----BEGIN RSA PRIVATE KEY-----\nDEK-Info: ", "A", "AKIA",
        "SG.", " ", "  a", "\\", '\\"', "\\n", "%41", "%", "\\u0041", "7a", "c2st", "SGVsbG8g", "\n", "a\n", "=", ":",
        " =", "ya29.", "Bearer ", "--key ", "password=a1b2c3d4e5", "secret:", "secret:" + "0" * 32,
    ],
)  # fmt: skip
def test_hostile_repetition_takes_linear_time(piece: str) -> None:
    """Quadratic work on 300,000 characters would take minutes to hours; that this ends is the test."""
    redactor = Redactor(KEY)
    text = (piece * (300_000 // len(piece)))[:300_000]
    redactor.text(text)
    redactor.text(text + "!")


def test_values_are_judged_by_their_looks() -> None:
    assert looks_random("Passw0rd!", quoted=True)
    assert looks_random("aGhTyUiOpQwErTzX", quoted=False)
    assert looks_random("/aAfxfwjFdkE9/ZgviWJ1CCkR81GXTliiQ+oAQQD", quoted=False)
    words = ["HttpRequestHandler", "RuleAwsSandboxesProxyAwsStaticConfig", "get_token", "incorrect-password"]
    paths = ["/usr/share/documentation/projects/examples/notes1", "./a1b2c3d4", "https://example.org/a1"]
    for word in [*words, *paths, "0x7f3a2b10", "1.234e-10", "2024-10-21T10:00:00", "settings.key2"]:
        assert not looks_random(word, quoted=False)


def test_a_pattern_without_anchors_is_refused() -> None:
    with pytest.raises(ValueError, match="'x' has no anchors"):
        Pattern("x", "x+", ())
