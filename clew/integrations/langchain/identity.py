"""What an object of a framework's is, for a key: its class, its class's code and all that it holds.

Everything is in it that is not declared to say only how a service is reached: a setting that nobody thought of costs a
miss. What has no canonical form makes no key, and is named.
"""

from __future__ import annotations

from collections.abc import Collection
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

from clew.integrations.langchain.attachment import is_service
from clew.integrations.langchain.code import class_code
from clew.integrations.langchain.space import class_name, fields_of, is_secret
from clew.replay.code import code_of
from clew.store.encoding import item_kind, qualified_name
from clew.store.errors import Unkeyable

_TRANSPORT = frozenset((
    "callbacks", "callback_manager", "callback", "verbose", "tags", "metadata", "name", "cache", "rate_limiter",
    "custom_get_token_ids", "disable_streaming", "streaming", "stream_usage", "stream_options",
    "stream_chunk_timeout", "client", "async_client", "root_client", "root_async_client", "http_client",
    "http_async_client", "http_socket_options", "session", "timeout", "request_timeout", "default_request_timeout",
    "max_retries", "retries", "retry_min_seconds", "retry_max_seconds", "proxy", "proxies", "openai_proxy",
    "executor", "lock", "logger", "show_progress", "progress_bar", "n_jobs", "_serialized", "_lc_kwargs", "lc_kwargs",
    "_client", "_async_client", "_session",
))  # fmt: skip
_PLAIN = (bool, int, float, complex, str, bytes, bytearray)
_DEPTH = 16


def identity(value: Any, *, without: Collection[str] = ()) -> Any:
    """What `value` is, as data a key can be made of; fields named in `without` are told otherwise. Raises Unkeyable."""
    return _identity(value, type(value).__name__, [], frozenset(without))


def _identity(value: Any, place: str, around: list[int], without: frozenset[str] = frozenset()) -> Any:
    cls = type(value)
    if value is None or isinstance(value, _PLAIN) or cls.__module__ == "numpy" or item_kind(cls) is not None:
        return value
    if id(value) in around or len(around) > _DEPTH:
        raise Unkeyable(f"{place} holds itself, or is nested too deeply")
    around = [*around, id(value)]
    if isinstance(value, (list, tuple)):
        return cls_of(cls, [_identity(part, f"{place}[{at}]", around) for at, part in enumerate(value)])
    if isinstance(value, dict):
        pairs = {key: _identity(part, f"{place}[{key!r}]", around) for key, part in value.items()}
        return cls_of(cls, pairs)
    if isinstance(value, (set, frozenset)):
        return value  # of what can be hashed; the encoding says if it has no form
    if isinstance(value, FunctionType):  # with all of the project's that it calls and holds
        return {"function": f"{value.__module__}.{value.__qualname__}", "code": code_of(value).digest}
    if isinstance(value, MethodType):
        return {"method": code_of(value.__func__).digest, "of": _identity(value.__self__, place, around)}
    if isinstance(value, BuiltinFunctionType):
        return {"builtin": f"{value.__module__}.{value.__qualname__}"}
    if isinstance(value, type):
        schema = getattr(value, "model_json_schema", None)
        return {"class": class_name(value), "code": class_code(value), "schema": schema() if schema else None}
    if isinstance(value, ModuleType):
        return {"module": value.__name__}
    if hasattr(value, "get_secret_value"):
        return {"secret": cls.__name__}
    fields = fields_of(value)
    if not fields and cls.__flags__ & (1 << 9) == 0:  # made in C: what it holds cannot be seen
        raise Unkeyable(f"{place} is a {qualified_name(cls)}, which has no canonical form")
    told = {
        name: _identity(part, f"{place}.{name}", around)
        for name, part in sorted(fields.items())
        if name not in _TRANSPORT and name not in without and not is_secret(name.lstrip("_")) and not is_service(part)
    }
    return {"class": class_name(cls), "code": class_code(cls), "fields": told}


def cls_of(cls: type, content: Any) -> Any:
    """A container of a class of its own is told from a plain one."""
    if cls in (list, dict):
        return content
    return tuple(content) if cls is tuple else {"class": class_name(cls), "content": content}
