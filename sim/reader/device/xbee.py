import _host  # the stand-in of Digi's `xbee`: AT commands, frames in and out

ADDR_COORDINATOR = b"\0\0\0\0\0\0\0\0"
ENDPOINT_DIGI_DATA = 0xE8
CLUSTER_DIGI_SERIAL_DATA = 0x11
PROFILE_DIGI_XBEE = 0xC105


def atcmd(a):
    data = _host.ask(67, 0, a)  # C
    a = _host.state[7]  # 0 a number, 1 bytes, 2 text, 3 nothing, else an error
    if a > 3:
        _host.check()
    if not a:
        return data[0] << 8 | data[1] if data else None
    return (data, str(data), None)[a - 1]


def receive():
    _host.step()
    if not _host.state[5]:
        return None
    data = _host.ask(82)  # R: nwk u16 | eui64 | source_ep | dest_ep | cluster u16 | profile u16 | broadcast | payload
    return {
        "sender_nwk": data[0] << 8 | data[1],
        "sender_eui64": data[2:10],
        "source_ep": data[10],
        "dest_ep": data[11],
        "cluster": data[12] << 8 | data[13],
        "profile": data[14] << 8 | data[15],
        "broadcast": bool(data[16]),
        "payload": data[17:],
    }


def transmit(a, data, *, source_ep=0xE8, dest_ep=0xE8, cluster=0x11, profile=0xC105):
    if a != ADDR_COORDINATOR or profile != 0xC105:
        raise ValueError
    _host.ask(84, source_ep << 16 | dest_ep << 8 | cluster, data)  # T
    _host.check()
