"""mesh.replica.config_attempts: one configuration after the other, and the one that failed."""

import asyncio

import pytest

from mesh.replica.config_attempts import ConfigAttempts
from mesh.v1 import control_pb2


def test_what_was_refused_is_remembered_until_another_one_is_taken_over() -> None:
    async def main() -> None:
        attempts = ConfigAttempts()
        with pytest.raises(KeyError):
            async with attempts.attempt("c2"):
                raise KeyError("threshold")
        with pytest.raises(ValueError, match="no file"):
            async with attempts.attempt("c2"):
                raise ValueError("no file \udcff")
        assert control_pb2.ReplicaReady(rejection=attempts.rejection).rejection == "ValueError: no file \\udcff"
        with pytest.raises(KeyError):
            async with attempts.attempt("c2"):
                raise KeyError("threshold")
        assert (attempts.rejected_version, attempts.rejection) == ("c2", "KeyError: 'threshold'")
        async with attempts.attempt("c3"):
            pass
        assert (attempts.rejected_version, attempts.rejection) == ("", "")

    asyncio.run(main())


class UnspeakableError(Exception):
    def __str__(self) -> str:
        raise LookupError("no text")


@pytest.mark.parametrize(
    ("error", "rejection"),
    [(SystemExit("no licence"), "SystemExit: no licence"), (UnspeakableError(), "UnspeakableError")],
)
def test_whatever_the_code_raises_is_a_rejection(error: BaseException, rejection: str) -> None:
    async def main() -> None:
        attempts = ConfigAttempts()
        with pytest.raises(type(error)):
            async with attempts.attempt("c2"):
                raise error
        assert (attempts.rejected_version, attempts.rejection) == ("c2", rejection)

    asyncio.run(main())


def test_a_second_attempt_waits_for_the_first() -> None:
    async def main() -> None:
        attempts, steps, gate = ConfigAttempts(), list[str](), asyncio.Event()

        async def attempt(name: str) -> None:
            async with attempts.attempt(name):
                steps.append(f"{name} begins")
                await gate.wait()
                steps.append(f"{name} ends")

        both = asyncio.gather(attempt("c1"), attempt("c2"))
        await asyncio.sleep(0)
        gate.set()
        await both
        assert steps == ["c1 begins", "c1 ends", "c2 begins", "c2 ends"]

    asyncio.run(main())
