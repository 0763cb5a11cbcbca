"""benchmarks.processes: the CPU time, the memory and the ports of processes."""

import os
import socket
import threading
import time

import pytest

from benchmarks.processes import CpuMeter, cpu_us, listening, listening_inodes, resident_bytes

TABLE = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:2328 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4242 1 0 100 0 0 10 0
   1: 0100007F:2328 0100007F:C350 01 00000000:00000000 00:00000000 00000000  1000        0 4243 1 0 20 4 30 10 -1
   2: 00000000:2329 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4244 1 0 100 0 0 10 0
"""
MIB = 2**20


def spin() -> None:
    """Use at least 20 ms of CPU time."""
    start_us = cpu_us(os.getpid())
    while cpu_us(os.getpid()) - start_us < 20_000:
        sum(range(1_000))


def test_cpu_time_is_per_call_and_per_role() -> None:
    meter = CpuMeter({"replica": (os.getpid(),), "front": (os.getppid(),)})
    spin()
    per_call = meter.us_per_call(10)
    assert list(per_call) == ["replica", "front"]
    assert per_call["replica"] >= 2_000
    assert per_call["front"] >= 0


def test_cpu_time_of_threads_that_have_ended_counts() -> None:
    meter = CpuMeter({"replica": (os.getpid(),)})
    thread = threading.Thread(target=spin)
    thread.start()
    thread.join()
    assert meter.us_per_call(1)["replica"] >= 20_000


def test_cpu_time_is_that_of_the_operating_system() -> None:
    assert cpu_us(os.getpid()) == pytest.approx(time.process_time() * 1e6, rel=0.1)


def test_resident_memory_grows_with_what_is_written_to() -> None:
    before = resident_bytes(os.getpid())
    block = b"\1" * (64 * MIB)
    assert resident_bytes(os.getpid()) - before > 32 * MIB
    assert len(block) == 64 * MIB


def test_only_sockets_that_listen_on_the_port_count() -> None:
    assert list(listening_inodes(TABLE, 9000)) == ["4242"]
    assert list(listening_inodes(TABLE, 9001)) == ["4244"]


def test_the_process_behind_a_port_is_found() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert os.getpid() in listening(port)
    with pytest.raises(RuntimeError, match=f"listens on port {port}"):
        listening(port)
