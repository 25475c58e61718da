"""All patches that stand as data, for another process."""

from __future__ import annotations

from typing import Any

from clew.replay.playback.patch import Patch
from clew.replay.playback.patch_answered import Answer, Retrieved
from clew.replay.playback.patch_asked import Model, Prompt, Tool
from clew.replay.playback.reference import Reference


def from_dict(data: dict[str, Any]) -> Patch:
    """The patch of what `to_dict` made. ValueError for anything else."""
    fields = {name: value for name, value in data.items() if name != "patch"}
    try:
        match data.get("patch"):
            case "prompt":
                return Prompt(**fields)
            case "model":
                return Model(fields["name"], **fields["changes"])
            case "tool":
                return Tool(fields["name"], Reference(**fields["reference"]))
            case "document":
                return Retrieved(**fields)
            case "answer":
                return Answer(**fields)
    except (TypeError, KeyError) as error:
        raise ValueError(f"a patch that is none: {error}") from error
    raise ValueError(f"{data.get('patch')!r} is no patch that stands as data: prompt, model, tool, document or answer")
