"""What programs pass again and again, and what is made of it only once."""

from __future__ import annotations

from typing import Any

from clew.store.encoding import register_item


class Constant:
    """A dict that will not change, such as a model's identity: recognised by identity, with the digest of a plain dict."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self.__dict__.update(fields)


register_item(Constant, "value", lambda it: it.__dict__)


class Fixed(dict[str, Any]):
    """Attributes that many spans have alike, such as those of a graph's node. It never changes: it is cleaned once."""

    __slots__ = ()
