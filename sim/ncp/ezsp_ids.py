"""Numbers of EZSP 13 and EmberZNet 7.4: status codes, configuration, policies, values, tokens, counters.

Source: UG100. The default configuration values are those of a usual coordinator build, not of one particular stick.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag


class Ezsp(IntEnum):
    """EzspStatus: answers of configuration frames, and the reason why a frame was refused."""

    SUCCESS = 0x00
    VERSION_NOT_SET = 0x30
    INVALID_FRAME_ID = 0x31
    WRONG_DIRECTION = 0x32
    TRUNCATED = 0x33
    OUT_OF_MEMORY = 0x35
    INVALID_VALUE = 0x36
    INVALID_ID = 0x37
    INVALID_CALL = 0x38


class Ember(IntEnum):
    """EmberStatus, one byte: answers of networking, messaging and binding frames up to EZSP 13."""

    SUCCESS = 0x00
    FATAL = 0x01
    BAD_ARGUMENT = 0x02
    NOT_FOUND = 0x03
    NO_BUFFERS = 0x18
    MAC_BAD_SCAN_DURATION = 0x33
    MAC_INCORRECT_SCAN_TYPE = 0x34
    MAC_INVALID_CHANNEL_MASK = 0x35
    MAC_SCANNING = 0x3D
    DELIVERY_FAILED = 0x66
    BINDING_INDEX_OUT_OF_RANGE = 0x69
    ADDRESS_TABLE_INDEX_OUT_OF_RANGE = 0x6A
    INVALID_BINDING_INDEX = 0x6C
    INVALID_CALL = 0x70
    MAX_MESSAGE_LIMIT_REACHED = 0x72
    MESSAGE_TOO_LONG = 0x74
    PHY_INVALID_CHANNEL = 0x8A
    PHY_INVALID_POWER = 0x8B
    NETWORK_UP = 0x90
    NETWORK_DOWN = 0x91
    NOT_JOINED = 0x93
    CHANNEL_CHANGED = 0x9B
    NETWORK_OPENED = 0x9C
    NETWORK_CLOSED = 0x9D
    NETWORK_BUSY = 0xA1
    INVALID_ENDPOINT = 0xA3
    SECURITY_STATE_NOT_SET = 0xA8
    SOURCE_ROUTE_FAILURE = 0xA9
    MANY_TO_ONE_ROUTE_FAILURE = 0xAA
    INDEX_OUT_OF_RANGE = 0xB1
    TABLE_FULL = 0xB4
    LIBRARY_NOT_PRESENT = 0xB5
    TABLE_ENTRY_ERASED = 0xB6


class Sl(IntEnum):
    """sl_status_t, four bytes: answers of the security manager's frames in EZSP 13."""

    OK = 0x00
    NOT_JOINED = 0x17
    NO_MORE_RESOURCE = 0x1A
    INVALID_TYPE = 0x26
    INVALID_INDEX = 0x27
    NOT_FOUND = 0x2D


class NetworkStatus(IntEnum):
    NO_NETWORK = 0
    JOINED = 2


class NodeType(IntEnum):
    COORDINATOR = 1
    ROUTER = 2
    END_DEVICE = 3
    SLEEPY_END_DEVICE = 4


class Incoming(IntEnum):
    UNICAST = 0
    MULTICAST = 2
    BROADCAST = 4


class Outgoing(IntEnum):
    DIRECT = 0
    VIA_ADDRESS_TABLE = 1
    VIA_BINDING = 2
    MULTICAST = 3
    MULTICAST_WITH_ALIAS = 4
    BROADCAST_WITH_ALIAS = 5
    BROADCAST = 6


class Aps(IntFlag):
    """Bits of an APS frame's options that change what the emulator does."""

    ENCRYPTION = 0x0020
    RETRY = 0x0040
    SOURCE_EUI64 = 0x0400
    FRAGMENT = 0x8000


class Update(IntEnum):
    """What a trustCenterJoinHandler reports."""

    SECURED_REJOIN = 0
    UNSECURED_JOIN = 1
    DEVICE_LEFT = 2
    UNSECURED_REJOIN = 3


class DecisionId(IntEnum):
    """What the trust centre decided about a join."""

    USE_PRECONFIGURED_KEY = 0
    SEND_KEY_IN_CLEAR = 1
    DENY_JOIN = 2
    NO_ACTION = 3


class TrustCenter(IntFlag):
    """Bits of the decision in the trust centre policy."""

    ALLOW_JOINS = 0x01
    ALLOW_UNSECURED_REJOINS = 0x02
    SEND_KEY_IN_CLEAR = 0x04
    IGNORE_UNSECURED_REJOINS = 0x08
    JOINS_USE_INSTALL_CODE_KEY = 0x10
    DEFER_JOINS = 0x20


class Policy(IntEnum):
    TRUST_CENTER = 0x00
    BINDING_MODIFICATION = 0x01
    UNICAST_REPLIES = 0x02
    POLL_HANDLER = 0x03
    MESSAGE_CONTENTS_IN_CALLBACK = 0x04
    TC_KEY_REQUEST = 0x05
    APP_KEY_REQUEST = 0x06
    PACKET_VALIDATE_LIBRARY = 0x07
    ZLL = 0x08
    TC_REJOINS_USING_WELL_KNOWN_KEY = 0x09


CONTENTS_IN_CALLBACK = 0x41
POLICY_DEFAULTS: dict[int, int] = {
    Policy.TRUST_CENTER: TrustCenter.ALLOW_JOINS | TrustCenter.ALLOW_UNSECURED_REJOINS,
    Policy.BINDING_MODIFICATION: 0x11,
    Policy.UNICAST_REPLIES: 0x20,
    Policy.POLL_HANDLER: 0x30,
    Policy.MESSAGE_CONTENTS_IN_CALLBACK: 0x40,
    Policy.TC_KEY_REQUEST: 0x51,
    Policy.APP_KEY_REQUEST: 0x60,
    Policy.PACKET_VALIDATE_LIBRARY: 0x62,
    Policy.ZLL: 0x00,
    Policy.TC_REJOINS_USING_WELL_KNOWN_KEY: 0x00,
}


class InitialSecurity(IntFlag):
    TRUST_CENTER_GLOBAL_LINK_KEY = 0x0004
    HAVE_TRUST_CENTER_EUI64 = 0x0040
    USES_HASHED_LINK_KEY = 0x0084
    HAVE_PRECONFIGURED_KEY = 0x0100
    HAVE_NETWORK_KEY = 0x0200
    NO_FRAME_COUNTER_RESET = 0x1000


class CurrentSecurity(IntFlag):
    GLOBAL_LINK_KEY = 0x0004
    HAVE_TRUST_CENTER_LINK_KEY = 0x0010
    USES_HASHED_LINK_KEY = 0x0084


class KeyType(IntEnum):
    """Core key types of a security manager context."""

    NETWORK = 1
    TC_LINK = 2
    TC_LINK_WITH_TIMEOUT = 3
    APP_LINK = 4


KEY_HAS_OUTGOING_FRAME_COUNTER, KEY_HAS_INCOMING_FRAME_COUNTER, KEY_HAS_PARTNER_EUI64 = 0x02, 0x04, 0x08


class ConfigId(IntEnum):
    """Configuration ids that have a name here. All but SECURITY_LEVEL change what the emulator does."""

    PACKET_BUFFER_COUNT = 0x01
    NEIGHBOR_TABLE_SIZE = 0x02
    APS_UNICAST_MESSAGE_COUNT = 0x03
    BINDING_TABLE_SIZE = 0x04
    ADDRESS_TABLE_SIZE = 0x05
    MULTICAST_TABLE_SIZE = 0x06
    ROUTE_TABLE_SIZE = 0x07
    SECURITY_LEVEL = 0x0D
    MAX_END_DEVICE_CHILDREN = 0x11
    SOURCE_ROUTE_TABLE_SIZE = 0x1A
    KEY_TABLE_SIZE = 0x1E
    APS_ACK_TIMEOUT_MS = 0x1F
    APPLICATION_ZDO_FLAGS = 0x2A
    BROADCAST_TABLE_SIZE = 0x2B
    TRANSIENT_KEY_TIMEOUT_S = 0x36


BUFFERS_MAX = 250
"""The number of packet buffers that the value 0xFF ("all that memory allows") gives."""
CONFIG_DEFAULTS: dict[int, int] = {
    0x01: BUFFERS_MAX, 0x02: 16, 0x03: 32, 0x04: 32, 0x05: 12, 0x06: 16, 0x07: 16, 0x08: 8, 0x09: 0, 0x0A: 0,
    0x0C: 2, 0x0D: 5, 0x10: 30, 0x11: 32, 0x12: 3000, 0x13: 8, 0x14: 20, 0x15: 0, 0x17: 0x8000, 0x18: 0, 0x19: 2,
    0x1A: 100, 0x1B: 6, 0x1C: 1, 0x1D: 0, 0x1E: 12, 0x1F: 1600, 0x20: 3, 0x21: 60, 0x22: 2, 0x24: 0, 0x29: 1,
    0x2A: 0, 0x2B: 15, 0x2C: 0, 0x2D: 1, 0x2E: 0, 0x2F: 0, 0x30: 0, 0x33: 0, 0x34: 16, 0x35: 6, 0x36: 300, 0x37: 1,
    0x38: 300, 0x39: 0xFFFF, 0x40: 0, 0x41: 5, 0x42: 0,
}  # fmt: skip
ZDO_APP_RECEIVES_SUPPORTED, ZDO_APP_HANDLES_UNSUPPORTED = 0x01, 0x02


class ValueId(IntEnum):
    """Value ids with a meaning of their own here. The other ids of VALUE_DEFAULTS are only stored and returned."""

    FREE_BUFFERS = 0x03
    NODE_SHORT_ID = 0x0B
    ENDPOINT_FLAGS = 0x0F
    VERSION_INFO = 0x11
    NEXT_ZIGBEE_SEQUENCE = 0x14
    CLEAR_COUNTERS = 0x19
    NWK_FRAME_COUNTER = 0x23
    APS_FRAME_COUNTER = 0x24
    TRANSIENT_KEY_TIMEOUT_S = 0x3B


READ_ONLY_VALUES = frozenset((ValueId.FREE_BUFFERS, ValueId.NODE_SHORT_ID, ValueId.VERSION_INFO))
VERSION_INFO = bytes((0, 0, 7, 4, 4, 0, 0xAA))
"""Build 0 (two bytes), 7.4.4, special 0, type 0xAA: general availability."""
VALUE_DEFAULTS: dict[int, bytes] = {
    0x01: bytes(1), 0x04: b"\x01", 0x05: b"\x52\x00", 0x06: b"\x52\x00", 0x07: b"\x01", 0x08: bytes(1),
    0x0A: b"\x01\x00", 0x0C: bytes(1), 0x0E: bytes(1), 0x10: bytes(4), 0x12: bytes(1), 0x13: bytes(1), 0x15: b"\xB5",
    0x25: bytes(1), 0x29: bytes(1), 0x30: bytes(1), 0x31: bytes(1), 0x32: bytes(4), 0x33: bytes(1), 0x34: bytes(1),
    0x38: bytes(1), 0x39: bytes(4), 0x3A: bytes(1), 0x3B: b"\x2C\x01", 0x3D: b"\x08", 0x3E: b"\xFF\x7F", 0x3F: b"\x03",
    0x41: bytes(1), 0x43: b"\x10\x27", 0x44: b"\x01", 0x45: bytes(1), 0x46: b"\x03", 0x47: bytes(1), 0x48: bytes(1),
}  # fmt: skip


class Extended(IntEnum):
    """Extended value ids."""

    ENDPOINT_FLAGS = 0
    LAST_LEAVE_REASON = 1
    SOURCE_ROUTE_OVERHEAD = 2


class Token(IntEnum):
    """NVM3 keys that getTokenData knows. setTokenData writes all but BOOT_COUNTER."""

    NODE_DATA = 0x1EE64
    TRUST_CENTER = 0x1E124
    NETWORK_MANAGEMENT = 0x1E125
    CHILD_TABLE = 0x10580
    RESTORED_EUI64 = 0x1E12A
    NONCE_COUNTER = 0x1E563
    BOOT_COUNTER = 0x1E263


class Mfg(IntEnum):
    """Manufacturing tokens."""

    CUSTOM_VERSION = 0x00
    STRING = 0x01
    BOARD_NAME = 0x02
    MANUF_ID = 0x03
    PHY_CONFIG = 0x04
    BOOTLOAD_AES_KEY = 0x05
    ASH_CONFIG = 0x06
    STORAGE = 0x07
    CBKE_DATA = 0x09
    INSTALLATION_CODE = 0x0A
    CUSTOM_EUI64 = 0x0C
    CTUNE = 0x0D


MFG_SIZES: dict[int, int] = {0: 2, 1: 16, 2: 16, 3: 2, 4: 2, 5: 16, 6: 40, 7: 8, 9: 92, 10: 20, 12: 8, 13: 2}


class Counter(IntEnum):
    """Indexes into the stack's counters."""

    MAC_RX_BROADCAST = 0
    MAC_TX_BROADCAST = 1
    MAC_RX_UNICAST = 2
    MAC_TX_UNICAST_SUCCESS = 3
    MAC_TX_UNICAST_FAILED = 5
    APS_RX_BROADCAST = 6
    APS_TX_BROADCAST = 7
    APS_RX_UNICAST = 8
    APS_TX_UNICAST_SUCCESS = 9
    APS_TX_UNICAST_RETRY = 10
    APS_TX_UNICAST_FAILED = 11
    ROUTE_DISCOVERY_INITIATED = 12
    NEIGHBOR_ADDED = 13
    NEIGHBOR_REMOVED = 14
    JOIN_INDICATION = 16
    CHILD_REMOVED = 17
    ASH_OVERFLOW = 18
    ASH_FRAMING = 19
    APS_LINK_KEY_NOT_AUTHORIZED = 24
    ALLOCATE_BUFFER_FAILURE = 27
    BROADCAST_TABLE_FULL = 33


COUNTERS = 41
NWK_UNKNOWN, NWK_UNUSED = 0xFFFD, 0xFFFF
BROADCAST_MIN = 0xFFF8
BROADCAST_ALL, BROADCAST_RX_ON, BROADCAST_ROUTERS = 0xFFFF, 0xFFFD, 0xFFFC
WILDCARD_EUI64 = b"\xff" * 8
WELL_KNOWN_LINK_KEY = b"ZigBeeAlliance09"
PAYLOAD_MAX = 82
"""Maximum APS payload bytes of a frame with network security; APS encryption takes 9 of these, the source EUI64 8."""
