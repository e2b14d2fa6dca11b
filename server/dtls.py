"""DTLS with peers whose certificate is an RSA one, such as GStreamer's.

aiortc offers ECDSA suites only. Where it is the DTLS client, which it is whenever it answers, a peer with an RSA
certificate then finds no suite in common (aiortc pull request 1392). WebRTC asks for the first one alone (RFC 8827,
section 6.5) and forbids none of the others.
"""

from __future__ import annotations

import aiortc.rtcpeerconnection
from aiortc.rtcdtlstransport import RTCCertificate, SRTPProtectionProfile
from OpenSSL import SSL

SUITES = b":".join(
    b"ECDHE-" + kind + b"-" + cipher
    for cipher in (b"AES128-GCM-SHA256", b"CHACHA20-POLY1305", b"AES128-SHA", b"AES256-SHA")
    for kind in (b"ECDSA", b"RSA")
)


class Certificate(RTCCertificate):
    """aiortc's, an ECDSA one, which also accepts the other side's if it is RSA."""

    def _create_ssl_context(self, srtp_profiles: list[SRTPProtectionProfile]) -> SSL.Context:
        context = super()._create_ssl_context(srtp_profiles)
        context.set_cipher_list(SUITES)
        return context


def accept_rsa() -> None:
    """Let the peer connections that this process makes from now on accept RSA. May be repeated.

    Raises:
        RuntimeError: this aiortc makes its certificates elsewhere.
    """
    if not issubclass(getattr(aiortc.rtcpeerconnection, "RTCCertificate", object), RTCCertificate):
        raise RuntimeError("this version of aiortc has no certificate where it is expected: install aiortc 1.x")
    aiortc.rtcpeerconnection.RTCCertificate = Certificate  # type: ignore[misc]
