"""The agent's peer: the OpenTelemetry Python SDK exporting the same 96 series by OTLP/gRPC each second.

otel_peer.py receive --port P     a receiver that takes everything and keeps nothing
otel_peer.py export  --port P     8 GPUs x 12 counters, read by callbacks, exported once a second
"""

import argparse
import signal
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

GPUS = 8
METRICS = (
    "duration", "sm_elapsed_cycles", "sm_active_cycles", "hmma_cycles", "imma_cycles", "dmma_cycles",
    "tensor_other_cycles", "fp64_cycles", "fp32_cycles", "fp16_cycles", "int_cycles", "energy",
)  # fmt: skip


def receive(port: int, stop: threading.Event) -> None:
    import grpc

    class Export(grpc.GenericRpcHandler):
        def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
            if not details.method.endswith("MetricsService/Export"):
                return None
            return grpc.unary_unary_rpc_method_handler(lambda _request, _context: b"")

    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((Export(),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    stop.wait()
    server.stop(0)


def export(port: int, stop: threading.Event) -> None:
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
    from opentelemetry.metrics import CallbackOptions, Observation
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.sdk.resources import Resource

    labels = [{"gpu": str(g), "hw_id": f"GPU-{g:08x}-0000-4000-8000-000000000000"} for g in range(GPUS)]

    def reads(scale: int) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def callback(_options: CallbackOptions) -> Iterable[Observation]:
            now = time.monotonic_ns()
            return [Observation(now * scale // 7, each) for each in labels]

        return callback

    exporter = OTLPMetricExporter(endpoint=f"http://127.0.0.1:{port}", insecure=True)
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=1_000)
    provider = MeterProvider(metric_readers=[reader], resource=Resource.create({"service.name": "bench"}))
    meter = provider.get_meter("bench")
    for i, name in enumerate(METRICS):
        meter.create_observable_counter(f"gpu_{name}", callbacks=[reads(i + 1)])
    stop.wait()
    provider.shutdown(timeout_millis=1_000)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("mode", choices=("receive", "export"))
    parser.add_argument("--port", type=int, required=True)
    args = parser.parse_args()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    {"receive": receive, "export": export}[args.mode](args.port, stop)


if __name__ == "__main__":
    main()
