"""Literal text: the fixed parts of prompt templates.

They are attributed before sources, so that boilerplate that a system prompt and a document share makes no edge.
"""

from __future__ import annotations

import re
import string

_JINJA = re.compile(r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}", re.DOTALL)


def template_literals(template: str) -> list[str]:
    """The fixed parts of a template, whichever of the usual formats it is written in."""
    if _JINJA.search(template):
        return [part for part in _JINJA.split(template) if part.strip()]
    try:
        return [literal for literal, *_ in string.Formatter().parse(template) if literal.strip()]
    except ValueError:  # a lone brace: not a format string, so all of it is literal
        return [template]
