"""Autoscaling policies as users write them, in a module that their process imports by its path."""

import os
import time
from collections.abc import Mapping
from pathlib import Path

from mesh import AutoscalingContext


class Venomous(Exception):
    """Ends the process that unpickles it."""

    def __reduce__(self) -> tuple[object, ...]:
        return os._exit, (4,)


def obey(context: AutoscalingContext, *, orders: str) -> object:
    """Does what the file says: a number of replicas, or one of the ways in which policies misbehave."""
    order = Path(orders).read_text()
    match order:
        case "raise":
            raise Venomous(f"no idea for {context.deployment}")
        case "hang":
            time.sleep(3600)
        case "exit":
            os._exit(3)
        case "chatter":
            return "many"
    return int(order)


async def follow_stats(context: AutoscalingContext) -> float:
    """As many replicas as the hungriest one says."""
    return max((stats["hunger"] for stats in context.replica_stats), default=1)


def one_more_behind(contexts: Mapping[str, AutoscalingContext]) -> dict[str, float]:
    """Two fronts, and one replica more behind them than there are."""
    return {"Front": 2, "Behind": contexts["Front"].target_replicas + 1}
