"""The user's tags and metadata around a run: children inherit them, and do not record them again."""

from __future__ import annotations

import functools
import json
from typing import Any, NamedTuple
from uuid import UUID

_FRAMEWORK_TAGS = ("seq:step:", "graph:step:", "map:key:")
_FRAMEWORK_KEYS = ("langgraph_", "ls_", "lc_", "checkpoint_", "langsmith", "__")
_FRAMEWORK_METADATA = frozenset(("thread_id", "task_id", "run_id", "assistant_id", "graph_id", "session_id", "user_id"))


class Scope(NamedTuple):
    """The tags, and the keys of the metadata."""

    tags: tuple[str, ...]
    keys: tuple[str, ...]


NOTHING = Scope((), ())


@functools.lru_cache(maxsize=4096)
def scope_of(tags: tuple[str, ...], keys: tuple[str, ...]) -> tuple[Scope, str | None]:
    """The scope of a run with these tags and keys of metadata, and its RunnableParallel key."""
    own = tuple(tag for tag in tags if not tag.startswith(_FRAMEWORK_TAGS))
    known = tuple(key for key in keys if not key.startswith(_FRAMEWORK_KEYS) and key not in _FRAMEWORK_METADATA)
    branches = [tag[8:] for tag in tags if tag.startswith("map:key:")]
    return Scope(own, known), branches[-1] if branches else None


def new_attributes(scope: Scope, around: Scope, metadata: dict[str, Any]) -> dict[str, Any]:
    """What `scope` has and the scope around it has not."""
    found: dict[str, Any] = {}
    if scope.tags != around.tags:
        found["tag.tags"] = list(scope.tags)
    own = {key: metadata[key] for key in scope.keys if key not in around.keys}
    if own:
        found["metadata"] = json.dumps(own, default=_type_name, ensure_ascii=False)
    return found


def _type_name(value: Any) -> str:
    return str(value) if isinstance(value, UUID) else f"<{type(value).__qualname__}>"
