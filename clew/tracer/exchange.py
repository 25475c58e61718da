"""What a policy needs of a call to keep its answer, or to give one in its place: an integration says it (boundary.py).

Nothing of it is asked for while nobody has installed a policy.
"""

from __future__ import annotations

from typing import Any, Protocol


class Exchange(Protocol):
    """A request and its answer, as data.

    A request is the same one whether its answer is streamed, awaited or neither. `sampled`: asked again, it may well be
    answered differently, so that each time it is asked in a run has an answer of its own.
    """

    operation: str
    model: str  # "" where there is none
    sampled: bool

    def parts(self) -> dict[str, Any]:
        """Everything that may decide the answer, by name; what only says how it is transported is left out. Ids that a
        framework or provider mints are renamed by the order of their first use. Raises Unkeyable."""

    def seen(self) -> dict[str, Any]:
        """What can be seen of the request, by name, as it is: where no key can be made of it, a replay of the run in
        which it was asked finds it by that."""

    def dump(self, response: Any, chunks: list[tuple[int, Any]] | None) -> Any:
        """An answer as data (replay/answer.py): a response, or chunks with the nanoseconds after the first."""

    def load(self, data: Any) -> Any:
        """The response that `data` is of, with no id that was minted for another call."""

    def load_chunks(self, data: Any) -> list[tuple[int, Any]]:
        """The same as chunks, each with the nanoseconds after the first."""

    def made(self, value: Any, recorded: Any) -> Any:
        """The response that says `value`, as a person would put it, in the place of the `recorded` one (None where
        none is known). ValueError for what such a call cannot answer."""

    def refused(self, response: Any, chunks: list[tuple[int, Any]] | None) -> str | None:
        """Why an answer is none to use again: cut short, a refusal; None if nothing speaks against it."""

    def usage(self, data: Any) -> tuple[int, int]:
        """Input and output tokens that the answer took."""


class Batch(Protocol):
    """A call that asks several things at once, each of which could be asked by itself, such as the vectors of many texts.

    Its answer is a list of their answers, or another sequence. `Call.narrowed` says which of them are still to be asked.
    """

    def each(self) -> list[Exchange]:
        """What is asked, one by one."""

    def narrowed(self, positions: list[int]) -> Any:
        """The request for those alone."""

    def parted(self, response: Any) -> list[Any] | None:
        """The answers one by one, each as its exchange takes it; None where they cannot be told apart without using
        the response up."""

    def joined(self, parts: list[Any]) -> Any:
        """The answer that has these parts; None where answers of different calls make none."""
