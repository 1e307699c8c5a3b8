"""What words of strongSwan's mean, for everything that reads them: the firmware, the tools.

Ids are those of RFC 7296 §3.3.2 and §3.5; what strongSwan makes of each word was read in its
proposal_keywords_static.txt, proposal.c, identification.c and load_creds.c (6.0).
"""

CBC128, CBC256 = (1, 12, 128), (1, 12, 256)
CCM8, CCM12, CCM16 = (1, 14, 128), (1, 15, 128), (1, 16, 128)
PRF, SHA256 = (2, 5, 0), (3, 12, 0)
X25519, ECP256, MODP2048 = (4, 31, 0), (4, 19, 0), (4, 14, 0)
NOESN, ESN = (5, 0, 0), (5, 1, 0)

# An IKE proposal and its transforms, in any order.
IKE = {
    "aes128-sha256-x25519": (CBC128, SHA256, PRF, X25519),
    "aes256-sha256-modp2048": (CBC256, SHA256, PRF, MODP2048),
    "aes128-sha256-ecp256": (CBC128, SHA256, PRF, ECP256),
    "aes-sha256-ecp256": (CBC128, SHA256, PRF, ECP256),
    "aes128-sha2_256-curve25519": (CBC128, SHA256, PRF, X25519),
    "aes256-sha256-prfsha256-modp2048": (CBC256, SHA256, PRF, MODP2048),
    "aes128-aes256-sha256-x25519-ecp256": (CBC128, CBC256, SHA256, PRF, X25519, ECP256),
    "AES128-SHA256-X25519": (CBC128, SHA256, PRF, X25519),
    " aes128 - sha256-x25519 ": (CBC128, SHA256, PRF, X25519),
    "aes128ccm16-prfsha256-x25519": (CCM16, PRF, X25519),
    "aes128ccm128-prfsha256-x25519": (CCM16, PRF, X25519),
    "aes128ccm-prfsha256-x25519": (CCM16, PRF, X25519),
    "aes128ccm96-prfsha256-x25519": (CCM12, PRF, X25519),
    "aes128ccm64-prfsha256-x25519": (CCM8, PRF, X25519),
    # An AEAD has no integrity algorithm: it only says which PRF.
    "aes128ccm16-sha256-x25519": (CCM16, PRF, X25519),
    "aes256ccm16-prfsha256-modp2048": ((1, 16, 256), PRF, MODP2048),
    "x25519-aes128ccm8-prfsha256": (CCM8, PRF, X25519),
    "aes128ccm16-prfsha256-x25519-none": (CCM16, PRF, X25519),
    "aes128ccm16-prfsha256-x25519-ke1_mlkem768": (CCM16, PRF, X25519, (6, 36, 0)),
    "aes128-sha256-ecp256-ke1_curve25519": (CBC128, SHA256, PRF, ECP256, (6, 31, 0)),
}
# The same for ESP: the group is for a rekeying, which a sensor has by a new IKE SA.
ESP = {
    "aes128ccm8": (CCM8, NOESN),
    "aes128ccm64": (CCM8, NOESN),
    "aes128ccm": (CCM16, NOESN),
    "AES256CCM12": ((1, 15, 256), NOESN),
    "aes128ccm8-esn": (CCM8, ESN),
    "aes128ccm8-esn-noesn": (CCM8, ESN, NOESN),
    "aes128ccm8-x25519": (CCM8, NOESN),
    "aes128ccm16-sha256-modp2048-noesn": (CCM16, NOESN),
    "aes128ccm8-prfsha256": (CCM8, NOESN),
    "aes128ccm8-x25519-ke1_mlkem768": (CCM8, NOESN),
    "aes128ccm8iiv": ((1, 29, 128), NOESN),
}
# Refused: the word at fault, and the nearest good one, or what is missing.
NOT_IKE = {
    "aes128gcm16-prfsha256-x25519": ("aes128gcm16", "aes128ccm16"),
    "aes256gcm-prfsha256-x25519": ("aes256gcm", "aes256ccm16"),
    "aes256gcm16-prfsha384-ecp384": ("aes256gcm16", "aes256ccm16"),
    "aes128-sha1-modp2048": ("sha1", "sha256"),
    "aes256-sha512-modp4096": ("sha512", "sha256"),
    "aes256-sha256-modp1024": ("modp1024", "modp2048"),
    "aes256-sha256-ecp384": ("ecp384", "ecp256"),
    "aes192-sha256-x25519": ("aes192", "aes256"),
    "3des-sha256-x25519": ("3des", "aes128ccm16"),
    "chacha20poly1305-prfsha256-x25519": ("chacha20poly1305", "aes128ccm16"),
    "aes128ccm16-prfsha384-x25519": ("prfsha384", "prfsha256"),
    "aes128ccm16-prfsha256-x448": ("x448", "x25519"),
    "aes128ccm16-prfsha256-curve448": ("curve448", "x25519"),
    "aes128ccm16-prfsha256-x25519-ke1_kyber768": ("ke1_kyber768", "ke1_mlkem768"),
    "aes128-sha256-x25519!": ("x25519!", "x25519"),
    "aes128-sha265-x25519": ("sha265", "sha256"),
    "aes265-sha256-x25519": ("aes265", "aes256"),
    "aes128ccm16-x25519": ("a PRF", "prfsha256"),
    "aes128ccm16-prfsha256": ("a key exchange", "x25519"),
    "aes128ccm16-prfsha256-none": ("a key exchange", "x25519"),
    "aes128-prfsha256-x25519": ("an integrity algorithm", "sha256"),
    "sha256-x25519": ("a cipher", "aes128ccm16"),
    "aes128-aes128ccm16-sha256-x25519": ("AES-CBC", "AES-CCM"),
    "aes128ccm16-prfsha256-x25519-noesn": ("noesn", "esp"),
    "aes128ccm8iiv-prfsha256-x25519": ("implicit", "ESP"),
    "aes128ccm16--x25519": ("an empty word", ""),
}
NOT_ESP = {
    "aes128gcm16": ("aes128gcm16", "aes128ccm16"),
    "aes128-sha256": ("aes128", "aes128ccm8"),
    "aes256": ("aes256", "aes256ccm8"),
    "noesn": ("a cipher", "aes128ccm16"),
    "null": ("null", "aes128ccm16"),
    "aes128ccm8-modp3072": ("modp3072", "modp2048"),
}

# An identity: its type and octets.
IDENTITIES = {
    "gw.example.org": (2, b"gw.example.org"),
    "@gw.example.org": (2, b"gw.example.org"),
    "fqdn:gw.example.org": (2, b"gw.example.org"),
    "dns:gw.example.org": (2, b"gw.example.org"),
    "FQDN:gw.example.org": (2, b"gw.example.org"),
    "fqdn:10.0.0.1": (2, b"10.0.0.1"),
    "sensor@example.org": (3, b"sensor@example.org"),
    "@@sensor@example.org": (3, b"sensor@example.org"),
    "email:sensor@example.org": (3, b"sensor@example.org"),
    "rfc822:sensor@example.org": (3, b"sensor@example.org"),
    "userfqdn:sensor@example.org": (3, b"sensor@example.org"),
    "@#00ff": (11, b"\0\xff"),
    "keyid:#00FF": (11, b"\0\xff"),
    "keyid:0x00ff": (11, b"\0\xff"),
    "keyid:7": (11, b"7"),
    "10.77.0.1": (1, bytes((10, 77, 0, 1))),
    "ipv4:10.77.0.1": (1, bytes((10, 77, 0, 1))),
    "ipv4:#0a4d0001": (1, bytes((10, 77, 0, 1))),
    "fd77::1": (5, b"\xfdw" + bytes(13) + b"\1"),
    "ipv6:fd77::1": (5, b"\xfdw" + bytes(13) + b"\1"),
}
# Refused, with a word that says why, or "" where the expected kinds say enough.
NO_IDENTITIES = {
    "CN=gw.example.org": "distinguished",
    "C=CH, O=strongSwan, CN=gw": "distinguished",
    "asn1dn:#3012": "distinguished",
    "dn:CN=gw": "distinguished",
    "@a=b": "distinguished",
    "*@example.org": "wildcard",
    "*.example.org": "wildcard",
    "fqdn:*": "wildcard",
    "*": "wildcard",
    "%any": "anybody",
    "0.0.0.0": "anybody",
    "::": "anybody",
    "xmppaddr:a@b": "xmppaddr",
    "uri:http": "uri",
    "ipv4net:10.0.0.0/8": "ipv4net",
    "{2}:gw": "{2}",
    "any:thing": "any",
    "keyid:#0": "hex",
    "keyid:0xq": "hex",
    "@#": "hex",
    "ipv4:#0a": "hex",
    "10.0.0.0/8": "",
    "10.0.0.1-10.0.0.9": "",
    "@": "",
    "@@": "",
    "email:": "",
    "keyid:": "",
    "ipv4:10.0.0": "",
    "ipv4:fd77::1": "",
    "ipv6:10.0.0.1": "",
    "gw.example.org\u00a0": "",
    "gw\u200b.example.org": "",
}

# A secret: its octets.
SECRETS = {
    "correct horse battery": b"correct horse battery",
    "0x00ff": b"\0\xff",
    "0X00FF": b"\0\xff",
    "0sFpZAZqEN6Ti9sqt4ZP5EWcqx": bytes.fromhex("16964066a10de938bdb2ab7864fe4459cab1"),
    "0SAP8=": b"\0\xff",
    "0s-_8=": b"\xfb\xff",
    "0s+/8=": b"\xfb\xff",
    'a"b': b'a"b',
    "K\u00fcche": b"K\xc3\xbcche",
}
NO_SECRETS = (
    "", "0x", "0xabc", "0xtop", "0x00 ff", "0s", "0s=", "0sabc", "0sAP8", "0s!!!!", "0sAB==",
    '"quoted"', "'quoted'", " blank", "blank ", "line\n", "tab\there", "nul\0",
)  # fmt: skip
