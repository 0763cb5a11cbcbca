"""Owns what single nodes have left, and how replicas take it: one by one, or a placement group at a time. Pure."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from mesh.controller.desired.resource_request import Ask, Bundle
from mesh.controller.plan.cluster_picture import Node

_EPSILON = 1e-6


class Account:
    """What one node has left."""

    __slots__ = ("free", "is_suspect", "node_id", "order", "replicas", "soon", "total")

    def __init__(self, node: Node, order: tuple[bool, int], replicas: int, *, is_suspect: bool = False) -> None:
        """`is_suspect`: it has probably died, so it is nobody's first choice."""
        self.node_id = node.node_id
        self.order = order
        self.replicas = replicas
        self.is_suspect = is_suspect
        self.total = node.total
        self.free = dict(node.available)
        self.soon = dict(node.available)


def take_singles(
    accounts: Iterable[Account], ask: Ask, count: int, views: Sequence[str], on: Counter[str]
) -> Iterator[tuple[str, ...]]:
    """Spread: a heap gives the emptiest node; one that has no place for one has none for the next either."""
    heap = [_place_in_line(each, on) for each in accounts]
    heapq.heapify(heap)
    bundle = ask.whole
    while count and heap:
        account = heap[0][-1]
        if not has_place(account, ask, views, on):
            heapq.heappop(heap)
            continue
        for view in views:
            book(getattr(account, view), bundle, -1)
        on[account.node_id] += 1
        account.replicas += 1
        count -= 1
        heapq.heapreplace(heap, _place_in_line(account, on))
        yield (account.node_id,)


def _place_in_line(account: Account, on: Counter[str]) -> tuple[bool, int, int, tuple[bool, int], Account]:
    """Sorts the node first that has the fewest replicas of the deployment, then the fewest of all."""
    return account.is_suspect, on[account.node_id], account.replicas, account.order, account


def has_place(account: Account, ask: Ask, views: Sequence[str], on: Counter[str]) -> bool:
    if ask.per_node_max and on[account.node_id] >= ask.per_node_max:
        return False
    return _fits_all(account, views, ask.whole)


def take_gangs(
    accounts: Sequence[Account], ask: Ask, count: int, views: Sequence[str], *, is_trial: bool = False
) -> Iterator[tuple[str, ...]]:
    """Placement groups. Ray decides where they really go; this tells whether they can."""
    for _ in range(count):
        ordered = sorted(accounts, key=lambda each: (each.is_suspect, each.replicas, each.order))
        taken = _take_gang(ordered, ask, views)
        if len(taken) < len(ask.bundles) or is_trial:
            for number, account in taken.items():
                _book_all(account, views, ask.bundles[number], 1)
        if len(taken) < len(ask.bundles):
            return
        if not is_trial:
            taken[0].replicas += 1
        yield tuple(taken[number].node_id for number in range(len(ask.bundles)))


def _take_gang(accounts: Sequence[Account], ask: Ask, views: Sequence[str]) -> dict[int, Account]:
    """Nodes by number of the bundle. All of them where they fit."""
    if ask.strategy in ("PACK", "STRICT_PACK"):
        whole = next((each for each in accounts if _fits_all(each, views, ask.whole)), None)
        if whole is not None:
            _book_all(whole, views, ask.whole, -1)
            return dict.fromkeys(range(len(ask.bundles)), whole)
        if ask.strategy == "STRICT_PACK":
            return {}
    taken: dict[int, Account] = {}
    for number in sorted(range(len(ask.bundles)), key=lambda number: _size(ask.bundles[number])):
        bundle = ask.bundles[number]
        for account in _candidates(accounts, ask.strategy, set(taken.values())):
            if _fits_all(account, views, bundle):
                _book_all(account, views, bundle, -1)
                taken[number] = account
                break
        else:
            return taken
    return taken


def _candidates(accounts: Sequence[Account], strategy: str, used: set[Account]) -> list[Account]:
    if strategy == "STRICT_SPREAD":
        return [each for each in accounts if each not in used]
    is_packed = strategy == "PACK"
    return sorted(accounts, key=lambda each: (each in used) != is_packed)


def _size(bundle: Bundle) -> tuple[float, ...]:
    """Sorts the largest bundle first."""
    amounts = dict(bundle)
    return (-amounts.get("GPU", 0.0), -amounts.get("CPU", 0.0), -amounts.get("memory", 0.0))


def _fits_all(account: Account, views: Sequence[str], bundle: Bundle) -> bool:
    for view in views:  # noqa: SIM110 - as below
        if not _fits(getattr(account, view), bundle):
            return False
    return True


def _fits(view: dict[str, float], bundle: Bundle) -> bool:
    for name, amount in bundle:  # noqa: SIM110 - this is asked once per replica and node
        if view.get(name, 0.0) + _EPSILON < amount:
            return False
    return True


def book(view: dict[str, float], bundle: Bundle, sign: int) -> None:
    for name, amount in bundle:
        view[name] = view.get(name, 0.0) + sign * amount


def _book_all(account: Account, views: Sequence[str], bundle: Bundle, sign: int) -> None:
    for view in views:
        book(getattr(account, view), bundle, sign)


def could_hold(ask: Ask, nodes: Iterable[Node]) -> bool:
    """Whether a replica would find room if the nodes were empty."""
    accounts = [Account(node, (node.is_head, 0), 0) for node in nodes]
    for account in accounts:
        account.free = dict(account.total)
    if len(ask.bundles) > 1:
        return len(_take_gang(accounts, ask, ("free",))) == len(ask.bundles)
    return any(_fits(account.free, ask.whole) for account in accounts)
