"""For each alert: series under which it fires, series just short of that, and the minute at which is looked.

Values are promtool's: `0x40` is a sample a minute, `0+60x40` one that grows by 60. Time begins at 0, so that a series
`0+60x40` is a clock.
"""

from dataclasses import dataclass

Series = dict[str, str]
GPU = 'instance="n1:9842",hw_id="GPU-1"'
NODE = '{instance="n1:9842"}'
BOOKS = '{instance="c:9841"}'
LINE = 'instance="c:9841",run="atlas",regime="eu"'


@dataclass(frozen=True)
class Case:
    fires: Series
    quiet: Series
    minute: int = 40
    step: int = 1  # minutes between samples, and between looks at the rules


def fleet(kind: str) -> str:
    return f'flopmeter_fleet_device_seconds{{instance="c:9841",kind="{kind}"}}'


def gap_share(gap: str) -> Series:
    seconds = "flopmeter_gpu_metered_seconds_total"
    return {
        f'{seconds}{{{GPU},evidence_class="A1"}}': "0+60x120",
        f'{seconds}{{{GPU},evidence_class="gap"}}': gap,
    }


def spool(unacked: str) -> Series:
    return {
        f"flopmeter_agent_spool_unacked_bytes{NODE}": unacked,
        f"flopmeter_agent_spool_limit_bytes{NODE}": "1000x400",
    }


def ratio(bound: str, value: str, verdict: str) -> Series:
    return {
        f'flopmeter_run_countable_flop{{{LINE},bound="{bound}"}}': value,
        f"flopmeter_run_threshold_flop{{{LINE}}}": "1e25x60",
        f'flopmeter_run_verdict_info{{{LINE},verdict="{verdict}"}}': "1x60",
    }


def late(pending: str, ack: str) -> Series:
    return {
        f"flopmeter_agent_spool_pending_records{NODE}": pending,
        f"flopmeter_agent_uplink_last_ack_timestamp_seconds{NODE}": ack,
    }


def clock(value: str, ok: str, age: str) -> Series:
    """When the last reading was by the agent's clock, and how long ago that was."""
    return {
        f"flopmeter_gpu_last_reading_timestamp_seconds{{{GPU}}}": value,
        f"flopmeter_gpu_read_ok{{{GPU}}}": ok,
        f"flopmeter_agent_tick_age_seconds{NODE}": age,
    }


def ticking(age: str, period_s: int) -> Series:
    return {
        f"flopmeter_agent_tick_age_seconds{NODE}": age,
        f"flopmeter_agent_tick_period_seconds{NODE}": f"{period_s}x400",
    }


def gpus(first: str, second: str, parent: str = "") -> Series:
    """Two of a node, or two MIG instances of one."""
    ids = ("MIG-a", "MIG-b") if parent else ("GPU-a", "GPU-b")
    return {f"flopmeter_agent_info{NODE}": "1x100"} | {
        f'flopmeter_gpu_info{{instance="n1:9842",hw_id="{hw_id}",hw_parent="{parent}"}}': values
        for hw_id, values in zip(ids, (first, second), strict=True)
    }


def refusals(count: str, known: str, started: str) -> Series:
    """Of a collector whose series Prometheus has since `known`, and which started then."""
    return {
        'flopmeter_collector_refusals_total{instance="c:9841",code="bad-signature"}': count,
        'flopmeter_collector_info{instance="c:9841",version="0.1.0"}': known,
        'process_start_time_seconds{instance="c:9841",job="flopmeter-collector"}': started,
    }


def crossed(at: str) -> Series:
    return {f"flopmeter_run_crossed_timestamp_seconds{{{LINE}}}": at}


def one(  # noqa: PLR0917
    name: str, fires: str, quiet: str, labels: str = BOOKS, minute: int = 40, step: int = 1
) -> Case:
    return Case({name + labels: fires}, {name + labels: quiet}, minute, step)


def commits(fast: str, slow: str) -> Series:
    buckets = {"0.5": fast, "2.5": slow, "+Inf": slow}
    return {
        f'flopmeter_collector_commit_seconds_bucket{{instance="c:9841",le="{le}"}}': values
        for le, values in buckets.items()
    }


def never_signed(started: str) -> Series:
    """Since the collector's start, which was then."""
    return {
        f"flopmeter_collector_log_checkpoint_timestamp_seconds{BOOKS}": "0x90",
        'process_start_time_seconds{instance="c:9841",job="flopmeter-collector"}': started,
    }


def signed(when: str) -> Series:
    """0 is not yet; and of a collector that does not say when it started no age can be worked out."""
    return {
        f"flopmeter_collector_log_checkpoint_timestamp_seconds{BOOKS}": when,
        'process_start_time_seconds{instance="other:1",job="other"}': "0x60",
    }


def forecast(answer: str, when: str) -> Series:
    return {
        f'flopmeter_run_forecast_info{{{LINE},answer="{answer}"}}': "1x120",
        f'flopmeter_run_forecast_crossing_timestamp_seconds{{{LINE},edge="point"}}': when,
    }


def run_coverage(observed: str, status: str) -> Series:
    run = 'instance="c:9841",run="atlas"'
    return {
        f'flopmeter_run_device_seconds{{{run},kind="observed"}}': observed,
        f'flopmeter_run_device_seconds{{{run},kind="expected"}}': "100x120",
        f'flopmeter_run_info{{{run},status="{status}"}}': "1x120",
    }


CASES = {
    # a target that was never there is no target that is down
    "FlopmeterAgentDown": one("up", "1x5 0x60", "1x10 0x3 1x60", '{job="flopmeter-agent",instance="n1:9842"}', 12),
    "FlopmeterAgentsNotScraped": one("up", "1x5 stale", "0x60", '{job="flopmeter-agent",instance="n1:9842"}', 30),
    "FlopmeterNodesSilent": one(
        "flopmeter_fleet_nodes", "2x60", "0x60", '{instance="c:9841",status="silent"}', 15
    ),
    # an hour is the longest tick: so long ago it was is no hang
    "FlopmeterAgentStuck": Case(ticking("0.5x10 0+60x30", 1), ticking("0+60x60", 3600), 20),
    "FlopmeterGpuUnread": one("flopmeter_gpu_read_ok", "1x5 0x60", "0x8 1x60", f"{{{GPU}}}", 16),
    # a node that restarts its agent, or is not scraped for a while, has lost none
    "FlopmeterGpuGone": Case(gpus("1x90", "1x40 stale"), gpus("1x40 stale _x3 1x50", "1x40 stale _x3 1x50"), 70),
    "FlopmeterGpuGaps": Case(gap_share("0+1x120"), gap_share("0+0.5x120"), 60),
    "FlopmeterUnattributedCompute": Case(
        {fleet("expected"): "0+100x200", f"flopmeter_fleet_unattributed_device_seconds{BOOKS}": "0+3x200"},
        {fleet("expected"): "0+100x200", f"flopmeter_fleet_unattributed_device_seconds{BOOKS}": "0+1x200"},
        150,
    ),
    "FlopmeterUncoveredDevices": one(
        "flopmeter_agent_uncovered_devices", "4x90", "4x30 0x60", '{instance="n1:9842",vendor="AMD"}', 80
    ),
    # ahead; and a tick of an hour, whose last reading is as old as that
    "FlopmeterClockOff": Case(clock("600+60x60", "1x60", "0x60"), clock("90x60", "1x60", "0+60x60"), 20),
    "FlopmeterNodeClocksOff": one(
        "flopmeter_fleet_clocks_off", "2x60", "0x60", '{instance="c:9841",over_seconds="10"}'
    ),
    "FlopmeterAgentLate": Case(late("3x60", "0x60"), late("3x60", "0+60x60")),
    "FlopmeterSpoolFilling": Case(spool("0+50x40"), spool("400x40"), 80, 10),
    "FlopmeterDetailGivenUp": one("flopmeter_agent_detail_given_up_total", "0x20 1x60", "7x60", NODE, 30),
    "FlopmeterUplinkRefused": Case(
        {f"flopmeter_agent_uplink_refusals_total{NODE}": "0x60", f"flopmeter_agent_records_refused_total{NODE}": "0x20 2x60"},
        {f"flopmeter_agent_uplink_refusals_total{NODE}": "1x60", f"flopmeter_agent_records_refused_total{NODE}": "0x60"},
        30,
    ),
    "FlopmeterCollectorDown": one(
        "up", "1x5 0x60", "0x3 1x60", '{job="flopmeter-collector",instance="c:9841"}', 15
    ),
    "FlopmeterCollectorNotReady": one("flopmeter_collector_ready", "1x5 0x60", "0x3 1x60", minute=15),
    "FlopmeterCommitFailures": one("flopmeter_collector_commit_failures_total", "0x20 1x60", "5x60", minute=25),
    "FlopmeterCommitsSlow": Case(commits("0+90x60", "0+100x60"), commits("0+100x60", "0+100x60")),
    "FlopmeterStoreDiskFilling": one(
        "flopmeter_collector_store_free_bytes", "1e12-2e10x40", "1e12-1e9x40", minute=400, step=10
    ),
    "FlopmeterBooksUnread": one(
        "flopmeter_collector_books_answer_timestamp_seconds", "0+60x10 600x40", "0+60x60", minute=30
    ),
    # with both files a rule that finds nothing; without the other file: test_without_the_recording_rules_somebody_is_told
    "FlopmeterRulesMissing": Case(signed("0x60"), signed("0+60x60")),
    # the first of its code, which increase() alone does not see
    "FlopmeterRecordsRefused": Case(refusals("_x20 1x60", "1x60", "0x60"), refusals("3x60", "1x60", "0x60"), 25),
    "FlopmeterLawFilesBad": one("flopmeter_collector_regimes_good", "0x60", "0x5 1x60", minute=20),
    "FlopmeterCertificateEnds": one(
        "flopmeter_collector_tls_not_after_timestamp_seconds", "5e5x120", "9e5x120", minute=90
    ),
    "FlopmeterLogNotSigned": one(
        "flopmeter_collector_log_checkpoint_timestamp_seconds", "0+60x10 600x60", "0+60x60", minute=45
    ),
    "FlopmeterLogForked": one("flopmeter_collector_log_forked", "0x20 1x60", "0x60"),
    "FlopmeterLogContradicted": one("flopmeter_agent_log_contradictions_total", "0x20 1x60", "0x60", NODE),
    "FlopmeterWitnessMissing": one(
        "flopmeter_collector_witness_failing", "1x60", "1x20 0x60", '{instance="c:9841",witness="w"}', 45
    ),
    "FlopmeterWitnessRefuses": one(
        "flopmeter_collector_witness_refusing", "1x60", "0x60", '{instance="c:9841",witness="w"}'
    ),
    "FlopmeterQuorumMissing": one("flopmeter_collector_witness_quorum", "0x90", "0x30 1x60", minute=80),
    "FlopmeterTimestampMissing": one(
        "flopmeter_collector_tsa_failing", "1x50", "1x30 0x20", '{instance="c:9841",tsa="t"}', 400, 10
    ),
    "FlopmeterSinkDead": one("flopmeter_collector_sink_dead", "2x60", "0x60", '{instance="c:9841",sink="ops"}'),
    "FlopmeterSinkStuck": one(
        "flopmeter_collector_sink_oldest_waiting_seconds", "0+60x60", "0+60x14 0x60", '{instance="c:9841",sink="ops"}'
    ),
    "FlopmeterSinkGone": one("flopmeter_collector_sink_gone", "1x60", "0x60", '{instance="c:9841",sink="ops"}'),
    "FlopmeterRunNearLine": Case(ratio("upper", "8.1e24x60", "below"), ratio("upper", "7.9e24x60", "below")),
    # for a day, and then no more: an hour ago; at the first sample, which a new Prometheus has of it, long ago
    "FlopmeterRunCrossedLine": Case(crossed("_x29 104400x19"), crossed("_x29 3600x19"), 30 * 60, 60),
    "FlopmeterRunUndetermined": one(
        "flopmeter_run_verdict_info", "1x90", "1x30 stale", f'{{{LINE},verdict="undetermined"}}', 80
    ),
    "FlopmeterForecastMet": Case(forecast("will-be-met", "9e6x120"), forecast("may-be-met", "9e6x120"), 80),
    "FlopmeterDeadlineSoon": one(
        "flopmeter_next_deadline_timestamp_seconds", "172800x60", "300000x60"
    ),
    "FlopmeterDeadlinePassed": one("flopmeter_deadlines", "1x60", "0x60", '{instance="c:9841",state="overdue"}'),
    "FlopmeterCoverageLow": Case(
        {fleet("expected"): "0+100x200", fleet("observed"): "0+90x200"},
        {fleet("expected"): "0+100x200", fleet("observed"): "0+96x200"},
        120,
    ),
    "FlopmeterRunCoverageLow": Case(run_coverage("94x120", "running"), run_coverage("94x120", "stopped"), 90),
}  # fmt: skip

#: Other roads to the same alert, and other series under which it must keep still.
MORE = {
    # behind; unread is no clock's fault
    "FlopmeterClockOff": (clock("0x60", "1x60", "0x60"), clock("0x60", "0x60", "0x60"), 20),
    "FlopmeterAgentStuck": (ticking("0+60x400", 3600), ticking("0x10 60x30 120x30", 60), 130),
    # all of them; and of two MIG instances one, which somebody made otherwise
    "FlopmeterGpuGone": (gpus("1x40 stale", "1x40 stale"), gpus("1x90", "1x40 stale", "GPU-a"), 70),
    "FlopmeterAgentLate": (late("3x60", "600x60"), late("0x60", "0x60"), 40),  # nothing waits: nothing is late
    "FlopmeterUplinkRefused": (
        {f"flopmeter_agent_uplink_refusals_total{NODE}": "0x20 1x60"},
        {f"flopmeter_agent_uplink_refusals_total{NODE}": "0x60"},
        30,
    ),
    "FlopmeterCollectorDown": ({'up{job="other",instance="x"}': "1x60"}, {'up{job="flopmeter-collector",instance="c"}': "1x60"}, 15),
    "FlopmeterCertificateEnds": (
        {f"flopmeter_collector_tls_good{BOOKS}": "0x120"},
        {f"flopmeter_collector_tls_good{BOOKS}": "1x120"},
        90,
    ),
    "FlopmeterStoreDiskFilling": (
        {f"flopmeter_collector_store_free_bytes{BOOKS}": "4e9x40"},
        {f"flopmeter_collector_store_free_bytes{BOOKS}": "6e9x40"},
        100,
    ),
    "FlopmeterLogNotSigned": (never_signed("60x90"), never_signed("1860x90"), 45),
    "FlopmeterBooksUnread": (
        {f"flopmeter_runs_left_out{BOOKS}": "0x60"},  # answers, but cannot make the fleet's totals
        {f"flopmeter_runs_left_out{BOOKS}": "0x60", f"flopmeter_fleet_gpus{BOOKS}": "0x60"},
        30,
    ),
    # a collector that is new refused at once; and one of long ago, looked at by a Prometheus that is new
    "FlopmeterRecordsRefused": (
        refusals("_x60 1x60", "_x60 1x60", "_x60 3540x60"),
        refusals("_x60 1x60", "_x60 1x60", "_x60 60x60"),
        65,
    ),
    "FlopmeterSpoolFilling": (spool("501x40"), spool("0x10 100+5x30"), 200),
    "FlopmeterRunNearLine": (ratio("upper", "2e25x60", "undetermined"), ratio("upper", "2e25x60", "crossed"), 40),
    "FlopmeterForecastMet": (forecast("will-be-met", "9e4x120"), forecast("will-be-met", "10x120"), 80),
    "FlopmeterGpuGaps": (gap_share("0+60x120"), {k: v for k, v in gap_share("_x120").items() if "A1" in k}, 60),
}  # fmt: skip
