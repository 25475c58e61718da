"""The gate: content becomes artifacts once, redacted, and a value that changed is seen to have changed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clew.store import blob
from clew.store.digest import Digest, Domain, storable, text_digest
from clew.store.encoding import register_item
from clew.store.errors import StoreUnwritable
from clew.store.folder import Folder
from clew.store.log import Log
from clew.store.record import RecordType
from clew.store.segment import SegmentFile
from clew.tracer.capture import Batch
from clew.tracer.constant import Constant, Fixed
from clew.tracer.gate import Clean, Gate
from clew.tracer.redaction import Redactor
from clew.tracer.secret import SecretRegistry

LONG = "a text that is long enough to be stored as content of its own, far beyond sixty-four characters"
PASSWORD = "pQ7xL2vN9wR4tY6u"
KEY = "sk-proj-" + "aB3dE5gH7jK9mN1pQ3sT5vX7z" * 2


class Message:
    def __init__(self, text: str, facts: dict[str, Any]) -> None:
        self.text = text
        self.facts = facts


register_item(Message, "message", lambda it: {"text": it.text, "facts": it.facts})


def gate_of(folder: Folder, *, content: bool = True) -> Gate:
    log = Log(folder.log, process_id=b"p" * 16)
    return Gate(log, Redactor(b"k" * 32, secrets=SecretRegistry()), folder.blob, content=content)


@pytest.fixture
def gate(folder: Folder) -> Iterator[Gate]:
    made = gate_of(folder)
    yield made
    made.log.close()


def blobs(gate: Gate) -> list[Digest]:
    """The digests of the blobs that the log holds, in order."""
    if gate.log.stem is None:
        return []
    file = SegmentFile(gate.log.stem)
    found = [Digest(frame.payload[1:33]) for frame in file.frames() if frame.type == RecordType.BLOB]
    file.close()
    return found


def test_what_was_written_is_not_written_again(gate: Gate) -> None:
    for _ in range(3):
        batch = Batch(gate)
        assert batch.part(LONG) == (Domain.TEXT, text_digest(LONG))
        batch.part({"nested": [LONG]})
        batch.commit()
    assert blobs(gate).count(text_digest(LONG)) == 1
    assert len(blobs(gate)) == 2


def test_a_batch_that_could_not_be_written_is_written_by_the_next(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = Batch(gate)
    batch.part(LONG)
    monkeypatch.setattr(gate.log, "_folder", gate.log._folder / "no" / "such" / "folder")
    with pytest.raises(StoreUnwritable):
        batch.commit()
    monkeypatch.undo()
    again = Batch(gate)
    again.part(LONG)
    again.commit()
    assert blobs(gate) == [text_digest(LONG)]


def test_a_list_that_grows_stores_only_what_is_new(gate: Gate) -> None:
    messages = [f"{turn} {LONG}" for turn in range(20)]
    for end in range(21):
        batch = Batch(gate)
        batch.chain(messages[:end])
        batch.commit()
    assert len(blobs(gate)) == 20 + 20  # a text and a link for each message


@pytest.mark.parametrize(
    "change",
    [
        lambda message: setattr(message, "text", "other"),
        lambda message: message.facts.update(new=1),
        lambda message: message.facts["deep"].append(2),
        lambda message: message.facts["deeper"]["down"].update(here=1),
        lambda message: message.facts.clear(),
    ],
)
def test_an_item_that_changed_in_place_has_another_digest(gate: Gate, change: Any) -> None:
    message = Message(LONG, {"deep": [1], "deeper": {"down": {}}})
    batch = Batch(gate)
    before = batch.part(message)
    batch.commit()
    assert Batch(gate).part(message) == before
    change(message)
    after = Batch(gate).part(message)
    assert after != before
    assert Batch(gate).part(Message(message.text, message.facts)) == after


def test_an_item_that_holds_an_array_or_itself_is_captured(gate: Gate) -> None:
    message = Message(LONG, {"array": np.zeros(3)})
    message.facts["array_list"] = [np.zeros(2), np.ones(2)]
    own = Message(LONG, {})
    own.facts["own"] = own.facts
    for each in (message, own):
        for _ in range(2):
            batch = Batch(gate)
            batch.part([each, each])
            batch.commit()
    message.facts["array"] = np.ones(3)
    assert Batch(gate).part(message)[0] is Domain.VALUE


def test_content_of_more_than_a_megabyte_is_a_file(gate: Gate, folder: Folder) -> None:
    batch = Batch(gate)
    _, name = batch.part("y" * (blob.FILE_BYTES + 1))
    batch.commit()
    assert blob.file_path(folder.blob, name).exists()
    assert blobs(gate) == []


def test_an_item_that_another_thread_changes_and_changes_back_while_its_file_is_written_has_its_own_digest(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = Message("y" * (blob.FILE_BYTES + 1), {"status": "idle"})
    expected = Batch(Gate(gate.log, gate.cleaner, gate.blob_folder, content=False)).part(message)
    write = blob.write_file

    def slow(*given: Any) -> Any:
        message.facts["status"] = "busy"  # as it may be while the file is written; the facts are read after the text
        return write(*given)

    monkeypatch.setattr(blob, "write_file", slow)
    batch = Batch(gate)
    batch.part(message)
    message.facts["status"] = "idle"
    batch.commit()
    monkeypatch.undo()
    for _ in range(3):
        batch = Batch(gate)
        assert batch.part(message) == expected
        batch.commit()
    assert gate.items.of(message) == expected[1]  # it was remembered when it was met again


def test_an_item_that_is_changed_while_it_is_encoded_and_back_before_it_is_written_has_its_own_digest(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = Message(LONG, {"status": "idle"})
    expected = Batch(Gate(gate.log, gate.cleaner, gate.blob_folder, content=False)).part(message)
    batch = Batch(gate)
    text = batch.text

    def slow(given: str) -> bytes:
        message.facts["status"] = "busy"  # as it may be while a text is hashed
        return text(given)

    monkeypatch.setattr(batch, "text", slow)
    batch.part(message)
    message.facts["status"] = "idle"
    batch.commit()
    assert Batch(gate).part(message) == expected


def test_without_content_there_are_digests_alone(folder: Folder) -> None:
    full, bare = gate_of(folder), gate_of(folder, content=False)
    value = {"a": [LONG, Message(LONG, {"b": b"x" * 999})], "c": np.zeros(9)}
    batches = Batch(full), Batch(bare)
    assert batches[0].part(value) == batches[1].part(value)
    assert batches[0].part([LONG, value]) == batches[1].part([LONG, value])
    batches[1].commit()
    assert len(blobs(bare)) == 2  # the links of the list, which hold digests
    full.log.close()
    bare.log.close()


def test_content_that_one_batch_left_out_is_written_when_another_brings_it(gate: Gate) -> None:
    """A dataset by digest alone must not keep a retriever's document of the same text out of the store."""
    batch = Batch(gate)
    batch.content = False
    batch.part({"text": LONG})
    batch.part(Message(LONG, {}))
    batch.part(LONG)
    batch.commit()
    assert blobs(gate) == []
    again = Batch(gate)
    again.part(Message(LONG, {}))
    again.part(LONG)
    again.commit()
    assert text_digest(LONG) in blobs(gate)
    assert len(blobs(gate)) == 2


def test_attributes_are_plain_and_redacted_whatever_they_were(gate: Gate) -> None:
    class Hostile:
        def __str__(self) -> str:
            raise RuntimeError

    cycle: list[Any] = []
    cycle.append(cycle)
    batch = Batch(gate)
    found = batch.attributes(
        {
            "text": "plain",
            "none": None,
            "numbers": (1, 2.5, True),
            "huge": 2**70,
            "nan": math.nan,
            "surrogate": "a\ud800b",
            "nul": "a\0b",
            "key": f"with {KEY} inside",
            "nested": {"api_key": "pQ7xL2vN9wR4tY6u", 1: {KEY: [KEY]}},
            "hostile": Hostile(),
            "cycle": cycle,
            "clean": Clean("own"),
            "digest": text_digest("x"),
        }
    )
    assert KEY not in str(found)
    assert "pQ7xL2vN9wR4tY6u" not in str(found)
    assert found["numbers"] == [1, 2.5, True]
    assert (found["surrogate"], found["nul"], found["huge"]) == ("a\\ud800b", "a\\x00b", hex(2**70))
    assert found["hostile"].endswith("Hostile")
    assert "none" not in found
    assert type(found["clean"]) is str
    assert found["digest"] == text_digest("x")
    batch.record(batch_of_attributes(found))
    batch.commit()


@pytest.mark.parametrize(
    "value",
    [
        {"password": PASSWORD, 3: "y"},
        {3: "y", "password": PASSWORD},
        {None: 1, b"x": 2, (1, 2): 3, "api_key": PASSWORD},
        {"outer": {"password": PASSWORD, 3: {"token": PASSWORD}}},
        [{"password": PASSWORD, 3: "y"}, {3.5: [{"secret": PASSWORD, True: False}]}],
        {"password": PASSWORD, "\ud800": "a key that has no UTF-8"},
        Message("text", {"password": PASSWORD, 3: "y"}),
    ],
)
def test_a_name_says_that_its_text_is_secret_whatever_the_names_beside_it_are(gate: Gate, value: Any) -> None:
    batch = Batch(gate)
    domain, name = batch.part(value)
    attributes = batch.attributes({"a": value, "b": (value,)})
    batch.record(batch_of_attributes(attributes))
    batch.commit()
    assert gate.log.stem is not None
    data = gate.log.stem.with_name(gate.log.stem.name + ".log").read_bytes()
    assert PASSWORD.encode() not in data
    assert b"secret:" in data
    assert Batch(gate).part(value) == (domain, name)
    assert batch.complete


def batch_of_attributes(found: dict[str, Any]) -> Any:
    from clew.store.record import SpanEnd

    return SpanEnd(b"t" * 16, b"s" * 8, 1, "ok", attributes=found)


@pytest.mark.parametrize("piece", [1, 3, 7, 20])
def test_a_key_split_over_the_items_of_a_list_is_not_stored(gate: Gate, folder: Folder, piece: int) -> None:
    text = f"the key is {KEY} and that is all"
    pieces = [text[at : at + piece] for at in range(0, len(text), piece)]
    batch = Batch(gate)
    batch.part(pieces)
    batch.part([one.encode() for one in pieces])
    batch.commit()
    assert gate.log.stem is not None
    data = gate.log.stem.with_name(gate.log.stem.name + ".log").read_bytes()
    assert KEY[-piece:].encode() not in data or piece == 1
    assert data.count(b"secret:") == 2


def test_a_list_without_secrets_keeps_its_items(gate: Gate) -> None:
    batch = Batch(gate)
    assert batch.chain(["a", "b", "", "c" * 300, "d"]) == Batch(gate).chain(iter(["a", "b", "", "c" * 300, "d"]))
    batch.commit()
    assert len(blobs(gate)) == 5 + 5


def captured(gate: Gate, values: list[Any]) -> bytes:
    batch = Batch(gate)
    name = batch.chain(values)
    batch.commit()
    return name


@pytest.mark.parametrize("texts", [["one"], ["one", LONG], ["on", "e" + LONG], ["one", "one", ""]])
def test_a_list_of_texts_that_is_met_again_has_the_digest_of_the_first_time(
    gate: Gate, tmp_path: Path, texts: list[str]
) -> None:
    met = [captured(gate, list(texts)) for _ in range(4)]
    assert set(met) == {captured(gate_of(Folder(tmp_path / "other", create=True)), texts)}
    assert tuple(texts) in gate.text_lists
    changed = [*texts, "more"]
    assert captured(gate, changed) == Batch(gate).chain(changed) != met[0]


class Word(str):
    pass


@pytest.mark.parametrize("odd", [Word("two"), b"two", 2, None, ["two"]])
def test_a_list_that_holds_more_than_texts_is_no_list_of_texts(gate: Gate, odd: Any) -> None:
    plain = {captured(gate, ["one", "two"]) for _ in range(3)}
    assert {captured(gate, ["one", odd]) for _ in range(3)}.isdisjoint(plain)


def test_a_list_of_texts_is_not_remembered_before_all_of_it_is_in_the_log(gate: Gate) -> None:
    texts = ["one", LONG]
    for _ in range(3):
        batch = Batch(gate)
        batch.content = False  # as of a dataset that is kept as digests
        batch.chain(texts)
        batch.commit()
    assert text_digest(LONG) not in blobs(gate)
    captured(gate, texts)
    assert text_digest(LONG) in blobs(gate)


def test_a_secret_that_becomes_known_is_redacted_in_a_list_that_was_met_before(gate: Gate) -> None:
    texts = ["one", f"the password is {PASSWORD}"]
    before = {captured(gate, texts) for _ in range(4)}
    gate.secrets.add(PASSWORD)
    after = {captured(gate, texts) for _ in range(4)}
    assert len(before) == len(after) == 1
    assert before != after


def test_lists_of_texts_are_remembered_up_to_a_bound(gate: Gate) -> None:
    for number in range(300):
        for _ in range(2):
            captured(gate, ["one", str(number)])
    assert 0 < len(gate.text_lists) <= 256
    long = ["x" * 20_000]
    for _ in range(3):
        captured(gate, long)
    assert tuple(long) not in gate.text_lists


def test_a_storable_text_is_what_every_part_of_the_store_can_hold() -> None:
    assert storable("Grüße 🧶\n") == "Grüße 🧶\n"
    assert storable("\ud800\0") == "\\ud800\\x00"


def test_a_secret_that_is_registered_late_is_redacted_from_then_on(folder: Folder) -> None:
    secrets = SecretRegistry()
    gate = Gate(Log(folder.log, process_id=b"p" * 16), Redactor(b"k" * 32, secrets=secrets), folder.blob)
    message = Message(f"{LONG} correct-horse", {"note": "correct-horse"})
    for value in (message, message.text, {"q": "correct-horse"}, ["correct-horse", "b"]):
        batch = Batch(gate)
        before = batch.part(value)
        batch.commit()
        secrets.add("correct-horse")
        assert Batch(gate).part(value) != before
        secrets._values = ()
        secrets.version += 1
    gate.log.close()


def test_a_slot_that_was_remembered_is_the_slot_that_is_made(gate: Gate) -> None:
    constant = Constant({"name": "calc", "description": LONG})
    given: list[tuple[Any, ...]] = [
        ("q", "value", LONG),
        ("q", "value", "short"),
        ("api_key", "value", PASSWORD),
        ("note", "value", KEY),
        ("tool", "tool", constant, "calc"),
        ("tools", "tool", "calc", "calc"),
        ("docs", "value", [LONG, "short"]),
        ("api_key", "value", [PASSWORD]),
        ("message", "value", LONG, None, {"index": 1}),
    ]
    made = [Batch(gate).slot(one) for one in given]
    for _ in range(3):
        batch = Batch(gate)
        assert batch.slots(given) == made
        batch.commit()
    assert set(gate.slots) == {one for one in given[:6] if one[2] != PASSWORD}


@pytest.mark.parametrize("forgetful", ["a new secret", "forget"])
def test_no_slot_outlives_what_is_known_to_be_clean_and_written(gate: Gate, forgetful: str) -> None:
    given = ("q", "value", f"the word is {PASSWORD}")
    for _ in range(2):
        batch = Batch(gate)
        before = batch.slots([given])
        batch.commit()
    assert gate.slots
    gate.secrets.add(PASSWORD) if forgetful == "a new secret" else gate.forget()
    after = Batch(gate).slots([given])
    assert (after == before) == (forgetful == "forget")
    assert not gate.slots


def test_a_slot_whose_text_could_not_be_written_is_not_remembered(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate.log, "_folder", gate.log._folder / "no" / "such" / "folder")
    for _ in range(2):
        batch = Batch(gate)
        batch.slots([("q", "value", LONG)])
        with pytest.raises(StoreUnwritable):
            batch.commit()
    assert not gate.slots


def test_fixed_attributes_are_cleaned_once_and_as_any_others(gate: Gate) -> None:
    fixed = Fixed({"langgraph.triggers": [f"key {KEY}"], "api_key": PASSWORD, "none": None, "step": 1})
    made = Batch(gate).attributes(fixed)
    assert KEY not in str(made)
    assert PASSWORD not in str(made)
    assert Batch(gate).fixed(fixed) == made
    assert Batch(gate).fixed(fixed) is Batch(gate).fixed(fixed)
    gate.secrets.add("langgraph")
    assert Batch(gate).fixed(Fixed(fixed)) == Batch(gate).attributes(fixed)


def test_a_batch_begun_before_a_secret_was_known_teaches_the_gate_nothing(gate: Gate) -> None:
    given = [
        ("small", "value", {"extra": {"t": PASSWORD}}),
        ("text", "value", f"{LONG} {PASSWORD}"),
        ("list", "value", [f"{LONG} {PASSWORD}"]),
        ("item", "value", Message(PASSWORD, {"deep": {"t": PASSWORD}})),
    ]
    Batch(gate).slots([("names", "value", {"extra": {"t": "x"}, "facts": {"deep": {}}})])
    old = Batch(gate)
    old.inline(PASSWORD)  # it was no secret then
    gate.secrets.add(PASSWORD)
    Batch(gate).commit()  # refreshes the gate
    old.slots(given)
    old.commit()
    fresh = gate_of_same(gate)
    assert Batch(gate).slots(given) == Batch(fresh).slots(given)


def gate_of_same(gate: Gate) -> Gate:
    """Another gate with the same secrets, which has met nothing."""
    return Gate(gate.log, gate.cleaner, gate.blob_folder)


def test_a_batch_in_use_while_a_secret_becomes_known_is_renewed(gate: Gate) -> None:
    batch = Batch(gate)
    batch.content = False
    batch.part(LONG)
    assert batch.renewed() is batch
    gate.secrets.add(PASSWORD)
    other = batch.renewed()
    assert other is not batch
    assert not other.content
    assert other.current
    assert not batch.frames


def test_a_constant_that_is_captured_in_part_is_that_each_time(gate: Gate) -> None:
    constant = Constant({"callback": object()})
    found = []
    for _ in range(3):
        batch = Batch(gate)
        batch.slots([("model", "model", constant)])
        batch.commit()
        found.append(batch.complete)
    assert found == [False] * 3


def test_what_a_deleted_segment_held_is_not_known_through_an_item(gate: Gate) -> None:
    gate.log.removed = lambda stem: gate.forget()
    for value in (LONG, Message(LONG, {}), Message(LONG, {}), Message(LONG, {})):
        batch = Batch(gate)
        batch.part(value)
        batch.commit()
        if value is LONG:
            assert gate.log.stem is not None
            gate.log.stem.with_name(gate.log.stem.name + ".log").unlink()
            gate.log._look_at = 0.0
    assert text_digest(LONG) in blobs(gate)
