"""Pages of a dcgm-exporter for tests: rows written by hand, and an exporter that gives out what it is told to."""

from collections.abc import Callable

from fakes import FakeClock
from flopmeter.agent.metering.meter import Meter, MeterSettings, Sealed
from flopmeter.agent.sources.dcgm import DcgmSource
from flopmeter.contract.usage import Usage

GPU = "GPU-00000000-0000-0000-0000-000000000001"
LABELS = f'gpu="0",UUID="{GPU}",modelName="NVIDIA A100-SXM4-80GB",Hostname="n",DCGM_FI_DRIVER_VERSION="575.1"'


def row(name: str, value: object, labels: str = LABELS) -> str:
    return f"{name}{{{labels}}} {value}\n"


METERED = (  # a page as an A100 under a GEMM gives it, but for what a test adds
    row("DCGM_FI_DEV_SM_CLOCK", 1410) + row("DCGM_FI_DEV_MAX_SM_CLOCK", 1410)
)


def metered(page: Callable[[int], str], seconds: int = 10) -> list[Sealed]:
    """Ticks of one second through the source and the meter; `page` by second."""
    clock, exporter = FakeClock(), Exporter(page(0).encode())
    source = DcgmSource("http://x/metrics", clock, exporter, node="n")
    meter = Meter(source.facts(), MeterSettings(), agent_version="0")
    sealed = []
    for s in range(seconds + 1):
        exporter.page = page(s).encode()
        for device in source.facts().devices:
            sealed += meter.observe(source.read(device.entity))
        clock.advance(1_000_000_000)
    if (last := meter.flush(final=True)) is not None:
        sealed.append(last)
    return sealed


def usage_of(sealed: list[Sealed], entity: str = GPU) -> list[Usage]:
    return [
        u for one in sealed for u in one.batch.usage if one.inventory.devices[u.entity_index].entity == entity
    ]


class Exporter:
    """Hands out the page (or raises the error) that it is set to; counts how often it was asked."""

    def __init__(self, page: bytes | Exception) -> None:
        self.page = page
        self.asked = 0

    def __call__(self, url: str, timeout_s: float, limit: int) -> bytes:
        self.asked += 1
        if isinstance(self.page, Exception):
            raise self.page
        return self.page
