"""Who is who on the link: certificates that name a member and its role, made and read with `cryptography`.

Each member has a certificate of its own from a private authority, and can be revoked alone. The simple way, one
self-signed certificate for all, names nobody: whoever has it may be any member.
"""

import datetime as dt
from enum import Enum

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from msgspec import Struct

from node.errors import Refused

ORGANIZATION = "lnnode"
CLOCK_SKEW = dt.timedelta(hours=1)  # a new certificate is good on hosts whose clocks are a little behind
MAX_NAME = 64  # characters, X.520's limit for a common name
Key = ec.EllipticCurvePrivateKey

USAGES = {
    "backend": (ExtendedKeyUsageOID.SERVER_AUTH,),
    "frontend": (ExtendedKeyUsageOID.CLIENT_AUTH,),
    "shared": (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH),
}


class Role(Enum):
    BACKEND = "backend"
    FRONTEND = "frontend"
    SHARED = "shared"


class Member(Struct, frozen=True):
    """What a certificate says of its holder."""

    name: str
    role: Role
    serial: int

    def speaks_for(self, name: str) -> bool:
        """Whether a frontend may go by this name: by that of its certificate, if that is its own."""
        return self.role is Role.SHARED or name == self.name


class Issued(Struct, frozen=True):
    """A certificate and its key, as PEM files hold them."""

    certificate: bytes
    key: bytes


def new_authority(now: dt.datetime, days: int) -> Issued:
    key = ec.generate_private_key(ec.SECP256R1())
    name = _subject("authority", "authority")
    builder = _builder(name, name, key, now, days).add_extension(
        x509.BasicConstraints(ca=True, path_length=0), critical=True
    )
    return _signed(builder.add_extension(_key_usage(authority=True), critical=True), key, key)


def new_shared(now: dt.datetime, days: int) -> Issued:
    """One certificate for everybody, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _subject("shared", Role.SHARED.value)
    return _signed(_leaf(_builder(name, name, key, now, days), Role.SHARED), key, key)


def issue(authority: Issued, name: str, role: Role, now: dt.datetime, days: int) -> Issued:
    """A member's certificate. Raises Refused for a name that no certificate can carry."""
    if not 1 <= len(name) <= MAX_NAME or not name.isprintable() or set(name) & set("/\\ "):
        raise Refused(f'"{name}" is no name for a member: 1 to {MAX_NAME} letters, no spaces, no slashes')
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = read_certificate(authority.certificate, "the authority")
    builder = _leaf(_builder(_subject(name, role.value), issuer.subject, key, now, days), role)
    return _signed(builder, key, read_key(authority.key, "the authority's key"))


def revocations(authority: Issued, serials: dict[int, dt.datetime], now: dt.datetime) -> bytes:
    """The signed list of serial numbers that are good no more."""
    issuer = read_certificate(authority.certificate, "the authority")
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.subject)
        .last_update(now)
        .next_update(issuer.not_valid_after_utc)  # it is in force until there is a newer one
    )
    for serial, since in sorted(serials.items()):
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(since).build()
        builder = builder.add_revoked_certificate(entry)
    signed = builder.sign(read_key(authority.key, "the authority's key"), hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM)


def member_of(certificate: x509.Certificate) -> Member:
    """Raises Refused for a certificate that is none of ours."""
    subject = certificate.subject
    names = [str(each.value) for each in subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    roles = [str(each.value) for each in subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)]
    if len(names) != 1 or len(roles) != 1 or roles[0] not in USAGES:
        raise Refused("the certificate names no member and no role; `lnnode certs issue` makes one that does")
    return Member(names[0], Role(roles[0]), certificate.serial_number)


def read_certificate(pem: bytes, what: str) -> x509.Certificate:
    """Raises Refused."""
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise Refused(f"{what}: holds no certificate in PEM; `lnnode certs` makes them") from error


def read_key(pem: bytes, what: str) -> Key:
    """Raises Refused."""
    try:
        key = serialization.load_pem_private_key(pem, None)
    except (ValueError, TypeError) as error:
        raise Refused(f"{what}: holds no private key in PEM without a password") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise Refused(f"{what}: is no key on an elliptic curve; `lnnode certs` makes them")
    return key


def read_revocations(pem: bytes, authority: x509.Certificate, what: str) -> dict[int, dt.datetime]:
    """Serial numbers and since when. Raises Refused where the list is not the authority's."""
    try:
        listed = x509.load_pem_x509_crl(pem)
    except ValueError as error:
        raise Refused(f"{what}: holds no revocation list in PEM; `lnnode certs init` makes one") from error
    public = authority.public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    if not listed.is_signature_valid(public):
        raise Refused(f"{what}: is not signed by the authority; copy that of the directory of `lnnode certs`")
    return {each.serial_number: each.revocation_date_utc for each in listed}


def _subject(name: str, role: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANIZATION),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, role),
            x509.NameAttribute(NameOID.COMMON_NAME, name),
        ]
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: Key, now: dt.datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + dt.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _leaf(builder: x509.CertificateBuilder, role: Role) -> x509.CertificateBuilder:
    return (
        builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(USAGES[role.value]), critical=True)
    )


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _signed(builder: x509.CertificateBuilder, key: Key, signer: Key) -> Issued:
    certificate = builder.sign(signer, hashes.SHA256())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Issued(certificate.public_bytes(serialization.Encoding.PEM), private)
