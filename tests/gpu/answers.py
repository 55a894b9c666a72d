"""What the results say to the open questions of reference/metering.md 9, and to the W table. Pure."""

from typing import Any

from .state import State

#: The part of E6 that runs wgmma.
NATIVE = "cudnn"
#: Shares of the table's rate that an active cycle can stand for. Said so far: 0.6 (reference/metering.md 4.3); what lies
#: far from it means that something else ran, or was counted.
SOUND = (0.4, 1.05)
UNKNOWN = "not answered by this run"
#: Not to be answered on one GPU that nobody may reset, reconfigure or put into another mode.
OUT_OF_REACH = {
    "counters at a GPU reset and at a driver reload": "not tried: the GPU is not to be reset",
    "GPM in confidential-computing mode": "not tried: the mode is set at boot",
    "percentages of a MIG GPU instance are of its own SMs": "not tried: MIG is not to be changed",
}


def _raw(results: dict[str, dict[str, Any]], key: str) -> dict[str, Any]:
    raw: dict[str, Any] = results.get(key, {}).get("raw", {})
    return raw


def answers(results: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Question -> answer, with the experiment that gave it."""
    e0, e2, e4, e6 = (_raw(results, key) for key in ("E0", "E2", "E4", "E6"))
    found = {
        "FP8 in HMMA or only in ANY": _fp8(e4),
        "mma.sync: share of the table's rate on an active SM-cycle": _legacy(e6),
        "class A1 and A2 against 2MNK": _truth(_raw(results, "E3")),
        "class A2's clock term": _clock(_raw(results, "E16")),
        "scale of id 248": f"{e2['scale']} over the SMs (E2: {e2['counts_per_clock']:.3f} counts per clock)"
        if e2.get("scale")
        else UNKNOWN,
        "k of the pipe counters": ", ".join(
            f"{k}: {v:.4f}" if v else f"{k}: not stable" for k, v in e2["k"].items()
        )
        if e2.get("k")
        else UNKNOWN,
        "class map (dtype: share of the tensor cycles by pipe)": _class_map(e4),
        "2:4 sparsity: what an active cycle stands for": _raw(results, "E5").get(
            "active_cycles_stand_for", UNKNOWN
        ),
        "GPM without root": _user(e0),
        "shortest tick within 1 %": _tick(results),
    }
    return found | OUT_OF_REACH


def _fp8(e4: dict[str, Any]) -> str:
    place = e4.get("fp8_place", "")
    told = {
        "hmma": "in HMMA: HMMA cycles can be FP8, the bounds stay a factor of 4 wide",
        "any": "only in ANY: FP8 is told from BF16 by the counters, HMMA can be TF32 or BF16 only",
        "both": "in both: cannot be told apart",
    }
    return told.get(place, UNKNOWN) + (" (E4)" if place in told else "")


def legacy_share(e6: dict[str, Any]) -> float | None:
    """The lowest share of its dtype's rate that a kernel of mma.sync showed on an active SM-cycle."""
    shares = [share for key, share in _shares(e6).items() if key != NATIVE and share > 0]
    return min(shares) if shares else None


def _shares(e6: dict[str, Any]) -> dict[str, float]:
    return {k.removeprefix("share "): v for k, v in e6.items() if k.startswith("share ") and v is not None}


def _legacy(e6: dict[str, Any]) -> str:
    share = legacy_share(e6)
    if share is None:
        return UNKNOWN
    parts = ", ".join(f"{k} {v:.3f}" for k, v in _shares(e6).items())
    return f"{share:.3f} at least (E6: {parts})"


def _truth(e3: dict[str, Any]) -> str:
    told = [
        f"{dtype} by {path} {e3[dtype][path]['ratio']:.4f}"
        for dtype in ("bf16", "fp16")
        for path in ("counters", "percentages")
        if e3.get(dtype, {}).get(path, {}).get("ratio") is not None
    ]
    return f"F/T {', '.join(told)} (E3)" if told else UNKNOWN


def _clock(e16: dict[str, Any]) -> str:
    """How far each way of taking the mean clock was off."""
    if not e16.get("true_mhz"):
        return UNKNOWN
    told = (f"{k} {100 * (v / e16['true_mhz'] - 1):+.2f} %" for k, v in e16["means_mhz"].items())
    return f"{', '.join(told)} against {e16['true_by']}, {e16['true_mhz']:.0f} MHz (E16)"


def _class_map(e4: dict[str, Any]) -> str:
    if not e4.get("class_map"):
        return UNKNOWN
    return "; ".join(
        f"{dtype}: " + (", ".join(f"{p} {s:.0%}" for p, s in pipes.items()) or "no tensor pipe")
        for dtype, pipes in e4["class_map"].items()
    )


def _user(e0: dict[str, Any]) -> str:
    user = e0.get("as_user")
    if user is None:
        return UNKNOWN
    return (
        f"needs privilege: {user['error']}"
        if user.get("error")
        else f"works: {len(user['answer'])} ids answer (E0)"
    )


def _tick(results: dict[str, dict[str, Any]]) -> str:
    for check in results.get("E10", {}).get("checks", []):
        if check["name"].startswith("smallest tick") and check["measured"] is not None:
            return f"{check['measured']:g} s (E10)"
    return UNKNOWN


def toml(state: State) -> str:
    """What the arch 9.0 of the next W table should say. A person pastes it: a table is a new file with a new id.

    The keys are the table's own (protos/flopmeter/contract/w_table.py); what this run did not measure is left out.
    """
    e4, e6 = _raw(state.results, "E4"), _raw(state.results, "E6")
    lines = [f"# {state.machine.get('gpu', '?')}, driver {state.machine.get('driver', '?')}, by tests/gpu"]
    if state.machine.get("simulated"):
        lines.append("# SIMULATED: do not paste.")
    for key, value in (*_raw(state.results, "E3").items(), *e4.items(), *e6.items()):
        if key.startswith("implied ") and value is not None:
            lines.append(
                f"# measured {key.removeprefix('implied ')}: {value:.1f} operations per active SM-cycle"
            )
    if state.results.get("E3", {}).get("status") != "pass":
        lines.append("# E3 did not pass: nothing here is to be pasted before that is explained.")
    e2 = _raw(state.results, "E2")
    if e2.get("scale"):
        lines.append(
            f"# id 248 is the {e2['scale']} over the SMs ({e2['counts_per_clock']:.4f} counts per clock)"
        )
    constants = [f"{key} {k:.4f}" for key, k in e2.get("k", {}).items() if k]
    if constants:
        lines.append(f"# k of the counters: {', '.join(constants)}")
    known = []
    holds = {"any": (("tf32", "bf16"), ("fp8",)), "hmma": (("tf32", "bf16", "fp8"), ())}.get(
        e4.get("fp8_place", "")
    )
    if holds is None:
        lines.append(
            "# hmma_holds, residual_holds: not measured, or FP8 is in both; leave them as they are (E4)"
        )
    else:
        lines.append(f"hmma_holds = [{_quoted(holds[0])}]")
        known.append('hmma_holds = "measured"')
        if holds[1]:
            lines.append(f"residual_holds = [{_quoted(holds[1])}]")
            known.append('residual_holds = "measured"')
        else:
            lines.append("# residual_holds: nothing that ran was counted there; leave it as it is (E4)")
    share = legacy_share(e6)
    if share is None:
        lines.append("# legacy_mma_permille: not measured; leave it as it is (E6)")
    elif not SOUND[0] <= share <= SOUND[1]:
        lines.append(
            f"# legacy_mma_permille: a share of {share:.4f} is no rate that a pipe can have; look at E6"
        )
    else:
        lines.append(f"legacy_mma_permille = {legacy_permille(share)}  # lowest of E6: {share:.4f}")
        known.append('legacy_mma_permille = "measured"')
    if known:
        lines.append(f"# and in `known`: {', '.join(known)}")
    return "\n".join(lines) + "\n"


def legacy_permille(share: float) -> int:
    """Rounded down, less one permille for the reading itself: a lower bound may not be too high."""
    return 1000 if share >= 0.999 else max(1, int(1000 * share) - 1)


def _quoted(names: tuple[str, ...]) -> str:
    return ", ".join(f'"{name}"' for name in names)
