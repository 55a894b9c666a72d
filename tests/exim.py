"""A real mail server for tests: Exim in the foreground, on ports of its own, with a spool of its own."""

import email
import email.policy
import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path
from tempfile import TemporaryDirectory

from processes import wait_for
from receivers import authority

BINARY = shutil.which("exim4", path=os.environ.get("PATH", "") + ":/usr/sbin")
USER, PASSWORD = "flop", "pa:ss word"
_CONFIG = """\
primary_hostname = mail.test
spool_directory = {folder}/spool
log_file_path = {folder}/%slog
pid_file_path = {folder}/exim.pid
local_interfaces = 127.0.0.1
daemon_smtp_ports = {plain} : {tls}
tls_on_connect_ports = {tls}
tls_advertise_hosts = *
tls_certificate = {folder}/server.pem
tls_privatekey = {folder}/server.key
deliver_drop_privilege
message_size_limit = 5M
acl_smtp_rcpt = rcpt
acl_smtp_data = data
begin acl
rcpt:
  deny    local_parts = nobody
          message = no such mailbox
  defer   local_parts = later
          message = come again
  deny    local_parts = members
          !authenticated = *
          message = log in first
  accept
data:
  deny    condition = ${{if match{{$h_subject:}}{{agent/bad}}}}
          message = not this one
  deny    condition = ${{if match{{$h_subject:}}{{ 7 events}}}}
          message = no digest of seven
  accept
begin routers
all:
  driver = accept
  transport = mailbox
begin transports
mailbox:
  driver = appendfile
  directory = {folder}/mail
  maildir_format
begin authenticators
plain:
  driver = plaintext
  public_name = PLAIN
  server_advertise_condition = ${{if def:tls_in_cipher}}
  server_condition = ${{if and{{{{eq{{$auth2}}{{{user}}}}}{{eq{{$auth3}}{{{password}}}}}}}}}
  server_set_id = $auth2
"""


@dataclass(frozen=True)
class Exim:
    folder: Path
    port: int  # plain, with STARTTLS
    tls_port: int
    ca: Path

    def delivered(self) -> list[EmailMessage]:
        box = self.folder / "mail" / "new"
        raws = [path.read_bytes() for path in box.iterdir()] if box.is_dir() else []
        return [email.message_from_bytes(raw, policy=email.policy.default) for raw in raws]

    def mail(self, wanted: Callable[[EmailMessage], bool]) -> EmailMessage:
        """The one mail that is wanted, once it is delivered."""
        wait_for("a mail", lambda: any(wanted(m) for m in self.delivered()), 60)
        (found,) = [m for m in self.delivered() if wanted(m)]
        return found


@contextmanager
def exim() -> Iterator[Exim]:
    """Started, and answering."""
    with TemporaryDirectory(
        prefix="exim-"
    ) as name:  # Exim's user must reach it: pytest's own folders are root's alone
        folder = Path(name)
        ca, _, _ = authority(folder)
        with (
            closing(socket.create_server(("127.0.0.1", 0))) as one,
            closing(socket.create_server(("127.0.0.1", 0))) as two,
        ):
            plain, tls = one.getsockname()[1], two.getsockname()[1]
        config = folder / "exim.conf"
        config.write_text(_CONFIG.format(folder=folder, plain=plain, tls=tls, user=USER, password=PASSWORD))
        for part in ("spool", "mail"):
            (folder / part).mkdir()
        if os.geteuid() == 0:  # it drops root for a configuration that is not the system's
            who = pwd.getpwnam("Debian-exim")
            for path in (folder, *folder.iterdir()):
                os.chown(path, who.pw_uid, who.pw_gid)
            os.chown(config, 0, 0)
        command = [str(BINARY), "-bdf", "-C", str(config)]
        with (
            (folder / "output").open("wb") as output,
            subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True) as process,
        ):
            try:
                wait_for("Exim listens", lambda: process.poll() is not None or _greets(plain), 60)
                assert process.poll() is None, (folder / "output").read_text()
                yield Exim(folder, plain, tls, ca)
            finally:
                process.terminate()
                process.wait(60)


def _greets(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            return connection.recv(3) == b"220"
    except OSError:
        return False
