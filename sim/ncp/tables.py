"""The emulated NCP's tables: children, addresses, neighbours, routes, groups, bindings."""

from __future__ import annotations

from dataclasses import replace

from sim.ncp.ezsp import BindingEntry, ChildData, MulticastEntry, NeighborEntry, RouteEntry
from sim.ncp.ezsp_ids import NWK_UNUSED, ConfigId, Ember
from sim.ncp.nvm import CHILDREN_MAX
from sim.ncp.state import AddressEntry, Answer, Core


class Tables(Core):
    """The table commands. A reset clears all tables except children and those made from `responders`."""

    def do_setSourceRoute(self, nwk: int, relays: list[int]) -> Answer:
        if nwk not in self.ram.source_routes and len(self.ram.source_routes) >= self._size(
            ConfigId.SOURCE_ROUTE_TABLE_SIZE
        ):
            return (Ember.TABLE_FULL,)
        self.ram.source_routes[nwk] = relays
        return (Ember.SUCCESS,)

    def do_getSourceRouteTableFilledSize(self) -> Answer:
        return (min(len(self.ram.source_routes), 255),)

    def do_getSourceRouteTableTotalSize(self) -> Answer:
        return (min(self._size(ConfigId.SOURCE_ROUTE_TABLE_SIZE), 255),)

    def do_getSourceRouteTableEntry(self, index: int) -> Answer:
        routes = list(self.ram.source_routes)
        return (Ember.SUCCESS, routes[index], 0xFF) if index < len(routes) else (Ember.NOT_FOUND, NWK_UNUSED, 0xFF)

    def do_getRouteTableEntry(self, index: int) -> Answer:
        if index >= self._size(ConfigId.ROUTE_TABLE_SIZE):
            return Ember.INDEX_OUT_OF_RANGE, RouteEntry()
        nodes = list(self.responders)
        return Ember.SUCCESS, RouteEntry(nodes[index], nodes[index], 0) if index < len(nodes) else RouteEntry()

    def do_neighborCount(self) -> Answer:
        return (min(len(self.responders), self._size(ConfigId.NEIGHBOR_TABLE_SIZE)),)

    def do_getNeighbor(self, index: int) -> Answer:
        nodes = list(self.responders.values())
        if index >= min(len(nodes), self._size(ConfigId.NEIGHBOR_TABLE_SIZE)):
            return Ember.FATAL, NeighborEntry()
        return Ember.SUCCESS, NeighborEntry(nodes[index].nwk, 255, 1, 1, 0, nodes[index].eui64)

    def do_getChildData(self, index: int) -> Answer:
        child = self.nvm.children.get(index)
        return (Ember.NOT_JOINED, ChildData()) if child is None else (Ember.SUCCESS, child)

    def do_setChildData(self, index: int, child: ChildData) -> Answer:
        if index >= min(self._size(ConfigId.MAX_END_DEVICE_CHILDREN), CHILDREN_MAX):
            return (Ember.INDEX_OUT_OF_RANGE,)
        self.nvm.children[index] = child
        self._dirty = True
        return (Ember.SUCCESS,)

    def do_childId(self, index: int) -> Answer:
        child = self.nvm.children.get(index)
        return (NWK_UNUSED if child is None else child.id,)

    def do_addressTableEntryIsActive(self, index: int) -> Answer:
        return (self._address(index).nwk != NWK_UNUSED,)

    def do_setAddressTableRemoteEui64(self, index: int, eui64: bytes) -> Answer:
        if index >= self._size(ConfigId.ADDRESS_TABLE_SIZE):
            return (Ember.ADDRESS_TABLE_INDEX_OUT_OF_RANGE,)
        self.ram.addresses[index] = AddressEntry(eui64, self._address(index).nwk)
        return (Ember.SUCCESS,)

    def do_setAddressTableRemoteNodeId(self, index: int, nwk: int) -> Answer:
        if index < self._size(ConfigId.ADDRESS_TABLE_SIZE):
            self.ram.addresses[index] = replace(self._address(index), nwk=nwk)
        return ()

    def do_getAddressTableRemoteEui64(self, index: int) -> Answer:
        return (self._address(index).eui64,)

    def do_getAddressTableRemoteNodeId(self, index: int) -> Answer:
        return (self._address(index).nwk,)

    def do_replaceAddressTableEntry(self, index: int, eui64: bytes, nwk: int, extended: bool) -> Answer:
        old = self._address(index)
        if index >= self._size(ConfigId.ADDRESS_TABLE_SIZE):
            return Ember.ADDRESS_TABLE_INDEX_OUT_OF_RANGE, bytes(8), NWK_UNUSED, False
        self.ram.addresses[index] = AddressEntry(eui64, nwk, extended)
        return Ember.SUCCESS, old.eui64, old.nwk, old.extended_timeout

    def do_setExtendedTimeout(self, eui64: bytes, extended: bool) -> Answer:
        for entry in self.ram.addresses.values():
            if entry.eui64 == eui64:
                entry.extended_timeout = extended
        if any(child.eui64 == eui64 for child in self.nvm.children.values()):
            (self.ram.extended_timeouts.add if extended else self.ram.extended_timeouts.discard)(eui64)
        return ()

    def do_getExtendedTimeout(self, eui64: bytes) -> Answer:
        listed = any(e.extended_timeout for e in self.ram.addresses.values() if e.eui64 == eui64)
        return (listed or eui64 in self.ram.extended_timeouts,)

    def do_lookupNodeIdByEui64(self, eui64: bytes) -> Answer:
        if eui64 == self.nvm.own_eui64:
            return (0x0000,)
        return (next((nwk for known, nwk in self._known() if known == eui64), NWK_UNUSED),)

    def do_lookupEui64ByNodeId(self, nwk: int) -> Answer:
        found = next((eui64 for eui64, known in self._known() if known == nwk), None)
        return (Ember.FATAL, bytes(8)) if found is None else (Ember.SUCCESS, found)

    def do_getMulticastTableEntry(self, index: int) -> Answer:
        if index >= self._size(ConfigId.MULTICAST_TABLE_SIZE):
            return Ember.INDEX_OUT_OF_RANGE, MulticastEntry()
        return Ember.SUCCESS, self.ram.multicast.get(index, MulticastEntry())

    def do_setMulticastTableEntry(self, index: int, entry: MulticastEntry) -> Answer:
        if index >= self._size(ConfigId.MULTICAST_TABLE_SIZE):
            return (Ember.INDEX_OUT_OF_RANGE,)
        self.ram.multicast[index] = entry
        return (Ember.SUCCESS,)

    def do_clearBindingTable(self) -> Answer:
        self.ram.bindings.clear()
        return (Ember.SUCCESS,)

    def do_setBinding(self, index: int, entry: BindingEntry) -> Answer:
        if index >= self._size(ConfigId.BINDING_TABLE_SIZE):
            return (Ember.BINDING_INDEX_OUT_OF_RANGE,)
        self.ram.bindings[index] = entry
        return (Ember.SUCCESS,)

    def do_getBinding(self, index: int) -> Answer:
        if index >= self._size(ConfigId.BINDING_TABLE_SIZE):
            return Ember.BINDING_INDEX_OUT_OF_RANGE, BindingEntry()
        return Ember.SUCCESS, self.ram.bindings.get(index, BindingEntry())

    def do_deleteBinding(self, index: int) -> Answer:
        if index >= self._size(ConfigId.BINDING_TABLE_SIZE):
            return (Ember.BINDING_INDEX_OUT_OF_RANGE,)
        self.ram.bindings.pop(index, None)
        return (Ember.SUCCESS,)

    def do_bindingIsActive(self, index: int) -> Answer:
        return (index in self.ram.bindings,)

    def _size(self, config: ConfigId) -> int:
        return self.ram.config[config]

    def _address(self, index: int) -> AddressEntry:
        return self.ram.addresses.get(index) or AddressEntry()

    def _known(self) -> list[tuple[bytes, int]]:
        """Return the (EUI64, node id) pairs of the stack's tables: addresses, children, neighbours."""
        listed = [(e.eui64, e.nwk) for e in self.ram.addresses.values() if e.nwk < 0xFFF8 and any(e.eui64)]
        children = [(c.eui64, c.id) for c in self.nvm.children.values()]
        return listed + children + [(n.eui64, n.nwk) for n in self.responders.values()]
