"""What `validate.py` runs in processes of their own: a probe, an agent to be killed, a load, a product to profile."""

import json
import os
import select
import signal
import sys
import threading
from pathlib import Path

from .lab import SECOND, Running, SystemClock, UnavailableError


def probe(user: str) -> int:
    """E0 as the user of that number; one line of JSON.

    Root becomes that user after everything is imported, which need not be readable for others, and before NVML is
    opened: what counts is who opens it.
    """
    import pynvml

    from .experiments_counters import probe as probe_ids
    from .raw_gpm import NvmlRaw

    if os.geteuid() == 0 and int(user) != 0:
        os.setgroups([])
        os.setgid(int(user))
        os.setuid(int(user))
    try:
        raw = NvmlRaw()
        found = probe_ids(raw, SystemClock().wait)
        raw.close()
    except (pynvml.NVMLError, UnavailableError) as e:
        found = {"answer": [], "codes": {}, "error": str(e)}
    print(json.dumps(found | {"user": os.geteuid()}))
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


def load(kind: str, size: str) -> int:
    """A copy of `size` bytes, or a product of `kind` and size: from one line on stdin to the next; prints how often."""
    from .torch_work import build
    from .work import Copy, Gemm

    def none() -> object:
        raise RuntimeError("no kernel of our own is needed")

    n = int(size)
    try:
        running = build(Copy(n) if kind == "copy" else Gemm(kind, n, n, n), 0.02, none)  # type: ignore[arg-type]
    except UnavailableError as e:
        print(" ".join(str(e).split()))  # the line in the place of "ready"
        return 3
    running.drain()
    return serve(running)


def serve(running: Running) -> int:
    """Ready; work between two lines; the number of calls. The end of stdin ends it too."""
    print("ready", flush=True)
    calls = 0
    if sys.stdin.readline():
        while not select.select([sys.stdin], [], [], 0)[0]:
            calls += running.pump()
    calls += running.drain()
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
