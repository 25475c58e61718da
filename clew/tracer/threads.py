"""Context into threads and executors, by opentelemetry-instrumentation-threading."""

from __future__ import annotations

from collections.abc import Callable

from opentelemetry.instrumentation.threading import ThreadingInstrumentor


def carry_context() -> Callable[[], None]:
    """Carry OpenTelemetry's context into every thread and executor started from now on; returns what undoes it.

    Where the program did this itself, nothing is changed and nothing is undone.
    """
    instrumentor = ThreadingInstrumentor()
    if instrumentor.is_instrumented_by_opentelemetry:
        undo = _nothing
    else:
        instrumentor.instrument(skip_dep_check=True)
        undo = instrumentor.uninstrument

    def take_back() -> None:
        undo()

    take_back.keep = True  # type: ignore[attr-defined]  # stays until shutdown, not only until `uninstrument`
    return take_back


def _nothing() -> None:
    return None
