"""`clew.rerun`: the recorded program again, from its recorded code, in a process of its own.

certificate = clew.rerun(run)                                     # is it reproduced?
certificate = clew.rerun(run, mode="plan", patch=clew.Code("."))  # what would an edit of today cost?
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from clew.lineage.reader import Reader, StoreLike
from clew.replay import stage
from clew.replay.network import Guard
from clew.replay.playback import told
from clew.replay.playback.allowance import check_names
from clew.replay.playback.certificate import Certificate
from clew.replay.playback.descendant import OWNER, add_reports, reports_of
from clew.replay.playback.terms import Prices, terms
from clew.replay.recording.recording import load
from clew.store.errors import NotReplayable, StoreUnwritable
from clew.store.folder import store_written_here

VARIABLE = "CLEW_REPLAY"
_FEW = 8
_CERTIFICATE = "certificate.json"


@dataclasses.dataclass(frozen=True)
class Code:
    """The patch of a program's code: the working tree at `path`, in place of what was recorded."""

    path: str = "."

    def applied(self, tracer: Any, replayer: Any) -> Any:
        """ValueError: what runs in a process is its own code."""
        raise ValueError("clew.Code is another program's code: give it to clew.rerun, or to `clew replay --code`")


def rerun(
    run: Any,
    *,
    mode: str = "strict",
    patch: Any = (),
    allow: Collection[str] | None = None,
    budget: float | None = None,
    max_calls: int | None = None,
    prices: Prices | None = None,
    pace: float = 0.0,
    ordered: bool = False,
    travel: bool = False,
    hosts: Collection[str] = (),
    arguments: Sequence[str] | None = None,
    cwd: str | None = None,
    timeout_seconds: float | None = None,
    stdout: int | IO[Any] | None = None,
    variables: Mapping[str, str] | None = None,
    tell: Callable[[str], object] | None = None,
    store: StoreLike = None,
) -> Certificate:
    """Start the program that `run` was part of again, with its recorded code, arguments and working folder, in a
    subprocess that asks nobody what the recording knows; returns the certificate.

    What differs from then (distributions, files that are loaded) stands on the certificate, and `tell` is told each
    before anything runs. `patch` is one or several of clew.Code, clew.Prompt and the like. The other options are those of
    `clew.replay`. `arguments` and `cwd` stand in for recorded ones that are not there, `variables` are added to
    the environment, and `stdout` takes the program's output. NotRecorded, NotReplayable,
    NotFound and ValueError where it cannot be; ReplayTimeout after `timeout_seconds`.
    """
    if timeout_seconds is not None and not timeout_seconds > 0:
        raise ValueError(f"a program is given more than 0 seconds, and not {timeout_seconds:g}")
    agreed = terms(mode, allow, prices, budget=budget, max_calls=max_calls, pace=float(pace), ordered=ordered)
    patches = list(patch) if isinstance(patch, (list, tuple)) else [patch]
    code = [one for one in patches if isinstance(one, Code)]
    if len(code) > 1:
        raise ValueError("one program has one code: give one clew.Code")
    Guard(allow=hosts)  # what is no host is said before anything runs
    reader = store if isinstance(store, Reader) else Reader(store if store is not None else store_written_here())
    recording = load(reader, run, whole=True)
    for one in patches:
        if not isinstance(one, Code):
            one.about(reader, recording)  # what makes no sense is said before anything runs
    plain = [one.to_dict() for one in patches if not isinstance(one, Code)]
    if not reader.folder.writable:
        raise StoreUnwritable(
            f"a replay is written to the store of the run, and {reader.folder.path} cannot be written: copy it, and name "
            "the copy (store=..., --store)"
        )
    process = stage.recorded_process(reader, recording.process_id)
    found = [str(one) for one in stage.differences(reader, process)]
    with tempfile.TemporaryDirectory(prefix="clew-replay-", ignore_cleanup_errors=True) as folder:
        if code:
            laid = stage.working_tree(process, code[0].path)
            changed = [str(one) for one in stage.changed_files(reader, process, code[0].path)]
            found = [*(f"code: {one}" for one in changed), *found]
        else:
            laid = stage.lay_out(reader, process, Path(folder) / "code")
            check_names(agreed, reader, recording, laid.root)
            found += [f"missing: {one}" for one in laid.missing]
            if laid.lent:
                shown = ", ".join(laid.lent[:_FEW]) + (f" and {len(laid.lent) - _FEW} more" if laid.lent[_FEW:] else "")
                found.append(f"not recorded, and as it is today: {shown}")
        if tell is not None:
            for one in found:
                tell(one)
        certificate = Path(folder) / _CERTIFICATE
        told.write(
            Path(folder) / "replay.json",
            told.Told(
                store=str(reader.folder.path),
                run_id=recording.run_id,
                terms=dataclasses.asdict(agreed),
                patches=plain,
                certificate=str(certificate),
                code="working tree" if code else "recorded",
                code_digest=None if code else process.code_digest or None,
                travel=travel,
                hosts=list(hosts),
                differences=found,
            ),
        )
        env = {**(variables or {}), VARIABLE: str(Path(folder) / "replay.json"), OWNER: ""}
        started = stage.launch(process, laid, env=env, arguments=arguments, cwd=cwd)
        status = started.run(timeout_seconds=timeout_seconds, stdout=stdout)
        if not certificate.exists():
            raise NotReplayable(
                f"the program ended with status {status} before it called clew.init, or without an end in good order"
            )
        made = Certificate.of(certificate.read_bytes())
        add_reports(made, reports_of(certificate))
        made.notes += [f"not recorded: {one}" for one in started.unrecorded()]
        if status and made.error is None:
            made.error = f"the program ended with status {status}"
        return made
