"""A calibration as it is typed: FLOP, tensor SM-cycles, how far off they may be in percent, the GPUs' model. Pure."""

from math import ceil

from flopmeter.collector.errors import RegistryError
from flopmeter.collector.estimate.numbers import number, whole
from flopmeter.contract.errors import ContractError
from flopmeter.contract.flop import Calibration

from .entries import Calibrated

_HINT = 'as counted over some steps, with what the count may be off by: --calibration 3.9e18 9.5e14 2 "NVIDIA H200"'


def calibrated(flop: str, cycles: str, percent: str, model: str) -> Calibrated:
    """Raises RegistryError or EstimateError: expected, got."""
    error = number("--calibration, third: percent", percent, hint=_HINT, such_as="2")
    try:
        counts = Calibration(
            whole("--calibration, first: FLOP", flop, hint=_HINT, such_as="3.9e18"),
            whole("--calibration, second: SM-cycles", cycles, hint=_HINT, such_as="9.5e14"),
            ceil(error * 10_000),
        )
    except ContractError as e:
        raise RegistryError(str(e), _HINT) from e
    return Calibrated(model, counts)
