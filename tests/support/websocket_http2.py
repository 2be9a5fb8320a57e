# WebSockets in streams of HTTP/2 (RFC 8441): an endpoint on the `h2` and the `websockets` of Python.
# Echoes, says goodbye with 4001 when asked to, and prints what it is asked and how streams end.
# With a certificate and a key it speaks TLS. `mute`: it says that it knows no such streams.
import json, socket, ssl, sys, threading
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived, StreamEnded, StreamReset
from h2.settings import SettingCodes, Settings
from websockets.frames import Opcode
from websockets.protocol import Protocol, Side, State

is_mute, files = sys.argv[1] == 'mute', sys.argv[2:]


def tell(*words):
    print(*words, flush=True)


class Stream:
    def __init__(self, path):
        self.ws = Protocol(Side.SERVER, state=State.OPEN, max_size=None)
        self.path, self.out, self.ends = path, b'', False
        self.ws.send_text(b'path ' + path.encode())
        self.take()

    def receive(self, octets):
        self.ws.receive_data(octets)
        for frame in self.ws.events_received():
            if frame.opcode is Opcode.TEXT and bytes(frame.data) == b'bye':
                self.ws.send_close(4001, 'as you wish')
            elif frame.opcode is Opcode.TEXT:
                self.ws.send_text(bytes(frame.data), frame.fin)
            elif frame.opcode is Opcode.BINARY:
                self.ws.send_binary(bytes(frame.data), frame.fin)
            elif frame.opcode is Opcode.CONT:
                self.ws.send_continuation(bytes(frame.data), frame.fin)
        self.take()

    def take(self):
        for octets in self.ws.data_to_send():
            self.out += octets
            self.ends |= octets == b''
        if self.ws.close_rcvd and self.ends:
            tell('closed', self.path, self.ws.close_rcvd.code)


class Connection:
    def __init__(self, sock):
        self.sock, self.streams = sock, {}
        self.http2 = H2Connection(H2Configuration(client_side=False))
        if not is_mute:
            first = {SettingCodes.ENABLE_CONNECT_PROTOCOL: 1}
            self.http2.local_settings = Settings(client=False, initial_values=first)
        self.http2.initiate_connection()

    def serve(self):
        while True:
            self.sock.sendall(self.http2.data_to_send())
            try:
                octets = self.sock.recv(65536)
            except OSError:
                octets = b''
            if not octets:
                return tell('gone')
            for event in self.http2.receive_data(octets):
                self.take(event)
            for stream in list(self.streams):
                self.say(stream)

    def take(self, event):
        if isinstance(event, RequestReceived):
            self.begin(event.stream_id, event.headers)
        elif isinstance(event, DataReceived):
            self.http2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            if event.stream_id in self.streams:
                self.streams[event.stream_id].receive(event.data)
        elif isinstance(event, StreamEnded):
            if event.stream_id in self.streams:
                stream = self.streams[event.stream_id]
                tell('ended', stream.path)
                stream.ws.receive_eof()
                stream.take()
                stream.ends = True
        elif isinstance(event, StreamReset):
            stream = self.streams.pop(event.stream_id, None)
            if stream:
                tell('reset', stream.path, int(event.error_code))

    def begin(self, at, headers):
        fields = [(name.decode(), value.decode()) for name, value in headers]
        asked = dict(fields)
        tell('asked', json.dumps(fields))
        if asked[':method'] != 'CONNECT':
            body = asked[':path'].encode()
            self.http2.send_headers(at, [(':status', '200'), ('content-length', str(len(body)))])
            self.http2.send_data(at, body, end_stream=True)
        elif 'declined' in asked[':path']:
            self.http2.send_headers(at, [(':status', '403'), ('content-type', 'text/plain')])
            self.http2.send_data(at, b'not you', end_stream=True)
        else:
            answer = [(':status', '200'), ('x-from', 'endpoint'), ('sec-websocket-accept', 'no')]
            if asked.get('sec-websocket-protocol') == 'chat':
                answer.append(('sec-websocket-protocol', 'chat'))
            self.http2.send_headers(at, answer)
            self.streams[at] = Stream(asked[':path'])

    def say(self, at):
        stream = self.streams[at]
        while stream.out:
            room = min(self.http2.local_flow_control_window(at),
                       self.http2.max_outbound_frame_size)
            if not room:
                return
            self.http2.send_data(at, stream.out[:room])
            stream.out = stream.out[room:]
        if stream.ends:
            self.http2.end_stream(at)
            del self.streams[at]


def serve(sock):
    try:
        Connection(sock).serve()
    finally:
        sock.close()


listener = socket.create_server(('127.0.0.1', 0))
tell(listener.getsockname()[1])
context = None
if files:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)
    context.set_alpn_protocols(['h2'])
while True:
    sock, _ = listener.accept()
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if context:
        sock = context.wrap_socket(sock, server_side=True)
    threading.Thread(target=serve, args=[sock], daemon=True).start()
