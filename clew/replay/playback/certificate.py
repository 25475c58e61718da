"""The certificate of a replay: what was served, what went live and why, and whether it came out the same."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec

_FEW = 12


@dataclasses.dataclass
class Live:
    """A call that the recording does not answer: it went live, would have (`plan`), or was `refused`.

    `why` says what differs from what was recorded there. Tokens are those it took, in a plan those of the recorded call
    at its place. `same` tells whether it was answered as recorded, so that what follows was served: None if that is not known.
    """

    kind: str
    name: str
    path: str
    why: str
    span_id: str
    model: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float | None = None
    same: bool | None = None
    cached: bool = False  # the cache answered it in the end, and nothing was spent
    refused: bool = False  # it was not made: strict, or beyond what may go live

    def __str__(self) -> str:
        tokens = (
            f"  {self.input_tokens} → {self.output_tokens} tokens" if self.input_tokens or self.output_tokens else ""
        )
        money = "" if self.cost is None else f"  {self.cost:.6f}"
        cached = "  from the cache" if self.cached else ""
        return f"{self.kind} {self.name} at {self.path}: {self.why}{tokens}{money}{cached}"


@dataclasses.dataclass
class Certificate:
    """What a replay was. Seconds, tokens and money are those of the recorded calls that were served.

    `code` says whose ran: "recorded", "working tree" or "this process". `draws` counts values of a source that were
    derived or recorded; `unseen` names what could not be replayed. `equal`: the answer is the recorded one; None where
    one of them has none. `divergence` is the first call that differs. `cut_offs` counts live calls that were answered as
    recorded, after which everything is served again.
    """

    run_id: str
    replay_id: str | None
    mode: str
    code: str = "this process"
    digest: str = ""
    served: dict[str, int] = dataclasses.field(default_factory=dict)
    live: list[Live] = dataclasses.field(default_factory=list)
    draws: dict[str, int] = dataclasses.field(default_factory=dict)
    unseen: list[str] = dataclasses.field(default_factory=list)
    blocked: list[str] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    patches: list[str] = dataclasses.field(default_factory=list)
    differences: list[str] = dataclasses.field(default_factory=list)
    error: str | None = None
    equal: bool | None = None
    answer: Any = None
    recorded_answer: Any = None
    unasked: int = 0  # recorded calls that the replay did not make
    unmet: list[str] = dataclasses.field(default_factory=list)  # patches that met nothing
    seconds_saved: float = 0.0
    input_tokens_saved: int = 0
    output_tokens_saved: int = 0
    money_saved: float | None = None
    money_spent: float | None = None

    @property
    def divergence(self) -> Live | None:
        """The first call that the recording does not answer."""
        return self.live[0] if self.live else None

    @property
    def cut_offs(self) -> int:
        """Live calls that were answered as recorded."""
        return sum(one.same is True for one in self.live)

    @property
    def holds(self) -> bool:
        """Whether the run was reproduced: the program came to it, nothing went live, nothing failed,
        and the answer is the recorded one."""
        reached = self.replay_id is not None
        return reached and not self.live and self.error is None and self.equal is not False and not self.blocked

    def to_dict(self) -> dict[str, Any]:
        """As it stands in the JSON."""
        first = self.divergence
        return {
            **dataclasses.asdict(self),
            "divergence": None if first is None else dataclasses.asdict(first),
            "cut_offs": self.cut_offs,
            "holds": self.holds,
        }

    @classmethod
    def of(cls, data: bytes) -> Certificate:
        """The certificate of what `to_json` made."""
        found = msgspec.json.decode(data)
        known = {field.name for field in dataclasses.fields(cls)}
        live = [Live(**one) for one in found["live"]]
        return cls(**{name: value for name, value in found.items() if name in known and name != "live"}, live=live)

    def to_json(self) -> bytes:
        """For another process to read."""
        return msgspec.json.encode(self.to_dict(), enc_hook=str)

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def _live(self) -> str:
        refused = sum(one.refused for one in self.live)
        went = len(self.live) - refused
        parts = [f"{went} {'would go' if self.mode == 'plan' else 'went'} live"] if went else []
        parts += [f"{refused} refused"] if refused else []
        parts += [f"{self.cut_offs} answered as recorded"] if self.cut_offs else []
        return ", ".join(parts) or "0"

    def lines(self, *, differences: bool = True) -> list[str]:
        """For a person, a line each; without `differences`, which were told before."""
        total = sum(self.served.values())
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.served.items()))
        found = [
            f"{self.mode} replay {self.replay_id or '-'} of run {self.run_id}, code: {self.code}",
            f"served   {total}" + (f" ({kinds})" if kinds else ""),
            f"live     {self._live()}",
        ]
        found += [f"         {one}" for one in self.live[:_FEW]]
        if len(self.live) > _FEW:
            found.append(f"         … {len(self.live) - _FEW} more")
        if self.unasked:
            calls = "call was" if self.unasked == 1 else "calls were"
            found.append(f"unasked  {self.unasked} recorded {calls} not asked")
        if self.mode != "plan":
            same = {True: "equal to the recorded one", False: "another one than recorded", None: "none to compare"}
            found.append(f"answer   {same[self.equal]}")
        saved = f"{self.seconds_saved:.3f} s, {self.input_tokens_saved} → {self.output_tokens_saved} tokens"
        found.append(f"saved    {saved}" + ("" if self.money_saved is None else f", {self.money_saved:.6f} in money"))
        if self.money_spent is not None:
            found.append(
                f"{'costs    at least' if self.mode == 'plan' else 'spent   '} {self.money_spent:.6f} in money"
            )
        for title, lines in (
            ("patched", self.patches),
            ("differs", self.differences if differences else []),
            ("blocked", self.blocked),
            ("unseen", self.unseen),
            ("note", self.notes),
        ):
            found += [f"{title:8} {line}" for line in lines]
        if self.draws:
            found.append("draws    " + ", ".join(f"{count} {name}" for name, count in sorted(self.draws.items())))
        if self.error is not None:
            found.append(f"error    {self.error}")
        return found
