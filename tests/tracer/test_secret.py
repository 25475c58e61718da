"""Governed secrets: named, read when needed, never shown, and registered for redaction as soon as they were read."""

from __future__ import annotations

import copy
import json
import pickle
from threading import Thread

import pytest
from blake3 import blake3

from clew.tracer.redaction import Redactor
from clew.tracer.secret import Secret, SecretRegistry, default_registry, secret


def made_up(seed: str) -> str:
    return blake3(seed.encode()).hexdigest(20)


def test_a_value_is_read_when_needed_and_so_follows_a_rotation(monkeypatch: pytest.MonkeyPatch) -> None:
    key = secret("CLEW_TEST_API_KEY")
    monkeypatch.setenv("CLEW_TEST_API_KEY", made_up("old"))
    assert key.value() == made_up("old")
    monkeypatch.setenv("CLEW_TEST_API_KEY", made_up("new"))
    assert key.value() == made_up("new")


def test_a_rotated_value_stays_redacted() -> None:
    values = iter([made_up("first"), made_up("second")])
    registry = SecretRegistry()
    key = Secret("rotating", registry=registry, reader=lambda: next(values))
    redactor = Redactor(bytes(32), secrets=registry)
    old, new = key.value(), key.value()
    redacted = redactor.text(f"old {old} and new {new}")
    assert old not in redacted
    assert new not in redacted


def test_a_value_is_redacted_from_the_moment_it_was_read() -> None:
    registry = SecretRegistry()
    key = Secret("k", registry=registry, reader=lambda: "correct horse battery")
    redactor = Redactor(bytes(32), secrets=registry)
    text = "say correct horse battery to enter"
    assert redactor.text(text) is text
    key.value()
    assert "horse" not in redactor.text(text)


def test_nothing_that_prints_a_secret_shows_its_value() -> None:
    key = Secret("DB_PASSWORD", registry=SecretRegistry(), reader=lambda: made_up("db"))
    key.value()
    shown = [repr(key), str(key), f"{key}", f"{key:>40}", "%s" % key, f"{[key]}"]  # noqa: UP031
    assert {text.strip("[]") for text in shown} == {"<secret DB_PASSWORD>"}


def test_secrets_are_equal_by_name_and_are_copied_as_themselves() -> None:
    registry = SecretRegistry()
    key = Secret("A", registry=registry, reader=lambda: "one-value")
    assert key == Secret("A", registry=registry, reader=lambda: "other-value")
    assert key != Secret("B", registry=registry)
    assert key != "A"
    assert len({key, Secret("A", registry=registry)}) == 1
    assert copy.copy(key) is key
    assert copy.deepcopy([key])[0] is key


def test_neither_a_secret_nor_a_registry_leaves_the_process() -> None:
    for held in (Secret("A", registry=SecretRegistry()), SecretRegistry()):
        with pytest.raises(TypeError, match="not picklable"):
            pickle.dumps(held)
        with pytest.raises(TypeError):
            json.dumps(held)


def test_a_secret_without_a_value_says_where_it_was_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLEW_TEST_MISSING", raising=False)
    with pytest.raises(ValueError, match="'CLEW_TEST_MISSING' has no value: the environment variable is not set"):
        secret("CLEW_TEST_MISSING").value()
    with pytest.raises(ValueError, match="its reader returned nothing"):
        secret("vault", reader=lambda: "").value()
    with pytest.raises(ValueError, match="needs a name"):
        secret("")


@pytest.mark.parametrize(
    "name",
    ["OPENAI_API_KEY", "HF_TOKEN", "CLIENT_SECRET", "PGPASSWORD", "db_password", "SIGNING_KEY", "APIKEY", "GITHUB_PAT"],
)
def test_variables_that_are_named_like_credentials_are_registered(name: str) -> None:
    assert SecretRegistry.from_environment({name: made_up(name)}).values == (made_up(name),)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PATH", "/usr/bin:/bin"),
        ("PWD", "/home/somebody/work1"),
        ("TOKENIZERS_PARALLELISM", "false-positive"),
        ("SORT_KEY", "created_at_2"),
        ("SSH_PUBLIC_KEY", made_up("public")),
        ("PAD_TOKEN", "<|endoftext|>"),
        ("DB_PASSWORD", "postgres"),  # a word that stands in every second text
        ("SECRET_KEY", "12345678901"),
        ("TLS_KEY", __file__),  # where a key is, not the key
    ],
)
def test_settings_that_are_no_credentials_stay_out_of_the_registry(name: str, value: str) -> None:
    assert SecretRegistry.from_environment({name: value}).values == ()


def test_the_password_of_an_address_in_the_environment_is_registered() -> None:
    password = made_up("address")
    registry = SecretRegistry.from_environment({"DATABASE_URL": f"postgresql://app:{password}@db:5432/app"})
    assert registry.values == (password,)


def test_scanning_again_adds_what_a_dotenv_file_brought() -> None:
    registry = SecretRegistry.from_environment({"A_KEY": made_up("a")})
    assert registry.scan({"A_KEY": made_up("a"), "B_KEY": made_up("b")}) == 1
    assert registry.version == 2


def test_short_values_are_not_registered_and_known_ones_only_once() -> None:
    registry = SecretRegistry()
    assert not registry.add("12345")
    assert registry.add("123456")
    assert not registry.add("123456")
    assert repr(registry) == "<SecretRegistry of 1 values>"


def test_threads_register_without_losing_a_value() -> None:
    registry = SecretRegistry()
    values = [[f"thread-{n}-value-{i}" for i in range(200)] for n in range(4)]
    threads = [Thread(target=lambda mine=mine: [registry.add(value) for value in mine]) for mine in values]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(registry.values) == sorted(value for mine in values for value in mine)


def test_the_process_has_one_registry() -> None:
    assert default_registry() is default_registry()
    key = secret("vault", reader=lambda: made_up("shared"))
    key.value()
    assert made_up("shared") in default_registry().values
