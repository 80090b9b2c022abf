"""One model at a time, for everybody: load, swap, unload, in the background.

A load runs in its own thread and everybody sees the same status. A swap first makes sure that the
new model is there, whole and small enough; only then is the old one let go, and its memory is
given back before the new one is read. What cannot work leaves the old model as it is.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, Literal, Protocol, TypeVar

from glm_backend.errors import (
    Cancelled,
    GLMError,
    InternalError,
    ModelError,
    ModelLoading,
    ModelNotReady,
    Phrase,
    says_out_of_memory,
)
from glm_backend.models import allocator, loader
from glm_backend.models.catalog import entry_of
from glm_backend.models.loader import Dtype
from glm_backend.models.memory import (
    MemoryEstimate,
    available_bytes,
    needed_by_checkpoint,
    needed_by_entry,
    out_of_memory,
)
from glm_backend.models.model import LoadedModel, Quantization
from glm_backend.models.spread import room_for

State = Literal["empty", "loading", "ready", "failed"]
_log = logging.getLogger(__name__)


class Runtime(Protocol):
    """What is built on a loaded model (an engine); holds the model until it is closed."""

    def close(self) -> None: ...


R = TypeVar("R", bound=Runtime)


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """What to load: a catalogue id, a folder or a hub repository, and how.

    max_context in tokens, 0 for all. family: overrides what a ChatGLM folder is taken for. ptuning:
    folder of a trained prefix; both empty as a rule.
    """

    model: str
    quantization: Quantization = "none"
    device: str = "auto"
    dtype: Dtype = "auto"
    max_context: int = 0
    family: str = ""
    ptuning: str = ""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """The model that answers at present. memory_bytes: weights as held, counted.

    recognised: why it is taken for its family, for people.
    """

    id: str
    name: str
    family: str
    context_length: int
    quantization: Quantization
    dtype: str
    device: str
    memory_bytes: int
    english_first: bool
    load_seconds: float
    recognised: str = ""


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """One moment. `model` is what answers now: in a swap, the old one until it is let go.

    error: why the last load ended early; state is then "failed", or "ready" where the model before
    it stayed. version grows with every change.
    """

    state: State = "empty"
    request: ModelRequest | None = None
    stage: str = ""
    fraction: float = 0.0
    error: GLMError | None = None
    model: ModelFacts | None = None
    version: int = 0


class _Job:
    """One load that was asked for."""

    def __init__(self, request: ModelRequest) -> None:
        self.request = request
        self.cancelled = threading.Event()

    def check(self) -> None:
        if self.cancelled.is_set():
            raise Cancelled(what=Phrase("loading {model}", model=self.request.model))


class ModelManager(Generic[R]):
    """Holds at most one runtime. All methods may be called from any thread."""

    def __init__(
        self,
        open_runtime: Callable[[LoadedModel], R],
        *,
        model_dir: Path,
        hub_endpoint: str | None = None,
    ) -> None:
        self._open_runtime = open_runtime
        self._model_dir = model_dir
        self._hub_endpoint = hub_endpoint
        self._changed = threading.Condition()  # guards the four below
        self._status = ModelStatus()
        self._runtime: R | None = None
        self._loaded_request: ModelRequest | None = None
        self._job: _Job | None = None
        self._turn = threading.Lock()  # held by whoever loads or lets go

    def status(self) -> ModelStatus:
        """The present moment; never waits for a load."""
        with self._changed:
            return self._status

    def current(self) -> R:
        """The runtime that answers now; raises ModelNotReady, or ModelLoading: it is on its way."""
        with self._changed:
            if self._runtime is None:
                raise ModelLoading if self._status.state == "loading" else ModelNotReady
            return self._runtime

    def load(self, request: ModelRequest) -> None:
        """Starts to load and returns at once.

        The same request while it is loading, or when it is loaded, changes nothing; another one
        cancels the first and wins.
        """
        with self._changed:
            if self._job is not None and not self._job.cancelled.is_set():
                if self._job.request == request:
                    return
                self._job.cancelled.set()
            elif self._job is None and self._runtime and self._loaded_request == request:
                return
            self._job = job = _Job(request)
            self._show(state="loading", request=request, stage="", fraction=0.0, error=None)
        threading.Thread(target=self._run, args=(job,), name="model loader", daemon=True).start()

    def cancel(self) -> None:
        """Stops the load that runs, if any. A model that was not let go yet stays."""
        with self._changed:
            if self._job is not None:
                self._job.cancelled.set()

    def unload(self) -> None:
        """Stops a load, lets the model go and gives its memory back before it returns.

        What somebody else asks for meanwhile stays.
        """
        with self._changed:
            job, runtime = self._job, self._runtime
            self.cancel()
        with self._turn:
            with self._changed:
                if self._runtime not in (None, runtime):
                    return  # loaded since; what was to go is gone
            self._let_go()
            with self._changed:
                if self._job in (None, job):
                    self._show(state="empty", request=None, stage="", fraction=0.0, error=None)

    def forget_error(self) -> None:
        """Tells no longer why the last load ended early, where the model before it stayed."""
        with self._changed:
            if self._status.state == "ready":
                self._show(error=None)

    def close(self) -> None:
        """Lets everything go."""
        self.unload()

    def wait(self, timeout_s: float) -> ModelStatus:
        """The status once nothing is loading, or after `timeout_s` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._status.state != "loading", timeout_s)
            return self._status

    def estimate(self, request: ModelRequest) -> MemoryEstimate:
        """What `request` needs beside what is there once the present model is gone.

        Raises ModelError where the source is not there or not usable.
        """
        device = loader.resolve_device(request.device, model=request.model)
        size = loader.resolve_dtype(request.dtype, device).itemsize
        needed: int | None = None
        checkpoint = None
        if (folder := loader.local_folder(request.model, model_dir=self._model_dir)) is not None:
            family = request.family or None
            checkpoint = loader.open_checkpoint(folder, model=request.model, family=family)
            needed = needed_by_checkpoint(
                checkpoint,
                request.quantization,
                bytes_per_value=size,
                max_context=request.max_context,
            ).total
        elif entry := entry_of(request.model):
            needed = needed_by_entry(
                entry,
                request.quantization,
                bytes_per_value=size,
                max_context=request.max_context,
            )
        room = room_for(checkpoint, request.device) or {device: available_bytes(device)}
        available = sum(room.values()) + self._given_back(device.type)
        return MemoryEstimate.compare(needed, available)

    def _given_back(self, device_type: str) -> int:
        model = self.status().model
        return model.memory_bytes if model and model.device.startswith(device_type) else 0

    def _run(self, job: _Job) -> None:
        """The loader thread: one job from start to end."""
        with self._turn:
            try:
                job.check()
                self._prepare(job)
                self._let_go()
                self._build(job)
                return
            except Exception as error:  # the dashboard stays alive whatever a checkpoint does
                failure = self._as_ours(error, job)
            allocator.give_back()  # only here has the error's traceback let the weights go
            self._end(job, failure)

    def _prepare(self, job: _Job) -> None:
        """Everything that can go wrong while the old model still answers."""
        request = job.request
        loader.refuse_hopeless(request.model, model_dir=self._model_dir)
        self.estimate(request).require(request.model)
        loader.prepare(
            request.model,
            family=request.family or None,
            model_dir=self._model_dir,
            on_progress=lambda stage, done: self._progress(job, stage, done),
            hub_endpoint=self._hub_endpoint,
        )
        self.estimate(request).require(request.model)  # by the files, now that they are here

    def _build(self, job: _Job) -> None:
        request, started = job.request, time.monotonic()
        model = loader.load(
            request.model,
            quantization=request.quantization,
            dtype=request.dtype,
            device=request.device,
            max_context=request.max_context,
            family=request.family or None,
            ptuning=request.ptuning or None,
            model_dir=self._model_dir,
            on_progress=lambda stage, done: self._progress(job, stage, done),
            hub_endpoint=self._hub_endpoint,
        )
        runtime = self._open_runtime(model)
        facts = _facts(model, time.monotonic() - started)
        with self._changed:
            if not job.cancelled.is_set():
                self._runtime, self._loaded_request, self._job = runtime, request, None
                self._show(state="ready", stage="", fraction=1.0, model=facts)
                return
        runtime.close()
        job.check()

    def _progress(self, job: _Job, stage: str, fraction: float) -> None:
        job.check()
        with self._changed:
            if self._job is job:
                self._show(stage=stage, fraction=fraction)

    def _end(self, job: _Job, error: GLMError) -> None:
        """A load that did not come to its end: whoever watches sees why."""
        with self._changed:
            if self._job is not job:
                return  # a later request has taken over
            self._job = None
            state: State = "ready" if self._runtime else "failed"
            if isinstance(error, Cancelled) and not self._runtime:
                state = "empty"
            self._show(
                state=state, request=self._loaded_request, stage="", fraction=0.0, error=error
            )

    def _let_go(self) -> None:
        """Closes the runtime and gives its memory back. Only with `_turn` held."""
        with self._changed:
            runtime, self._runtime, self._loaded_request = self._runtime, None, None
            if runtime is None:
                return
            self._show(model=None)
        runtime.close()
        del runtime
        allocator.give_back()

    def _as_ours(self, error: Exception, job: _Job) -> GLMError:
        """The error as one of this project's, without the frames that would hold the weights."""
        if isinstance(error, GLMError):
            ours: GLMError = error
        elif says_out_of_memory(error):
            ours = self._memory_error(job.request)
        else:
            # As text: a record with the traceback itself would hold the weights.
            _log.error("loading %s failed\n%s", job.request.model, traceback.format_exc())
            ours = InternalError(message=f"{type(error).__name__}: {error}")
        ours.__cause__ = ours.__context__ = ours.__traceback__ = None
        return ours

    def _memory_error(self, request: ModelRequest) -> GLMError:
        with contextlib.suppress(ModelError):
            return out_of_memory(request.model, self.estimate(request))
        return out_of_memory(request.model, MemoryEstimate(0, 0, fits=False, known=False))

    def _show(self, **changes: object) -> None:
        """Publishes a new status. Only with `_changed` held."""
        self._status = replace(
            self._status,
            version=self._status.version + 1,
            **changes,  # type: ignore[arg-type]
        )
        self._changed.notify_all()


def _facts(model: LoadedModel, load_seconds: float) -> ModelFacts:
    return ModelFacts(
        id=model.id,
        name=model.name,
        family=model.family,
        context_length=model.context_length,
        quantization=model.quantization,
        dtype=str(model.dtype).removeprefix("torch."),
        device=", ".join(map(str, model.devices)),
        memory_bytes=model.memory_bytes,
        english_first=model.english_first,
        recognised=model.recognised,
        load_seconds=load_seconds,
    )
