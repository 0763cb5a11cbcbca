"""The application: an ingress that implements weather.proto, forecasters with a model per city, and a logbook.

    client ── gRPC ──▶ WeatherService ── handle ──▶ Forecaster (2 replicas, at most 2 models each)
                             └───────── handle ──▶ Logbook ◀── handle ── Forecaster

Run it in the foreground with `mesh run examples.weather.app:app`, or with the options of `mesh.yaml`:
`mesh run examples/weather/mesh.yaml`.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc
import numpy as np

import mesh
from examples.weather import weather_pb2, weather_pb2_grpc
from examples.weather.model import CityModel

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class Forecaster:
    """Forecasts with one model per city, which is fitted at its first use."""

    def __init__(self, logbook: mesh.DeploymentHandle) -> None:
        self._logbook = logbook
        self._replica_id = mesh.get_replica_context().replica_id
        self._notes: set[asyncio.Task[None]] = set()

    @mesh.multiplexed(max_num_models_per_replica=2)
    async def model_of(self, city: str) -> CityModel:
        return await asyncio.to_thread(CityModel.from_csv, city)

    async def forecast(self, request: weather_pb2.ForecastRequest) -> weather_pb2.ForecastReply:
        with self._noting_cancel(request.label):
            model = await self.model_of(mesh.get_multiplexed_model_id())
            return weather_pb2.ForecastReply(
                city=model.city,
                hour=request.hour,
                celsius=model.predict(request.hour),
                standard_error=await self._standard_error(model, request.hour, request.resamples),
                served_by=self._replica_id,
            )

    async def watch(self, request: weather_pb2.WatchRequest) -> AsyncIterator[weather_pb2.ForecastReply]:
        with self._noting_cancel(request.label):
            model = await self.model_of(mesh.get_multiplexed_model_id())
            for step in range(request.hours):
                hour = request.first_hour + step
                yield weather_pb2.ForecastReply(
                    city=model.city, hour=hour, celsius=model.predict(hour), served_by=self._replica_id
                )
                await asyncio.sleep(request.interval_ms / 1000)

    async def _standard_error(self, model: CityModel, hour: float, resamples: int) -> float:
        forecasts = []
        for _ in range(resamples):
            forecasts.append(model.predict_resampled(hour))
            await asyncio.sleep(0)  # a cancel can arrive between two fits, which take less than a millisecond each
        return float(np.std(forecasts)) if forecasts else 0.0

    @contextmanager
    def _noting_cancel(self, label: str) -> Iterator[None]:
        try:
            yield
        except (asyncio.CancelledError, GeneratorExit):
            self._note_cancel(label, time.time())
            raise

    def _note_cancel(self, label: str, seen_at_s: float) -> None:
        # A new context, because calls made in the context of the cancelled request are cancelled with it.
        note = asyncio.get_running_loop().create_task(self._write(label, seen_at_s), context=contextvars.Context())
        self._notes.add(note)
        note.add_done_callback(self._notes.discard)

    async def _write(self, label: str, seen_at_s: float) -> None:
        await self._logbook.note.remote(label, self._replica_id, seen_at_s)


class Logbook:
    """Remembers the latest cancelled requests."""

    def __init__(self, entries_max: int = 1000) -> None:
        self._entries_max = entries_max
        self._entries: list[weather_pb2.Cancellation] = []

    def note(self, label: str, replica_id: str, seen_at_s: float) -> None:
        entry = weather_pb2.Cancellation(label=label, replica_id=replica_id, seen_at_s=seen_at_s)
        self._entries = [*self._entries, entry][-self._entries_max :]

    def entries(self) -> list[weather_pb2.Cancellation]:
        return self._entries


class WeatherService(weather_pb2_grpc.WeatherServicer):
    """The ingress: the service that gRPC clients call."""

    def __init__(self, forecaster: mesh.DeploymentHandle, logbook: mesh.DeploymentHandle) -> None:
        self._forecaster = forecaster
        self._logbook = logbook

    async def Forecast(self, request: weather_pb2.ForecastRequest, context: Context) -> weather_pb2.ForecastReply:
        city = request.city or mesh.get_multiplexed_model_id()
        if not city:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "Name a city, in the request or as metadata.")
        try:
            return await self._ask(city, request)
        except KeyError:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"There is no model for {city!r}.")

    async def Watch(
        self, request: weather_pb2.WatchRequest, context: Context
    ) -> AsyncIterator[weather_pb2.ForecastReply]:
        watch = self._forecaster.watch.options(multiplexed_model_id=request.city, stream=True)
        async for reply in watch.remote(request):
            yield reply

    async def Report(
        self, request_iterator: AsyncIterator[weather_pb2.Observation], context: Context
    ) -> weather_pb2.ReportReply:
        errors = []
        async for observation in request_iterator:
            request = weather_pb2.ForecastRequest(city=observation.city, hour=observation.hour)
            errors.append(abs((await self._ask(observation.city, request)).celsius - observation.celsius))
        return weather_pb2.ReportReply(observations=len(errors), mean_absolute_error=float(np.mean(errors or [0.0])))

    async def Converse(
        self, request_iterator: AsyncIterator[weather_pb2.ForecastRequest], context: Context
    ) -> AsyncIterator[weather_pb2.ForecastReply]:
        async for request in request_iterator:
            yield await self._ask(request.city, request)

    async def Cancellations(
        self, request: weather_pb2.CancellationsRequest, context: Context
    ) -> weather_pb2.CancellationsReply:
        return weather_pb2.CancellationsReply(entries=await self._logbook.entries.remote())

    async def _ask(self, city: str, request: weather_pb2.ForecastRequest) -> weather_pb2.ForecastReply:
        reply: weather_pb2.ForecastReply = await self._forecaster.forecast.options(multiplexed_model_id=city).remote(
            request
        )
        return reply


SMALL = {"num_cpus": 0.1}
"""Small, so that all replicas fit on a laptop with two cores."""

forecaster = mesh.deployment(Forecaster, num_replicas=2, max_ongoing_requests=50, ray_actor_options=SMALL)
logbook = mesh.deployment(Logbook, ray_actor_options=SMALL)
service = mesh.deployment(WeatherService, max_ongoing_requests=100, ray_actor_options=SMALL)


@dataclass
class WeatherArgs:
    """Arguments that a configuration file or the command line can set."""

    log_entries: int = 1000


def build(args: WeatherArgs) -> mesh.Application:
    bound_logbook = logbook.bind(args.log_entries)
    return service.bind(forecaster.bind(bound_logbook), bound_logbook)


app = build(WeatherArgs())
