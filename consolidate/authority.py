"""The internal certificate authority: keys and X.509 certificates as PEM text."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_DAYS = 3650
LEAF_DAYS = 397  # the most that browsers take (CA/Browser Forum, SC31)
CLOCK_SKEW = timedelta(hours=1)


def _pem(key: Any) -> str:
    plain = serialization.NoEncryption()
    return bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)).decode()


def rsa_key(bits: int = 2048) -> str:
    """An RSA private key; 2048 bits are what DKIM verifiers must take (RFC 8301)."""
    return _pem(rsa.generate_private_key(public_exponent=65537, key_size=bits))


def _name(common: str) -> x509.Name:
    # The upper bound of a common name is 64 characters (RFC 5280); host names stand in the alternative name anyway.
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common[:64])])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def new_authority(name: str, now: datetime) -> str:
    """A root certificate and its key, valid for ten years."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _name(f"consolidate {name} {now:%Y-%m-%d}")
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    certificate = (
        _builder(subject, subject, key.public_key(), now, AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM).decode() + _pem(key)


@cache  # OpenSSL checks a key that it loads, which takes longer than to make one: once for a whole stack
def _opened(authority: str) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = serialization.load_pem_private_key(authority.encode(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey), "what new_authority makes"
    return x509.load_pem_x509_certificate(authority.encode()), key


def new_certificate(names: Sequence[str], authority: str | None, now: datetime) -> tuple[str, datetime]:
    """A certificate for host `names`, with its chain and its key, and when it ends.

    `authority` is what `new_authority` gave; without one the certificate signs itself.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _name(names[0])
    issuer, signing, chain = subject, key, ""
    if authority is not None:
        root, signing = _opened(authority)
        issuer, chain = root.subject, root.public_bytes(serialization.Encoding.PEM).decode()
    usage = x509.KeyUsage(True, False, False, False, False, False, False, False, False)
    certificate = (
        _builder(subject, issuer, key.public_key(), now, LEAF_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(n) for n in names]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key()), critical=False)
        .sign(signing, hashes.SHA256())
    )
    leaf = certificate.public_bytes(serialization.Encoding.PEM).decode()
    return leaf + chain + _pem(key), now + timedelta(days=LEAF_DAYS)
