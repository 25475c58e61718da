"""The process run: what happens outside any run, and what is captured once per process for every run in it.

Code, environment, entry and principal are captured on a thread of their own when the tracer starts, so that the program
does not wait; a flush waits for them.
"""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from clew.store.digest import Digest, Domain
from clew.store.record import Artifact
from clew.tracer import code, entry, environment, principal
from clew.tracer.capture import Batch

if TYPE_CHECKING:
    from clew.tracer.init import Tracer


def process_name() -> str:
    """What this process is called in lists: its script or module, else the interpreter's mode."""
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name:
        return str(spec.name)
    path = getattr(main, "__file__", None)
    return Path(path).name if path else "interactive"


class Reproducibility:
    """Captures the facets of the process run: "code", "environment", "entry", "principal"."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._thread = threading.Thread(target=self._capture, name="clew-process", daemon=True)
        self._main: Path | None = None
        self._entry: entry.Entry | None = None
        self.facets: dict[str, bytes] = {}
        self.seconds: dict[str, float] = {}

    def start(self) -> None:
        """Begin, on a thread of its own. How the process was started is read here: a short program may be over, and its
        `__main__` bare, before the thread comes to it."""
        main = getattr(sys.modules.get("__main__"), "__file__", None)
        self._main = Path(main).absolute() if main else None
        self._entry = entry.capture()
        self._thread.start()

    def wait(self, seconds: float = 10.0) -> None:
        """Until the facets are in the log, or a fault was counted."""
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join(seconds)

    def _capture(self) -> None:
        tracer = self._tracer
        with tracer.faults.guard("process record"):
            batch = Batch(tracer.gate)
            run_id = tracer.process_run.run_id
            for facet, capture in (
                ("environment", _environment),
                ("entry", self._started),
                ("principal", _principal),
                ("code", self._code),
            ):
                if facet == "code" and (known := tracer.settings.code) is not None:
                    self.facets[facet] = bytes(Digest.parse(known))
                    continue
                started = time.thread_time()
                with tracer.faults.guard(f"{facet} record"):
                    kind = facet if facet in ("environment", "code") else "value"
                    name, value, detail = capture(batch)
                    domain, found = batch.part(value)
                    batch.record(Artifact(kind, int(domain), found, run_id, name, batch.attributes(detail)))
                    self.facets[facet] = bytes(found)
                self.seconds[facet] = time.thread_time() - started
            record = tracer.process_run.record(tracer.process_id)
            cost = {f"{facet}_ms": round(seconds * 1e3, 1) for facet, seconds in self.seconds.items()}
            batch.record(msgspec.structs.replace(record, facets=self.facets, seeds={"capture_cost": cost}))
            batch.commit()

    def _started(self, batch: Batch) -> Facet:
        found = msgspec.to_builtins(self._entry)
        for arguments in ("argv", "orig_argv"):
            found[arguments] = _without_secrets(batch, found[arguments])
        return process_name(), found, {}

    def _code(self, batch: Batch) -> Facet:
        return _tree(batch, code.capture(self._main, cwd=Path.cwd()))


Facet = tuple[str, Any, dict[str, Any]]


def _environment(batch: Batch) -> Facet:
    found = environment.capture()
    python = found.python
    name = f"Python {python.version}, {len(found.distributions)} distributions"
    return name, msgspec.to_builtins(found), {"python": python.version}


def _without_secrets(batch: Batch, arguments: list[str]) -> list[str]:
    """Arguments of which `--password` and its like make the next one secret."""
    pairs = zip(["", *arguments], arguments, strict=False)
    return [batch.named(before.lstrip("-"), one) if before.startswith("-") else one for before, one in pairs]


def _principal(batch: Batch) -> Facet:
    found = principal.capture()
    return f"{found.user or '?'}@{found.host or '?'}", msgspec.to_builtins(found), {}


def _tree(batch: Batch, tree: code.CodeTree) -> Facet:
    files = []
    for file in tree.files:
        if file.content is not None:
            clean = batch.gate.cleaner.data(file.content)
            stored: Any = {
                "digest": str(Digest(batch.data(Domain.BYTES, file.content))),
                "restorable": clean == file.content,
            }
        else:
            stored = {"digest": file.digest, "link": file.link, "restorable": file.link is not None}
        files.append({"path": file.path, "size_bytes": file.size_bytes, "executable": file.executable, **stored})
    git = msgspec.to_builtins(tree.git) if tree.git else None
    value = {
        "files": files,
        "omissions": msgspec.to_builtins(tree.omissions),
        "git": git,
        "source": tree.source,
        "modules_folder": tree.modules_folder,
        "changed_after_import": tree.changed_after_import,
    }
    commit = git.get("commit") if git else None
    dirty = bool(git and (git.get("dirty") or git.get("untracked")))
    label = f"{Path(tree.root).name}" + (f" @ {commit[:12]}" if commit else "") + (" (dirty)" if dirty else "")
    return label, value, {"commit": commit, "files": len(files), "root": tree.root, "dirty": dirty}


def facet_digest(facets: dict[str, bytes], name: str) -> Digest | None:
    """The digest of a facet, if it was captured."""
    found = facets.get(name)
    return Digest(found) if found else None
