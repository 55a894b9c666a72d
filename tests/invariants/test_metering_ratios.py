"""Whatever one count of a pipe's counter is worth, what is metered is what the pipes did.

NVML does not say what its cycle counters are summed over. The script knows the truth; counters are off by any k,
percentages are right, and both scales of id 248 are tried.
"""

from fractions import Fraction

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from metering import FIELDS, SECOND, SMS, UNIX0, Scripted, facts, meter, notices, own, rows, taken

from flopmeter.agent.metering.meter import Meter, Sealed
from flopmeter.agent.reading import CYCLE_IDS, Reading
from flopmeter.contract.evidence_class import EvidenceClass

SLOW = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
WORTHS = (Fraction(1), Fraction(1, 4), Fraction(1, 2), Fraction(2), Fraction(1, SMS), Fraction(1, 4 * SMS))
PIPES = CYCLE_IDS[1:]
BUSY = {249: 900, 250: 520, 251: 60, 252: 400, 253: 60, 254: 60, 257: 150, 258: 70, 259: 200, 260: 55}

worths = st.fixed_dictionaries(dict.fromkeys(PIPES, st.sampled_from(WORTHS)))
shares = st.fixed_dictionaries(
    {key: st.one_of(st.just(0), st.integers(0, 1000)) for key in PIPES if key not in (251, 254)}
    | {key: st.integers(0, 300) for key in (251, 254)}
)


class Node:
    def __init__(self, gpu: Scripted, agent: Meter | None = None) -> None:
        self.gpu, self.agent = gpu, agent or meter(window=15 * SECOND)
        self.t, self.sealed = 100 * SECOND, list[Sealed]()

    def sleep(self, ns: int, active: dict[int, int]) -> None:
        self.t += ns
        self.gpu.run(ns, active)

    def read(self, **changes: object) -> None:
        self.sealed += self.agent.observe(self.gpu.reading(self.t, **changes))

    def fail(self) -> None:
        self.gpu.percent()
        self.sealed += self.agent.observe(
            Reading("GPU-0", self.t, UNIX0 + self.t, error="NVML_ERROR_UNKNOWN")
        )

    def flush(self, *, final: bool = False) -> list[Sealed]:
        last = self.agent.flush(final=final)
        self.sealed += [last] if last else []
        return self.sealed

    def calibrated(self) -> "Node":
        self.read()
        for _ in range(20):
            self.sleep(SECOND, BUSY)
            self.read()
        self.flush()
        return self


def near(metered: int, true: int, elapsed: int, *, permille: int = 1) -> bool:
    """Within 0.1 %, and what lies below the percentages' own resolution (0.05 points)."""
    return abs(metered - true) * 1_000 <= true * permille + elapsed // 2 + 10_000


@SLOW
@given(
    k=worths,
    average=st.booleans(),
    life=st.lists(st.tuples(st.integers(SECOND // 4, 3 * SECOND), shares), min_size=8, max_size=40),
)
def test_whatever_a_count_is_worth_the_total_is_what_was_done(k: dict, average: bool, life: list) -> None:  # type: ignore[type-arg]
    node = Node(Scripted(k=k, average=average))
    node.read()
    for ns, active in life:
        node.sleep(ns, active)
        node.read()
    for _ in range(6):
        node.sleep(SECOND, {})
        node.read()
    sealed = node.flush(final=True)
    assert not [u for _, u in rows(sealed) if u.gap_reason]
    elapsed = node.gpu.true(248)
    assert own(sealed, "sm_elapsed_cycles") == elapsed
    for key, name in FIELDS.items():
        true = max(node.gpu.true(251), node.gpu.true(254)) if key == 251 else node.gpu.true(key)
        if key != 251:  # the larger of two per interval: tested below by a life in which one is always larger
            assert near(own(sealed, name), true, elapsed), (name, own(sealed, name), true)
    taken(sealed)


@SLOW
@given(
    k=worths,
    average=st.booleans(),
    life=st.lists(
        st.tuples(
            st.integers(SECOND // 4, 100 * SECOND),
            shares,
            st.sampled_from(["read"] * 4 + ["fail", "kill", "bare"]),
        ),
        max_size=30,
    ),
)
def test_once_calibrated_nothing_is_lost_over_failures_and_restarts(
    k: dict, average: bool, life: list
) -> None:  # type: ignore[type-arg]
    """Bridges have no percentages: only the k that the journal keeps makes them right."""
    node = Node(Scripted(k=k, average=average)).calibrated()
    before = {name: own(node.sealed, name) for name in FIELDS.values()}
    true = {key: node.gpu.true(key) for key in FIELDS}
    for ns, active, then in life:
        node.sleep(ns, {**active, 251: 50, 254: 50})
        if then == "fail":
            node.fail()
        elif then == "bare":
            node.gpu.percent()
            node.read(percent={})
        elif then == "kill":
            node.flush()
            node.agent = meter(window=15 * SECOND, journal=node.sealed[-1].journal)
        else:
            node.read()
    node.sleep(SECOND, BUSY)
    node.read()
    sealed = node.flush(final=True)
    assert not [u for _, u in rows(sealed) if u.gap_reason]
    elapsed = node.gpu.true(248) - true[248]
    for key, name in FIELDS.items():
        assert near(own(sealed, name) - before[name], node.gpu.true(key) - true[key], elapsed), name
    taken(sealed)


@SLOW
@given(
    k=worths,
    average=st.booleans(),
    cuts=st.lists(st.integers(SECOND // 4, 30 * SECOND), min_size=2, max_size=25),
)
def test_counts_times_k_are_exact_however_the_time_is_cut(k: dict, average: bool, cuts: list[int]) -> None:  # type: ignore[type-arg]
    """Rounding is carried: from the first reading of the epoch on, usage is floor(counter x k), at any cut."""
    node = Node(Scripted(k=k, average=average)).calibrated()
    before = {name: own(node.sealed, name) for name in FIELDS.values()}
    ratios = node.agent._j.ratios  # what was found is asked of the journal
    used = (
        dict(zip(CYCLE_IDS, next(iter(ratios.values())).k, strict=True))
        if ratios
        else dict.fromkeys(CYCLE_IDS, 10**6)
    )
    start = node.gpu.counters()
    for ns in cuts:
        node.sleep(ns, BUSY)
        node.read(percent={})
        node.gpu.percent()
        if ns % 2:
            node.flush()
            node.agent = meter(window=15 * SECOND, journal=node.sealed[-1].journal)
    sealed = node.flush(final=True)
    now, each = node.gpu.counters(), SMS if average else 1
    for key, name in FIELDS.items():
        if key != 251:
            exact = (now[key] - start[key]) * each * used[key]
            assert 0 <= own(sealed, name) - before[name] - exact // 10**6 <= 1, name
    assert {u.evidence_class for _, u in rows(sealed[-1:])} == {EvidenceClass.A1}
    assert taken(sealed) > 0


def test_a_new_k_is_said_with_its_model_and_quoted_in_the_anchors() -> None:
    node = Node(Scripted(k={252: Fraction(1, 4)})).calibrated()
    said = [n.detail for s in node.sealed for n in s.batch.notices if "252" in n.detail]
    assert said == [
        (
            "counter 252 (hmma) of NVIDIA H100 80GB HBM3: expected k 1.000000, got k 0.250000 against its percentage; "
            "percentages are used there"
        ),
        "k of counter 252 (hmma) of NVIDIA H100 80GB HBM3: 0.250000, within 1 % over 10 intervals against its percentage",
    ]
    anchors = [a for s in node.sealed for a in s.batch.anchors]
    assert [a.k_ppm for a in anchors][:1] == [()]
    assert dict(zip([key for key, _ in anchors[-1].counters], anchors[-1].k_ppm, strict=True))[252] == 250_000
    assert anchors[-1].epoch > anchors[0].epoch
    classes = [(u.evidence_class, u.spread_ppm) for _, u in rows(node.sealed)]
    assert set(classes) == {(EvidenceClass.A2, 0), (EvidenceClass.A1, 0)}


def test_what_is_no_constant_stays_with_the_percentages_and_is_said_once() -> None:
    node = Node(Scripted())
    node.read()
    for i in range(60):
        node.sleep(SECOND, BUSY)
        cycles = node.gpu.counters()
        node.gpu.done[252] += 10**12 * (1 + i % 3)  # the counter runs as it likes
        node.gpu.read_at[252] += 10**12 * (1 + i % 3)
        node.read(cycles=cycles | {252: node.gpu.counters()[252]})
    sealed = node.flush(final=True)
    assert sum("no constant k of counter 252" in n.detail for s in sealed for n in s.batch.notices) == 1
    assert notices(sealed).count("calibration") == 3  # the scale, the first disagreement, no constant
    per_second = 1_700_000_000 * SMS
    assert near(own(sealed, "hmma_cycles"), 60 * per_second * 400 // 1000, 60 * per_second)
    assert not [u for _, u in rows(sealed) if u.gap_reason]


def test_another_driver_is_calibrated_again() -> None:
    node = Node(Scripted(k={252: Fraction(1, 4)})).calibrated()
    node.agent = meter(facts(driver="600.1"), window=15 * SECOND, journal=node.sealed[-1].journal)
    assert not node.agent._j.ratios
    node.gpu.k = {}
    done = len(node.sealed)
    for _ in range(21):  # the first one only tells where the counters stand now
        node.sleep(SECOND, BUSY)
        node.read()
    sealed = node.flush(final=True)[done:]
    assert own(sealed, "hmma_cycles") == 20 * 1_700_000_000 * SMS * 400 // 1000
    assert taken(sealed) > 0
