"""The remote: blobs and actions of many machines in one bucket.

cas/ab/<hex digest>   a blob, as in a store's file (blob.py); verified on every read
ac/<hex key>          an action: format, signature, and what was signed: the digests of the blobs it needs, its bytes

Whoever can write to the bucket can plant an object. A blob is held to its digest; an action has none, so it is signed:
keyed BLAKE3 over its key and content, with a secret (`token`) that those share who may say what the answer to a call is.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec
from blake3 import blake3

from clew.store.blob import pack, unpack, verified
from clew.store.bucket import Bucket, TooLarge
from clew.store.digest import Digest, Domain, digest
from clew.store.errors import CorruptBlob, StoreError, StoreUnwritable
from clew.store.refusal import Refusals

BLOB_BYTES = 512 << 20
ACTION_BYTES = 4 << 20
MIN_TOKEN_BYTES = 16
_DIGEST_BYTES = 32
_HEADER_BYTES = 2  # a blob's domain and form
_FORMAT = b"\1"
_UNSIGNED = bytes(_DIGEST_BYTES)
_MAX_REMEMBERED = 100_000


class Action(msgspec.Struct, array_like=True, frozen=True):
    """What a call came to: `data` as its caller encoded it, and the blobs without which it is worth nothing."""

    blobs: list[bytes]
    data: bytes


_decode = msgspec.msgpack.Decoder(Action).decode
_encode = msgspec.msgpack.Encoder(enc_hook=bytes).encode  # the hook meets only Digest, which is bytes


class Remote:
    """Blobs by digest and actions by key, in the bucket at `url` (bucket.py says which and what `options` are).

    Without a `token` nobody vouches for the actions: only ``file://`` is taken so, others if `unsigned` says it is meant.
    Every method may raise RemoteUnavailable. Threads may share a remote.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | bytes | None = None,
        unsigned: bool = False,
        limit_bytes: int = BLOB_BYTES,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        if token is None and not unsigned and not url.startswith("file://"):
            raise ValueError(
                "a remote that others can write to needs token=, a secret that its users share "
                "(python -c 'import secrets; print(secrets.token_hex(32))'), or unsigned=True to trust all its writers"
            )
        if token is not None and unsigned:
            raise ValueError("token= and unsigned=True exclude each other")
        self._signing_key = None if token is None else _signing_key(token)
        self._bucket = Bucket(url, options=options)
        self.limit_bytes = limit_bytes
        self.refusals = Refusals(self._bucket.place)
        self._present: set[Digest] = set()  # seen or put by this process: spares a question before an action is put
        self._corrupt: set[Digest] = set()  # to be replaced by the next put

    def __repr__(self) -> str:
        return f"Remote({self._bucket.place!r})"

    def blob(self, name: bytes) -> tuple[Domain, bytes] | None:
        """Domain and bytes of a blob, verified; None if there is none.

        CorruptBlob if its object is another's, damaged or larger than `limit_bytes`: a miss, which a put repairs.
        """
        packed = self.packed_blob(name)
        return None if packed is None else self.unpacked(Digest(name), packed)

    def packed_blob(self, name: bytes) -> bytes | None:
        """A blob as its object holds it, not verified."""
        try:
            return self._bucket.read(_blob_name(name), limit_bytes=self.limit_bytes + _HEADER_BYTES)
        except TooLarge as error:
            self._note_corrupt(Digest(name))
            raise CorruptBlob(str(error)) from error

    def unpacked(self, name: Digest, packed: bytes) -> tuple[Domain, bytes]:
        """Domain and bytes of a packed blob, verified. CorruptBlob as in `blob`."""
        try:
            domain, data = unpack(name, packed, limit_bytes=self.limit_bytes)
            return domain, verified(name, domain, data)
        except CorruptBlob:
            self._note_corrupt(name)
            raise

    def put_blob(self, domain: Domain, data: bytes) -> Digest:
        """Store a blob. Doing so again costs one question."""
        name = digest(domain, data)
        self.put_packed(name, pack(domain, data), len(data))
        return name

    def put_packed(self, name: Digest, packed: bytes, size_bytes: int) -> None:
        """Store a packed blob, of `size_bytes` unpacked, which has the digest it is named by."""
        if max(size_bytes, len(packed) - _HEADER_BYTES) > self.limit_bytes:
            raise StoreUnwritable(f"a blob of {size_bytes} bytes is above this remote's limit of {self.limit_bytes}")
        if name in self._corrupt or not self._holds(name):
            self._bucket.write(_blob_name(name), packed)
            self._corrupt.discard(name)
        self._note_present(name)

    def action(self, key: bytes) -> Action | None:
        """The action of `key`, if it is rightly signed and all its blobs are there; None otherwise.

        A blob can be gone, or found corrupt, when it is read a moment later: that is a miss too. One that was found
        corrupt is none that is there, until it is put again.
        """
        try:
            raw = self._bucket.read(_action_name(key), limit_bytes=ACTION_BYTES)
        except TooLarge as error:
            self.refusals.add("an action is too large", error)
            return None
        if raw is None:
            return None
        found = self._opened(bytes(key), raw)
        if found is None:
            return None
        names = [Digest(name) for name in dict.fromkeys(found.blobs)]
        return found if all(name not in self._corrupt and self._holds(name) for name in names) else None

    def put_action(
        self,
        key: bytes,
        data: bytes,
        *,
        blobs: Iterable[bytes] = (),
        replaces: Callable[[bytes], bool] = lambda standing: False,
    ) -> Action:
        """Store the action of `key`, unless there is a good one: what stands there now. Put its blobs first.

        One that `action` would not give (planted, or of which a blob is gone) is replaced, and so is one of whose data
        `replaces` says so.
        """
        ours = Action(blobs=[_checked(name) for name in blobs], data=data)
        for name in ours.blobs:
            if Digest(name) not in self._present and not self._holds(Digest(name)):
                raise StoreError(f"no blob {Digest(name)} in {self._bucket.place}: put an action's blobs before it")
        signed = _encode(ours)
        raw = _FORMAT + self._signature(bytes(key), signed) + signed
        if len(raw) > ACTION_BYTES:
            raise StoreUnwritable(f"an action of {len(raw)} bytes is above the limit of {ACTION_BYTES}: use blobs")
        if self._bucket.create(_action_name(key), raw):
            return ours
        standing = self.action(key)
        if standing is None or replaces(standing.data):
            self._bucket.write(_action_name(key), raw)
            return ours
        return standing

    def _opened(self, key: bytes, raw: bytes) -> Action | None:
        """The action that an object holds, if it may be believed."""
        start = len(_FORMAT) + _DIGEST_BYTES
        signature, signed = raw[len(_FORMAT) : start], raw[start:]
        if raw[: len(_FORMAT)] != _FORMAT or len(signature) != _DIGEST_BYTES:
            self.refusals.add("an action is malformed", key.hex())
            return None
        if self._signing_key is not None and not hmac.compare_digest(signature, self._signature(key, signed)):
            unsigned = signature == _UNSIGNED
            self.refusals.add("an action is unsigned" if unsigned else "an action is wrongly signed", key.hex())
            return None
        try:  # after the signature: who has no token has no say in what is parsed
            found = _decode(signed)
            for name in found.blobs:
                _checked(name)
        except (msgspec.MsgspecError, ValueError):
            self.refusals.add("an action is malformed", key.hex())
            return None
        return found

    def _signature(self, key: bytes, signed: bytes) -> bytes:
        """Over the key as well, else one key's action could be copied to another."""
        if self._signing_key is None:
            return _UNSIGNED
        return blake3(_FORMAT + key + signed, key=self._signing_key).digest()

    def _holds(self, name: Digest) -> bool:
        """Whether there is an object that can be this blob: an empty one is a write that a power cut ate."""
        size_bytes = self._bucket.size_bytes(_blob_name(name))
        return size_bytes is not None and _HEADER_BYTES <= size_bytes <= self.limit_bytes + _HEADER_BYTES

    def _note_present(self, name: Digest) -> None:
        if len(self._present) >= _MAX_REMEMBERED:
            self._present.clear()
        self._present.add(name)

    def _note_corrupt(self, name: Digest) -> None:
        self._present.discard(name)
        if len(self._corrupt) < _MAX_REMEMBERED:
            self._corrupt.add(name)
        self.refusals.add("a blob is corrupt", name)


def _signing_key(token: str | bytes) -> bytes:
    secret = token.encode() if isinstance(token, str) else token
    if len(secret) < MIN_TOKEN_BYTES:  # every signed action lets its reader try tokens, as fast as he can hash
        raise ValueError(f"token= is a secret of at least {MIN_TOKEN_BYTES} bytes, such as secrets.token_hex(32)")
    return blake3(secret, derive_key_context="clew 2026 action signature v1").digest()


def _checked(name: bytes) -> bytes:
    if len(name) != _DIGEST_BYTES:
        raise ValueError(f"{name!r} is not a digest of {_DIGEST_BYTES} bytes")
    return bytes(memoryview(name))  # a text of that length is the caller's mistake: TypeError


def _blob_name(name: bytes) -> str:
    hexed = _checked(name).hex()
    return f"cas/{hexed[:2]}/{hexed}"


def _action_name(key: bytes) -> str:
    return f"ac/{_checked(key).hex()}"
