import asyncio
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed
async def talk(ws):
    await ws.send('path ' + ws.request.path)
    try:
        async for message in ws:
            if message == 'bye':
                await ws.close(4001, 'as you wish')
            else:
                await ws.send(message)
    except ConnectionClosed:
        pass
    print('closed', ws.request.path, ws.close_code, flush=True)
async def main():
    async with serve(talk, '127.0.0.1', 0, subprotocols=['chat'], max_size=None) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.Future()
asyncio.run(main())
