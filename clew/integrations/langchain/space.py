"""The embedding space of an embeddings object: two vectors may be compared only within one.

A space is `{"class", "code", "configuration", "state"}`. What only says how a service is reached (keys, addresses,
timeouts) is left out. State is what the object holds besides plain settings: fitted arrays, vocabularies, estimators,
weights; only its digest is kept.
"""

from __future__ import annotations

import functools
import sys
import weakref
from types import FunctionType, MethodType, ModuleType
from typing import Any

from clew.integrations.langchain.attachment import Derived, is_service
from clew.integrations.langchain.code import class_code, function_code
from clew.store.digest import Digest, Domain, digest
from clew.store.encoding import encode_capture, qualified_name
from clew.store.sink import Digester
from clew.tracer.capture import Batch, Given
from clew.tracer.gate import Gate

# How a service is reached, and how the work is spread: the vectors are the same.
_TRANSPORT = (
    " callbacks verbose tags metadata client async_client http_client http_async_client http_socket_options session "
    "base_url api_base api_url endpoint endpoint_url url host port headers default_headers default_query timeout "
    "request_timeout max_retries retry_min_seconds retry_max_seconds retries proxy proxies organization project_id "
    "region region_name credentials credentials_profile_name show_progress show_progress_bar progress_bar cache "
    "cache_folder cache_dir n_jobs num_workers batch_size embed_batch_size max_concurrency rate_limiter executor lock "
    "logger "
)
_SECRET = ("api_key", "apikey", "token", "secret", "password", "credential", "auth")
_WORDS = frozenset(("max_tokens", "tokenizer", "token_limit", "max_token_length", "tokens"))
_DEPTH = 12
_WALK = 64


def space_of(embeddings: object) -> dict[str, Any]:
    """The space, made anew only when an attribute of the object (or of an object it holds) was set to another value.

    A large array or dict that is changed in place goes unnoticed.
    """
    return _spaces.of(embeddings).fields


def model_slot(gate: Gate, embeddings: object) -> Given:
    """The slot that names the space. A space that this process has written already costs no encoding."""
    space = _spaces.of(embeddings)
    return ("model", "model", space.named(gate), type(embeddings).__name__)


class _Space:
    """A space, and its digest for one gate (what is redacted in it depends on the store)."""

    __slots__ = ("_digest", "_gate", "fields")

    def __init__(self, embeddings: object) -> None:
        self.fields = _space(embeddings)
        self._gate: weakref.ref[Gate] | None = None
        self._digest = Digest()

    def named(self, gate: Gate) -> Any:
        """(domain, digest) if the content is written, else the content."""
        if self._gate is None or self._gate() is not gate:
            self._digest = Batch(gate).part(self.fields)[1]
            self._gate = weakref.ref(gate)
        return (Domain.VALUE, self._digest) if self._digest in gate.known else self.fields


def class_name(cls: type) -> str:
    """The qualified name of a class; of one in the program's main file, with that file's name for the module."""
    if cls.__module__ != "__main__":
        return qualified_name(cls)
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    file = getattr(main, "__file__", None) or ""
    module = spec.name if spec is not None else file.replace("\\", "/").rpartition("/")[2].removesuffix(".py")
    return f"{module or '__main__'}.{cls.__qualname__}"


def is_secret(name: str) -> bool:
    """Whether an attribute of this name is likely to hold a credential."""
    lower = name.lower()
    return lower not in _WORDS and any(part in lower for part in _SECRET)


def fields_of(value: object) -> dict[str, Any]:
    """The attributes of an object, pydantic's private ones included."""
    fields = dict(getattr(value, "__dict__", None) or {})
    fields.update(getattr(value, "__pydantic_extra__", None) or {})
    fields.update(getattr(value, "__pydantic_private__", None) or {})
    for cls in type(value).__mro__:
        slots = cls.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if not name.startswith("__") and hasattr(value, name):
                fields[name] = getattr(value, name)
    return fields


def is_setting(value: object, depth: int = 0) -> bool:
    """Whether a value is a plain setting: a scalar, or a small container of such."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return not isinstance(value, str) or len(value) <= 4096
    if depth > 3 or not isinstance(value, (list, tuple, set, frozenset, dict)) or len(value) > _WALK:
        return False
    parts = [*value, *value.values()] if isinstance(value, dict) else value
    return all(is_setting(part, depth + 1) for part in parts)


def _space(embeddings: object) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    state: dict[str, Any] = {}
    for name, value in sorted(fields_of(embeddings).items()):
        bare = name.lstrip("_")
        if f" {bare} " in _TRANSPORT or is_secret(bare) or is_service(value):
            continue
        if is_setting(value):
            settings[bare] = value
        else:
            state[bare] = _state(value, 0, [])
    content = b""
    if state:
        content = digest(Domain.VALUE, encode_capture(state, Digester())[0])
    return {
        "class": class_name(type(embeddings)),
        "code": bytes(class_code(type(embeddings))),
        "configuration": settings,
        "state": bytes(content) or None,
    }


def _state(value: Any, depth: int, path: list[int]) -> Any:
    """A value as it enters the state's digest: objects become their class and fields, functions their code."""
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes, bytearray)):
        return value
    if depth > _DEPTH or id(value) in path:
        return "..."
    cls = type(value)
    if cls.__module__ == "numpy":
        return value
    path = [*path, id(value)]
    inner = functools.partial(_state, depth=depth + 1, path=path)
    if isinstance(value, (list, tuple, set, frozenset)):
        parts = [inner(part) for part in value]
        return parts if isinstance(value, (list, tuple)) else set(map(_hashable, parts))
    if isinstance(value, dict):
        return {key if isinstance(key, str) else _hashable(inner(key)): inner(part) for key, part in value.items()}
    if isinstance(value, FunctionType):
        return {"function": function_code(value)}
    if isinstance(value, MethodType):
        return {"function": inner(value.__func__), "of": inner(value.__self__)}
    if isinstance(value, type):
        return {"class": qualified_name(value)}
    if isinstance(value, ModuleType):
        return {"module": value.__name__}
    if cls.__module__.split(".")[0] == "torch" and hasattr(value, "detach"):
        return value.detach().cpu().contiguous().numpy()
    fields = value.state_dict() if hasattr(value, "state_dict") else fields_of(value)
    return {"class": qualified_name(cls), **{str(name): inner(part) for name, part in fields.items()}}


def _hashable(value: Any) -> Any:
    return tuple(map(_hashable, value)) if isinstance(value, list) else value if value.__hash__ else repr(value)


_spaces: Derived[_Space] = Derived(_Space)
