// The client of the gRPC project for pages, with an XMLHttpRequest for Node: calls both forms.
global.XMLHttpRequest = require('xhr2');
const { GrpcWebClientBase, MethodDescriptor, MethodType } = require('grpc-web');

const [host] = process.argv.slice(1);
const raw = (bytes) => Uint8Array.from(bytes);
const method = (name, kind) => new MethodDescriptor('/test.Echo/' + name, kind, Object, Object, raw, raw);
const bytes = (text) => Buffer.from(text);

const unary = (form, name, text) => new Promise((done) => {
  const descriptor = method(name, MethodType.UNARY);
  const metadata = { 'x-own': 'mine' };
  new GrpcWebClientBase({ format: form }).rpcCall(
    host + '/test.Echo/' + name, bytes(text), metadata, descriptor,
    (error, answer) => done(error ? `${error.code} ${error.message}` : Buffer.from(answer).toString()));
});

const stream = (name, text) => new Promise((done) => {
  const descriptor = method(name, MethodType.SERVER_STREAMING);
  const got = [];
  const call = new GrpcWebClientBase({ format: 'text' }).serverStreaming(
    host + '/test.Echo/' + name, bytes(text), {}, descriptor);
  call.on('data', (answer) => got.push(Buffer.from(answer).toString()));
  call.on('status', (status) => got.push('status ' + status.code));
  call.on('error', (error) => got.push(`error ${error.code} ${error.message}`));
  call.on('end', () => done(got.join(' ')));
  call.on('error', () => done(got.join(' ')));
});

(async () => {
  for (const form of ['text', 'binary']) {
    console.log(form, await unary(form, 'Unary', 'hello w\u00f6rld'));
    console.log(form, (await unary(form, 'Large', '300000')).length);
    console.log(form, await unary(form, 'Fail', 'NOT_FOUND no such w\u00f6rd'));
    console.log(form, JSON.stringify(JSON.parse(await unary(form, 'Meta', '')).filter(
      ([name]) => name === 'x-own' || name === 'x-grpc-web')));
  }
  console.log(await stream('Repeat', '5'));
  console.log(await stream('Cut', ''));
})();
