"""What a gateway does on its own for the calls of idempotent unary methods: retries and second copies."""

from __future__ import annotations

from dataclasses import dataclass

from mesh.options.calls.hedge_option import HedgePolicy
from mesh.options.calls.retry_option import RetryPolicy
from mesh.v1 import control_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class CallPolicies:
    """The retries and second copies of calls; None: none, or those that the gateway's options name."""

    retry: RetryPolicy | None = None
    hedge: HedgePolicy | None = None


NO_POLICIES = CallPolicies()


def retry_message(policy: RetryPolicy | None) -> control_pb2.RetryOptions | None:
    if policy is None:
        return None
    return control_pb2.RetryOptions(attempts=policy.attempts, codes=sorted(policy.codes), budget=policy.budget)


def hedge_message(policy: HedgePolicy | None) -> control_pb2.HedgeOptions | None:
    if policy is None:
        return None
    return control_pb2.HedgeOptions(delay_s=policy.delay_s, percentile=policy.percentile)


def read_policies(options: control_pb2.GatewayOptions) -> CallPolicies:
    """Those that the options of a gateway ask for."""
    retry, hedge = options.retry, options.hedge
    return CallPolicies(
        retry=(
            RetryPolicy(retry.attempts, frozenset(retry.codes), retry.budget) if options.HasField("retry") else None
        ),
        hedge=(HedgePolicy(delay_s=hedge.delay_s, percentile=hedge.percentile) if options.HasField("hedge") else None),
    )
