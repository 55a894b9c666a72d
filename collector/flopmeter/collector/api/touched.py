"""From which hour on the books may have changed since a position. Pure.

A new record changes rows of the hour in which its window ended, and of no other (books.slot_of), so that what was
added up to the hour before still holds.
"""


class Touched:
    """Told of every stretch of new records; as long as the number of hours that still come, not of records."""

    def __init__(self, position: int) -> None:
        self.position = position  # up to which it was told
        self._since = position
        #: (up to which position, earliest hour behind it): of two the later only if its hour is later.
        self._stretches: list[tuple[int, int]] = []

    def note(self, position: int, hour: int | None) -> None:
        """Records up to `position`, of which the earliest ended in `hour`; None: there was none."""
        self.position = position
        if hour is None:
            return
        while self._stretches and self._stretches[-1][1] >= hour:
            self._stretches.pop()
        self._stretches.append((position, hour))

    def since(self, position: int) -> int | None:
        """The earliest hour that changed behind `position`; None: none did. Before the first that it was told of: 0."""
        if position < self._since:
            return 0
        return min((hour for upto, hour in tuple(self._stretches) if upto > position), default=None)
