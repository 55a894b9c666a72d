"""The auditor's pack: what it comes to is what the contract's arithmetic and protobuf say; what was changed is refused."""

import contextlib
import json
import os
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import evidence_files as files
import pytest
from builders import Chain, busy, gap
from cryptography.hazmat.primitives import serialization
from hypothesis import given, settings
from hypothesis import strategies as st

from flopmeter.audit import pack
from flopmeter.audit.price import Table
from flopmeter.audit.steps import Key, Wanted, verify
from flopmeter.cli.container import read
from flopmeter.cli.verify import VerifyError, _Pool
from flopmeter.contract import w_table
from flopmeter.contract.evidence_class import SPREAD_STEPS_PPM, EvidenceClass
from flopmeter.contract.flop import Cycles, Figure, flop
from flopmeter.contract.usage import ALL_MEASURED, IDLE, Measured, Usage, Workload, WorkloadKind
from flopmeter.contract.w_table import CURRENT, DTYPE_RATE
from flopmeter.evidence.errors import EvidenceError
from flopmeter.wire.v1 import batch_pb2

KEY = Key(serialization.load_pem_public_key(files.key_pem()), files.key_id())  # type: ignore[arg-type]
TABLE_BYTES = (Path(w_table.__file__).parent / CURRENT).read_bytes()
TABLE, CONTRACT = Table(TABLE_BYTES), w_table.current()
NUMBERS = st.one_of(st.integers(0, 300), st.integers(0, 2**44), st.integers(0, 2**63))


def check(made: files.Attestation, folder: Path) -> str:
    return verify(read(made.write(folder)), KEY, Wanted(pack=pack.check_pack)).pack


def refused(made: files.Attestation, folder: Path) -> str:
    with pytest.raises(EvidenceError) as e:
        check(made, folder)
    assert e.value.step in {"pack", "inclusion"}, str(e.value)
    return str(e.value)


# ---- FLOP, a second time -------------------------------------------------------------------------------------


@settings(max_examples=250, deadline=None)
@given(
    st.sampled_from(
        [(a.compute_capability, a.name.rstrip("\\b") or "any") for a in CONTRACT.archs if a.rates]
    ),
    st.sampled_from(EvidenceClass),
    st.integers(0, 4095),
    st.sampled_from(SPREAD_STEPS_PPM),
    st.sampled_from(["", "int8", "nonsense", *DTYPE_RATE]),
    st.lists(NUMBERS, min_size=12, max_size=12),
    st.booleans(),
)
def test_the_second_implementation_is_the_first(  # noqa: PLR0917 - drawn
    model: tuple[str, str],
    level: EvidenceClass,
    measured: int,
    spread: int,
    dtype: str,
    sums: list[int],
    roomy: bool,
) -> None:
    arch = CONTRACT.arch(*model)
    assert arch is not None
    if roomy:  # as a device counts: no more tensor work than the SMs were active, so that noise has room
        for i in (2, 1):
            sums[i] += sum(sums[3:7])
        measured |= int(Measured.TENSOR_OTHER)
    figure = flop(Cycles(level, Measured(measured), spread, *sums[1:11]), arch, dtype)
    got = TABLE.flop(((model[1], model[0]), int(level), measured, spread, dtype), sums)
    assert got == (figure.lower, figure.point, figure.upper)


@settings(max_examples=50, deadline=None)
@given(
    st.sampled_from([("H20", "9.0"), ("X", "99.9")]),
    st.integers(0, 4095),
    st.lists(NUMBERS, min_size=12, max_size=12),
)
def test_a_model_without_rates_is_bounded_by_the_best_of_the_table(
    model: tuple[str, str], measured: int, sums: list[int]
) -> None:
    from flopmeter.collector.books import GroupKey
    from flopmeter.collector.figures import Model, PriceKey, Tally

    tally = Tally()
    tally.add(GroupKey(1, 1, 1, measured, 0, 0), "", sums)
    assert PriceKey(1, 1, measured, 0, "")
    figure, _ = tally.figures({1: Model(*model)}, CONTRACT)
    assert TABLE.flop((model, 1, measured, 0, ""), sums) == (figure.lower, figure.point, figure.upper)


@pytest.mark.parametrize(
    "raw",
    [
        b"\xff", b"", b"arch = 1", b"[[arch]]", b"[[arch]]\nrates = {a = 1}", b"[[arch]]\nrates = {bf16 = -1}",
        b'[[arch]]\ncompute_capability = "9.0"\nname = "(a+)+$"\nrates = {}',
        b'[[arch]]\ncompute_capability = "9.0"\nrates = {bf16 = 1.5}',
        b'[[arch]]\ncompute_capability = "9.0"\nrates = {bf16 = 1}\nhmma_holds = ["fp8"]',
    ],
)  # fmt: skip
def test_a_table_that_is_none_is_refused(raw: bytes) -> None:
    with pytest.raises(EvidenceError, match="pack"):
        Table(raw).flop((("H100", "9.0"), 1, 1023, 0, ""), [1] * 12)


# ---- rows ----------------------------------------------------------------------------------------------------


def rows(draw: Any) -> list[Usage]:
    found = []
    for _ in range(draw(st.integers(0, 12))):
        numbers = draw(st.lists(NUMBERS, min_size=12, max_size=12))
        level = draw(st.sampled_from(EvidenceClass))
        key = (
            draw(st.integers(0, 1)),
            draw(st.integers(0, 2)),
            level,
            Measured(draw(st.sampled_from([0, 3, 1023, 3072]))),
        )
        found.append(Usage(*key, draw(st.sampled_from(SPREAD_STEPS_PPM)), *numbers))
    return found


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_rows_added_alike_are_rows_added_one_by_one_as_protobuf_reads_them(data: st.DataObject) -> None:
    chain = Chain()
    workloads = (
        Workload(WorkloadKind.SLURM, job="1", dtype="bf16"),
        Workload(WorkloadKind.POD, job="2"),
        IDLE,
    )
    batches = [chain.batch(rows(data.draw), workloads) for _ in range(3)]
    checker = pack.Checker(facts({0: "bf16", 1: ""}, workloads))
    told = []
    for message in batches:
        inventory, begin, end, named, usage = pack._cut(message.SerializeToString())
        assert (inventory, begin, end) == (
            message.inventory_digest, message.window_start_unix_ns, message.window_end_unix_ns,
        )  # fmt: skip
        told.append((checker._batch(chain.digest, named), usage))
    alike, each = checker._added_alike(told), checker._added_one_by_one(told)
    wanted: pack.Sums = {}
    for u in (u for message in batches for u in message.usage):
        if u.workload_index < 2:
            price = (("H", "9.0"), u.evidence_class, u.measured, u.spread_ppm, ("bf16", "")[u.workload_index])
            pack.add(wanted, {price: [getattr(u, name) for name in files.SUM_NAMES]})
    assert each == wanted
    assert alike == wanted


def facts(of_run: dict[int, str], workloads: tuple[Workload, ...]) -> pack.Facts:
    chain = Chain()
    named = [w.SerializeToString() for w in chain.batch([], workloads).workloads]
    mine = {("c1", files.digest_of(named[i])): dtype for i, dtype in of_run.items()}
    nodes = {chain.digest: (("c1", "c1/n"), [("H", "9.0"), ("H", "9.0")])}
    nothing: Any = None
    return pack.Facts(nothing, nothing, 1, (0, 1), {}, nodes, mine, {})


def test_rows_of_one_outline_and_two_forms_are_added_one_by_one() -> None:
    """Same bytes go on and end, other fields: what is in the sixth place is told by its tag alone."""
    first = Usage(1, 0, EvidenceClass.A1, ALL_MEASURED, 0, 5, 6, 7)
    second = Usage(1, 0, EvidenceClass.A1, ALL_MEASURED, 0, 5, 0, 7, 9)
    encoded = [_row(u) for u in (first, second)]
    assert encoded[0].translate(pack._GOES_ON) == encoded[1].translate(pack._GOES_ON)
    workloads = (Workload(WorkloadKind.SLURM, job="1"),)
    checker = pack.Checker(facts({0: ""}, workloads))
    batch = checker._batch(
        Chain().digest, [w.SerializeToString() for w in Chain().batch([], workloads).workloads]
    )
    with pytest.raises(pack.Odd):
        checker._added_alike([(batch, encoded)])
    assert [sums[:4] for sums in checker._added_one_by_one([(batch, encoded)]).values()] == [[10, 6, 14, 9]]
    assert checker._added_alike([(batch, encoded[:1])]) == checker._added_one_by_one([(batch, encoded[:1])])


def _row(u: Usage) -> bytes:
    return batch_pb2.Usage(**{name: int(getattr(u, name)) for name in Usage.__slots__}).SerializeToString()


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=80))
def test_bytes_that_are_no_batch_never_crash(raw: bytes) -> None:
    for read_it in (pack._cut, pack.inventories):
        # check_pack makes an EvidenceError of each
        with contextlib.suppress(EvidenceError, IndexError, UnicodeDecodeError, TypeError, AttributeError):
            read_it(raw)


# ---- whole packs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("around", [0, 3, 300])
def test_a_pack_holds_wherever_its_batches_lie_in_the_log(around: int, tmp_path: Path) -> None:
    told = files.fleet(nodes=3, windows=120 if around == 3 else 5)
    assert check(files.attestation("auditor", told=told, around=around), tmp_path).startswith(
        f"{len(told.records)} batches"
    )


def unframed(raw: bytes) -> list[bytes]:
    found = []
    while raw:
        size = 4 + struct.unpack(">I", raw[:4])[0]
        found.append(raw[4:size])
        raw = raw[size:]
    return found


def framed(records: list[bytes]) -> bytes:
    return b"".join(struct.pack(">I", len(raw)) + raw for raw in records)


def in_manifest(change: Callable[[dict[str, Any]], object]) -> Callable[[dict[str, bytes]], None]:
    def of(parts: dict[str, bytes]) -> None:
        manifest = json.loads(parts["pack/manifest.json"])
        change(manifest)
        parts["pack/manifest.json"] = files.canonical(manifest)

    return of


def in_records(change: Callable[[list[bytes]], object]) -> Callable[[dict[str, bytes]], None]:
    def of(parts: dict[str, bytes]) -> None:
        records = unframed(parts["pack/records.bin"])
        change(records)
        parts["pack/records.bin"] = framed(records)

    return of


def in_part(name: str, change: Callable[[bytes], bytes]) -> Callable[[dict[str, bytes]], None]:
    return lambda parts: parts.__setitem__(f"pack/{name}", change(parts[f"pack/{name}"]))


def resigned(records: list[bytes]) -> None:
    """A cycle less, signed by the agent's own key: it was not logged so."""
    chain = Chain("gpu-000")
    message = batch_pb2.Batch.FromString(records[0][72:-64])
    message.usage[0].hmma_cycles -= 1
    records[0] = chain.seal(message.SerializeToString())


LIES = {
    "a record changed": (in_records(lambda r: r.__setitem__(0, r[0][:200] + b"\1" + r[0][201:])), "not signed"),
    "a record signed anew": (in_records(resigned), "does not follow|not in the log|wrong length"),
    "records swapped": (in_records(lambda r: r.__setitem__(slice(0, 3, 2), r[2::-2])), "follow|not in the log"),
    "a record left out": (in_records(lambda r: r.pop()), "number of records|wrong length|whole|bytes"),
    "a salt changed": (in_part("leaves.bin", lambda b: b[:30] + bytes([b[30] ^ 1]) + b[31:]), "not in the log"),
    "a receipt's time changed": (in_part("leaves.bin", lambda b: b[:20] + b"\1" + b[21:]), "not in the log"),
    "siblings too few": (in_part("leaves.bin", lambda b: b[:-32]), "hashes|bytes"),
    "siblings too many": (in_part("leaves.bin", lambda b: b + bytes(32)), "hashes|too many"),
    "a sibling of another length": (in_part("leaves.bin", lambda b: b + b"\0"), "32 bytes"),
    "nothing in leaves.bin": (in_part("leaves.bin", lambda _: b""), "bytes"),
    "a count of records too high": (in_manifest(lambda m: m.update(records="7")), "number of records|no records|bytes"),
    "a count of records too low": (in_manifest(lambda m: m.update(records="5")), "number of records"),
    "a count of records without end": (in_manifest(lambda m: m.update(records="9" * 38)), "records|bytes"),
    "no keys": (in_part("inventories.bin", lambda b: b[37:]), "not signed"),
    "another's key": (in_part("inventories.bin", lambda b: b[:5] + b[42:74] + b[37:]), "not signed"),
    "no inventory": (in_part("inventories.bin", lambda b: b[: 2 * 37]), "no inventory"),
    "half an inventory": (in_part("inventories.bin", lambda b: b[:-9]), "block of no known|no inventory"),
    "another workload": (in_manifest(lambda m: m["workloads"][0].update(sha256="0" * 64)), "come to"),
    "another scope": (in_manifest(lambda m: m["workloads"][0].update(scope="c2")), "come to"),
    "another dtype": (in_manifest(lambda m: m["workloads"][0].update(dtype="fp8")), "come to|its dtype"),
    "other SM-cycles": (in_manifest(lambda m: m["smCycles"].__setitem__(3, "1")), "SM-cycles"),
    "an entity left out": (
        in_manifest(
            lambda m: m["leftOut"].append(
                {"agent": Chain("gpu-000").agent_id.hex(), "seq": "1", "entity": "0", "restNs": "0", "cycles": "0",
                 "workload": None}
            )
        ),
        "come to",
    ),
    "something owed that is not in the statement": (
        in_manifest(
            lambda m: m["owed"].append(
                {"model": [files.H100, "9.0"], "class": "8", "measured": "0", "spread": "0", "dtype": "",
                 "cycles": ["1"] * 12}
            )
        ),
        "come to",
    ),
    "owed, and lowering nothing": (
        in_manifest(
            lambda m: m["owed"].append(
                {"model": [files.H100, "9.0"], "class": "1", "measured": "0", "spread": "0", "dtype": "",
                 "cycles": ["1"] * 12}
            )
        ),
        "no gap",
    ),
    "another table": (in_part("w_table.toml", lambda b: b.replace(b"bf16 = 4096", b"bf16 = 2048")), "method.tables"),
}  # fmt: skip


@pytest.mark.parametrize("name", LIES)
def test_a_pack_that_was_signed_and_does_not_hold_is_refused(name: str, tmp_path: Path) -> None:
    change, reason = LIES[name]
    said = refused(files.attestation("auditor", change_pack=change), tmp_path)
    assert re.search(reason, said), said


def test_a_figure_that_the_batches_do_not_come_to_is_refused(tmp_path: Path) -> None:
    """Batches that are the agents' and in a log, beside a statement of others."""
    told = files.fleet()
    other = files.fleet(usage=lambda n, w: [busy(0, 0, percent=40), gap(1, 0)])
    made = files.attestation("auditor", told=told)
    lie = files.attestation("auditor", told=other)
    assert check(made, tmp_path)
    assert check(lie, tmp_path)

    def swap(parts: dict[str, bytes]) -> None:
        parts["pack/records.bin"] = made.files["pack/records.bin"]

    refused(files.attestation("auditor", told=other, change_pack=swap), tmp_path)


def test_a_flop_that_the_batches_do_not_come_to_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Statement, tree and record agree on it, and the SM-cycles are right."""
    priced = files.priced

    def more(group: Any, sums: Any) -> Figure:
        f = priced(group, sums)
        return Figure(f.lower, f.point, f.upper + 1)

    monkeypatch.setattr(files, "priced", more)
    assert "the statement says" in refused(files.attestation("auditor"), tmp_path)


def test_a_chain_that_was_logged_broken_is_refused(tmp_path: Path) -> None:
    """Signed by the agent and in the log as it is: the second record names another than the first."""
    told = files.fleet(nodes=1, windows=2)
    chain = Chain("gpu-000")
    other = chain.seal(told.records[1][72:-64], seq=2, prev_hash=b"\7" * 32)
    made = files.attestation(
        "auditor", told=files.Fleet((told.records[0], other), told.inventories, told.keys)
    )
    assert "does not follow" in refused(made, tmp_path)


def test_what_another_agent_told_of_is_left_out_and_a_gap_stands_for_the_rest(tmp_path: Path) -> None:
    """As the collector books it (ADR 0007): the same figures as if the agent had told of a gap itself."""
    agent = Chain("gpu-000").agent_id.hex()
    cycles = 132 * 3_000 * 60_000_000_000 // 1_000
    as_booked = files.fleet(nodes=1, windows=2, usage=lambda n, w: [busy(0, 0) if w else gap(0, 0)])
    as_told = files.fleet(nodes=1, windows=2, usage=lambda n, w: [busy(0, 0)])

    def of(manifest: dict[str, Any]) -> None:
        item = {"agent": agent, "seq": "1", "entity": "0", "restNs": str(60 * 10**9), "cycles": str(cycles)}
        manifest["leftOut"] = [{**item, "workload": "0"}]
        manifest["smCycles"] = booked

    booked = json.loads(files.attestation("auditor", told=as_booked).files["pack/manifest.json"])["smCycles"]
    real = files.groups_of
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "groups_of", lambda _: real(as_booked.records))
        made = files.attestation("auditor", told=as_told, change_pack=in_manifest(of))
    assert "1 left out in part" in check(made, tmp_path)


def test_missing_numbers_are_counted(tmp_path: Path) -> None:
    told = files.fleet(nodes=1, windows=5)
    kept = (told.records[0], told.records[3], told.records[4])
    made = files.attestation("auditor", told=files.Fleet(kept, told.inventories, told.keys))
    assert "1 breaks in their numbers" in check(made, tmp_path)


def test_many_processes_come_to_the_same_and_fail_in_the_same_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = files.fleet(nodes=3, windows=200)
    good = read(files.attestation("auditor", told=told, around=0).write(tmp_path, "good"))
    changed = in_records(lambda r: r.__setitem__(599, r[599][:-1] + bytes([r[599][-1] ^ 1])))
    bad = read(files.attestation("auditor", told=told, around=0, change_pack=changed).write(tmp_path, "bad"))
    found = []
    for small in (10**9, 0):  # here, in processes
        monkeypatch.setattr("flopmeter.cli.verify._SMALL", small)
        check = Wanted(pack=_Pool(2, quiet=True).check)
        with pytest.raises(EvidenceError, match="not signed by its key") as e:
            verify(bad, KEY, check)
        found.append((verify(good, KEY, check).pack, str(e.value)))
    assert found[0] == found[1]
    assert found[0][0].startswith("600 batches")


def test_a_process_that_is_ended_is_an_error_and_no_hang(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = read(files.attestation("auditor").write(tmp_path))
    monkeypatch.setattr("flopmeter.cli.verify._SMALL", 0)
    monkeypatch.setattr("flopmeter.cli.verify._start", os._exit)
    with pytest.raises(VerifyError, match="was ended"):
        verify(members, KEY, Wanted(pack=_Pool(2, quiet=True).check))
