"""The bridge between our OpenTelemetry provider and the user's, found before or after it is installed."""

from __future__ import annotations

import gc
from collections.abc import Callable
from threading import RLock
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

from clew.tracer.identifier import IdGenerator
from clew.tracer.provider import Fault, Provider, SpanSink
from clew.tracer.sampler import RecordingSampler, is_dropped

_GLOBAL = "_TRACER_PROVIDER"
_SETTER = "_set_tracer_provider"
_KNOWN = hasattr(trace, _GLOBAL)
_HOOKS = ("on_start", "_on_ending", "on_end")


class _Direct(sdk.SpanProcessor):
    """The user's processors as they were before the gate, for the twins of our spans."""

    def __init__(self, active: sdk.SpanProcessor) -> None:
        for hook in _HOOKS:
            if hasattr(active, hook):
                setattr(self, hook, getattr(active, hook))


class UserProvider:
    """A user's SDK provider while it is bridged: every span of theirs reaches the sink, their exporters see no change.

    Their sampler becomes a `RecordingSampler` around it and their stock id generator ours, on the provider (for
    tracers to come) and on each tracer it gave out before. Their active processor, one object that all tracers and
    spans share, gets a gate: spans that their sampler dropped end at the sink. A span that their sampler only records
    passes, as it would without us.
    """

    def __init__(self, theirs: sdk.TracerProvider, sink: SpanSink, fault: Fault) -> None:
        self.theirs = theirs
        self._sink = sink
        self._fault = fault
        self._active: sdk.SpanProcessor = theirs._active_span_processor
        self.processor: sdk.SpanProcessor = _Direct(self._active)
        self.sampler = RecordingSampler(theirs.sampler)
        self._generators = (theirs.id_generator, IdGenerator())
        self._live = False

    @property
    def resource(self) -> Resource:
        return self.theirs.resource

    @property
    def limits(self) -> sdk.SpanLimits:
        return self.theirs._span_limits

    def attach(self) -> None:
        self._live = True
        for hook in _HOOKS:
            setattr(self._active, hook, getattr(self, hook))
        self._exchange("sampler", self.sampler.theirs, self.sampler)
        stock, ours = self._generators
        if type(stock) is RandomIdGenerator:
            self._exchange("id_generator", stock, ours)

    def detach(self) -> None:
        """Puts back what is still ours; what someone put over it since only stops having an effect."""
        self._live = self.sampler.live = False
        for hook in _HOOKS:
            if vars(self._active).get(hook) == getattr(self, hook):
                delattr(self._active, hook)
        self._exchange("sampler", self.sampler, self.sampler.theirs)
        stock, ours = self._generators
        self._exchange("id_generator", ours, stock)

    def _exchange(self, name: str, old: object, new: object) -> None:
        for holder in (self.theirs, *self._tracers()):
            if getattr(holder, name, None) is old:
                setattr(holder, name, new)

    def _tracers(self) -> list[Any]:
        known = getattr(self.theirs, "_tracers", None)
        if isinstance(known, dict):
            return list(known.values())
        # Older SDKs (1.39) keep no list of them: one walk over the heap, at install and uninstall only.
        tracers = [thing for thing in gc.get_objects() if issubclass(type(thing), sdk.Tracer)]
        return [tracer for tracer in tracers if tracer.span_processor is self._active]

    def on_start(self, span: sdk.Span, parent_context: Context | None = None) -> None:
        if self._live:
            try:
                self._sink.on_start(span, parent_context)
            except Exception as error:
                self._fault("sink.on_start", error)
        if not is_dropped(span.context):
            self.processor.on_start(span, parent_context=parent_context)

    def _on_ending(self, span: sdk.Span) -> None:
        if not is_dropped(span.context):
            self.processor._on_ending(span)

    def on_end(self, span: sdk.ReadableSpan) -> None:
        if self._live:
            try:
                self._sink.on_end(span)
            except Exception as error:
                self._fault("sink.on_end", error)
        if not is_dropped(span.context):
            self.processor.on_end(span)


class Bridge:
    """Follows OpenTelemetry's global provider: ours stands in while there is none, an SDK provider is bridged.

    Ours is put there without using up the API's set-once guard, so a later `set_tracer_provider` is accepted, and the
    API's private setter is wrapped to notice it. Where the setter cannot be wrapped, or someone assigns the global
    itself, the next span notices. A provider that is not the SDK's, or is switched off by OTEL_SDK_DISABLED, is left
    as it is and counts as none.
    """

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        self._bridged: list[UserProvider] = []
        self._seen: object = None
        self._setter: tuple[Callable[..., None], Callable[..., None]] | None = None
        self._lock = RLock()
        self._installed = False

    def install(self) -> None:
        """Idempotent. A fault is reported and leaves our provider working by itself."""
        with self._lock:
            if self._installed:
                return
            self._installed = True
            self.provider.retired = False
            try:
                trace.get_tracer_provider()  # makes the API load one that OTEL_PYTHON_TRACER_PROVIDER names
            except Exception as error:
                self.provider.fault("bridge.install", error)
            try:
                self._wrap_setter()
                if getattr(trace, _GLOBAL, self) is None:
                    setattr(trace, _GLOBAL, self.provider)
                self.observe()
            except Exception as error:
                self.provider.fault("bridge.install", error)
            self.provider.watch = self.observe

    def uninstall(self) -> None:
        """Undoes `install` and every bridging since; idempotent. Tracers that our provider gave out follow the global
        provider from now on."""
        with self._lock:
            if not self._installed:
                return
            self._installed = False
            self.provider.watch = self.provider.user = self._seen = None
            self.provider.retired = True
            if self._setter is not None:
                wrapper, original = self._setter
                if getattr(trace, _SETTER, None) is wrapper:
                    setattr(trace, _SETTER, original)
                self._setter = None
            if getattr(trace, _GLOBAL, None) is self.provider:
                setattr(trace, _GLOBAL, None)
            while self._bridged:
                self._guarded("bridge.uninstall", self._bridged.pop().detach)

    def observe(self) -> None:
        """Looks whether the global provider is another one than at the last look, and if so bridges to it."""
        current = getattr(trace, _GLOBAL) if _KNOWN else trace.get_tracer_provider()
        if current is self._seen:
            return
        with self._lock:
            if not self._installed or current is self._seen:
                return
            self._seen = current
            self.provider.user = None
            self._guarded("bridge.attach", self._follow, current)

    def _follow(self, current: object) -> None:
        if not isinstance(current, sdk.TracerProvider) or isinstance(current, Provider) or current._disabled:
            return
        for user in self._bridged:
            if user.theirs is current:
                break
        else:
            user = UserProvider(current, self.provider.sink, self.provider.fault)
            self._bridged.append(user)  # before it attaches, so that a half-made one is undone too
            user.attach()
        self.provider.user = user

    def _wrap_setter(self) -> None:
        original = getattr(trace, _SETTER, None)
        if original is None:
            return

        def set_and_follow(*arguments: Any, **named: Any) -> None:
            original(*arguments, **named)
            self._guarded("bridge.observe", self.observe)

        self._setter = set_and_follow, original
        setattr(trace, _SETTER, set_and_follow)

    def _guarded(self, where: str, call: Callable[..., object], *arguments: object) -> None:
        try:
            call(*arguments)
        except Exception as error:
            self.provider.fault(where, error)
