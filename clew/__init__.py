"""clew: agent tracing and RAG lineage by content.

Which data, code, prompt, model and environment produced this answer, and what happens if one of them changes?
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from clew.version import VERSION as __version__

if TYPE_CHECKING:
    from clew.integrations import NodeCache as NodeCache
    from clew.integrations import callback as callback
    from clew.integrations import instrument as instrument
    from clew.integrations import node_key as node_key
    from clew.lineage.diff import diff as diff
    from clew.lineage.impact import impact as impact
    from clew.lineage.reader import open_store as open  # noqa: A004, F401 - the name users type: clew.open
    from clew.lineage.why import why as why
    from clew.replay.ambient.clock import now as now
    from clew.replay.ambient.clock import time_ns as time_ns
    from clew.replay.cached import cached as cached
    from clew.replay.effect import effect as effect
    from clew.replay.playback.patch_answered import Answer as Answer
    from clew.replay.playback.patch_answered import Retrieved as Retrieved
    from clew.replay.playback.patch_asked import Model as Model
    from clew.replay.playback.patch_asked import Prompt as Prompt
    from clew.replay.playback.patch_asked import Tool as Tool
    from clew.replay.playback.replay import replay as replay
    from clew.replay.playback.rerun import Code as Code
    from clew.replay.playback.rerun import rerun as rerun
    from clew.replay.settings import Cache as Cache
    from clew.replay.settings import caching as caching
    from clew.tracer.artifact import artifact as artifact
    from clew.tracer.dataset import dataset as dataset
    from clew.tracer.document import Document as Document
    from clew.tracer.init import flush as flush
    from clew.tracer.init import init as init
    from clew.tracer.init import shutdown as shutdown
    from clew.tracer.init import uninstrument as uninstrument
    from clew.tracer.run import run as run
    from clew.tracer.secret import secret as secret
    from clew.tracer.trace import trace as trace

_HOME = {
    "Answer": "clew.replay.playback.patch_answered",
    "Cache": "clew.replay.settings",
    "Document": "clew.tracer.document",
    "Model": "clew.replay.playback.patch_asked",
    "NodeCache": "clew.integrations",
    "Prompt": "clew.replay.playback.patch_asked",
    "Retrieved": "clew.replay.playback.patch_answered",
    "Tool": "clew.replay.playback.patch_asked",
    "artifact": "clew.tracer.artifact",
    "cached": "clew.replay.cached",
    "caching": "clew.replay.settings",
    "callback": "clew.integrations",
    "dataset": "clew.tracer.dataset",
    "diff": "clew.lineage.diff",
    "effect": "clew.replay.effect",
    "flush": "clew.tracer.init",
    "impact": "clew.lineage.impact",
    "init": "clew.tracer.init",
    "instrument": "clew.integrations",
    "now": "clew.replay.ambient.clock",
    "node_key": "clew.integrations",
    "open": "clew.lineage.reader",
    "Code": "clew.replay.playback.rerun",
    "replay": "clew.replay",
    "rerun": "clew.replay.playback.rerun",
    "run": "clew.tracer.run",
    "secret": "clew.tracer.secret",
    "shutdown": "clew.tracer.init",
    "time_ns": "clew.replay.ambient.clock",
    "trace": "clew.tracer.trace",
    "uninstrument": "clew.tracer.init",
    "why": "clew.lineage.why",
}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'clew' has no attribute {name!r}")
    module = importlib.import_module(home)
    value = module if name == "replay" else getattr(module, "open_store" if name == "open" else name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
