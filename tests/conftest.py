"""Settings of all tests: none of them is timed, because the machine may be busy with something else."""

import gc
import signal

from hypothesis import settings

import mesh  # noqa: F401  Before any test imports gRPC, as in replicas.

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# Started in the background by a shell without job control, tests would ignore Ctrl-C, and so would all that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Some tests collect garbage again and again: the many objects that pytest keeps of all tests are none."""
    gc.collect()
    gc.freeze()
