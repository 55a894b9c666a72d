"""What `validate.py` runs in processes of their own: a probe, an agent to be killed, a copy, a product to profile."""

import json
import os
import select
import signal
import sys
import threading
from pathlib import Path

from .lab import SECOND, SystemClock, UnavailableError


def probe() -> int:
    """E0 as whoever runs this; one line of JSON."""
    import pynvml

    from .experiments_counters import probe as probe_ids
    from .raw_gpm import NvmlRaw

    try:
        raw = NvmlRaw()
        found = probe_ids(raw, SystemClock().wait)
        raw.close()
    except (pynvml.NVMLError, UnavailableError) as e:
        found = {"answer": [], "codes": {}, "error": str(e)}
    print(json.dumps(found))
    return 0


def agent(folder: str, job: str) -> int:
    """Reads and seals each second until SIGTERM."""
    from flopmeter.agent.sources.nvml import NvmlSource

    from .agent_path import PersistentAgent

    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    source = NvmlSource(SystemClock())
    keeper = PersistentAgent(source, Path(folder), job, SECOND)
    keeper.tick()
    parent = os.getppid()
    while not stop.wait(1.0):
        if os.getppid() != parent:  # whoever started it is gone: nobody would end it
            return 1
        keeper.tick()
    keeper.stop()
    source.close()
    return 0


def copy(size: str) -> int:
    """Copies within the device until a line comes on stdin; prints how often."""
    from .torch_work import build
    from .work import Copy

    def none() -> object:
        raise RuntimeError("a copy needs no kernel")

    running = build(Copy(int(size)), 0.02, none)  # type: ignore[arg-type]
    print("ready", flush=True)
    calls = 0
    while not select.select([sys.stdin], [], [], 0)[0]:
        calls += running.pump()
    running.drain()
    print(calls)
    return 0


def product(dtype: str, size: str) -> int:
    """One product between the profiler's marks."""
    import torch

    from .torch_work import build
    from .work import Gemm

    def none() -> object:
        raise RuntimeError("a product needs no kernel")

    n = int(size)
    running = build(Gemm(dtype, n, n, n), 0.001, none)  # type: ignore[arg-type]
    running.drain()
    torch.cuda.profiler.start()
    running.call_once()
    torch.cuda.synchronize()
    torch.cuda.profiler.stop()
    return 0
