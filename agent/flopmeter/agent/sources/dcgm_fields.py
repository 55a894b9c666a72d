"""What the rows of dcgm-exporter mean: both name generations, both unit generations. Pure.

Sources: reference/metering.md 2.1, 2.2 for the names up to exporter 4.8 and their units; NVIDIA/go-dcgm's
field tests (base units, ids 1600-1612: clocks in Hz, energy in J) and DCGM 4.6's dcgm_fields for the renamed
ones. Where a row states its unit ("in MHz") in its HELP text, that wins over the name, because operators write
the HELP texts and the exporter changed units under names: DEV_GPU_UTIL_RATIO is a whole percentage in DCGM 4.6
(field 203) and a ratio in exporter 4.9. PROF ratios are the exception: their HELP says "in %" and always lied.
"""

import re
from collections.abc import Mapping

from flopmeter.agent import reading as ids

PREFIX = "DCGM_FI_"
#: A ratio above this is a blank or an error (reference/metering.md 2.2).
MAX_RATIO = 1.005

#: PROF ratios by name without prefix, old and new -> GPM percentage id (metering.md 2.1, ids 1002 … 1016).
RATIOS: Mapping[str, int] = {
    "PROF_GR_ENGINE_ACTIVE": ids.GRAPHICS_UTIL,
    "PROF_GR_ENGINE_UTIL_RATIO": ids.GRAPHICS_UTIL,
    "PROF_DRAM_ACTIVE": ids.DRAM_BW_UTIL,
    "PROF_DRAM_UTIL_RATIO": ids.DRAM_BW_UTIL,
    "PROF_SM_ACTIVE": ids.SM_UTIL,
    "PROF_SM_UTIL_RATIO": ids.SM_UTIL,
    "PROF_PIPE_TENSOR_ACTIVE": ids.ANY_TENSOR_UTIL,
    "PROF_TENSOR_UTIL_RATIO": ids.ANY_TENSOR_UTIL,
    "PROF_PIPE_FP64_ACTIVE": ids.FP64_UTIL,
    "PROF_FP64_UTIL_RATIO": ids.FP64_UTIL,
    "PROF_PIPE_FP32_ACTIVE": ids.FP32_UTIL,
    "PROF_FP32_UTIL_RATIO": ids.FP32_UTIL,
    "PROF_PIPE_FP16_ACTIVE": ids.FP16_UTIL,
    "PROF_FP16_UTIL_RATIO": ids.FP16_UTIL,
    "PROF_PIPE_TENSOR_IMMA_ACTIVE": ids.IMMA_TENSOR_UTIL,
    "PROF_IMMA_UTIL_RATIO": ids.IMMA_TENSOR_UTIL,
    "PROF_PIPE_TENSOR_HMMA_ACTIVE": ids.HMMA_TENSOR_UTIL,
    "PROF_HMMA_UTIL_RATIO": ids.HMMA_TENSOR_UTIL,
    "PROF_PIPE_TENSOR_DFMA_ACTIVE": ids.DFMA_TENSOR_UTIL,
    "PROF_DFMA_UTIL_RATIO": ids.DFMA_TENSOR_UTIL,
    "PROF_PIPE_INT_ACTIVE": ids.INTEGER_UTIL,
    "PROF_INT_UTIL_RATIO": ids.INTEGER_UTIL,
}
#: Profiling rates in bytes per second, both generations alike -> GPM rate id, in MiB/s there (metering.md 1.3).
RATES: Mapping[str, int] = {
    "PROF_PCIE_TX_BYTES": ids.PCIE_TX,
    "PROF_PCIE_RX_BYTES": ids.PCIE_RX,
    "PROF_NVLINK_RX_BYTES": ids.NVLINK_RX,
    "PROF_NVLINK_TX_BYTES": ids.NVLINK_TX,
}
#: Since-boot cycle totals of DCGM 4.6 and later (fields 1084 … 1096), device level only (metering.md 1.4).
CYCLES: Mapping[str, int] = {
    "PROF_SM_CYCLES_ELAPSED_TOTAL": ids.SM_CYCLES_ELAPSED,
    "PROF_SM_CYCLES_ACTIVE_TOTAL": ids.SM_CYCLES_ACTIVE,
    "PROF_MMA_CYCLES_ACTIVE_TOTAL": ids.MMA_CYCLES_ACTIVE,
    "PROF_DMMA_CYCLES_ACTIVE_TOTAL": ids.DMMA_CYCLES_ACTIVE,
    "PROF_HMMA_CYCLES_ACTIVE_TOTAL": ids.HMMA_CYCLES_ACTIVE,
    "PROF_IMMA_CYCLES_ACTIVE_TOTAL": ids.IMMA_CYCLES_ACTIVE,
    "PROF_DFMA_CYCLES_ACTIVE_TOTAL": ids.DFMA_CYCLES_ACTIVE,
    "PROF_INT_CYCLES_ACTIVE_TOTAL": ids.INTEGER_CYCLES_ACTIVE,
    "PROF_FP64_CYCLES_ACTIVE_TOTAL": ids.FP64_CYCLES_ACTIVE,
    "PROF_FP32_CYCLES_ACTIVE_TOTAL": ids.FP32_CYCLES_ACTIVE,
    "PROF_FP16_CYCLES_ACTIVE_TOTAL": ids.FP16_CYCLES_ACTIVE,
}

CLOCK, MAX_CLOCK, ENERGY, POWER, UTILIZATION, MEMORY = (
    "clock",
    "max_clock",
    "energy",
    "power",
    "util",
    "memory",
)
#: Everything else that is read: name without prefix -> (quantity, unit where the HELP text names none).
QUANTITIES: Mapping[str, tuple[str, str]] = {
    "DEV_SM_CLOCK": (CLOCK, "mhz"),
    "DEV_SM_CLOCK_HERTZ": (CLOCK, "hz"),
    "DEV_MAX_SM_CLOCK": (MAX_CLOCK, "mhz"),
    "DEV_SM_MAX_CLOCK_HERTZ": (MAX_CLOCK, "hz"),
    "DEV_TOTAL_ENERGY_CONSUMPTION": (ENERGY, "mj"),
    "DEV_GPU_ENERGY_JOULES_TOTAL": (ENERGY, "j"),
    "DEV_POWER_USAGE": (POWER, "w"),
    "DEV_BOARD_POWER_WATTS": (POWER, "w"),
    "DEV_GPU_UTIL": (UTILIZATION, "%"),
    "DEV_GPU_UTIL_RATIO": (UTILIZATION, "ratio"),
    "DEV_FB_USED": (MEMORY, "mib"),
    "DEV_FB_USED_BYTES": (MEMORY, "bytes"),
}

#: unit -> (multiplier, divisor) to ours: MHz, mJ, mW, percent, bytes.
_SCALE: Mapping[str, Mapping[str, tuple[int, int]]] = {
    CLOCK: {"mhz": (1, 1), "hz": (1, 1_000_000), "khz": (1, 1_000), "hertz": (1, 1_000_000)},
    ENERGY: {"mj": (1, 1), "j": (1_000, 1), "joules": (1_000, 1), "millijoules": (1, 1)},
    POWER: {"w": (1_000, 1), "mw": (1, 1), "watts": (1_000, 1)},
    UTILIZATION: {"%": (1, 1), "percent": (1, 1), "ratio": (100, 1)},
    # Older exporters print "MB" for what DCGM counts in MiB.
    MEMORY: {"mib": (1 << 20, 1), "mb": (1 << 20, 1), "bytes": (1, 1), "b": (1, 1)},
}
_UNITS = frozenset(unit for units in _SCALE.values() for unit in units)
_IN_PARENTHESES = re.compile(r"\((?:in |0[-. …]+1 )?([a-z%]{1,12})\)")
_IN_TEXT = re.compile(r"\bin ([a-z%]{1,12})")


def stated_unit(help_text: str) -> str:
    """The unit that a HELP text names, in lower case; "" = none. "(in …)" is believed whatever it says."""
    text = help_text.lower()
    if (match := _IN_PARENTHESES.search(text)) is not None and (match[1] in _UNITS or "(in " in text):
        return match[1]
    return next((word for word in _IN_TEXT.findall(text) if word in _UNITS), "")


def to_ours(quantity: str, value: float, unit: str) -> int | float | None:
    """`value` in MHz, mJ, mW, percent or bytes; None if the unit is not one of the quantity's."""
    scale = _SCALE[CLOCK if quantity == MAX_CLOCK else quantity].get(unit)
    if scale is None:
        return None
    up, down = scale
    return value * up if down == 1 else value * up / down
