"""Hand-written fakes, shared. A mock only where nothing else will do."""


class FakeClock:
    """Both clocks of a node under the test's control; `wait` moves time forward at once."""

    def __init__(self, boot_ns: int = 1_000_000_000_000, unix_ns: int = 1_790_000_000_000_000_000) -> None:
        self.boot = boot_ns
        self.unix = unix_ns
        self.stopped = False

    def boot_ns(self) -> int:
        return self.boot

    def unix_ns(self) -> int:
        return self.unix

    def wait(self, seconds: float) -> bool:
        self.advance(round(seconds * 1e9))
        return self.stopped

    def advance(self, ns: int) -> None:
        self.boot += ns
        self.unix += ns
