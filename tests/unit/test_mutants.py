"""The catalogue of mutants fits the code of now. `make mutants` says whether the tests see each of them."""

import ast

import pytest

from tests.documents import ROOT
from tests.mutants.catalogue import MUTANTS
from tests.mutants.mutant import SOURCE, Mutant


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_changes_what_is_there_and_is_python(mutant: Mutant) -> None:
    source = (ROOT / SOURCE / mutant.file).read_text()
    changed = mutant.applied(source)
    assert ast.dump(ast.parse(changed)) != ast.dump(ast.parse(source))
    missing = [test for test in mutant.tests if not (ROOT / "tests" / test).is_file()]
    assert not missing


def test_mutants_differ() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len({(each.file, each.old, each.new) for each in MUTANTS})
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


def test_a_mutant_of_code_that_has_changed_is_refused() -> None:
    with pytest.raises(LookupError, match="Adapt the mutant to the code of now"):
        MUTANTS[0].applied("def plan() -> None: ...")
    with pytest.raises(LookupError, match="2 times, not once"):
        MUTANTS[0].applied(MUTANTS[0].old * 2)
