"""Machines of a stand-in for the driver's library, in this process and under virtual time."""

from contextlib import ExitStack

import pytest
from fakenvml.driver import Machine
from nvml_machine import BUSY


@pytest.fixture
def machine(tmp_path):
    """machine(*lines, without=…) is a Machine in this process."""
    with ExitStack() as stack:
        yield lambda *lines, **how: stack.enter_context(Machine(tmp_path, *(lines or (BUSY,)), **how))
