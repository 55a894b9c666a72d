"""With mTLS on: the ratios of ingest, memory of a stream, and 5,000 agents that come back at once (issue 6)."""

from pathlib import Path

import bench_ingest
import bench_streams
from harness import Figure


def run(folder: Path) -> list[Figure]:
    for name in ("ingest", "streams"):
        (folder / name).mkdir()
    return [*bench_ingest.run(folder / "ingest", tls=True), *bench_streams.run(folder / "streams", tls=True)]
