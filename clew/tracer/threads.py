"""Context into threads and executors, by opentelemetry-instrumentation-threading, and the numbers of branches."""

from __future__ import annotations

from collections.abc import Callable

from opentelemetry.instrumentation.threading import ThreadingInstrumentor

from clew.tracer import branch


def carry_context() -> Callable[[], None]:
    """Carry OpenTelemetry's context into every thread and executor started from now on; returns what undoes it.

    Where the program did this itself, it is left as it is. What is started is numbered (`clew.tracer.branch`).
    """
    instrumentor = ThreadingInstrumentor()
    if instrumentor.is_instrumented_by_opentelemetry:
        undo = _nothing
    else:
        instrumentor.instrument(skip_dep_check=True)
        undo = instrumentor.uninstrument

    end = branch.number()

    def take_back() -> None:
        end()
        undo()

    take_back.keep = True  # type: ignore[attr-defined]  # stays until shutdown, not only until `uninstrument`
    return take_back


def _nothing() -> None:
    return None
