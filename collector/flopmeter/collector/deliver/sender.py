"""The kinds of sinks, each imported only where one is configured."""

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from .answer import Answer
from .message import Message
from .settings import Alertmanager, Command, Jsonl, SinkSettings, Webhook


class Sender(Protocol):
    """Brings messages to the other side. Runs on the sink's own thread, and comes back within the sink's timeout."""

    limit: int  # messages in one call

    def check(self) -> None:
        """Whether it could work: secrets, certificates, paths; asks nobody. Raises SinkError."""
        ...

    def send(self, messages: Sequence[Message]) -> list[Answer]:
        """One answer for each message, in their order."""
        ...


@runtime_checkable
class Stoppable(Protocol):
    """A sender of which something would be left running when the process ends."""

    def abandon(self) -> None:
        """End what runs, for good. Any thread."""
        ...


def sender_for(settings: SinkSettings, unix_ns: Callable[[], int]) -> Sender:
    target = settings.target
    if isinstance(target, Webhook):
        from .webhook import WebhookSender

        return WebhookSender(settings, target, unix_ns)
    if isinstance(target, Alertmanager):
        from .alertmanager import AlertmanagerSender

        return AlertmanagerSender(settings, target, unix_ns)
    if isinstance(target, Jsonl):
        from .file import FileSender

        return FileSender(target.path)
    if isinstance(target, Command):
        from .command import CommandSender

        return CommandSender(settings, target)
    from .smtp import SmtpSender

    return SmtpSender(settings, target, unix_ns)
