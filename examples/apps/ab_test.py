"""An A/B test behind a gRPC service: a share of the users, always the same ones, gets the new model.

`mesh run examples.apps.ab_test:app`, then call weather.Weather/Forecast at localhost:9000 with metadata `user`.
"""

from __future__ import annotations

import zlib
from typing import Any

import grpc

import mesh
from examples.weather import weather_pb2, weather_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]


class Climate:
    """The old model: the mean of many years."""

    async def celsius(self, city: str, hour: float) -> float:
        return 15.0


class Trend:
    """The new model."""

    async def celsius(self, city: str, hour: float) -> float:
        return 15.0 + hour / 8760


class AbTest(weather_pb2_grpc.WeatherServicer):
    def __init__(self, old: mesh.DeploymentHandle, new: mesh.DeploymentHandle) -> None:
        self.variants = {"old": old, "new": new}

    def reconfigure(self, user_config: dict[str, Any]) -> None:
        """The share can be changed while it runs: no replica is restarted for it."""
        self.percent = user_config["percent"]

    async def Forecast(self, request: weather_pb2.ForecastRequest, context: Context) -> weather_pb2.ForecastReply:
        user = str(dict(context.invocation_metadata() or ()).get("user", ""))
        variant = "new" if zlib.crc32(user.encode()) % 100 < self.percent else "old"
        context.set_trailing_metadata([("variant", variant)])
        celsius = await self.variants[variant].celsius.remote(request.city, request.hour)
        return weather_pb2.ForecastReply(city=request.city, hour=request.hour, celsius=celsius, served_by=variant)


climate = mesh.deployment(Climate)
trend = mesh.deployment(Trend)
ab_test = mesh.deployment(AbTest, user_config={"percent": 20})
app = ab_test.bind(climate.bind(), trend.bind())
