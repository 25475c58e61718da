"""What recorded calls did themselves: in which of them something is that a patch changes.

The answer of such a call is not known any more. A call that a cache answered, or an earlier replay, did what the one did
that was really made.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable

from clew.lineage.reader import Reader
from clew.lineage.view import SpanView
from clew.store.errors import ClewError

_MADE_OF_OTHERS = ("tool", "chain")  # kinds of calls that make others


def around(reader: Reader, runs: Iterable[str], touches: Callable[[SpanView], bool]) -> set[str]:
    """The spans of these runs in which there is one that the patch `touches`."""
    spans = {span.span_id: span for run in runs for span in reader.spans(run)}
    served: defaultdict[str, list[str]] = defaultdict(list)  # by the call that was really made
    found: list[str] = []
    waiting = list(spans.values())
    for span in waiting:  # grows while it is read
        made = _made(span)
        if made is not None:
            served[made].append(span.span_id)
            if made not in spans:
                try:
                    more = [one for one in reader.spans(reader.span(made).run_id) if one.span_id not in spans]
                except ClewError:  # it was collected: who knows what it did
                    found.append(span.span_id)
                    continue
                spans.update((one.span_id, one) for one in more)
                waiting += more
        if span.parent_id is not None and _touched(span, touches):
            found.append(span.parent_id)
    known: set[str] = set()
    while found:
        one = found.pop()
        if one not in known:
            known.add(one)
            found += served[one]
            if one in spans and (above := spans[one].parent_id) is not None:
                found.append(above)
    return known


def _made(span: SpanView) -> str | None:
    """The call whose answer a call was given."""
    if span.kind not in _MADE_OF_OTHERS:
        return None
    return next((one for _, one, kind in span.links if kind == "served_from"), None)


def _touched(span: SpanView, touches: Callable[[SpanView], bool]) -> bool:
    try:
        return touches(span)
    except ClewError:  # content that is lost may have been it
        return True
