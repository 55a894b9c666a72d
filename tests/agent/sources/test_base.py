"""What errors of readings mean to those who read."""

import pytest

from flopmeter.agent.sources.base import COUNTERS_RESTARTED, gone


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ("NVML_ERROR_GPU_IS_LOST", True),
        ("NVML_ERROR_RESET_REQUIRED", True),
        ("NVML_ERROR_NOT_FOUND", True),
        ("NVML_ERROR_UNINITIALIZED", True),
        ("NVML_ERROR_DRIVER_NOT_LOADED", True),
        ("NVML_ERROR_LIB_RM_VERSION_MISMATCH", True),
        (COUNTERS_RESTARTED, True),
        ("NVML_ERROR_TIMEOUT", False),
        ("READ_HUNG", False),
        ("NVML_ERROR_UNKNOWN", False),
        ("NVML_ERROR_NOT_SUPPORTED", False),
    ],
)
def test_the_devices_are_asked_for_again_after_errors_that_say_they_changed(error, expected):
    assert gone(error) is expected
