"""Named limits, enforced while reading on both sides. A change here is a change of protocol."""

MAX_RECORD_BYTES = 1 << 20  # one signed batch
MAX_MESSAGE_BYTES = 4 << 20  # one gRPC message: gRPC's own default, stated
MAX_RECORDS_PER_MESSAGE = 256
MAX_IN_FLIGHT_RECORDS = 256  # sent and not yet acknowledged, per stream
MAX_ROWS = 8_192  # usage rows of one batch: 72 entities x many workloads
MAX_ENTITIES = 1_024  # of one node: 16 GPUs x 7 MIG instances, with room
MAX_WORKLOADS = 4_096
MAX_ANCHORS = 4_096
MAX_NOTICES = 4_096
MAX_PROGRESS = 1_024  # claims of training code in one batch
MAX_LABEL_CHARS = 256  # run, job, user, … names
MAX_TEXT_CHARS = 1_024  # notice details, error texts
MAX_TRACE_LINE_BYTES = 1 << 20
MAX_SCRAPE_BYTES = 16 << 20

MIN_TICK_NS = 250_000_000  # never under 250 ms (reference/metering.md section 7.2, item 3)
DEFAULT_TICK_NS = 1_000_000_000
MIN_WINDOW_NS = 1_000_000_000
DEFAULT_WINDOW_NS = 60_000_000_000
MAX_WINDOW_NS = 86_400_000_000_000
MAX_CLOCK_AHEAD_NS = 300_000_000_000  # a window may end this far ahead of the collector's clock
ANCHOR_PERIOD_NS = 3_600_000_000_000  # raw counters are quoted at least this often

#: No SM of any listed GPU runs above this; used to refuse the impossible and to price what was not read
#: where the device names no maximum of its own (highest listed: RTX PRO 6000 2617 MHz, metering.md 3.3).
MAX_SM_CLOCK_MHZ = 3_000
