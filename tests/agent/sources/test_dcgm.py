"""The dcgm source: pages over time, what is asked beside them, and exporters that misbehave."""

import contextlib
import http.server
import threading
from collections.abc import Callable

import pytest
from dcgm_pages import GPU, LABELS, METERED, Exporter, metered, row, usage_of

from fakes import FakeClock
from flopmeter.agent.errors import SourceError
from flopmeter.agent.metering.meter import Meter, MeterSettings
from flopmeter.agent.reading import NodeFacts, Process, Reading
from flopmeter.agent.sources.dcgm import RETRY_NS, DcgmSource
from flopmeter.agent.sources.dcgm_age import FAST_NS, FROZEN_AFTER, SLOW_NS, STILL_NS
from flopmeter.agent.sources.fetch import fetch_page
from flopmeter.contract.evidence_class import EvidenceClass
from flopmeter.contract.limits import MAX_SCRAPE_BYTES
from flopmeter.contract.usage import Device, GapReason, Library


def energy(s: int, *, period: int = 30) -> str:
    return row("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", 10**9 + s // period * period * 400_000)


def test_one_scrape_serves_all_entities_until_it_is_old():
    clock, exporter = FakeClock(), Exporter(row("DCGM_FI_DEV_SM_CLOCK", 1410).encode())
    source = DcgmSource("http://x/metrics", clock, exporter, node="n")
    assert source.facts().node == "n"
    for _ in range(3):
        assert source.read(GPU).sm_clock_mhz == (1410.0,)
    assert exporter.asked == 1
    clock.advance(SLOW_NS)
    exporter.page = row("DCGM_FI_DEV_SM_CLOCK", 900).encode()
    reading = source.read(GPU)
    assert (reading.sm_clock_mhz, reading.t_boot_ns) == ((900.0,), clock.boot_ns())
    assert exporter.asked == 2
    source.close()


def test_cycle_totals_are_given_out_once_per_collection():
    def page(elapsed: int) -> bytes:
        total = row("DCGM_FI_PROF_SM_CYCLES_ELAPSED_TOTAL", elapsed)
        return (total + row("DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", 0.5)).encode()

    clock, exporter = FakeClock(), Exporter(page(10**15))
    source = DcgmSource("http://x/metrics", clock, exporter)
    assert source.read(GPU).cycles == {248: 10**15}
    for _ in range(29):  # a tick a second, a collection every thirty
        clock.advance(1_000_000_000)
        held = source.read(GPU)
        assert (held.cycles, held.percent, held.error) == ({}, {}, None)
    exporter.page = page(10**15 + 30 * 10**9)
    clock.advance(1_000_000_000)
    new = source.read(GPU)
    assert (new.cycles, new.percent) == ({248: 10**15 + 30 * 10**9}, {})
    clock.advance(STILL_NS)
    assert source.read(GPU).cycles == new.cycles  # an SM that stands still is a reading too
    exporter.page = (
        row("DCGM_FI_PROF_HMMA_CYCLES_ACTIVE_TOTAL", 5).encode() + row("DCGM_FI_PROF_SM_ACTIVE", 0.5).encode()
    )
    clock.advance(SLOW_NS)
    assert (source.read(GPU).cycles, source.read(GPU).percent) == ({}, {2: 50.0})


def test_totals_of_a_slow_exporter_are_metered_whole():
    """Through the meter: what was counted from the first collection to the last, to the cycle, and no gap."""
    clock, exporter = FakeClock(), Exporter(b"")
    per_s = 108 * 1_300_000_000  # a sum over 108 SMs at 1300 MHz

    def collect(s: int) -> None:
        totals = {
            "SM_CYCLES_ELAPSED": per_s * s,
            "MMA_CYCLES_ACTIVE": per_s * s // 2,
            "HMMA_CYCLES_ACTIVE": per_s * s // 2,
        }
        rows = [row(f"DCGM_FI_PROF_{k}_TOTAL", 10**15 + v) for k, v in totals.items()]
        exporter.page = "".join([*rows, row("DCGM_FI_DEV_SM_CLOCK", 1300)]).encode()

    collect(0)
    source = DcgmSource("http://x/metrics", clock, exporter, node="n")
    meter = Meter(source.facts(), MeterSettings(), agent_version="0")
    sealed = []
    for s in range(301):  # ten collections
        if s % 30 == 0:
            collect(s)
        sealed += meter.observe(source.read(GPU))
        clock.advance(1_000_000_000)
    if (last := meter.flush(final=True)) is not None:
        sealed.append(last)
    usage = [u for one in sealed for u in one.batch.usage]
    assert {u.gap_reason for u in usage} == {GapReason.NONE}
    assert sum(u.sm_elapsed_cycles for u in usage) == 300 * per_s
    assert sum(u.hmma_cycles for u in usage) == 150 * per_s
    assert sum(u.duration_ns for u in usage) == 300 * 1_000_000_000


def test_an_exporter_that_goes_away_leaves_errors_not_old_values_and_is_asked_again():
    clock, exporter = FakeClock(), Exporter(row("DCGM_FI_DEV_SM_CLOCK", 1410).encode())
    source = DcgmSource("http://x/metrics", clock, exporter)
    clock.advance(SLOW_NS)
    page, exporter.page = exporter.page, SourceError("connection refused")
    assert source.read(GPU).error == "DCGM_SCRAPE_FAILED"
    exporter.page = SourceError("timed out after 2 s")
    clock.advance(RETRY_NS)
    assert source.read(GPU).error == "DCGM_SCRAPE_TIMEOUT"
    with pytest.raises(SourceError, match="timed out"):
        source.facts()
    asked = exporter.asked
    assert source.read(GPU).error == "DCGM_SCRAPE_TIMEOUT"
    assert exporter.asked == asked  # eight GPUs do not make eight scrapes a second of a dead exporter
    exporter.page = page
    clock.advance(RETRY_NS)
    assert source.read(GPU).error is None
    assert source.read("GPU-gone").error == "DCGM_ENTITY_NOT_FOUND"


def test_a_page_whose_energy_stands_still_is_stale():
    """An exporter goes on serving what it had when its host engine died: a gap, not the last average for ever."""

    def busy(s: int) -> str:
        return METERED + row("DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", 0.5 + s // 30 % 9 / 1000)

    died = 300
    usage = usage_of(metered(lambda s: busy(min(s, died)) + energy(min(s, died)), 600))
    gap_s = sum(u.duration_ns for u in usage if u.evidence_class is EvidenceClass.GAP) / 1e9
    assert {u.gap_reason for u in usage if u.evidence_class is EvidenceClass.GAP} == {GapReason.READ_FAILED}
    assert gap_s == pytest.approx(600 - died - STILL_NS / 1e9, abs=SLOW_NS / 1e9)
    # A GPU whose exporter collects every two minutes is not stale in between.
    slow = usage_of(metered(lambda s: busy(s) + energy(s, period=110), 600))
    assert {u.evidence_class for u in slow} == {EvidenceClass.B2}
    # One that collects less often is believed as soon as that is known: after the first time.
    seldom = usage_of(metered(lambda s: busy(s) + energy(s, period=200), 1200))
    gap_s = sum(u.duration_ns for u in seldom if u.evidence_class is EvidenceClass.GAP) / 1e9
    assert gap_s == pytest.approx(200 - STILL_NS / 1e9, abs=SLOW_NS / 1e9)


def test_ratios_that_stand_still_while_energy_rises_are_not_used():
    """The profiling module stopped; the rest of the page goes on (reference/metering.md 2.1)."""

    def page(tensor: Callable[[int], float]) -> Callable[[int], str]:
        ratio = "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE"
        return lambda s: METERED + energy(s) + row("DCGM_FI_DEV_GPU_UTIL", 97) + row(ratio, tensor(s))

    usage = usage_of(metered(page(lambda s: 0.512345), 600))
    assert {u.evidence_class for u in usage} == {EvidenceClass.B2, EvidenceClass.C}
    before_s = sum(u.duration_ns for u in usage if u.evidence_class is EvidenceClass.B2) / 1e9
    assert before_s == pytest.approx(FROZEN_AFTER * 30, abs=SLOW_NS / 1e9)
    steady = usage_of(metered(page(lambda s: 0.512345 + s // 30 % 7 * 1e-6), 600))
    assert {u.evidence_class for u in steady} == {EvidenceClass.B2}
    for tensor, dram in (
        (0, 0),
        (0, "0.000001"),
        (0, "1.000000"),
    ):  # idle, as good as idle, copying at full rate
        still = row("DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", tensor) + row("DCGM_FI_PROF_DRAM_ACTIVE", dram)
        idle = usage_of(metered(lambda s, still=still: METERED + energy(s) + still, 600))
        assert {u.evidence_class for u in idle} == {EvidenceClass.B2}


def test_each_average_counts_once_for_the_time_until_the_next():
    """Faster scrapes than collections see duplicates; what they add up to is the sum of the averages."""
    means = [0.1, 0.9, 0.4, 0.6]

    def page(s: int) -> str:
        return METERED + energy(s) + row("DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", means[min(s // 30, 3)])

    usage = usage_of(metered(page, 120))
    tensor = sum(u.tensor_other_cycles for u in usage)
    whole = 108 * 1_410_000_000 * 120
    # Each is seen up to one fetch late; the first and last of a job differ by that much of one average.
    late = 108 * 1_410_000_000 * SLOW_NS // 10**9
    assert tensor == pytest.approx(sum(means) / 4 * whole, abs=late)
    assert sum(u.duration_ns for u in usage) == 120_000_000_000


def test_an_exporter_that_collects_often_is_scraped_often(caplog):
    clock, exporter = FakeClock(), Exporter(b"")
    fetched = []

    def run(seconds: int, period: int) -> int:
        asked = exporter.asked
        for _ in range(seconds):
            exporter.page = (METERED + energy(clock.boot_ns() // 10**9, period=period)).encode()
            source.read(GPU)
            clock.advance(FAST_NS)
        return exporter.asked - asked

    exporter.page = (METERED + energy(0)).encode()
    source = DcgmSource("http://x/metrics", clock, exporter, node="n")
    assert run(60, 30) == pytest.approx(12, abs=1)
    fetched.append(run(60, 1))
    assert fetched[0] > 40
    assert "collects as often as it is scraped" in caplog.text
    assert run(60, 30) < 30  # and less often again
    assert run(60, 30) == pytest.approx(12, abs=1)


class Nvml:
    """A source beside the exporter that knows the devices; `reads` by entity."""

    def __init__(self, *devices: Device, **reads: object) -> None:
        self.devices, self.reads, self.closed = devices, reads, False
        self.fails: SourceError | None = None

    def facts(self) -> NodeFacts:
        if self.fails:
            raise self.fails
        library = Library("/usr/lib/libnvidia-ml.so.1", "ab" * 32, "")
        return NodeFacts("n", bytes(16), "580.1", "13", "nvml", self.devices, library=library)

    def read(self, entity: str) -> Reading:
        return Reading(entity, 1, 2, **self.reads)

    def close(self) -> None:
        self.closed = True


def test_what_the_page_does_not_say_is_asked_of_nvml_beside_it():
    gpu = Device(GPU, "NVIDIA A100-SXM4-80GB", "8.0", 108, 1410, serial="165", persistence=True)
    mig = Device(
        "MIG-0-real",
        "NVIDIA A100-SXM4-80GB MIG 2g.20gb",
        "8.0",
        28,
        1410,
        mig=True,
        parent=GPU,
        gpu_instance=3,
    )
    other = Device("GPU-2", "NVIDIA A100-SXM4-80GB", "8.0", 108, pci_address="0:2")
    process = Process(4711)
    nvml = Nvml(
        gpu, mig, other,
        energy_mj=7, power_mw=8, sm_clock_mhz=(1200.0, 1300.0), processes=(process,), utilization_gpu_pct=50.0,
    )  # fmt: skip
    label = f'{LABELS},GPU_I_PROFILE="2g.20gb",GPU_I_ID="3"'
    page = row("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", 5, label) + row(
        "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", 0.5, label
    )
    source = DcgmSource("http://x", FakeClock(), Exporter(page.encode()), node="n", beside=nvml)
    facts = source.facts()
    # SM counts come from the device: the page's table does not know a 2g instance, and guesses none.
    assert facts.devices == (gpu, mig)
    assert [(u.vendor, u.pci_address, u.reason) for u in facts.uncovered] == [
        ("NVIDIA", "0:2", "the exporter's page does not show it")
    ]
    assert facts.library.path == "/usr/lib/libnvidia-ml.so.1"
    reading = source.read("MIG-0-real")
    assert (reading.entity, reading.percent) == ("MIG-0-real", {5: 50.0})
    assert (reading.processes, reading.sm_clock_mhz) == ((process,), (1200.0, 1300.0))
    assert (source.read(GPU).energy_mj, source.read(GPU).power_mw) == (7, 8)
    nvml.reads = {"error": "NVML_ERROR_UNKNOWN"}
    held = source.read(GPU)  # the page's energy is older than NVML's was: none
    assert (held.energy_mj, held.error) == (None, None)
    nvml.fails = SourceError("gone")
    assert {d.entity for d in source.facts().devices} == {GPU, f"MIG-{GPU[4:]}-3"}
    source.close()
    assert nvml.closed


def test_a_page_without_gpus_and_a_url_that_is_none_are_refused_with_a_hint():
    for page in (b"", b"<html>not found</html>", b"go_gc 1\n"):
        with pytest.raises(SourceError, match="expected rows of GPUs") as caught:
            DcgmSource("http://x", FakeClock(), Exporter(page))
        assert "dcgm-exporter" in caught.value.hint
    for url in ("file:///etc/passwd", "localhost:9400", "", "ftp://x/"):
        with pytest.raises(SourceError, match="http or https"):
            DcgmSource(url, FakeClock(), Exporter(b""))


# ---- the fetch, against a real server ---------------------------------------------------------------------


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
#: What comes first, and what again and again: each byte in its time, and never an end.
DRIPS = {
    "/drip-status": (b"HTTP/1.1 200 O", b"K"),
    "/drip-headers": (b"HTTP/1.1 200 OK\r\n", b"A: b\r\n"),
    "/drip-go-on": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "/drip-chunks": (CHUNKED, b"1\r\nx\r\n"),
    "/drip-chunk-size": (CHUNKED + b"1;", b"x"),
    "/drip-trailers": (CHUNKED + b"1\r\nx\r\n0\r\n", b"A: b\r\n"),
}
#: Pages that are not whole.
UNTRUE = {
    "/cut-in-chunk": CHUNKED + b"5\r\nab",
    "/cut-after-chunk": CHUNKED + b"2\r\nab\r\n",
    "/cut-in-number": b"HTTP/1.0 200 OK\r\n\r\n" + row("DCGM_FI_DEV_SM_CLOCK", 1410).encode()[:-3],
    "/part": b"HTTP/1.1 206 Partial Content\r\nContent-Length: 2\r\n\r\n1\n",
    "/empty": b"HTTP/1.1 204 No Content\r\n\r\n",
}


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/metrics":
            body = row("DCGM_FI_DEV_SM_CLOCK", 1410).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        elif self.path in ("/endless", "/drip"):
            self.send_response(200)
            self.end_headers()
            try:
                while not self.server.stopping.wait(0.05 if self.path == "/drip" else 0):
                    self.wfile.write(b"x" if self.path == "/drip" else b"x" * 65536)
            except OSError:
                pass  # the client has had enough
        elif self.path in DRIPS:
            begun, again = DRIPS[self.path]
            self.wfile.write(begun)
            with contextlib.suppress(OSError):
                while not self.server.stopping.wait(0.05):
                    self.wfile.write(again)
        elif self.path in UNTRUE:
            self.wfile.write(UNTRUE[self.path])
        elif self.path == "/silent":
            self.server.stopping.wait(30)
        elif self.path == "/cut":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"DCGM")
        elif self.path == "/nonsense":
            self.wfile.write(b"\x00\xff nonsense\r\n\r\n")
        elif self.path == "/to-file":
            self.send_response(302)
            self.send_header("Location", "file:///etc/passwd")
            self.end_headers()
        else:
            self.send_error(404)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as s:
        s.stopping = threading.Event()
        s.daemon_threads = True
        thread = threading.Thread(target=s.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{s.server_address[1]}"
        s.stopping.set()
        s.shutdown()
        thread.join()


def test_a_page_is_fetched(server, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")  # the node's own exporter is asked directly
    source = DcgmSource(f"{server}/metrics", FakeClock())
    assert source.read(GPU).sm_clock_mhz == (1410.0,)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/endless", "at most 1000000 bytes"),
        ("/drip", "timed out"),
        *((path, "timed out") for path in DRIPS),
        ("/cut-in-chunk", "IncompleteRead"),
        ("/cut-after-chunk", "IncompleteRead"),
        ("/cut-in-number", "last line of the page has no end"),
        ("/part", "status 206"),
        ("/empty", "status 204"),
        ("/silent", "timed out"),
        ("/cut", "996 bytes of the page are missing"),
        ("/nonsense", "nonsense"),
        ("/to-file", "Found"),
        ("/absent", "Not Found"),
    ],
)
def test_a_server_that_misbehaves_is_an_error_in_bounded_time(server, path, message):
    with pytest.raises(SourceError, match=message):
        # Only what is to time out is given little time: a slow machine must not make the others time out.
        fetch_page(server + path, 0.4 if message == "timed out" else 30, 1_000_000)


def test_nobody_there_and_no_such_url_are_errors():
    with pytest.raises(SourceError, match="refused"):
        fetch_page("http://127.0.0.1:1/metrics", 0.4, MAX_SCRAPE_BYTES)
    with pytest.raises(SourceError):
        fetch_page("http://[nonsense/", 0.4, MAX_SCRAPE_BYTES)
