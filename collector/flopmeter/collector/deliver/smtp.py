"""The mail sink: SMTP with TLS verified, the sender's password only where the channel is private, one conversation a turn."""

import contextlib
import smtplib
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from email.message import EmailMessage

from flopmeter.collector.errors import SinkError

from .answer import Answer, Kind, delivered, failed, refused
from .deadline import Bounded, Deadline
from .http_call import trust
from .mail import digest_mail, event_mail
from .message import Message
from .secret import read_line
from .settings import NONE, STARTTLS, TLS, SinkSettings, Smtp

#: So many events that wait at once are a mail each; more are one digest, so that a storm is one mail and not a thousand.
SINGLE_MAILS = 5
DIGEST_EVENTS = 200


class SmtpSender:
    """Connects for each turn: events are rare, and a connection that idles is a connection that breaks."""

    limit = DIGEST_EVENTS

    def __init__(self, settings: SinkSettings, target: Smtp, unix_ns: Callable[[], int]) -> None:
        self._timeout_s, self._target, self._unix_ns = settings.timeout_s, target, unix_ns
        self.shown = f"{target.host}:{target.port}"

    def check(self) -> None:
        """Raises SinkError."""
        if self._target.security != NONE:
            trust(self._target.ca_file)
        if self._target.password is not None:
            read_line(self._target.password)

    def send(self, messages: Sequence[Message]) -> list[Answer]:
        answers: list[Answer] = []
        try:
            with self._session() as smtp:
                if len(messages) > SINGLE_MAILS:
                    answer = self._mail(smtp, digest_mail(messages, *self._frame()))
                    if answer.kind is not Kind.REFUSED:
                        return [answer] * len(messages)
                # A digest that is refused may be too large, or hold the one event that a filter does not like.
                for message in messages:
                    answers.append(self._mail(smtp, event_mail(message, *self._frame())))
                    if answers[0].kind is Kind.REFUSED and len(messages) > SINGLE_MAILS:
                        return answers * len(messages)  # it refuses whatever comes
        except (SinkError, OSError, smtplib.SMTPException, ValueError) as e:
            answers += [failed(self._said(e))] * (len(messages) - len(answers))
        return answers

    def _frame(self) -> tuple[str, Sequence[str], int]:
        return self._target.sender, self._target.to, self._unix_ns()

    @contextlib.contextmanager
    def _session(self) -> Iterator[smtplib.SMTP]:
        """A greeted, encrypted, authenticated connection, which ends in time."""
        target = self._target
        context = trust(target.ca_file) if target.security != NONE else None
        password = read_line(target.password) if target.password is not None else ""
        deadline = Deadline(self._timeout_s)
        with contextlib.ExitStack() as stack:
            connection = socket.create_connection((target.host, target.port), timeout=deadline.left_s())
            stack.callback(connection.close)
            if target.security == TLS:
                assert context is not None
                connection = context.wrap_socket(connection, server_hostname=target.host)
                stack.callback(connection.close)
            smtp = _Session(connection, target, deadline)
            stack.callback(_leave, smtp)
            try:
                smtp.greet()
                if target.security == STARTTLS:
                    smtp.starttls(context=context)
                    smtp.ehlo()
                if target.user:
                    smtp.login(target.user, password)
                yield smtp
            except (OSError, smtplib.SMTPException) as e:
                if deadline.passed:  # which smtplib takes for a connection that was closed
                    raise TimeoutError from e
                raise

    def _mail(self, smtp: smtplib.SMTP, mail: EmailMessage) -> Answer:
        try:
            not_to = smtp.send_message(mail, self._target.sender, list(self._target.to))
        except smtplib.SMTPRecipientsRefused as e:
            codes = [code for code, _ in e.recipients.values()]
            said = self._said(smtplib.SMTPResponseException(*next(iter(e.recipients.values()))))
            return refused(said) if all(code >= 500 for code in codes) else failed(said)
        except (smtplib.SMTPSenderRefused, smtplib.SMTPDataError) as e:
            return refused(self._said(e)) if e.smtp_code >= 500 else failed(self._said(e))
        # One mailbox that has it is enough to note it: who has it already must not get it for ever.
        refusals = ", ".join(f"{name} ({code})" for name, (code, _) in not_to.items())
        return delivered(f"{self.shown} took it" + (f", but not for {refusals}" if refusals else ""))

    def _said(self, e: Exception) -> str:
        where = self.shown
        if isinstance(e, TimeoutError):
            return f"{where}: no answer within {self._timeout_s} s"
        if isinstance(e, smtplib.SMTPResponseException):
            error = e.smtp_error.decode(errors="replace") if isinstance(e.smtp_error, bytes) else e.smtp_error
            return f"{where} answered {e.smtp_code} {error}"
        if isinstance(e, ssl.SSLCertVerificationError):
            return f"{where}: its certificate is not trusted: {e.verify_message}"
        if isinstance(e, ssl.SSLError):
            return f"{where}: TLS failed: {e.reason or e}"
        return f"{where}: {getattr(e, 'strerror', None) or e}"


class _Session(smtplib.SMTP):
    """smtplib on a connection that is there, so that its whole life has one bound."""

    def __init__(self, connection: socket.socket, target: Smtp, deadline: Deadline) -> None:
        # In EHLO we name the sender's domain: this machine's name need not be known outside.
        super().__init__(local_hostname=target.sender.rpartition("@")[2], timeout=deadline.left_s())
        self.sock = connection
        self.file = None
        self._deadline = deadline
        self._host = target.host  # whom starttls() verifies

    def getreply(self) -> tuple[int, bytes]:
        if self.file is None:  # at first, and behind STARTTLS
            assert self.sock is not None
            self.file = Bounded(self.sock, self._deadline).makefile()
        return super().getreply()

    def greet(self) -> None:
        code, said = self.getreply()
        if code != 220:
            raise smtplib.SMTPConnectError(code, said)
        self.ehlo_or_helo_if_needed()


def _leave(smtp: smtplib.SMTP) -> None:
    try:
        with contextlib.suppress(OSError, smtplib.SMTPException):
            smtp.quit()
    finally:
        smtp.close()
