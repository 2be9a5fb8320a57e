import socket, sys, os, signal
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import *
port, mode = int(sys.argv[1]), sys.argv[2]
sock = socket.create_connection(('127.0.0.1', port))
sock.settimeout(30)
conn = H2Connection(H2Configuration(validate_outbound_headers=False,
                                    normalize_outbound_headers=False))
conn.initiate_connection()
status, fields, data, over, connects = {}, {}, {}, {}, False
def turn():
    global connects
    sock.sendall(conn.data_to_send())
    got = sock.recv(65536)
    assert got, 'the connection has ended'
    for event in conn.receive_data(got):
        if isinstance(event, RemoteSettingsChanged):
            changed = event.changed_settings.get(8)
            connects |= changed is not None and changed.new_value == 1
        elif isinstance(event, ResponseReceived):
            fields[event.stream_id] = dict(event.headers)
            status[event.stream_id] = fields[event.stream_id][b':status']
        elif isinstance(event, DataReceived):
            data[event.stream_id] = data.get(event.stream_id, b'') + event.data
            if event.flow_controlled_length:
                conn.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, StreamEnded):
            over.setdefault(event.stream_id, 'ended')
        elif isinstance(event, StreamReset):
            over.setdefault(event.stream_id, 'reset')
    sock.sendall(conn.data_to_send())
def begin(headers, end):
    stream = conn.get_next_available_stream_id()
    conn.send_headers(stream, headers, end_stream=end)
    return stream
def connect(path, protocol='websocket', *more):
    return begin([(':method', 'CONNECT'), (':protocol', protocol), (':scheme', 'http'),
                  (':path', path), (':authority', 'a.example'),
                  ('sec-websocket-version', '13'), ('sec-websocket-protocol', 'chat'), *more], False)
def frame(opcode, payload):
    mask, n = b'abcd', len(payload)
    head = bytes([0x80 | opcode]) + (bytes([0x80 | n]) if n < 126 else
                                     bytes([0xff]) + n.to_bytes(8, 'big'))
    return head + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(payload))
def say(stream, octets):
    while octets:
        room = min(conn.local_flow_control_window(stream), conn.max_outbound_frame_size)
        if room:
            conn.send_data(stream, octets[:room])
            octets = octets[room:]
            sock.sendall(conn.data_to_send())
        else:
            turn()
    sock.sendall(conn.data_to_send())
def hear(stream, octets):
    while len(data.get(stream, b'')) < len(octets):
        turn()
    came, data[stream] = data[stream][:len(octets)], data[stream][len(octets):]
    assert came == octets, came[:100]
while not connects:
    turn()
one = connect('/ws?1')
while one not in status:
    turn()
assert status[one] == b'200', status
assert fields[one][b'sec-websocket-protocol'] == b'chat', fields
assert not {b'sec-websocket-accept', b'connection', b'upgrade'} & fields[one].keys(), fields
hear(one, b'\x81\x0apath /ws?1')
if mode == 'retire':
    text = open(sys.argv[4]).read()
    open(sys.argv[4], 'w').write(text.replace('name = "all"', 'name = "others"'))
    os.kill(int(sys.argv[3]), signal.SIGHUP)
    hear(one, b'\x88\x02\x03\xe9')
    say(one, frame(8, b'\x03\xe9'))
    while one not in over:
        turn()
    print(over[one])
    sys.exit()
# What proves a WebSocket of HTTP/1.1 is the proxy's to make.
made_up = [('sec-websocket-key', 'bWFkZSB1cCBieSBjbGllbnQ='), ('sec-websocket-accept', 'no')]
two = connect('/ws?2', 'websocket', *made_up, made_up[0])
hear(two, b'\x81\x0apath /ws?2')
for text in [b'hi', b'x' * 200_000, b'bye for now']:
    say(one, frame(1, text))
    n = len(text)
    head = b'\x81' + (bytes([n]) if n < 126 else b'\x7f' + n.to_bytes(8, 'big'))
    hear(one, head + text)
for stream in [begin([(':method', 'GET'), (':scheme', 'http'), (':path', '/page'),
                      (':authority', 'a.example')], True),
               connect('/ws', 'tcp'), connect('/page'), connect('/no')]:
    while stream not in status:
        turn()
    print(stream, status[stream].decode())
say(one, frame(8, b'\x03\xe8'))
hear(one, b'\x88\x02\x03\xe8')
while one not in over:
    turn()
print(over[one])
say(two, frame(1, b'hi'))
hear(two, b'\x81\x02hi')
