"""All mutants: faults that someone could put into the controller, and the tests that see them."""

from __future__ import annotations

from tests.mutants.replica_mutants import DISRUPTIONS, DRAINS
from tests.mutants.restart_mutants import RESTARTS
from tests.mutants.update_mutants import CANARIES, GENERATIONS, ROLLOUTS

MUTANTS = (*DRAINS, *ROLLOUTS, *GENERATIONS, *CANARIES, *DISRUPTIONS, *RESTARTS)
