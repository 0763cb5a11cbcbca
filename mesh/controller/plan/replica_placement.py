"""Owns where replicas go, and whether there is room for them at all. Pure.

Theory of operation. A ledger holds two views of every node that is not being drained:

- what is free now: the less of what Ray reports and of what our own replicas leave over. Ray's report lags behind
  replicas that just started, our own count does not know other users of the cluster;
- what is free soon: the same when the replicas that are leaving have gone. What was held by replicas that have just
  gone counts as well, as long as Ray may not have reported it yet.

A start gets a node by the first view, spread: the node with the fewest replicas of the deployment, then with the fewest
of all. One that finds none waits in Ray's queue, where the cluster's autoscaler sees it. Only when not even the second
view has room is it short of room, and others may have to leave for it: a report that lags must not cost a replica.

Ray has the last word. A replica that has a node on paper and no process after some time is placed again on paper; one
that seems to have room for very long and still has no process is taken to be short, whatever the reason.
Where Ray has to make a runtime environment first, which may take minutes, both come much later.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from mesh.controller.desired.resource_request import Ask, Bundle
from mesh.controller.plan.cluster_picture import Observed, Replica
from mesh.controller.plan.node_resources import Account, book, has_place, take_gangs, take_singles
from mesh.v1 import control_pb2

TRUST_S = 10.0
"""How long a replica without a process is believed to get the node it was given."""
PATIENCE_S = 30.0
"""A replica without a process for so long finds no room, whatever the accounts say."""
ENVIRONMENT_PATIENCE_S = 600.0
"""Both, for a replica whose runtime environment Ray has to make first: that may install packages."""
_QUICK_ENVIRONMENT = {"env_vars"}
REPORT_LAG_S = 2.0
"""Ray's report of free resources is at most about this old."""


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a replica shall run."""

    node_ids: tuple[str, ...] = ()
    """One per bundle; empty: wherever Ray finds room."""


ANYWHERE = Spot()


class Ledger:
    """The accounts of all nodes while one plan is made: what is given away is gone for the next who asks."""

    def __init__(self, observed: Observed, now_s: float) -> None:
        self.observed = observed
        self.now_s = now_s

    @cached_property
    def replicas_on(self) -> Counter[str]:
        """Replicas of any deployment that stay, by node."""
        return Counter(replica.node_id for replica in self.observed.replicas if not replica.is_leaving)

    @cached_property
    def head_ids(self) -> set[str]:
        return {node.node_id for node in self.observed.nodes if node.is_head}

    @cached_property
    def accounts(self) -> dict[str, Account]:
        """Of the nodes that take new replicas. The head comes last among equals: it has the controller to carry."""
        nodes = [node for node in self.observed.nodes if node.ends_s is None]
        suspects = {node_id for each in self.observed.vacancies if each.is_node_lost for node_id in each.bundle_nodes}
        accounts = {
            node.node_id: Account(
                node,
                (node.is_head, number),
                self.replicas_on[node.node_id],
                is_suspect=node.node_id in suspects,
            )
            for number, node in enumerate(nodes)
        }
        self._settle(accounts)
        return accounts

    def is_homeless(self, replica: Replica) -> bool:
        """It has no process, and no node or none that it can be believed to get."""
        return not replica.is_placed and (replica.node_id not in self.accounts or self.is_slow(replica))

    def is_late(self, replica: Replica) -> bool:
        """It has no process after some time."""
        return not replica.is_placed and self.now_s - replica.created_s > TRUST_S

    def is_slow(self, replica: Replica) -> bool:
        """It ought to have a process by now."""
        return self.is_late(replica) and not self._is_equipped(replica)

    def is_stuck(self, replica: Replica) -> bool:
        """It finds no room, whatever the accounts say."""
        return self.is_slow(replica) and self.now_s - replica.created_s > PATIENCE_S

    def _is_equipped(self, replica: Replica) -> bool:
        """Ray may be making its runtime environment, and keeps its room for it meanwhile."""
        environment = _environment(replica.spec)
        is_young = self.now_s - replica.created_s <= ENVIRONMENT_PATIENCE_S
        return is_young and bool(environment.keys() - _QUICK_ENVIRONMENT)

    def _settle(self, accounts: dict[str, Account]) -> None:
        staying: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        leaving: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        gone: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        for replica in self.observed.replicas:
            if replica.is_leaving or not self.is_slow(replica):
                _enter(leaving if replica.is_leaving else staying, replica.bundles, replica.bundle_nodes)
        for vacancy in self.observed.vacancies:
            if self.now_s - vacancy.at_s <= REPORT_LAG_S:
                _enter(gone, vacancy.bundles, vacancy.bundle_nodes)
        for node_id, account in accounts.items():
            for name, total in account.total.items():
                available = account.free.get(name, 0.0)
                ours, ending = staying[node_id][name], leaving[node_id][name]
                account.free[name] = min(available, total - ours - ending)
                account.soon[name] = min(available + ending + gone[node_id][name], total - ours)


class Room:
    """What the ledger has for one deployment."""

    def __init__(self, ledger: Ledger, ask: Ask, replicas: Sequence[Replica], version: str) -> None:
        """`replicas`: all of the deployment, of any version."""
        self._ledger = ledger
        self._ask = ask
        self._replicas = replicas
        self._version = version
        self._withheld = 0
        """Starts that were wanted and may not begin before there is a node for them."""
        self._makers: dict[str, Replica] = {}
        self._helped = 0
        """How many of those that are short have got room by makers."""

    def spots(self, count: int) -> list[Spot]:
        """A spot for each of `count` starts, in order. Fewer, where they must not run just anywhere."""
        if not count:
            return []
        _ = self._unhoused  # those who wait already come first
        found = [Spot(node_ids) for node_ids in self._take(count, from_now=True)]
        missing = count - len(found)
        if not self._ask.is_bound:
            return found + [ANYWHERE] * missing
        self._withheld = missing
        return found

    @property
    def short(self) -> int:
        """Replicas of the wanted version for which there is no room, now or soon."""
        return self._unhoused + self._withheld

    @property
    def roomless(self) -> int:
        """Like `short`, but only those for which the accounts show no room."""
        return self._roomless + self._withheld

    def room_makers(self, candidates: Sequence[Replica], most: int) -> list[Replica]:
        """Those of `candidates` whose leaving gives room to replicas that are short of it. Nobody leaves in vain."""
        while len(self._makers) < most and self._helped < self.short:
            makers = self._fewest_makers(candidates, most - len(self._makers))
            if not makers:
                break
            self._give_back(makers)
            _count(self._take(1, from_now=False))
            self._makers.update((each.replica_id, each) for each in makers)
            self._helped += 1
        return list(self._makers.values())

    def is_stranded(self, replica: Replica) -> bool:
        """It may run on one node only and has waited there in vain: it has to be started anew for another one."""
        return self._ask.is_bound and self._ledger.is_stuck(replica)

    def victims_first(self, replicas: Iterable[Replica]) -> list[Replica]:
        """In the order in which they leave (item 191): off the head node, from nodes with the fewest replicas, newest.

        One node after the other, so that nodes become free. Labels, the contract's third rule, do not exist here.
        """
        ordered = sorted(replicas, key=lambda each: -each.created_s)
        newest: dict[str, int] = {}
        for number, replica in enumerate(ordered):
            newest.setdefault(replica.node_id, number)
        heads, count = self._ledger.head_ids, self._ledger.replicas_on
        return sorted(ordered, key=lambda each: (each.node_id in heads, count[each.node_id], newest[each.node_id]))

    # ---- Taking and giving back --------------------------------------------------------------------------------------

    @cached_property
    def _now_on(self) -> Counter[str]:
        """Replicas of the deployment by node, those that are leaving too."""
        return Counter(each.node_id for each in self._replicas)

    @cached_property
    def _soon_on(self) -> Counter[str]:
        homeless = self._ledger.is_homeless
        return Counter(each.node_id for each in self._replicas if not each.is_leaving and not homeless(each))

    @cached_property
    def _unhoused(self) -> int:
        """Replicas of the wanted version that wait in vain. Room that comes soon is kept for those that do not."""
        # One that asks for nothing waits for its process, not for room.
        stuck = sum(self._ledger.is_stuck(each) for each in self._waiting) if self._ask.whole else 0
        return max(stuck, self._roomless)

    @cached_property
    def _roomless(self) -> int:
        waiting = len(self._waiting)
        return waiting - _count(self._take(waiting, from_now=False)) if waiting else 0

    @cached_property
    def _waiting(self) -> list[Replica]:
        unplaced = (each for each in self._replicas if not each.is_placed and each.stays_as(self._version))
        return [each for each in unplaced if self._ledger.is_homeless(each)]

    def _take(self, count: int, *, from_now: bool) -> Iterable[tuple[str, ...]]:
        """Take room for `count` replicas; yields the nodes of each that finds it. What is taken now is taken soon."""
        on = self._now_on if from_now else self._soon_on
        views = ("free", "soon") if from_now else ("soon",)
        if len(self._ask.bundles) > 1:
            return take_gangs(list(self._ledger.accounts.values()), self._ask, count, views)
        return take_singles(self._ledger.accounts.values(), self._ask, count, views, on)

    def _fewest_makers(self, candidates: Sequence[Replica], most: int) -> list[Replica]:
        """The smallest group on one node, or first of all, whose leaving lets one replica in; empty: there is none."""
        by_node: dict[str, list[Replica]] = defaultdict(list)
        left = [replica for replica in candidates if replica.replica_id not in self._makers]
        for replica in left:
            by_node[replica.node_id].append(replica)
        groups = [*by_node.values(), left] if len(self._ask.bundles) > 1 else list(by_node.values())
        for size in range(1, most + 1):
            for group in groups:
                if len(group) >= size and self._would_help(group[:size]):
                    return list(group[:size])
        return []

    def _would_help(self, leaving: Sequence[Replica]) -> bool:
        self._give_back(leaving)
        accounts = self._ledger.accounts
        if len(self._ask.bundles) > 1:
            helps = _count(take_gangs(list(accounts.values()), self._ask, 1, ("soon",), is_trial=True)) > 0
        else:
            account = accounts.get(leaving[0].node_id)
            helps = account is not None and has_place(account, self._ask, ("soon",), self._soon_on)
        self._give_back(leaving, sign=-1)
        return helps

    def _give_back(self, leaving: Iterable[Replica], sign: int = 1) -> None:
        for replica in leaving:
            self._soon_on[replica.node_id] -= sign
            for bundle, node_id in zip(replica.bundles, replica.bundle_nodes, strict=False):
                if account := self._ledger.accounts.get(node_id):
                    book(account.soon, bundle, sign)


def _environment(spec: control_pb2.DeploymentSpec) -> dict[str, object]:
    """Empty where it cannot be read: one spec must not stop the placing of all."""
    try:
        environment = json.loads(spec.options.actor.runtime_env_json or "{}")
    except ValueError:
        return {}
    return environment if isinstance(environment, dict) else {}


def _count(taken: Iterable[object]) -> int:
    return sum(1 for _ in taken)


def _enter(amounts: dict[str, dict[str, float]], bundles: Sequence[Bundle], node_ids: Sequence[str]) -> None:
    for bundle, node_id in zip(bundles, node_ids, strict=False):
        for name, amount in bundle:
            amounts[node_id][name] += amount
