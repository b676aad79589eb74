"""The EZSP 13 commands and callbacks that the emulated NCP knows: id, name, request and answer layouts.

Each frame has one row, `id name request > answer`; a callback has `<` and no request. A field is `name:type`. Types
are those of `sim/ncp/ezsp.py`; `T*n` is a list of n (a number, or an earlier field); `T?` is absent on errors. Rows are
in the order of UG100's ids. The NCP answers every other frame with invalidCommand.
"""

from __future__ import annotations

from dataclasses import dataclass

from sim.ncp.ezsp import Schema

_ROWS = """
0000 version                     desired:u8 > version:u8 stack_type:u8 stack_version:u16
0002 addEndpoint                 endpoint:u8 profile_id:u16 device_id:u16 device_version:u8 inputs:u8 outputs:u8 input_clusters:u16*inputs output_clusters:u16*outputs > status:u8
0003 getExtendedValue            value_id:u8 characteristics:u32 > status:u8 value:lv
0005 nop                         >
0006 callback                    >
0009 setToken                    token:u8 data:bytes8 > status:u8
000A getToken                    token:u8 > status:u8 data:bytes8
000B getMfgToken                 token:u8 > data:lv
000C setMfgToken                 token:u8 data:lv > status:u8
0010 setConcentrator             on:bool type:u16 min_s:u16 max_s:u16 route_errors:u8 delivery_failures:u8 hops:u8 > status:u8
0011 setBrokenRouteErrorCode     code:u8 > status:u8
0013 getXncpInfo                 > status:u8 manufacturer:u16 version:u16
0015 setManufacturerCode         code:u16 >
0016 setPowerDescriptor          descriptor:u16 >
0017 networkInit                 bitmask:u16 > status:u8
0018 networkState                > state:u8
0019 stackStatusHandler          < status:u8
001A startScan                   type:u8 channels:u32 duration:u8 > status:u8
001B networkFoundHandler         < network:ZigbeeNetwork lqi:u8 rssi_dbm:s8
001C scanCompleteHandler         < channel:u8 status:u8
001D stopScan                    > status:u8
001E formNetwork                 parameters:NetworkParameters > status:u8
0020 leaveNetwork                > status:u8
0022 permitJoining               duration_s:u8 > status:u8
0023 childJoinHandler            < index:u8 joining:bool nwk:u16 eui64:eui64 type:u8
0024 trustCenterJoinHandler      < nwk:u16 eui64:eui64 update:u8 decision:u8 parent:u16
0026 getEui64                    > eui64:eui64
0027 getNodeId                   > nwk:u16
0028 getNetworkParameters        > status:u8 node_type:u8 parameters:NetworkParameters
0029 getParentChildParameters    > children:u8 parent_eui64:eui64 parent:u16
002A clearBindingTable           > status:u8
002B setBinding                  index:u8 entry:BindingEntry > status:u8
002C getBinding                  index:u8 > status:u8 entry:BindingEntry
002D deleteBinding               index:u8 > status:u8
002E bindingIsActive             index:u8 > active:bool
0033 maximumPayloadLength        > length:u8
0034 sendUnicast                 type:u8 destination:u16 aps:ApsFrame tag:u8 contents:lv > status:u8 sequence:u8
0036 sendBroadcast               destination:u16 aps:ApsFrame radius:u8 tag:u8 contents:lv > status:u8 sequence:u8
0037 proxyBroadcast              source:u16 destination:u16 nwk_sequence:u8 aps:ApsFrame radius:u8 tag:u8 contents:lv > status:u8 sequence:u8
0038 sendMulticast               aps:ApsFrame hops:u8 nonmember_radius:u8 tag:u8 contents:lv > status:u8 sequence:u8
0039 sendReply                   nwk:u16 aps:ApsFrame contents:lv > status:u8
003A sendMulticastWithAlias      aps:ApsFrame hops:u8 nonmember_radius:u8 alias:u16 nwk_sequence:u8 tag:u8 contents:lv > status:u8 sequence:u8
003F messageSentHandler          < type:u8 destination:u16 aps:ApsFrame tag:u8 status:u8 contents:lv
0041 sendManyToOneRouteRequest   type:u16 radius:u8 > status:u8
0045 incomingMessageHandler      < type:u8 aps:ApsFrame lqi:u8 rssi_dbm:s8 nwk:u16 binding:u8 address:u8 contents:lv
0047 customFrame                 payload:lv > status:u8 reply:lv
0048 energyScanResultHandler     < channel:u8 rssi_dbm:s8
0049 getRandomNumber             > status:u8 value:u16
004A getChildData                index:u8 > status:u8 child:ChildData
0052 getConfigurationValue       config:u8 > status:u8 value:u16
0053 setConfigurationValue       config:u8 value:u16 > status:u8
0055 setPolicy                   policy:u8 decision:u8 > status:u8
0056 getPolicy                   policy:u8 > status:u8 decision:u8
0058 invalidCommand              > reason:u8
0059 incomingRouteRecordHandler  < nwk:u16 eui64:eui64 lqi:u8 rssi_dbm:s8 relays:lv16s
005A setSourceRouteDiscoveryMode mode:u8 > remaining_ms:u32
005B addressTableEntryIsActive   index:u8 > active:bool
005C setAddressTableRemoteEui64  index:u8 eui64:eui64 > status:u8
005D setAddressTableRemoteNodeId index:u8 nwk:u16 >
005E getAddressTableRemoteEui64  index:u8 > eui64:eui64
005F getAddressTableRemoteNodeId index:u8 > nwk:u16
0060 lookupNodeIdByEui64         eui64:eui64 > nwk:u16
0061 lookupEui64ByNodeId         nwk:u16 > status:u8 eui64:eui64
0063 getMulticastTableEntry      index:u8 > status:u8 entry:MulticastEntry
0064 setMulticastTableEntry      index:u8 entry:MulticastEntry > status:u8
0065 readAndClearCounters        > values:u16*41
0068 setInitialSecurityState     state:InitialSecurityState > status:u8
0069 getCurrentSecurityState     > status:u8 state:CurrentSecurityState
006B clearTransientLinkKeys      >
0075 findKeyTableEntry           eui64:eui64 link_key:bool > index:u8
0076 eraseKeyTableEntry          index:u8 > status:u8
0077 tokenFactoryReset           keep_frame_counter:bool keep_boot_counter:bool >
0079 getNeighbor                 index:u8 > status:u8 entry:NeighborEntry
007A neighborCount               > count:u8
007B getRouteTableEntry          index:u8 > status:u8 entry:RouteEntry
007C idConflictHandler           < nwk:u16
007E setExtendedTimeout          eui64:eui64 extended:bool >
007F getExtendedTimeout          eui64:eui64 > extended:bool
0080 incomingRouteErrorHandler   < status:u8 nwk:u16
0081 echo                        data:lv > data:lv
0082 replaceAddressTableEntry    index:u8 eui64:eui64 nwk:u16 extended:bool > status:u8 old_eui64:eui64 old_nwk:u16 old_extended:bool
0083 mfglibStart                 callback:bool > status:u8
0084 mfglibEnd                   > status:u8
008A mfglibSetChannel            channel:u8 > status:u8
008B mfglibGetChannel            > channel:u8
008E mfglibRxHandler             < lqi:u8 rssi_dbm:s8 packet:lv
008F launchStandaloneBootloader  mode:u8 > status:u8
0091 getStandaloneBootloaderVersionPlatMicroPhy > version:u16 platform:u8 micro:u8 phy:u8
0095 setRadioIeee802154CcaMode   mode:u8 > status:u8
0099 setRadioPower               power_dbm:s8 > status:u8
009A setRadioChannel             channel:u8 > status:u8
009B zigbeeKeyEstablishmentHandler < eui64:eui64 status:u8
00A8 removeDevice                nwk:u16 eui64:eui64 target_eui64:eui64 > status:u8
00AA getValue                    value_id:u8 > status:u8 value:lv
00AB setValue                    value_id:u8 value:lv > status:u8
00AC setChildData                index:u8 child:ChildData > status:u8
00AE setSourceRoute              nwk:u16 relays:lv16s > status:u8
00B1 clearKeyTable               > status:u8
00B9 setLogicalAndRadioChannel   channel:u8 > status:u8
00BA getLogicalChannel           > channel:u8
00C1 getSourceRouteTableEntry    index:u8 > status:u8 nwk:u16 closer:u8
00C2 getSourceRouteTableFilledSize > size:u8
00C3 getSourceRouteTableTotalSize > size:u8
00C4 incomingNetworkStatusHandler < code:u8 nwk:u16
00E2 gpSinkTableClearAll         >
00F1 readCounters                > values:u16*41
00F2 counterRolloverHandler      < counter:u8
00FC getPhyInterfaceCount        > count:u8
00FD getRadioParameters          phy:u8 > status:u8 parameters:RadioParameters
0100 getTokenCount               > count:u8
0101 getTokenInfo                index:u8 > status:u8 info:TokenInfo
0102 getTokenData                token:u32 index:u32 > status:u8 value:lv32?
0103 setTokenData                token:u32 index:u32 value:lv32 > status:u8
0104 resetNode                   >
0105 setPassiveAckConfig         config:u8 acks:u8 > status:u8
0106 childId                     index:u8 > nwk:u16
010C getApsKeyInfo               context:KeyContext > eui64:eui64 key_data:KeyMetadata status:u32
010D exportLinkKeyByEui          eui64:eui64 > key:key index:u8 key_data:KeyMetadata status:u32
010E importLinkKey               index:u8 eui64:eui64 key:key > status:u32
010F exportLinkKeyByIndex        index:u8 > eui64:eui64 key:key key_data:KeyMetadata status:u32
0110 checkKeyContext             context:KeyContext > status:u32
0111 importTransientKey          eui64:eui64 key:key flags:u8 > status:u32
0112 exportTransientKeyByIndex   index:u8 > context:KeyContext key:key key_data:KeyMetadata status:u32
0113 exportTransientKeyByEui     eui64:eui64 > context:KeyContext key:key key_data:KeyMetadata status:u32
0114 exportKey                   context:KeyContext > key:key status:u32
0115 importKey                   context:KeyContext key:key > status:u32
0116 getNetworkKeyInfo           > status:u32 info:NetworkKeyInfo
"""  # noqa: E501


@dataclass(frozen=True, slots=True)
class Command:
    """One frame id. A callback has no request: `callback` is True and `request` empty."""

    frame_id: int
    name: str
    request: Schema
    answer: Schema
    callback: bool


def _schema(text: str) -> Schema:
    return tuple((name, kind) for name, _, kind in (item.partition(":") for item in text.split()))


def _parse(row: str) -> Command:
    number, name, *_ = row.split(None, 2)
    rest = row.split(None, 1)[1][len(name) :]
    callback = "<" in rest
    request, _, answer = rest.partition("<" if callback else ">")
    return Command(int(number, 16), name, _schema(request), _schema(answer), callback)


COMMANDS: dict[str, Command] = {c.name: c for c in map(_parse, _ROWS.strip("\n").split("\n"))}
BY_ID: dict[int, Command] = {c.frame_id: c for c in COMMANDS.values()}
