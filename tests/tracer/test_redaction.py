"""Redaction: no credential passes in any spelling, everything else passes untouched."""

from __future__ import annotations

import base64
import enum
import json
import random
import re
import string
import textwrap
from collections.abc import Callable
from threading import Thread
from urllib.parse import quote, quote_plus

import pytest
from blake3 import blake3
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from clew.tracer.credential import DEFAULT, Pattern
from clew.tracer.redaction import Redactor
from clew.tracer.secret import SecretRegistry

KEY = bytes(range(32))
PLACEHOLDER = re.compile("secret:[0-9a-f]{32}")
BASE62 = string.ascii_letters + string.digits
LOWER = string.ascii_lowercase + string.digits
HEX = "0123456789abcdef"

# Credentials are made at run time: a test file that holds one is found by every scanner, and none is real.
Made = tuple[str, str]  # a phrase and the secret in it


def made(seed: int, size: int, alphabet: str = BASE62) -> str:
    """Random like a credential, not like what hypothesis shrinks to; a letter and two digits are always in it."""
    chooser = random.Random(seed)
    body = [chooser.choice(alphabet) for _ in range(size)]
    body[1], body[size // 2], body[-2] = "a" if "a" in alphabet else "A", "7", "4"
    return "".join(body)


def alone(prefix: str, size: int, alphabet: str = BASE62) -> Callable[[int], Made]:
    def make(seed: int) -> Made:
        key = prefix + made(seed, size, alphabet)
        return key, key

    return make


def within(before: str, size: int, after: str = "", alphabet: str = BASE62) -> Callable[[int], Made]:
    def make(seed: int) -> Made:
        key = made(seed, size, alphabet)
        return before + key + after, key

    return make


def token(seed: int) -> Made:
    parts = [base64.urlsafe_b64encode(json.dumps({"alg": "HS256", "sub": made(seed, n)}).encode()) for n in (9, 30)]
    key = b".".join(part.rstrip(b"=") for part in parts).decode() + "." + made(seed, 43)
    return key, key


def private_key(seed: int) -> Made:
    body = "\n".join(textwrap.wrap(base64.b64encode(random.Random(seed).randbytes(600)).decode(), 64))
    head, foot = (f"-----{word} RSA PRIVATE KEY-----" for word in ("BEGIN", "END"))
    return f"{head}\n{body}\n{foot}", body[65:129]


FAMILIES: dict[str, Callable[[int], Made]] = {
    "openai": alone("sk-", 48),
    "openai-project": alone("sk-proj-", 100, BASE62 + "-_"),
    "openrouter": alone("sk-or-v1-", 64, HEX),
    "anthropic": alone("sk-ant-api03-", 90, BASE62 + "-_"),
    "aws-id": alone("AKIA", 16, string.ascii_uppercase + string.digits),
    "aws-session-id": alone("ASIA", 16, string.ascii_uppercase + string.digits),
    "aws-secret": within("aws_secret_access_key = ", 40, "\n", BASE62 + "+/"),
    "aws-secret-json": within('{"SecretAccessKey": "', 40, '"}', BASE62 + "+/"),
    "github": alone("ghp_", 36),
    "github-oauth": alone("gho_", 36),
    "github-server": alone("ghs_", 36),
    "github-user": alone("ghu_", 36),
    "github-fine-grained": alone("github_pat_", 82, BASE62 + "_"),
    "gitlab": alone("glpat-", 20),
    "slack": alone("xoxb-", 50, LOWER + "-"),
    "google": alone("AIza", 35, BASE62 + "-_"),
    "google-oauth": alone("ya29.", 120, BASE62 + "-_"),
    "hugging-face": alone("hf_", 34),
    "stripe": alone("sk_live_", 24),
    "stripe-restricted": alone("rk_live_", 24),
    "npm": alone("npm_", 36),
    "pypi": alone("pypi-", 150, BASE62 + "-_"),
    "sendgrid": lambda seed: 2 * (f"SG.{made(seed, 22)}.{made(seed + 1, 43)}",),
    "twilio": alone("SK", 32, HEX),
    "azure-storage": within("AccountName=somewhere;AccountKey=", 86, "==;EndpointSuffix=net", BASE62 + "+/"),
    "azure-signature": within("https://x.net/c?sv=2024&sig=", 43, "&se=2030", BASE62),
    "jwt": token,
    "bearer": within("Authorization: Bearer ", 40),
    "bearer-alone": within("curl -H 'bearer Bearer ", 40, "'"),
    "bearer-short": within("Authorization: Bearer ", 12),
    "basic": within("Authorization: Basic ", 24, "=="),
    "header-json": within('{"Authorization": "Bearer ', 32, '"}'),
    "private-key": private_key,
    "cut-private-key": lambda seed: (private_key(seed)[0][:-40], private_key(seed)[1]),
    "url": within("postgresql://somebody:", 12, "@db.example.org:5432/app"),
    "url-without-user": within("redis://:", 16, "@cache:6379/0"),
    "password": within("DB_PASSWORD=", 10, " # for the database"),
    "password-json": within('{"user": "somebody", "password": "', 10, '", "port": 5432}'),
    "password-with-signs": lambda seed: (f"password={made(seed, 9)}=a:b={made(seed + 1, 9)}.", made(seed + 1, 9)),
    "bot-token": lambda seed: (f"BOT_TOKEN=1234567890:{made(seed, 35)} # chat", made(seed, 35)),
    "password-yaml": within("database:\n  password: ", 12, "\n  port: 5432"),
    "password-code": within("connect(user='u', passwd='", 12, "')"),
    "password-annotated": within('api_key: str = "', 24, '"'),
    "secret-env": within('export CLIENT_SECRET="', 20, '"'),
    "secret-subscript": within("os.environ['OPENAI_API_KEY'] = '", 20, "'"),
    "token-header": within("X-Auth-Token: ", 24, "\r\n"),
    "query": within("https://api.example.org/v1/search?q=clew&api_key=", 20, "&page=2"),
    "flag": within("deploy --openai-api-key ", 32, " --verbose"),
}

SPELLINGS: dict[str, Callable[[str], str]] = {
    "plain": lambda phrase: phrase,
    "json": json.dumps,
    "json in json": lambda phrase: json.dumps({"body": json.dumps({"text": phrase})}),
    "json, escaped for html": lambda phrase: phrase.replace("/", "\\/").replace("=", "\\u003d").replace("&", "\\u0026"),
    "percent": lambda phrase: quote(phrase, safe=""),
    "percent, every character": lambda phrase: "".join(f"%{byte:02x}" for byte in phrase.encode()),
    "percent twice": lambda phrase: quote(quote(phrase, safe=""), safe=""),
    "base64": lambda phrase: base64.b64encode(phrase.encode()).decode(),
    "base64, second alignment": lambda phrase: base64.b64encode(b"\xff" + phrase.encode()).decode(),
    "base64, third alignment": lambda phrase: base64.b64encode(b"\xfa\xfb" + phrase.encode() + b"\xff").decode(),
    "base64, without padding": lambda phrase: base64.b64encode(phrase.encode()).decode().rstrip("="),
    "base64 for urls": lambda phrase: base64.urlsafe_b64encode(b"\xff\xfe" + phrase.encode() + b"\xff").decode(),
    "base64 in lines": lambda phrase: base64.encodebytes(b"\xff" * 50 + phrase.encode() + b"\xff" * 9).decode(),
    "base64 in a path": lambda phrase: "a/b/" + base64.b64encode(phrase.encode()).decode(),
    "base64 of an image with a comment": lambda phrase: base64.b64encode(
        random.Random(1).randbytes(3000) + phrase.encode() + random.Random(2).randbytes(3000)
    ).decode(),
    "base64 in percent": lambda phrase: quote(base64.b64encode(b"?>" + phrase.encode()).decode(), safe=""),
    "base64 in json": lambda phrase: json.dumps({"data": base64.b64encode(phrase.encode()).decode()}),
    "hex": lambda phrase: phrase.encode().hex(),
    "upper hex": lambda phrase: phrase.encode().hex().upper(),
}


def readings(text: str) -> str:
    """Everything that somebody could read in `text` by undoing one or two spellings, written differently than ours."""
    seen = [text]
    for _ in range(3):
        text = re.sub("%([0-9A-Fa-f]{2})", lambda match: chr(int(match[1], 16)), text)
        seen.append(text)
    seen.append(re.sub(r"\\u([0-9a-f]{4})", lambda match: chr(int(match[1], 16)), text).replace("\\", ""))
    for run in re.findall(r"[A-Za-z0-9+/_-]{16,}", text.replace("\\n", "").replace("\n", "")):
        for offset in range(4):
            part = run[offset:].replace("-", "+").replace("_", "/")
            seen.append(base64.b64decode(part[: len(part) // 4 * 4]).decode("latin-1"))
        for offset in range(2):
            hexadecimal = re.match("(?:[0-9a-fA-F]{2})*", run[offset:])
            seen.append(bytes.fromhex(hexadecimal[0] if hexadecimal else "").decode("latin-1"))
    return "\0".join(seen)


surroundings = st.text(st.sampled_from(" \n\t.,;()[]{}\"'\\%=:/+-_@abcdefXYZ0123456789äλ漢😀"), max_size=60)
borders = st.sampled_from([" ", "\n", "\t", ", ", " “", "😀 "])


@settings(deadline=None)
@given(
    st.sampled_from(sorted(FAMILIES)),
    st.sampled_from(sorted(SPELLINGS)),
    st.integers(0, 2**32),
    surroundings,
    borders,
    surroundings,
)
def test_no_credential_survives_in_any_spelling_and_position(
    family: str, spelling: str, seed: int, before: str, border: str, after: str
) -> None:
    phrase, key = FAMILIES[family](seed)
    text = before + border + SPELLINGS[spelling](phrase) + border + after
    redactor = Redactor(KEY)
    redacted = redactor.text(text)
    assert key not in readings(redacted)
    assert PLACEHOLDER.search(redacted)
    assert redactor.text(redacted) is redacted
    assert redactor.count >= 1
    assert redactor.data(text.encode()) == redacted.encode()


@pytest.mark.parametrize("spelling", sorted(SPELLINGS))
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_family_is_found_in_every_spelling(family: str, spelling: str) -> None:
    for seed in range(5):
        phrase, key = FAMILIES[family](seed)
        text = SPELLINGS[spelling](phrase)
        assert key not in readings(Redactor(KEY).text(text)), text


def test_every_default_pattern_is_needed_by_a_family() -> None:
    needed: set[str] = set()
    for make in FAMILIES.values():
        phrase, key = make(0)
        needed |= {pattern.name for pattern in DEFAULT for a, b in pattern.spans(phrase) if key[:8] in phrase[a:b]}
    assert {pattern.name for pattern in DEFAULT} - needed == {"slack-app", "aws-signature"}


values = st.text(min_size=6, max_size=60).filter(lambda value: len(value.strip()) >= 6 and value.isprintable())


@settings(deadline=None)
@given(values, st.sampled_from(sorted(SPELLINGS)), surroundings, borders, surroundings)
@example("hunter", "hex", "", " ", "")
@example("pässwörter", "base64, second alignment", "", " ", "")
@example("two words and more", "base64 for urls", "", " ", "")
@example('quote " and \\ slash', "json", "", " ", "")
def test_no_registered_value_survives_in_any_spelling(
    value: str, spelling: str, before: str, border: str, after: str
) -> None:
    # A line break can split what a run is known by, unless the run shows that it holds ASCII.
    assume(spelling != "base64 in lines" or (value.isascii() and len(value) >= 20))
    registry = SecretRegistry()
    registry.add(value)
    spelled = SPELLINGS[spelling](value)
    redactor = Redactor(KEY, secrets=registry)
    redacted = redactor.text(before + border + spelled + border + after)
    assert PLACEHOLDER.search(redacted)
    assert redactor.text(redacted) is redacted
    if spelled not in before + after:
        assert spelled not in PLACEHOLDER.sub("", redacted)


@pytest.mark.parametrize("spell", [quote, quote_plus, lambda value: quote_plus(value).lower(), json.dumps])
def test_a_registered_value_is_found_as_forms_and_clients_write_it(spell: Callable[[str], str]) -> None:
    value = 'pass phrase "ü" & more'
    registry = SecretRegistry()
    registry.add(value)
    redacted = Redactor(KEY, secrets=registry).text(f"before {spell(value)} after")
    assert PLACEHOLDER.sub("", redacted).replace('"', "") == "before  after"


def test_a_value_that_is_registered_later_is_found_by_the_same_redactor() -> None:
    registry = SecretRegistry()
    redactor = Redactor(KEY, secrets=registry)
    assert redactor.text("open sesame now") == "open sesame now"
    registry.add("open sesame")
    assert PLACEHOLDER.fullmatch(redactor.text("open sesame now").removesuffix(" now"))


UUID = "0197f3a2-5c41-7d3e-9b1a-2f6c8e4d7a90"
MADE_IDS = [UUID, f"run-{UUID}", f"run--{UUID}", f"lc_run--{UUID}", f"lc_run--{UUID}-0", f"run-{UUID}-9999"]


@pytest.mark.parametrize("made_id", MADE_IDS)
@pytest.mark.parametrize("secret", [UUID, UUID[9:], UUID[:8], UUID[-12:], None])
def test_what_looks_like_an_id_that_frameworks_make_is_redacted_where_it_holds_a_registered_value(
    secret: str | None, made_id: str
) -> None:
    registry = SecretRegistry()
    redactor = Redactor(KEY, secrets=registry)
    assert redactor.text(made_id) is made_id
    value = secret if secret is not None else made_id
    registry.add(value)
    redacted = redactor.text(made_id)
    assert value not in redacted
    assert PLACEHOLDER.search(redacted)
    assert redactor.text(redacted) is redacted
    assert value not in redactor.data(made_id.encode()).decode()


@pytest.mark.parametrize("made_id", MADE_IDS)
def test_an_id_that_frameworks_make_is_left_where_another_value_is_registered(made_id: str) -> None:
    registry = SecretRegistry()
    registry.add("open sesame")
    assert Redactor(KEY, secrets=registry).text(made_id) is made_id
    assert Redactor(KEY).named("password", made_id) != made_id  # where its place says that it is secret


def test_only_the_secret_part_goes() -> None:
    hidden = Redactor(KEY).text("postgresql://app:hunter22@db:5432/x password='hunter22' q=1&api_key=hunter22&page=2")
    mark = f"secret:{blake3(b'hunter22', key=KEY).hexdigest(16)}"
    assert hidden == f"postgresql://app:{mark}@db:5432/x password='{mark}' q=1&api_key={mark}&page=2"


def test_equal_secrets_get_equal_placeholders_and_different_ones_different() -> None:
    one, other = FAMILIES["openai"](1)[0], FAMILIES["openai"](2)[0]
    redactor = Redactor(KEY)
    assert redactor.text(one) == redactor.text(one)
    assert redactor.text(one) != redactor.text(other)
    assert redactor.text(f"password={one}") == f"password={redactor.text(one)}"
    assert redactor.text(f"k%3D{one}".replace("sk-", "sk%2D")) == f"k%3D{redactor.text(one)}"  # read, then hashed
    assert Redactor(bytes(32)).text(one) != redactor.text(one)


@settings(deadline=None)
@given(st.sets(st.integers(0, 2**32), min_size=2, max_size=20), st.sampled_from(sorted(FAMILIES)))
def test_redaction_never_makes_two_secrets_equal(seeds: set[int], family: str) -> None:
    redactor = Redactor(KEY)
    phrases = {FAMILIES[family](seed)[0] for seed in seeds}
    assert len({redactor.text(phrase) for phrase in phrases}) == len(phrases)


@settings(deadline=None)
@given(st.text(max_size=300))
def test_redaction_is_idempotent_on_any_text(text: str) -> None:
    redactor = Redactor(KEY)
    once = redactor.text(text)
    assert redactor.text(once) is once


@settings(deadline=None)
@given(
    st.lists(st.sampled_from([make(7)[0] for make in FAMILIES.values()] + ["=", ":", " ", "a", "secret:" + "0" * 32]))
)
def test_credentials_side_by_side_leave_nothing_and_the_rest_is_stable(parts: list[str]) -> None:
    redactor = Redactor(KEY)
    once = redactor.text("".join(parts))
    assert redactor.text(once) is once


def test_a_placeholder_after_a_telling_name_is_not_redacted_again() -> None:
    mark = "secret:" + "0123456789abcdef" * 2
    redactor = Redactor(KEY)
    for text in (mark, f"password={mark}", f'{{"token": "{mark}"}}', f"secret: {mark}", f"x {mark}{mark} y"):
        assert redactor.text(text) is text


def test_a_name_makes_a_lone_text_secret() -> None:
    redactor = Redactor(KEY)
    mark = f"secret:{blake3(b'hunter22', key=KEY).hexdigest(16)}"
    assert redactor.named("api_key", "hunter22") == mark
    assert redactor.named("api_key", mark) is mark
    assert redactor.named("Authorization", "Basic hunter22") == f"Basic {mark}"
    for name, text in (
        ("max_tokens", "hunter22"),
        ("token", "end of text 12"),
        ("key", "hunter22"),
        ("token", "short"),
    ):
        assert redactor.named(name, text) is text
    assert redactor.named("note", "password=hunter22") == f"password={mark}"


class Mine(str):
    """Somebody's own kind of text."""


class Scheme(str, enum.Enum):  # noqa: UP042 - before StrEnum, programs wrote it so
    BEARER = "bearer"


def test_a_name_makes_bytes_and_texts_in_lists_secret() -> None:
    redactor = Redactor(KEY)
    mark, odd = f"secret:{blake3(b'hunter22', key=KEY).hexdigest(16)}", b"\xffhunter22"
    for value, clean in (
        (b"hunter22", mark.encode()),
        (bytearray(b"Bearer hunter22"), b"Bearer " + mark.encode()),
        (odd, f"secret:{blake3(odd, key=KEY).hexdigest(16)}".encode()),
        (Mine("hunter22"), mark),
        (["hunter22", 7, "a word"], [mark, 7, "a word"]),
        (("user", [Mine("hunter22"), b"hunter22"]), ("user", [mark, mark.encode()])),
    ):
        assert redactor.named("password", value) == clean
        assert type(redactor.named("password", value)) is type(clean)
        assert redactor.named("passage", value) is value
    endless: list[object] = ["words alone"]
    endless.append(endless)
    for other in (
        ["a word", (1, b"another")],
        Mine("short"),
        Scheme.BEARER,
        b"short",
        22222222,
        {"hunter22": 1},
        endless,
    ):
        assert redactor.named("password", other) is other


def test_bytes_that_are_no_text_keep_everything_but_the_secret() -> None:
    key = FAMILIES["anthropic"](0)[0].encode()
    redacted = Redactor(KEY).data(b"\xff\x00\x80" + key + b"\x00\xfe")
    mark = f"secret:{blake3(key, key=KEY).hexdigest(16)}".encode()
    assert redacted == b"\xff\x00\x80" + mark + b"\x00\xfe"


def test_lone_surrogates_do_not_stop_the_gate() -> None:
    key = FAMILIES["openai"](0)[0]
    registry = SecretRegistry()
    registry.add("\ud800-broken-value")
    redacted = Redactor(KEY, secrets=registry).text(f"\udfff {key} \ud800-broken-value")
    assert key not in redacted
    assert "broken" not in redacted


def test_a_secret_in_stream_chunks_is_found_once_they_are_joined() -> None:
    key = FAMILIES["openai"](0)[0]
    chunks = [key[at : at + 5] for at in range(0, len(key), 5)]
    redactor = Redactor(KEY)
    assert [redactor.text(chunk) for chunk in chunks] == chunks
    assert key not in redactor.text("".join(chunks))


def test_threads_share_a_redactor_and_no_replacement_goes_uncounted() -> None:
    redactor = Redactor(KEY)
    text = FAMILIES["openai"](0)[0]
    threads = [Thread(target=lambda: [redactor.text(text) for _ in range(300)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert redactor.count == 1200


def test_the_policy_names_the_patterns_and_not_the_key() -> None:
    assert Redactor(KEY).policy == Redactor(bytes(32)).policy
    own = Pattern("internal", r"corp-[0-9]{8}", ("corp-",))
    assert Redactor(KEY, patterns=[*DEFAULT, own]).policy != Redactor(KEY).policy
    assert Redactor(KEY).policy.startswith("clew-redaction/")


def test_patterns_of_ones_own_replace_the_default() -> None:
    redactor = Redactor(KEY, patterns=[Pattern("internal", r"corp-(?P<secret>[0-9]{8})", ("corp-",))])
    assert PLACEHOLDER.fullmatch(redactor.text("corp-12345678").removeprefix("corp-"))
    assert redactor.text("password=hunter22") == "password=hunter22"


def test_a_key_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes, this one has 5"):
        Redactor(b"short")
