"""A real coturn on one of this machine's addresses, for tests that go through a relay."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aioice.ice import get_host_addresses
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

SECRET = "a secret shared with coturn"
READY_S = 20


@dataclass
class Coturn:
    """A TURN server that can be stopped and looked at."""

    host: str
    port: int
    log: Path
    process: subprocess.Popen[bytes] = field(repr=False)
    secret: str = SECRET

    @property
    def url(self) -> str:
        return f"turn:{self.host}:{self.port}"

    def stop(self) -> None:
        """As a crash would."""
        self.process.kill()
        self.process.wait()

    def relayed_bytes(self) -> int:
        """What finished allocations have carried, both ways, as the log tells it."""
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if "peer usage: " in line]
        return sum(int(count) for line in lines for count in re.findall(r"[rs]b=(\d+)", line))


@contextlib.contextmanager
def running_coturn(folder: Path, *, tls: bool = False) -> Iterator[Coturn]:
    """Start one; skips the test where coturn or an address other than the loopback is missing.

    With ``tls`` it has a certificate, ``folder/"cert.pem"``, which nobody trusts by itself. It listens on an address
    of the machine itself, not on 127.0.0.1: WebRTC never uses that one.
    """
    program = shutil.which("turnserver")
    if program is None:
        pytest.skip("no coturn is installed (looked for turnserver)")
    host = next(iter(get_host_addresses(use_ipv4=True, use_ipv6=False)), None)
    if host is None:
        pytest.skip("this machine has no address but the loopback")
    port = free_port(host)
    log = folder / "coturn.log"
    command = [
        *(program, "-n", "--listening-ip", host, "--relay-ip", host, "--listening-port", str(port)),
        *("--use-auth-secret", "--static-auth-secret", SECRET, "--realm", "visavis.test"),
        *("--no-cli", "--no-dtls", "--verbose", "--log-file", "stdout", "--simple-log"),
        *("--pidfile", str(folder / "coturn.pid"), "--userdb", str(folder / "coturn.db"), "--relay-threads", "1"),
    ]
    if tls:
        certify(host, folder)
        command += ["--cert", str(folder / "cert.pem"), "--pkey", str(folder / "key.pem")]
    else:
        command += ["--no-tls"]
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=folder, stdout=out, stderr=subprocess.STDOUT)
    try:
        _wait_until_listening(process, host, port, log)
        yield Coturn(host, port, log, process)
    finally:
        process.kill()
        process.wait()


def certify(host: str, folder: Path) -> None:
    """Write ``cert.pem``, signed by itself, and ``key.pem`` for an address."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "coturn of a test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


def free_port(host: str) -> int:
    """One that is free for UDP and TCP."""
    for _ in range(50):
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            tcp.bind((host, 0))
            port = tcp.getsockname()[1]
            with contextlib.suppress(OSError):
                udp.bind((host, port))
                return port
    raise RuntimeError(f"no port of {host} is free for both UDP and TCP")


def _wait_until_listening(process: subprocess.Popen[bytes], host: str, port: int, log: Path) -> None:
    deadline_s = time.monotonic() + READY_S
    while time.monotonic() < deadline_s and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1):
            return
        time.sleep(0.05)
    raise RuntimeError(f"coturn did not start; its log ends:\n{log.read_text(errors='replace')[-2000:]}")
