"""The emulated NCP's security commands: initial state, key export and import, and who may join with which key."""

from __future__ import annotations

from sim.ncp.ezsp import CurrentSecurityState, InitialSecurityState, KeyContext, KeyMetadata, NetworkKeyInfo
from sim.ncp.ezsp_ids import (
    KEY_HAS_INCOMING_FRAME_COUNTER,
    KEY_HAS_OUTGOING_FRAME_COUNTER,
    KEY_HAS_PARTNER_EUI64,
    WILDCARD_EUI64,
    ConfigId,
    Ember,
    KeyType,
    Policy,
    Sl,
    TrustCenter,
)
from sim.ncp.nvm import KEY_ENTRIES_MAX, LinkKey
from sim.ncp.state import Answer, Core, TransientKey

TRANSIENT_KEYS_MAX = 16
NO_KEY = bytes(16)
NO_ENTRY = 0xFF


class Security(Core):
    """The security commands, and the trust centre's choice of the key for a joining device."""

    def joining_key(self, eui64: bytes) -> bytes | None:
        """Return the link key that encrypts the network key for one device, None to refuse the device.

        A key imported for this EUI64 comes first. The wildcard key is for all devices, unless the policy requires
        install codes.
        """
        self._expire_transient_keys()
        policy = self.ram.policies[Policy.TRUST_CENTER]
        if not policy & TrustCenter.ALLOW_JOINS:
            return None
        keys = self.ram.transient_keys
        if eui64 in keys:
            return keys[eui64].key
        if policy & TrustCenter.JOINS_USE_INSTALL_CODE_KEY or WILDCARD_EUI64 not in keys:
            return None
        return keys[WILDCARD_EUI64].key

    def do_setInitialSecurityState(self, state: InitialSecurityState) -> Answer:
        if self.ram.up:
            return (Ember.INVALID_CALL,)
        self.ram.initial_security = state
        return (Ember.SUCCESS,)

    def do_getCurrentSecurityState(self) -> Answer:
        if not self.ram.up:
            return Ember.NOT_JOINED, CurrentSecurityState()
        return Ember.SUCCESS, CurrentSecurityState(self.nvm.security_bitmask, self.nvm.trust_center_eui64)

    def do_exportKey(self, context: KeyContext) -> Answer:
        if context.core_key_type == KeyType.NETWORK and context.key_index in (0, 1):
            key = self.nvm.network_key if context.key_index == 0 else self.nvm.alternate_key
            return (key, Sl.OK) if any(key) else (NO_KEY, Sl.NOT_FOUND)
        if context.core_key_type == KeyType.TC_LINK:
            return (self.nvm.link_key, Sl.OK) if any(self.nvm.link_key) else (NO_KEY, Sl.NOT_FOUND)
        if context.core_key_type in (KeyType.APP_LINK, KeyType.TC_LINK_WITH_TIMEOUT):
            found = self._entry(context)
            return (NO_KEY, Sl.NOT_FOUND) if found is None else (found[1].key, Sl.OK)
        return NO_KEY, Sl.INVALID_TYPE

    def do_importKey(self, context: KeyContext, key: bytes) -> Answer:
        if context.core_key_type == KeyType.NETWORK and not self.ram.up and context.key_index in (0, 1):
            if context.key_index == 0:
                self.nvm.network_key = key
            else:
                self.nvm.alternate_key = key
        elif context.core_key_type == KeyType.TC_LINK and not self.ram.up:
            self.nvm.link_key = key
        elif context.core_key_type == KeyType.APP_LINK:
            return self.do_importLinkKey(context.key_index, context.eui64, key)
        else:
            return (Sl.INVALID_TYPE,)
        self._dirty = True
        return (Sl.OK,)

    def do_checkKeyContext(self, context: KeyContext) -> Answer:
        return (self.do_exportKey(context)[1],)

    def do_getNetworkKeyInfo(self) -> Answer:
        if self.nvm.network is None:
            return Sl.OK, NetworkKeyInfo()
        info = NetworkKeyInfo(
            any(self.nvm.network_key),
            any(self.nvm.alternate_key),
            self.nvm.network_key_sequence,
            0,
            self.nvm.nwk_frame_counter,
        )
        return Sl.OK, info

    def do_getApsKeyInfo(self, context: KeyContext) -> Answer:
        if context.core_key_type == KeyType.TC_LINK:
            counters = KEY_HAS_OUTGOING_FRAME_COUNTER
            return self.nvm.trust_center_eui64, KeyMetadata(counters, self.nvm.aps_frame_counter), Sl.OK
        found = self._entry(context)
        if found is None:
            return bytes(8), KeyMetadata(), Sl.NOT_FOUND
        return found[1].eui64, _metadata(found[1]), Sl.OK

    def do_importLinkKey(self, index: int, eui64: bytes, key: bytes) -> Answer:
        size = min(self.ram.config[ConfigId.KEY_TABLE_SIZE], KEY_ENTRIES_MAX)
        if index == NO_ENTRY:  # the host wants any free entry
            index = next((i for i in range(size) if i not in self.nvm.link_keys), NO_ENTRY)
        if index >= size:
            return (Sl.INVALID_INDEX,)
        self.nvm.link_keys[index] = LinkKey(eui64, key)
        self._dirty = True
        return (Sl.OK,)

    def do_exportLinkKeyByIndex(self, index: int) -> Answer:
        if index >= self.ram.config[ConfigId.KEY_TABLE_SIZE]:
            return bytes(8), NO_KEY, KeyMetadata(), Sl.INVALID_INDEX
        entry = self.nvm.link_keys.get(index)
        if entry is None:
            return bytes(8), NO_KEY, KeyMetadata(), Sl.NOT_FOUND
        return entry.eui64, entry.key, _metadata(entry), Sl.OK

    def do_exportLinkKeyByEui(self, eui64: bytes) -> Answer:
        for index, entry in self.nvm.link_keys.items():
            if entry.eui64 == eui64:
                return entry.key, index, _metadata(entry), Sl.OK
        return NO_KEY, NO_ENTRY, KeyMetadata(), Sl.NOT_FOUND

    def do_findKeyTableEntry(self, eui64: bytes, _link_key: bool) -> Answer:
        return (next((i for i, entry in self.nvm.link_keys.items() if entry.eui64 == eui64), NO_ENTRY),)

    def do_eraseKeyTableEntry(self, index: int) -> Answer:
        if index >= self.ram.config[ConfigId.KEY_TABLE_SIZE]:
            return (Ember.INDEX_OUT_OF_RANGE,)
        if self.nvm.link_keys.pop(index, None) is None:
            return (Ember.TABLE_ENTRY_ERASED,)
        self._dirty = True
        return (Ember.SUCCESS,)

    def do_clearKeyTable(self) -> Answer:
        self.nvm.link_keys.clear()
        self._dirty = True
        return (Ember.SUCCESS,)

    def do_importTransientKey(self, eui64: bytes, key: bytes, flags: int) -> Answer:
        self._expire_transient_keys()
        if eui64 not in self.ram.transient_keys and len(self.ram.transient_keys) >= TRANSIENT_KEYS_MAX:
            return (Sl.NO_MORE_RESOURCE,)
        expires_s = self._now() + self.ram.config[ConfigId.TRANSIENT_KEY_TIMEOUT_S]
        self.ram.transient_keys[eui64] = TransientKey(key, flags, expires_s)
        return (Sl.OK,)

    def do_exportTransientKeyByIndex(self, index: int) -> Answer:
        self._expire_transient_keys()
        keys = list(self.ram.transient_keys)
        return self._transient(keys[index]) if index < len(keys) else self._transient(None)

    def do_exportTransientKeyByEui(self, eui64: bytes) -> Answer:
        self._expire_transient_keys()
        return self._transient(eui64 if eui64 in self.ram.transient_keys else None)

    def do_clearTransientLinkKeys(self) -> Answer:
        self.ram.transient_keys.clear()
        return ()

    def _transient(self, eui64: bytes | None) -> Answer:
        if eui64 is None:
            return KeyContext(), NO_KEY, KeyMetadata(), Sl.NOT_FOUND
        entry = self.ram.transient_keys[eui64]
        context = KeyContext(core_key_type=KeyType.TC_LINK_WITH_TIMEOUT, eui64=eui64, flags=entry.flags)
        left_s = max(int(entry.expires_s - self._now()), 0)
        return context, entry.key, KeyMetadata(KEY_HAS_PARTNER_EUI64, ttl_s=min(left_s, 0xFFFF)), Sl.OK

    def _expire_transient_keys(self) -> None:
        now_s = self._now()
        for eui64 in [e for e, entry in self.ram.transient_keys.items() if entry.expires_s <= now_s]:
            del self.ram.transient_keys[eui64]

    def _entry(self, context: KeyContext) -> tuple[int, LinkKey] | None:
        for index, entry in self.nvm.link_keys.items():
            if (any(context.eui64) and entry.eui64 == context.eui64) or (
                not any(context.eui64) and index == context.key_index
            ):
                return index, entry
        return None


def _metadata(entry: LinkKey) -> KeyMetadata:
    bits = KEY_HAS_OUTGOING_FRAME_COUNTER | KEY_HAS_INCOMING_FRAME_COUNTER | KEY_HAS_PARTNER_EUI64
    return KeyMetadata(bits, entry.outgoing_frame_counter, entry.incoming_frame_counter)
