import asyncio, os, ssl, sys
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
url, ca = sys.argv[1], sys.argv[2]
context = ssl.create_default_context(cafile=ca) if ca else None
def to(path, **more):
    return connect(url + path, ssl=context, max_size=None, proxy=None, **more)
async def main():
    for compression in ['deflate', None]:
        async with to('/ws?a=b', subprotocols=['chat'], compression=compression) as ws:
            assert ws.subprotocol == 'chat'
            assert await ws.recv() == 'path /ws?a=b'
            for message in ['', 'grüße', b'\x00' * 70000, os.urandom(3_000_000)]:
                await ws.send(message)
                assert await ws.recv() == message
            await ws.send(['in ', 'several ', 'frames'])
            assert await ws.recv() == 'in several frames'
            await asyncio.wait_for(await ws.ping(), 20)
            await ws.send('bye')
            try:
                await ws.recv()
            except ConnectionClosed as closed:
                assert closed.rcvd.code == 4001 and closed.rcvd.reason == 'as you wish', closed
                assert closed.rcvd_then_sent, closed
    async with to('/', subprotocols=['chat']) as ws:
        await ws.recv()
        await ws.close(1000)
        assert ws.close_code == 1000
    print('fine')
asyncio.run(main())
