"""mesh.usercode.reconfigure_method: a `reconfigure` that only Ray Serve 2.60 could call is refused at decoration."""

from typing import Any

import pytest

import mesh


class NeedsRank:
    def reconfigure(self, config: Any, rank: int) -> None: ...


class NeedsRankByKeyword:
    async def reconfigure(self, config: Any, *, rank: int) -> None: ...


class MayHaveRank:
    def reconfigure(self, config: Any, rank: int | None = None) -> None: ...


class CallsItsConfigRank:
    def reconfigure(self, rank: Any) -> None: ...


class HasNone:
    reconfigure = None


@pytest.mark.parametrize("cls", [NeedsRank, NeedsRankByKeyword])
def test_a_rank_that_is_needed_is_refused_with_advice(cls: type) -> None:
    """Also for a class that takes another one's place (items 85, 130)."""
    with pytest.raises(TypeError, match=f"{cls.__name__}.reconfigure needs a rank. .* bind one deployment for each"):
        mesh.deployment(cls)
    with pytest.raises(TypeError, match="needs a rank"):
        mesh.deployment(MayHaveRank).options(cls)


@pytest.mark.parametrize("cls", [MayHaveRank, CallsItsConfigRank, HasNone, int])
def test_every_other_class_is_deployed(cls: type) -> None:
    """The first parameter is the configuration, whatever it is called (item 85)."""
    assert mesh.deployment(cls).name == cls.__name__
