"""`python -m benchmarks.compiled`: a copy of the product whose hot path mypyc has compiled to C, to be measured.

It needs a C compiler and some minutes, and writes below build/compiled. Benchmarks run there as they do here:

    cd build/compiled && ../../.venv/bin/python -m benchmarks.web_plane

What is listed is compiled as it is. It cannot be listed if it has an async generator, a class that is referred to
weakly, or one with a subclass that stays Python; `tests/unit/benchmarks/test_compiled.py` checks what it can of that.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
COMPILED = ROOT / "build" / "compiled"
COPIED = ("mesh", "gateway", "benchmarks")
MODULES = (
    "gateway/dialects/web.py",
    "gateway/dialects/websocket.py",
    "gateway/http1/answer_head.py",
    "gateway/http1/answer_writer.py",
    "gateway/http1/body_framing.py",
    "gateway/http1/client_socket.py",
    "gateway/http1/head_syntax.py",
    "gateway/http1/http1_exchange.py",
    "gateway/http1/http1_reader.py",
    "gateway/http1/http1_upkeep.py",
    "gateway/ops/http_metrics.py",
    "gateway/requests/dialect_list.py",
    "gateway/requests/exchange.py",
    "gateway/requests/in_flight.py",
    "gateway/requests/web_encoding.py",
    "gateway/traced_web.py",
    "mesh/http2/client_connection.py",
    "mesh/http2/connection.py",
    "mesh/http2/flood_guard.py",
    "mesh/http2/frame_format.py",
    "mesh/http2/frame_reader.py",
    "mesh/http2/limits.py",
    "mesh/http2/outbox.py",
    "mesh/http2/server_connection.py",
    "mesh/http2/stream.py",
    "mesh/http2/write_turn.py",
    "mesh/link/admission.py",
    "mesh/link/callee_link.py",
    "mesh/link/caller_link.py",
    "mesh/link/frames.py",
    "mesh/link/link_stream.py",
    "mesh/link/outgoing_call.py",
    "mesh/link/parts.py",
    "mesh/link/small_frames.py",
    "mesh/link/writer.py",
    "mesh/phases/transitions.py",
    "mesh/phases/waiting.py",
    "mesh/replica/execution.py",
    "mesh/replica/executor.py",
    "mesh/replica/traced/traced_execution.py",
    "mesh/replica/web_execution.py",
    "mesh/routing/choice/locality.py",
    "mesh/routing/choice/picker.py",
    "mesh/routing/outlier_ejection.py",
    "mesh/testing.py",
    "mesh/web/http_call.py",
    "mesh/wire/io_thread.py",
    "mesh/wire/outcome.py",
    "mesh/wire/payload.py",
    "mesh/wire/telemetry.py",
    "mesh/wire/varints.py",
)
OPTIONS = ("--config-file=", "--ignore-missing-imports", "--follow-imports=silent")


def main() -> None:
    shutil.rmtree(COMPILED, ignore_errors=True)
    for name in COPIED:
        shutil.copytree(ROOT / name, COMPILED / name, ignore=shutil.ignore_patterns("__pycache__"))
    compiler = Path(sys.executable).with_name("mypyc")
    environment = os.environ | {"PYTHONPATH": str(COMPILED), "MYPYC_OPT_LEVEL": "2", "MYPYC_DEBUG_LEVEL": "0"}
    subprocess.run([compiler, *OPTIONS, *MODULES], cwd=COMPILED, env=environment, check=True)
    print(f"{len(MODULES)} modules are compiled: cd {COMPILED.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
