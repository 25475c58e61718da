"""Literal text of a program: the fixed parts of prompt templates, and the string constants of its code.

They are attributed before sources, so that boilerplate that a system prompt and a document share makes no edge.
"""

from __future__ import annotations

import ast
import re
import string
from collections.abc import Iterator

MINIMUM_CONSTANT = 32
_MAX_CONSTANTS = 4000
_JINJA = re.compile(r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}", re.DOTALL)


def template_literals(template: str) -> list[str]:
    """The fixed parts of a template, whichever of the usual formats it is written in."""
    if _JINJA.search(template):
        return [part for part in _JINJA.split(template) if part.strip()]
    try:
        return [literal for literal, *_ in string.Formatter().parse(template) if literal.strip()]
    except ValueError:  # a lone brace: not a format string, so all of it is literal
        return [template]


def code_constants(source: str) -> Iterator[str]:
    """String constants of a Python file, f-string parts and docstrings included; nothing of a file with errors."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return
    found = 0
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) >= MINIMUM_CONSTANT:
            yield node.value
            found += 1
            if found >= _MAX_CONSTANTS:
                return
