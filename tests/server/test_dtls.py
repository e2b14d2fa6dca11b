"""A peer whose certificate is an RSA one, as GStreamer's is, and which offers: we are the DTLS client then."""

from __future__ import annotations

import datetime

from aiortc import RTCSessionDescription
from aiortc.rtcdtlstransport import RTCCertificate
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from OpenSSL import SSL

from tests.server.test_session import until
from tests.server.test_whip import SDP, make_publisher


class RsaCertificate(RTCCertificate):
    """Knows RSA suites only."""

    @classmethod
    def generateCertificate(cls) -> RsaCertificate:
        key = rsa.generate_private_key(65537, 2048)
        name, now = x509.Name([]), datetime.datetime.now(datetime.UTC)
        made = (
            x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
        )
        return cls(key=key, cert=made.sign(key, hashes.SHA256()))  # type: ignore[arg-type]

    def _create_ssl_context(self, srtp_profiles: list[object]) -> SSL.Context:  # type: ignore[override]
        context = super()._create_ssl_context(srtp_profiles)  # type: ignore[arg-type]
        context.set_cipher_list(b"ECDHE-RSA-AES128-GCM-SHA256")
        return context


async def test_a_publisher_with_an_rsa_certificate_connects(server, monkeypatch) -> None:
    monkeypatch.setattr("aiortc.rtcpeerconnection.RTCCertificate", RsaCertificate)
    publisher = make_publisher()
    monkeypatch.undo()
    await publisher.setLocalDescription(await publisher.createOffer())
    reply = await server.http.post("/whip/stage", content=publisher.localDescription.sdp, headers=SDP)
    await publisher.setRemoteDescription(RTCSessionDescription(sdp=reply.text, type="answer"))
    await until(lambda: server.house.sessions.find("stage").state == "live")
    await publisher.close()
