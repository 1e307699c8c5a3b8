"""Protocol numbers: what the RFCs and IANA assign, and our few private ones.

Sources: RFC 7296 §3, RFC 4309 and RFC 5282 (AES-CCM), RFC 8031 (Curve25519),
RFC 8750 (implicit IV), RFC 7383, RFC 8784, RFC 9242, RFC 9370, RFC 9867 and the
IANA registry "Internet Key Exchange Version 2 (IKEv2) Parameters".
"""

from enum import IntEnum

IKE_VERSION = 0x20
NON_ESP_MARKER = bytes(4)  # RFC 3948 §2.2
KEEPALIVE = b"\xff"  # RFC 3948 §2.3


class Exchange(IntEnum):
    IKE_SA_INIT = 34
    IKE_AUTH = 35
    CREATE_CHILD_SA = 36
    INFORMATIONAL = 37
    IKE_INTERMEDIATE = 43


class Flag(IntEnum):
    INITIATOR = 0x08
    VERSION = 0x10
    RESPONSE = 0x20


class P(IntEnum):
    """Payload types."""

    NONE = 0
    SA = 33
    KE = 34
    IDI = 35
    IDR = 36
    CERT = 37
    CERTREQ = 38
    AUTH = 39
    NONCE = 40
    NOTIFY = 41
    DELETE = 42
    VENDOR_ID = 43
    TSI = 44
    TSR = 45
    SK = 46
    CP = 47
    EAP = 48
    SKF = 53


class Protocol(IntEnum):
    NONE = 0
    IKE = 1
    AH = 2
    ESP = 3


class T(IntEnum):
    """Transform types."""

    ENCR = 1
    PRF = 2
    INTEG = 3
    KE = 4
    ESN = 5
    ADDKE1 = 6
    ADDKE7 = 12


class Encr(IntEnum):
    AES_CBC = 12
    AES_CCM_8 = 14
    AES_CCM_12 = 15
    AES_CCM_16 = 16
    AES_CCM_8_IIV = 29


class Prf(IntEnum):
    HMAC_SHA2_256 = 5
    HMAC_SHA2_384 = 6
    HMAC_SHA2_512 = 7


class Integ(IntEnum):
    NONE = 0
    HMAC_SHA2_256_128 = 12


class Group(IntEnum):
    NONE = 0
    MODP_2048 = 14
    ECP_256 = 19
    CURVE25519 = 31
    ML_KEM_512 = 35
    ML_KEM_768 = 36
    ML_KEM_1024 = 37


class N(IntEnum):
    """Notify message types."""

    UNSUPPORTED_CRITICAL_PAYLOAD = 1
    INVALID_IKE_SPI = 4
    INVALID_MAJOR_VERSION = 5
    INVALID_SYNTAX = 7
    INVALID_MESSAGE_ID = 9
    INVALID_SPI = 11
    NO_PROPOSAL_CHOSEN = 14
    INVALID_KE_PAYLOAD = 17
    AUTHENTICATION_FAILED = 24
    SINGLE_PAIR_REQUIRED = 34
    NO_ADDITIONAL_SAS = 35
    INTERNAL_ADDRESS_FAILURE = 36
    FAILED_CP_REQUIRED = 37
    TS_UNACCEPTABLE = 38
    INVALID_SELECTORS = 39
    TEMPORARY_FAILURE = 43
    CHILD_SA_NOT_FOUND = 44
    INITIAL_CONTACT = 16384
    NAT_DETECTION_SOURCE_IP = 16388
    NAT_DETECTION_DESTINATION_IP = 16389
    COOKIE = 16390
    USE_TRANSPORT_MODE = 16391
    REKEY_SA = 16393
    ESP_TFC_PADDING_NOT_SUPPORTED = 16394
    IKEV2_FRAGMENTATION_SUPPORTED = 16430
    USE_PPK = 16435
    PPK_IDENTITY = 16436
    NO_PPK_AUTH = 16437
    INTERMEDIATE_EXCHANGE_SUPPORTED = 16438
    ADDITIONAL_KEY_EXCHANGE = 16441
    USE_PPK_INT = 16445
    PPK_IDENTITY_KEY = 16446
    # Private use, meaningful only beside our Vendor ID.
    FRAGMENT_ACK_SUPPORTED = 50201
    FRAGMENT_ACK_REQ = 50202
    FRAGMENT_ACK_RES = 50203


FIRST_STATUS_TYPE = 16384  # below: errors (RFC 7296 §3.10.1)


class IdType(IntEnum):
    IPV4_ADDR = 1
    FQDN = 2
    RFC822_ADDR = 3
    IPV6_ADDR = 5
    DER_ASN1_DN = 9
    KEY_ID = 11


class AuthMethod(IntEnum):
    SHARED_KEY_MIC = 2


class TsType(IntEnum):
    IPV4_ADDR_RANGE = 7
    IPV6_ADDR_RANGE = 8


class Cfg(IntEnum):
    REQUEST = 1
    REPLY = 2


class CfgAttr(IntEnum):
    INTERNAL_IP4_ADDRESS = 1
    INTERNAL_IP4_NETMASK = 2
    INTERNAL_IP6_ADDRESS = 8


class Ip(IntEnum):
    """Next-header values that occur inside the tunnel."""

    ICMP = 1
    IPV4 = 4
    UDP = 17
    IPV6 = 41
    ICMPV6 = 58
    NO_NEXT = 59


def name_of(enum, value):
    """The enum's name for `value`, or the number as text."""
    try:
        return enum(value).name
    except ValueError:
        return str(value)
