"""How tests are handed to workers: whole files, so that what a file sets up is set up once."""

import signal
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from xdist.scheduler import LoadScopeScheduling

#: Folders whose files share what is dear: a browser over the demo's books, the one Slurm of this machine.
TOGETHER = ("tests/browser/", "tests/slurm/")
#: Hundreds of files of some seconds each.
SHORT = "tests/collector/"

# A shell that begins something in its background has it ignore Ctrl-C, and so would every process of a test.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# A busy machine is no finding. (hypothesis does the same by itself where CI is set.)
settings.register_profile(
    "any machine", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")


def scope_of(nodeid: str) -> str:
    """What goes to one worker together."""
    file = nodeid.partition("::")[0]
    return next((folder for folder in TOGETHER if file.startswith(folder)), file)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest is begun first, and the many short files come last, so that no worker waits for another."""
    items.sort(key=lambda item: (scope_of(item.nodeid) not in TOGETHER, item.nodeid.startswith(SHORT)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> "LoadScopeScheduling | None":
    """`--dist loadfile`, and folders of it. (xdist 3.8's groups do nothing under pytest 9.2: it cannot name them.)"""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return scope_of(nodeid)

    config.option.loadscopereorder = False  # by the number of tests, which says little
    return ByFile(config, log)
