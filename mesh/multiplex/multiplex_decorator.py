"""`@mesh.multiplexed`: one replica serves many models and keeps the most recently used ones in memory."""

from __future__ import annotations

import functools
import inspect
import logging
import threading
import weakref
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextvars import Context, ContextVar
from typing import Any, overload

from mesh.context import current_request, in_replica
from mesh.multiplex.loader_types import LoaderDecorator, Model, ModelLoader, ModelLoaderMethod
from mesh.multiplex.model_cache import ModelCache
from mesh.multiplex.model_options import MultiplexOptions, model_size, multiplex_options
from mesh.multiplex.model_stats import ModelStats
from mesh.options import option_checks
from mesh.options.keyword_advice import with_keyword_advice
from mesh.tracing.span_maker import SpanMaker
from mesh.tracing.trace_export import span_maker
from mesh.usercode.instance_state import InstanceState

logger = logging.getLogger(__name__)


@overload
def multiplexed(
    func: None = None,
    max_num_models_per_replica: int = 3,
    *,
    max_bytes_per_replica: int | None = None,
    model_size_fn: Callable[..., Any] | None = None,
    preload: Sequence[str] = (),
    aliases: Mapping[str, str] | None = None,
    min_copies: int = 1,
) -> LoaderDecorator: ...
@overload
def multiplexed(
    func: Callable[[str], Coroutine[Any, Any, Model]], max_num_models_per_replica: int = 3
) -> ModelLoader[Model]: ...
@overload
def multiplexed(
    func: Callable[[Any, str], Coroutine[Any, Any, Model]], max_num_models_per_replica: int = 3
) -> ModelLoaderMethod[Model]: ...
@with_keyword_advice
def multiplexed(
    func: Callable[..., Any] | None = None,
    max_num_models_per_replica: int = 3,
    *,
    max_bytes_per_replica: int | None = None,
    model_size_fn: Callable[..., Any] | None = None,
    preload: Sequence[str] = (),
    aliases: Mapping[str, str] | None = None,
    min_copies: int = 1,
) -> Any:
    """Let an `async def` loader of one model id, function or method, keep what it loaded for the next request.

    Requests that ask for the same model while it loads share one load. Before a load that would exceed a limit the
    least recently used models go: their `__del__`, sync or async, is run, and an error in it reaches those who asked
    for the new model. Models are kept per object and loader.

    The decorated function has `set_aliases`, for example for `reconfigure`: it replaces all aliases, and the next
    request for an alias gets the model that it then means. Usable in a replica only, and in tests within
    `mesh.testing.replica_context()`; RuntimeError elsewhere.

    Args:
        max_num_models_per_replica: models that are kept; -1 for no limit.
        max_bytes_per_replica: bytes of all models together, as `model_size_fn` measures them. A larger model is a
            RuntimeError for those who ask for it.
        model_size_fn: the bytes of a model by its id, before it is loaded: a function of the id, or of the object and
            the id, that may be async.
        preload: models that a replica loads before it takes calls, by a loader that is a method of the deployment.
        min_copies: replicas on which each model that is asked for is kept, where there are as many: by a loader that is
            a method of the deployment. The calls that make the copies wait for their loads.
        aliases: other names of models, such as {"model:stable": "model:7"}. Requests may ask for either.

    Raises TypeError and ValueError for unusable options and ids.

    Example:
        @mesh.multiplexed(max_num_models_per_replica=2)
        async def load(self, model_id: str) -> Model: ...
    """
    if func is not None:
        _check_loader(func)
    options = multiplex_options(
        max_num_models_per_replica, max_bytes_per_replica, model_size_fn, preload, aliases, min_copies
    )

    def decorate(function: Callable[..., Any]) -> Any:
        _check_loader(function)
        return _wrap(MultiplexedLoader(function, options))

    return decorate if func is None else decorate(func)


def get_multiplexed_model_id() -> str:
    """Model id of the current request, of the current batch inside `@mesh.batch`; empty if it has none."""
    request = current_request()
    return request.multiplexed_model_id if request is not None else ""


class ModelRegistry:
    """All models of one replica: announced to routers, and unloaded by a stopping replica.

    Loaders add their caches, which it does not keep alive. Ids are those that requests name; each is there once,
    whichever loaders have it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._caches: weakref.WeakSet[ModelCache] = weakref.WeakSet()
        self._callback: Callable[[list[str]], None] | None = None
        self._announced: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<ModelRegistry of {len(self._caches)} caches, {len(self._announced)} models announced>"

    def on_change(self, callback: Callable[[list[str]], None] | None) -> None:
        """Call `callback` with all ids, loaded and loading, when they change; None: no longer.

        It runs in the thread of the user loop, takes the place of an earlier one, and must not raise.
        """
        self._callback = callback

    def model_ids(self) -> list[str]:
        """Ids as they were last announced. From any thread."""
        return list(self._announced)

    async def unload_all(self) -> None:
        """Unload every model and stop loads. Raises nothing: errors of `__del__` are logged.

        For the shutdown of a replica, on its user loop.
        """
        for cache in self._snapshot():
            for error in await cache.unload_all():
                logger.error("Unloading a model failed: its __del__ raised.", exc_info=error)

    def add(self, cache: ModelCache) -> None:
        """From any thread."""
        with self._lock:
            self._caches.add(cache)

    def announce(self) -> None:
        """Tell the callback, if the set of ids has changed. On the user loop."""
        ids = dict.fromkeys(model_id for cache in self._snapshot() for model_id in cache.announced)
        if ids.keys() != set(self._announced):
            self._announced = tuple(ids)
            if self._callback is not None:
                self._callback(list(ids))

    def _snapshot(self) -> list[ModelCache]:
        with self._lock:
            return list(self._caches)


model_registry = ModelRegistry()
"""That of this process, which is one replica."""
_LOCAL_REGISTRY: ContextVar[ModelRegistry] = ContextVar("mesh_local_models", default=model_registry)


def registry_in(context: Context) -> ModelRegistry:
    """A registry of its own for one of several replicas in this process: for code that runs in copies of `context`."""
    registry = ModelRegistry()
    context.run(_LOCAL_REGISTRY.set, registry)
    return registry


def current_registry() -> ModelRegistry:
    """That of the replica whose code runs."""
    return _LOCAL_REGISTRY.get()


class MultiplexedLoader:
    """One multiplexed function: its limit, its figures and the caches of its objects."""

    def __init__(self, function: Callable[..., Any], options: MultiplexOptions) -> None:
        self.function = function
        self.options = options
        self.is_method = len(inspect.signature(function).parameters) == 2
        self._caches: InstanceState[ModelCache] = InstanceState()
        if options.needs_owner and not self.is_method:
            raise TypeError("model_size_fn takes an object and a model id, but the loader is a plain function.")
        self._stats = ModelStats(_plain(function).__name__, self._resident_models, self._resident_bytes)

    def __reduce__(self) -> tuple[Any, ...]:
        # Decorated classes are pickled by value into replicas; models stay where they are.
        return MultiplexedLoader, (self.function, self.options)

    async def get(self, args: tuple[Any, ...]) -> Any:
        owner, model_id = self._read(args)
        return await self._caches.get(owner, lambda: self._new_cache(owner)).get(self.options.resolved(model_id))

    def set_aliases(self, aliases: Mapping[str, str]) -> None:
        """Replace all aliases, for every object of this process. From any thread.

        Raises TypeError or ValueError, and changes nothing then.
        """
        self.options = self.options.with_aliases(aliases)
        for cache in self._caches.values():
            cache.renamed()

    def _names(self, model_ids: Sequence[str]) -> list[str]:
        """Under which these models can be asked for: their ids, then their aliases."""
        return [*model_ids, *(alias for alias, model_id in self.options.aliases.items() if model_id in model_ids)]

    def _read(self, args: tuple[Any, ...]) -> tuple[object | None, str]:
        owner, ids = (args[0], args[1:]) if self.is_method and args else (None, args)
        if len(ids) != 1:
            raise TypeError(f"{_plain(self.function).__qualname__} takes exactly one model id, {len(ids)} were given.")
        model_id = ids[0]
        if not isinstance(model_id, str):
            raise TypeError(f"A model id must be a str, not {type(model_id).__name__}.")
        if not model_id:
            raise ValueError("The model id is empty. Set it on the request, or pass one to the loader.")
        option_checks.name_text("A model id", model_id)
        if not in_replica():
            raise RuntimeError(
                "@mesh.multiplexed can only be used within a deployment, and in tests within "
                "mesh.testing.replica_context()."
            )
        return owner, model_id

    def _new_cache(self, owner: object | None) -> ModelCache:
        function, size_fn = self.function, self.options.model_size_fn
        if owner is None:
            load: Callable[[str], Any] = function
        else:
            # The cache must not keep the object alive that it is kept for. The object cannot die before a load that
            # it asked for begins: the asking call holds it; a load that outlives all its callers may find it gone.
            reference = weakref.ref(owner)

            async def load(model_id: str) -> Any:
                receiver = reference()
                if receiver is None:
                    raise RuntimeError(f"The object that asked for model {model_id!r} is gone.")
                return await function(receiver, model_id)

        registry, spans = current_registry(), span_maker()
        if spans is not None:
            load = _traced(load, spans)
        cache = ModelCache(
            load,
            self.options.limits,
            self._stats,
            registry.announce,
            size_of=None if size_fn is None else _measured(size_fn, owner if self.options.needs_owner else None),
            names=self._names,
        )
        registry.add(cache)
        return cache

    def _resident_bytes(self) -> int:
        return sum(cache.resident_bytes for cache in self._caches.values())

    def _resident_models(self) -> int:
        return sum(len(cache.resident_ids) for cache in self._caches.values())


def _wrap(loader: MultiplexedLoader) -> Any:
    @functools.wraps(loader.function)
    async def load_multiplexed(*args: Any) -> Any:
        return await loader.get(args)

    wrapped: Any = load_multiplexed
    wrapped.multiplexed_loader = loader
    wrapped.set_aliases = loader.set_aliases
    return wrapped


def _check_loader(function: Any) -> None:
    if not callable(function):
        raise TypeError(f"@mesh.multiplexed decorates a function or a method, not {function!r}.")
    if not inspect.iscoroutinefunction(function):
        raise TypeError(f"@mesh.multiplexed needs an `async def` function, got {function!r}.")
    names = list(inspect.signature(function).parameters)
    count = len(names)
    if count not in (1, 2) or names == ["self"]:
        raise TypeError(
            f"@mesh.multiplexed needs a function of one parameter, the model id, or a method of two; "
            f"{_plain(function).__qualname__} has {count}."
        )


def _plain(function: Any) -> Any:
    """The function that a partial calls, which has a name."""
    while isinstance(function, functools.partial):
        function = function.func
    return function


def _measured(size_fn: Callable[..., Any], owner: object | None) -> Callable[[str], Coroutine[Any, Any, int]]:
    reference = None if owner is None else weakref.ref(owner)

    async def size_of(model_id: str) -> int:
        size = size_fn(model_id) if reference is None else size_fn(reference(), model_id)
        return model_size(await size if inspect.isawaitable(size) else size)

    return size_of


def _traced(load: Callable[[str], Any], spans: SpanMaker) -> Callable[[str], Any]:
    async def load_in_span(model_id: str) -> Any:
        with spans.internal("load model", {"mesh.model_id": model_id}):
            return await load(model_id)

    return load_in_span
