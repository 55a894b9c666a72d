"""What a process that only collects sets once, before gRPC is imported. Measured: docs/performance.md."""

import gc
import os

#: gRPC's core reads this when it is imported. By default its listener hands every read to other threads; without
#: that, the thread that waits for events reads the sockets: a fifth less CPU per record, half per connection.
#: A gRPC that no longer knows the name says so once on stderr and goes on.
GRPC_EXPERIMENTS = "-event_engine_listener"
#: Python looks for unreachable cycles after so many new objects. The default, 700, comes round every few
#: dozen records and walks the objects of every open stream; records leave no cycles behind.
GC_THRESHOLDS = (50_000, 20, 100)


def tune_process() -> None:
    """Set both; an operator's own GRPC_EXPERIMENTS wins."""
    os.environ.setdefault("GRPC_EXPERIMENTS", GRPC_EXPERIMENTS)
    gc.set_threshold(*GC_THRESHOLDS)
