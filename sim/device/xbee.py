import _host

ADDR_COORDINATOR = b"\0\0\0\0\0\0\0\0"
ENDPOINT_DIGI_DATA = 0xE8
CLUSTER_DIGI_SERIAL_DATA = 0x11
PROFILE_DIGI_XBEE = 0xC105


def atcmd(cmd, value=None):
    data = _host.ask(67, 0, cmd)  # C
    return int.from_bytes(data, "big") if data else None


def receive():
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


def transmit(dest, payload, *, source_ep=0xE8, dest_ep=0xE8, cluster=0x11, profile=0xC105, bcast_radius=0, tx_options=0):
    if len(payload) > 84:
        raise ValueError("payload too long")
    if dest != ADDR_COORDINATOR:
        raise ValueError("the stand-in sends to the coordinator alone")
    _host.ask(84, source_ep << 24 | dest_ep << 16 | cluster << 8 | tx_options, payload)  # T
    error = _host.state[7]
    if error:
        raise OSError(7000 + error)
