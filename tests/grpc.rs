//! gRPC through the proxy, and of the proxy itself, with grpcio on both ends.

mod support;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use std::{env, fs, thread};

use support::http2_client::{
    DATA, END_STREAM, GOAWAY, INITIAL_WINDOW_SIZE, frame, headers, reset, window_update,
};
use support::{
    Block, Curl, GrpcServer, Http2Client, Http2Origin, Proxy, ScriptServer, TempDir, edge,
    eventually, grpc_client, grpcio, is_installed, nobody, program, signal,
};

/// Every call of `test.Echo` to that server; `grpc` is the rest of the route's section.
fn echo(server: SocketAddr, grpc: &str) -> String {
    edge(&format!(
        "[[routes]]\nname = \"api\"\ncluster = \"calls\"\n[routes.grpc]\n{grpc}\n\
         [clusters.calls]\nprotocol = \"h2c\"\nendpoints = [{{ address = \"{server}\" }}]\n"
    ))
}

fn client(proxy: &Proxy, script: &str) -> String {
    grpc_client(proxy.address("edge"), script)
}

// --- calls that go through -------------------------------------------------------------------

#[test]
fn calls_of_all_four_kinds_go_through() {
    let Some(server) = GrpcServer::start() else { return };
    let proxy = Proxy::start(&echo(server.address, ""));
    let said = client(
        &proxy,
        r#"
print(unary("Unary")(b"hello").decode())
print(unary("Unary")(b"") == b"")
print(up("Count")(iter([b"a", b"", b"ccc"])).decode())
print(b",".join(down("Repeat")(b"5")).decode())
print(b",".join(both("Echo")(iter([b"x", b"y", b"z"]))).decode())
print(up("Count")(iter([])).decode(), list(down("Repeat")(b"0")))
"#,
    );
    let expected = "hello\nTrue\n3 messages, 4 bytes\n0,1,2,3,4\nx,y,z\n0 messages, 0 bytes []";
    assert_eq!(said, expected);
}

#[test]
fn both_sides_speak_in_turns_while_neither_has_ended() {
    let Some(server) = GrpcServer::start() else { return };
    let proxy = Proxy::start(&echo(server.address, ""));
    let said = client(
        &proxy,
        r#"
mail = queue.Queue()
call = both("Echo")(iter(mail.get, None))
print(dict(call.initial_metadata()).get("x-early"))
for number in range(20):
    mail.put(b"%d" % number)
    assert next(call) == b"%d" % number
mail.put(None)
print(list(call), call.code().name)

# the server ends while the client would say more
mail = queue.Queue()
call = both("Early")(iter(mail.get, None))
mail.put(b"first")
print(list(call), call.code().name)
mail.put(None)
"#,
    );
    assert_eq!(said, "1\n[] OK\n[b'enough: first'] OK");
}

#[test]
fn streams_that_are_quiet_for_longer_than_any_read_timeout_go_on() {
    let Some(server) = GrpcServer::start() else { return };
    let quick = "timeouts = { first_byte = \"200ms\", read = \"200ms\" }\n";
    let toml = format!("timeouts = {{ read = \"200ms\" }}\n{}{quick}", echo(server.address, ""));
    let proxy = Proxy::start(&toml);
    let said = client(
        &proxy,
        r#"
mail = queue.Queue()
call = both("Echo")(iter(mail.get, None))
for word in [b"one", b"two"]:
    time.sleep(0.6)
    mail.put(word)
    print(next(call).decode())
time.sleep(0.6)
mail.put(None)
print(list(call), call.code().name)
"#,
    );
    assert_eq!(said, "one\ntwo\n[] OK");
}

#[test]
fn a_stream_that_is_quiet_for_longer_than_its_idle_timeout_ends_as_unavailable() {
    let Some(server) = GrpcServer::start() else { return };
    let proxy = Proxy::start(&echo(server.address, "idle_timeout = \"1s\""));
    let said = client(&proxy, "print(failure(lambda: down(\"Hang\")(b\"\")))");
    assert_eq!(said, "UNAVAILABLE: nothing was said on this stream for too long");
    assert!(server.says("cancelled"));
}

#[test]
fn the_idle_timeout_begins_with_what_passed_last() {
    let Some(server) = GrpcServer::start() else { return };
    let proxy = Proxy::start(&echo(server.address, "idle_timeout = \"1s\""));
    let script = "call = down(\"Gaps\")(b\"\")\nprint(next(call), next(call))\n\
                  print(failure(lambda: call))";
    let expected = "b'one' b'two'\nUNAVAILABLE: nothing was said on this stream for too long";
    assert_eq!(client(&proxy, script), expected);
}

#[test]
fn metadata_goes_both_ways_and_binary_metadata_as_it_is() {
    let Some(server) = GrpcServer::start() else { return };
    let proxy = Proxy::start(&echo(server.address, ""));
    let said = client(
        &proxy,
        r#"
sent = (("authorization", "Bearer abc"), ("x-own", "1"), ("x-own", "2"),
        ("x-own-bin", bytes(range(256))), ("x-client-ip", "6.6.6.6"),
        ("x-forwarded-for", "6.6.6.6"), ("x-request-id", "theirs"))
answer, call = unary("Meta").with_call(b"", metadata=sent)
got = json.loads(answer)
of = lambda name: [value for key, value in got if key == name]
print(of("authorization"), of("x-own"), of("x-own-bin") == [list(range(256))])
print(of("x-client-ip"), of("x-forwarded-for"), len(of("x-request-id")[0]), of("te"))
early, late = dict(call.initial_metadata()), dict(call.trailing_metadata())
print(early["x-early"], early["x-early-bin"], late["x-late"], late["x-late-bin"])
"#,
    );
    let expected = "['Bearer abc'] ['1', '2'] True\n['127.0.0.1'] ['127.0.0.1'] 32 []\n\
                    1 b'\\x00\\xff' 2 b'\\xfe\\x01'";
    assert_eq!(said, expected);
}

#[test]
fn large_messages_go_both_ways() {
    let Some(server) = GrpcServer::start() else { return };
    let proxy = Proxy::start(&echo(server.address, ""));
    let said = client(
        &proxy,
        r#"
big = bytes(range(256)) * 32768
print(unary("Unary")(big) == big)
print(up("Count")(iter([big] * 3)).decode())
print(sum(map(len, both("Echo")(iter([big] * 3)))))
print(len(unary("Large")(b"20000000")))
"#,
    );
    assert_eq!(said, "True\n3 messages, 25165824 bytes\n25165824\n20000000");
}

#[test]
fn reflection_works_through_the_proxy() {
    let Some(server) = GrpcServer::start() else { return };
    let proxy = Proxy::start(&echo(server.address, ""));
    let said = client(
        &proxy,
        r#"
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha import proto_reflection_descriptor_database as reflection
database = reflection.ProtoReflectionDescriptorDatabase(channel)
print(sorted(database.get_services()))
pool = DescriptorPool(database)
print([method.name for method in pool.FindServiceByName("grpc.health.v1.Health").methods])
"#,
    );
    assert!(said.contains("'grpc.health.v1.Health'"), "{said}");
    assert!(said.contains("['Check'") && said.contains("'Watch'"), "{said}");
}

// --- calls that fail -------------------------------------------------------------------------

#[test]
fn what_the_server_says_of_a_failure_is_what_the_client_hears() {
    let Some(server) = GrpcServer::start() else { return };
    let proxy = Proxy::start(&echo(server.address, ""));
    let said = client(
        &proxy,
        r#"
codes = [code for code in grpc.StatusCode if code != grpc.StatusCode.OK]
fail = lambda code: unary("Fail")(b"%s 100%% w\xc3\xb6rse" % code.name.encode())
said = [failure(lambda: fail(code)) for code in codes]
print(said == ["%s: 100%% w\u00f6rse" % code.name for code in codes], len(said))
print(failure(lambda: down("Cut")(b"")))
print(failure(lambda: unary("Nothing")(b"")).split(":")[0])
"#,
    );
    assert_eq!(said, "True 16\nDATA_LOSS: lost the rest\nUNIMPLEMENTED");
}

#[test]
fn failures_of_the_proxy_are_told_in_grpc() {
    if grpcio().is_none() {
        return;
    }
    let proxy = Proxy::start(&edge(&format!(
        "[[routes]]\nname = \"api\"\npaths = [\"/test.Echo/*\"]\ncluster = \"calls\"\n\
         [clusters.calls]\nendpoints = [{{ address = \"{}\" }}]\n",
        nobody()
    )));
    let said = client(
        &proxy,
        r#"
print(failure(lambda: unary("Unary")(b"hello")))
print(failure(lambda: down("Repeat")(b"hello")))
print(failure(lambda: channel.unary_unary("/no.Such/Service")(b"")))
try:
    unary("Unary")(b"")
except grpc.RpcError as error:
    known = dict(error.initial_metadata() + error.trailing_metadata())
    print(len(known["x-request-id"]))
"#,
    );
    let refused = "UNAVAILABLE: the backend refuses connections";
    let unknown = "UNIMPLEMENTED: no route matches this host and path";
    assert_eq!(said, format!("{refused}\n{refused}\n{unknown}\n32"));
    let answer = Curl::get(&proxy.url("/test.Echo/Unary"), &[]);
    assert_eq!(answer.status, 502, "who does not speak gRPC is told in HTTP");
}

#[test]
fn a_server_that_dies_in_the_middle_is_unavailable() {
    let Some(server) = GrpcServer::start() else { return };
    let proxy = Proxy::start(&echo(server.address, ""));
    let waiting = std::thread::spawn({
        let address = proxy.address("edge");
        move || {
            grpc_client(
                address,
                "call = down(\"Hang\")(b\"\")\nprint(next(call))\nprint(failure(lambda: call))",
            )
        }
    });
    assert!(server.says("hangs"));
    drop(server);
    let said = waiting.join().unwrap();
    assert!(said.starts_with("b'here'\nUNAVAILABLE: "), "{said}");
}

#[test]
fn an_answer_that_is_no_grpc_is_told_in_grpc() {
    if grpcio().is_none() {
        return;
    }
    let origin = Http2Origin::start(|asker| {
        asker.greet(&[])?;
        loop {
            let asked = asker.request()?;
            let page = "<html>not here</html>";
            asker.answer(asked.stream, page)?;
        }
    });
    let proxy = Proxy::start(&echo(origin.address(), ""));
    let said = client(&proxy, "print(failure(lambda: unary(\"Unary\")(b\"\")))");
    assert_eq!(said, "UNKNOWN: the backend answered with status 200, and not in gRPC");
}

#[test]
fn a_message_over_the_maximum_ends_its_call_only() {
    let Some(server) = GrpcServer::start() else { return };
    let proxy = Proxy::start(&echo(server.address, "max_message_size = 1000"));
    let said = client(
        &proxy,
        r#"
print(failure(lambda: unary("Unary")(b"x" * 1001)))
print(failure(lambda: unary("Large")(b"1001")))
print(len(unary("Unary")(b"x" * 1000)))
"#,
    );
    let expected = "RESOURCE_EXHAUSTED: a message is larger than this proxy accepts\n\
         RESOURCE_EXHAUSTED: the backend sent a message that is larger than this proxy accepts\n\
         1000";
    assert_eq!(said, expected);
}

/// An endpoint that answers every call with these messages, cut into pieces of that length, and
/// with trailers if there are any.
fn answering(body: Vec<u8>, piece: usize, trailers: &'static [(&str, &str)]) -> Http2Origin {
    Http2Origin::start(move |asker| {
        asker.greet(&[])?;
        loop {
            let asked = asker.request()?;
            let block =
                Block::pseudo(&[(":status", "200")]).field("content-type", "application/grpc");
            if body.is_empty() && trailers.is_empty() {
                asker.send(headers(asked.stream, END_STREAM, &block))?;
                continue;
            }
            asker.send(headers(asked.stream, 0, &block))?;
            let pieces = body.chunks(piece).count();
            for (number, piece) in body.chunks(piece).enumerate() {
                let is_last = trailers.is_empty() && number + 1 == pieces;
                let flags = if is_last { END_STREAM } else { 0 };
                asker.send(frame(DATA, flags, asked.stream, piece))?;
            }
            if let [(name, value), ..] = trailers {
                let block = Block::new().field(name, value);
                asker.send(headers(asked.stream, END_STREAM, &block))?;
            }
        }
    })
}

/// The body of gRPC-Web that ends with this status.
fn of_page(messages: &[u8], status: &str, said: &str) -> Vec<u8> {
    let lines = format!("grpc-status: {status}\r\ngrpc-message: {said}\r\n");
    let length = u32::try_from(lines.len()).expect("it is short").to_be_bytes();
    [messages, b"\x80", &length[..], lines.as_bytes()].concat()
}

#[test]
fn messages_before_one_that_is_too_large_arrive_and_nothing_of_it_does() {
    let whole = [message(10), message(0), message(9)].concat();
    let body = [&whole[..], &message(11)].concat();
    let said = "the backend sent a message that is larger than this proxy accepts";
    // In one piece, in pieces that cut its prefix, and byte by byte.
    for piece in [1000, whole.len() + 3, 7, 1] {
        let origin = answering(body.clone(), piece, &[("grpc-status", "0")]);
        let web = "max_message_size = 10\n[routes.grpc_web]\n";
        let proxy = Proxy::start(&echo(origin.address(), web));
        let mut caller = Http2Client::open(proxy.address("edge"));
        let head = Block::request("POST", "/test.Echo/Unary")
            .field("content-type", "application/grpc")
            .field("te", "trailers");
        let stream = caller.begin(&head);
        caller.data(stream, END_STREAM, message(1));
        let answer = caller.answer(stream);
        assert_eq!(answer.body, whole, "{piece}");
        let status = ("grpc-status".to_owned(), "8".to_owned());
        assert_eq!(answer.trailers.first(), Some(&status), "{piece}");
        for version in ["--http1.1", "--http2-prior-knowledge"] {
            let page = call(&proxy, &[&BINARY[..], &[version]].concat(), "Unary", &message(1));
            assert_eq!((page.exit, page.status), (0, 200), "{version} {}", page.stderr);
            assert_eq!(page.body, of_page(&whole, "8", said), "{version} {piece}");
            let text = call(&proxy, &[&TEXT[..], &[version]].concat(), "Unary", b"AAAAAAA=");
            assert_eq!((text.exit, text.status), (0, 200), "{version} {}", text.stderr);
        }
        let ended = "code=\"resource_exhausted\"} 5";
        assert!(eventually(|| proxy.metrics().contains(ended)), "{}", proxy.metrics());
    }
}

#[test]
fn a_call_that_ends_without_a_status_did_not_go_well() {
    if grpcio().is_none() {
        return;
    }
    let said = "the backend ended the call without a grpc-status";
    let cases = [(message(3), &[][..]), (message(3), &[("x-late", "1")]), (Vec::new(), &[])];
    for (body, trailers) in cases {
        let origin = answering(body.clone(), 1000, trailers);
        let proxy = Proxy::start(&echo(origin.address(), "[routes.grpc_web]"));
        let failed = client(&proxy, "print(failure(lambda: unary(\"Unary\")(b\"\")))");
        let code = failed.split(':').next().unwrap_or_default();
        assert!(["UNKNOWN", "INTERNAL"].contains(&code), "{failed}");
        for version in ["--http1.1", "--http2-prior-knowledge"] {
            let page = call(&proxy, &[&BINARY[..], &[version]].concat(), "Unary", &message(1));
            assert_eq!((page.exit, page.status), (0, 200), "{}", page.stderr);
            if body.is_empty() {
                assert_eq!(page.headers("grpc-status"), ["2"]);
                assert_eq!(page.headers("grpc-message"), [said]);
            } else if trailers.is_empty() {
                assert_eq!(page.body, of_page(&body, "2", said), "{version}");
            } else {
                let got = String::from_utf8_lossy(&page.body);
                assert!(got.contains("x-late: 1\r\ngrpc-status: 2\r\n"), "{got}");
            }
        }
        assert!(eventually(|| proxy.metrics().contains("code=\"unknown\"} 3")));
    }
}

#[test]
fn a_call_that_is_cut_in_the_middle_of_a_message_is_cut_for_pages() {
    let cut = [message(3), message(9)[..8].to_vec()].concat();
    let origin = answering(cut, 1000, &[("grpc-status", "0")]);
    let proxy = Proxy::start(&echo(origin.address(), "[routes.grpc_web]"));
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let page = call(&proxy, &[&BINARY[..], &[version]].concat(), "Unary", &message(1));
        assert_ne!(page.exit, 0, "{version} {page:?}");
    }
    assert!(eventually(|| proxy.metrics().contains("reason=\"upstream_body_cut\"")));
}

#[test]
fn who_cannot_read_trailers_is_not_served_grpc() {
    let origin = answering(message(3), 1000, &[("grpc-status", "5")]);
    let proxy = Proxy::start(&echo(origin.address(), "[routes.grpc_web]"));
    let grpc = ["-H", "Content-Type: application/grpc"];
    for more in [&["--http1.0"][..], &["--http1.1"], &["--http1.0", "-H", "TE: trailers"]] {
        let refused = call(&proxy, &[&grpc[..], more].concat(), "Unary", &message(1));
        assert_eq!(refused.status, 505, "{more:?}");
        assert!(refused.text().contains("gRPC needs trailers, use HTTP/2"), "{}", refused.text());
    }
    let able = ["--http1.1", "-H", "TE: trailers", "-H", "Connection: TE"];
    let served = call(&proxy, &[&grpc[..], &able].concat(), "Unary", &message(1));
    assert_eq!((served.exit, served.status, served.body), (0, 200, message(3)));
    assert!(served.heads.contains("grpc-status: 5\r\n"), "{}", served.heads);
    let page = call(&proxy, &[&BINARY[..], &["--http1.1"]].concat(), "Unary", &message(1));
    assert_eq!((page.exit, page.status), (0, 200));
    let metrics = proxy.metrics();
    assert!(metrics.contains("{reason=\"grpc_without_trailers\",side=\"client\"} 3"), "{metrics}");
}

// --- time ------------------------------------------------------------------------------------

#[test]
fn a_deadline_that_passes_ends_the_call_at_both_ends() {
    let Some(server) = GrpcServer::start() else { return };
    let proxy = Proxy::start(&echo(server.address, ""));
    let said = client(&proxy, "print(failure(lambda: down(\"Hang\")(b\"\", timeout=1)))");
    assert!(said.starts_with("DEADLINE_EXCEEDED"), "{said}");
    assert!(server.says("cancelled"));
    let left = client(&proxy, "print(unary(\"Left\")(b\"\", timeout=20).decode())");
    let left: f64 = left.parse().unwrap();
    assert!((0.0..20.0).contains(&left), "{left}");
}

/// A message of so many bytes.
fn message(length: u32) -> Vec<u8> {
    let mut message = vec![0];
    message.extend_from_slice(&length.to_be_bytes());
    message.resize(5 + length as usize, b'x');
    message
}

#[test]
fn a_caller_and_an_endpoint_may_take_nothing_for_longer_than_timeouts_write() {
    const PAUSE: Duration = Duration::from_millis(1200);
    let origin = Http2Origin::start(|asker| {
        asker.greet(&[(INITIAL_WINDOW_SIZE, 100)])?;
        let asked = asker.head()?;
        thread::sleep(PAUSE); // what is in the way up stays there
        asker.send(window_update(asked.stream, 10_000))?;
        let block = Block::pseudo(&[(":status", "200")]).field("content-type", "application/grpc");
        asker.send(headers(asked.stream, 0, &block))?;
        asker.send(frame(DATA, 0, asked.stream, message(500)))?;
        let trailers = Block::new().field("grpc-status", "0");
        asker.send(headers(asked.stream, END_STREAM, &trailers))?;
        asker.until(GOAWAY).map(|_| ())
    });
    let proxy =
        Proxy::start(&format!("timeouts.write = \"300ms\"\n{}", echo(origin.address(), "")));
    let window = [(INITIAL_WINDOW_SIZE, 10)];
    let mut caller = Http2Client::connect(proxy.address("edge")).greet(&window);
    let head = Block::request("POST", "/test.Echo/Unary")
        .field("content-type", "application/grpc")
        .field("te", "trailers");
    let stream = caller.begin(&head);
    caller.data(stream, END_STREAM, message(1000));
    thread::sleep(2 * PAUSE);
    caller.send(window_update(stream, 10_000));
    let answer = caller.answer(stream);
    assert_eq!(answer.body.len(), 505, "{answer:?}");
    assert_eq!(answer.trailers, [("grpc-status".to_owned(), "0".to_owned())]);
}

#[test]
fn the_time_limit_of_a_method_is_a_deadline_for_the_server_too() {
    let Some(server) = GrpcServer::start() else { return };
    let methods = "services.\"test.Echo\" = { timeout = \"1s\", \
                   methods = { Left = { timeout = \"7s\" } } }";
    let proxy = Proxy::start(&echo(server.address, methods));
    let said = client(&proxy, "print(failure(lambda: down(\"Hang\")(b\"\")))");
    assert_eq!(said, "DEADLINE_EXCEEDED: the request took longer than its route allows");
    assert!(server.says("cancelled"));
    let left = client(&proxy, "print(unary(\"Left\")(b\"\").decode())");
    let left: f64 = left.parse().unwrap();
    assert!((0.0..7.0).contains(&left), "{left}");
}

/// How long a `grpc-timeout` in nanoseconds or microseconds lasts.
fn told(timeout: &str) -> Duration {
    let (number, unit) = timeout.split_at(timeout.len() - 1);
    let number = number.parse().expect("digits");
    if unit == "n" { Duration::from_nanos(number) } else { Duration::from_micros(number) }
}

#[test]
fn a_deadline_is_told_as_one_however_an_endpoint_ends_its_calls_then() {
    const CANCEL: u32 = 8;
    let origin = Http2Origin::start(|asker| {
        asker.greet(&[])?;
        for number in 0.. {
            let asked = asker.request()?;
            // As one that counts in milliseconds may have it.
            let timeout = told(asked.field("grpc-timeout").expect("a route with a timeout"));
            thread::sleep(timeout.saturating_sub(Duration::from_millis(1)));
            let head =
                Block::pseudo(&[(":status", "200")]).field("content-type", "application/grpc");
            match number % 3 {
                0 => asker.send(reset(asked.stream, CANCEL))?,
                1 => {
                    let only = head.field("grpc-status", "1");
                    asker.send(headers(asked.stream, END_STREAM, &only))?;
                }
                _ => {
                    asker.send(headers(asked.stream, 0, &head))?;
                    let trailers = Block::new().field("grpc-status", "1");
                    asker.send(headers(asked.stream, END_STREAM, &trailers))?;
                }
            }
        }
        Ok(())
    });
    let methods = "services.\"test.Echo\" = { timeout = \"50ms\" }";
    let proxy = Proxy::start(&echo(origin.address(), methods));
    let mut caller = Http2Client::open(proxy.address("edge"));
    let head = Block::request("POST", "/test.Echo/Unary")
        .field("content-type", "application/grpc")
        .field("te", "trailers");
    for number in 0..30 {
        let stream = caller.begin(&head);
        caller.data(stream, END_STREAM, message(1));
        let answer = caller.answer(stream);
        let trailer = answer.trailers.iter().find(|(name, _)| name == "grpc-status");
        let status = trailer.map(|(_, value)| value.as_str()).or(answer.field("grpc-status"));
        assert_eq!(status, Some("4"), "{number} {answer:?}");
    }
}

#[test]
fn a_call_that_its_client_cancels_ends_at_the_server() {
    let Some(server) = GrpcServer::start() else { return };
    let proxy = Proxy::start(&echo(server.address, ""));
    let said = client(
        &proxy,
        "call = down(\"Hang\")(b\"\")\nprint(next(call))\ncall.cancel()\nprint(call.code().name)\n\
         print(unary(\"Unary\")(b\"next\"))",
    );
    assert_eq!(said, "b'here'\nCANCELLED\nb'next'");
    assert!(server.says("cancelled"));
}

// --- where calls go --------------------------------------------------------------------------

#[test]
fn services_and_methods_go_to_clusters_of_their_own() {
    let Some(server) = GrpcServer::start() else { return };
    let proxy = Proxy::start(&edge(&format!(
        "[[routes]]\nname = \"api\"\ncluster = \"nobody\"\n\
         [routes.grpc.services.\"test.Echo\"]\ncluster = \"calls\"\n\
         methods = {{ Meta = {{ cluster = \"nobody\" }} }}\n\
         [routes.grpc.services.\"test.Other\"]\n\
         [clusters.calls]\nprotocol = \"h2c\"\nendpoints = [{{ address = \"{}\" }}]\n\
         [clusters.nobody]\nprotocol = \"h2c\"\nendpoints = [{{ address = \"{}\" }}]\n",
        server.address,
        nobody()
    )));
    let said = client(
        &proxy,
        r#"
print(unary("Unary")(b"hello").decode())
print(failure(lambda: unary("Meta")(b"")).split(":")[0])
print(failure(lambda: channel.unary_unary("/test.Other/Unary")(b"")).split(":")[0])
print(failure(lambda: channel.unary_unary("/test.Third/Unary")(b"")).split(":")[0])
"#,
    );
    assert_eq!(said, "hello\nUNAVAILABLE\nUNAVAILABLE\nUNIMPLEMENTED");
    let metrics = proxy.metrics();
    for line in [
        "service=\"test.Echo\",method=\"other\",code=\"ok\"} 1",
        "service=\"test.Echo\",method=\"Meta\",code=\"unavailable\"} 1",
        "service=\"test.Other\",method=\"other\",code=\"unavailable\"} 1",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    assert!(!metrics.contains("Third"), "no label comes from a request");
}

#[test]
fn messages_are_counted_by_method_and_direction() {
    let Some(server) = GrpcServer::start() else { return };
    let methods = "services.\"test.Echo\" = { methods = { Echo = {}, Repeat = {} } }";
    let proxy = Proxy::start(&echo(server.address, methods));
    client(
        &proxy,
        r#"
list(both("Echo")(iter([b"a"] * 5)))
list(both("Echo")(iter([b"a" * 5000] * 3), compression=grpc.Compression.Gzip))
list(down("Repeat")(b"7"))
"#,
    );
    let counted = |line: &str| eventually(|| proxy.metrics().contains(line));
    let of = |direction: &str, method: &str, compressed: bool, count: u64| {
        format!(
            "tls_proxy_grpc_messages_{direction}_total{{route=\"api\",service=\"test.Echo\",\
             method=\"{method}\",compressed=\"{compressed}\"}} {count}\n"
        )
    };
    assert!(counted(&of("received", "Echo", false, 5)));
    assert!(counted(&of("received", "Echo", true, 3)));
    assert!(counted(&of("sent", "Echo", false, 8)));
    assert!(counted(&of("received", "Repeat", false, 1)));
    assert!(counted(&of("sent", "Repeat", false, 7)));
}

#[test]
fn the_access_log_says_how_calls_ended() {
    let Some(server) = GrpcServer::start() else { return };
    let proxy = Proxy::start(&format!(
        "logging.access = {{ path = \"access.log\" }}\n{}",
        echo(server.address, "")
    ));
    client(&proxy, "unary(\"Unary\")(b\"\")\nfailure(lambda: unary(\"Fail\")(b\"NOT_FOUND x\"))");
    let log = || fs::read_to_string(proxy.directory().join("access.log")).unwrap_or_default();
    assert!(eventually(|| log().contains("\"status\":200,\"grpc_status\":0,")));
    assert!(eventually(|| log().contains("\"status\":200,\"grpc_status\":5,")));
}

#[test]
fn a_call_that_a_server_refuses_is_tried_again_by_its_status() {
    let Some(server) = GrpcServer::start() else { return };
    let grpc = "retry_on = [\"unavailable\"]\nmax_attempts = 3";
    let proxy = Proxy::start(&echo(server.address, grpc));
    let said = client(
        &proxy,
        r#"
print(unary("Refuse")(b"\x02twice").decode())
print(failure(lambda: unary("Refuse")(b"\x09always")))
print(failure(lambda: unary("Fail")(b"ABORTED once")))
"#,
    );
    assert_eq!(said, "3\nUNAVAILABLE: not now\nABORTED: once");
    assert!(proxy.metrics().contains("reason=\"grpc_status\"} 4"), "2 and 2 more tries");
}

#[test]
fn who_speaks_no_grpc_has_no_business_on_its_route() {
    let Some(server) = GrpcServer::start() else { return };
    let proxy = Proxy::start(&echo(server.address, ""));
    assert_eq!(Curl::get(&proxy.url("/test.Echo/Unary"), &[]).status, 415);
    assert_eq!(client(&proxy, "print(unary(\"Unary\")(b\"hi\").decode())"), "hi");
}

// --- health ----------------------------------------------------------------------------------

const HEALTH: &str = r#"
from grpc_health.v1 import health_pb2, health_pb2_grpc
health = health_pb2_grpc.HealthStub(channel)
name = health_pb2.HealthCheckResponse.ServingStatus.Name
check = lambda service: name(health.Check(health_pb2.HealthCheckRequest(service=service)).status)
watch = lambda service: health.Watch(health_pb2.HealthCheckRequest(service=service))
"#;

#[test]
fn the_health_of_the_proxy_is_its_own_answer() {
    let Some(server) = GrpcServer::start() else { return };
    let services = "services.\"test.Echo\" = {}";
    let proxy = Proxy::start(&format!("health.grpc = true\n{}", echo(server.address, services)));
    let said = client(
        &proxy,
        &format!(
            "{HEALTH}\nprint(check(\"\"), check(\"test.Echo\"))\n\
             print(failure(lambda: check(\"no.Such\")))\n\
             print(name(next(watch(\"no.Such\")).status), name(next(watch(\"\")).status))"
        ),
    );
    let expected = "SERVING SERVING\nNOT_FOUND: no route names this service\n\
                    SERVICE_UNKNOWN SERVING";
    assert_eq!(said, expected);
    let other = Proxy::start(&echo(server.address, ""));
    let said = client(&other, &format!("{HEALTH}\nprint(check(\"test.Echo\"))"));
    assert_eq!(said, "NOT_SERVING", "where it is off, it is a service like all others");
}

/// What a client is told first of a service, and by the two changes behind that. It hangs at the
/// server from the first to the second.
fn watch_three_times(
    proxy: &Proxy,
    server: &ScriptServer,
    service: &'static str,
) -> thread::JoinHandle<String> {
    let address = proxy.address("edge");
    let watching = thread::spawn(move || {
        let script = "print(name(next(call).status))\n\
                      seen = down(\"Hang\")(b\"\")\nprint(name(next(call).status))\n\
                      seen.cancel()\nprint(name(next(call).status))\ncall.cancel()";
        grpc_client(address, &format!("{HEALTH}\ncall = watch(\"{service}\")\n{script}"))
    });
    assert!(server.says("hangs"), "it has heard how things stand");
    watching
}

#[test]
fn a_service_whose_endpoints_are_all_out_of_service_is_not_serving() {
    let Some(server) = GrpcServer::start() else { return };
    let endpoint = server.address;
    let toml = format!(
        "health.grpc = true\n{}\
         [clusters.others]\nprotocol = \"h2c\"\nendpoints = [{{ address = \"{}\" }}]\n",
        echo(
            endpoint,
            "services.\"test.Echo\" = {}\nservices.\"test.Other\" = { cluster = \"others\" }"
        ),
        nobody()
    );
    let proxy = Proxy::start(&toml);
    let watching = watch_three_times(&proxy, &server, "test.Echo");
    let say = |what: &str| {
        let path = format!("/admin/clusters/calls/endpoints/{endpoint}/{what}");
        let mut operator = proxy.client_of("admin");
        operator
            .send(format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"));
        assert_eq!(operator.read_response().status, 200);
    };
    say("drain");
    assert!(server.says("cancelled"), "it has heard of the change");
    let checks = "print(check(\"test.Echo\"), check(\"test.Other\"), check(\"\"))";
    let said = client(&proxy, &format!("{HEALTH}\n{checks}"));
    assert_eq!(said, "NOT_SERVING SERVING SERVING");
    say("ready");
    assert_eq!(watching.join().unwrap(), "SERVING\nNOT_SERVING\nSERVING");
}

#[test]
fn who_watches_hears_of_a_drain() {
    let Some(server) = GrpcServer::start() else { return };
    let proxy = Proxy::start(&format!("health.grpc = true\n{}", echo(server.address, "")));
    let watching = std::thread::spawn({
        let address = proxy.address("edge");
        move || {
            let script = "call = watch(\"\")\nprint(name(next(call).status))\n\
                          seen = down(\"Hang\")(b\"\")\n\
                          print(name(next(call).status))\nprint(failure(lambda: call))\n\
                          seen.cancel()";
            grpc_client(address, &format!("{HEALTH}\n{script}"))
        }
    });
    assert!(server.says("hangs"), "it has heard how things stand");
    signal(proxy.pid(), "TERM");
    let said = watching.join().unwrap();
    let expected = "SERVING\nNOT_SERVING\nUNAVAILABLE: this proxy is shutting down, try again on a \
                    new connection";
    assert_eq!(said, expected);
}

#[test]
fn who_watches_hears_of_services_that_a_reload_brings_and_takes() {
    let Some(server) = GrpcServer::start() else { return };
    let with = |services| format!("health.grpc = true\n{}", echo(server.address, services));
    let proxy = Proxy::start(&with(""));
    let watching = watch_three_times(&proxy, &server, "test.Other");
    let reload = |services| {
        proxy.rewrite_config(&with(services));
        proxy.signal("HUP");
    };
    reload("services.\"test.Other\" = {}");
    assert!(server.says("cancelled"), "it has heard of the change");
    reload("");
    assert_eq!(watching.join().unwrap(), "SERVICE_UNKNOWN\nSERVING\nSERVICE_UNKNOWN");
}

// --- gRPC-Web --------------------------------------------------------------------------------

/// The same with pages of one origin.
fn web(server: SocketAddr) -> String {
    echo(server, "[routes.grpc_web]\norigins = [\"https://app.test\"]\n")
}

#[test]
fn the_client_of_the_grpc_project_for_pages_calls_in_both_forms() {
    let Some(modules) = env::var_os("GRPC_WEB").map(PathBuf::from) else {
        eprintln!("SKIPPED: no GRPC_WEB in the environment; scripts/test sets it where npm is");
        return;
    };
    let Some(server) = GrpcServer::start() else { return };
    let proxy = Proxy::start(&web(server.address));
    let output = Command::new(support::program("node"))
        .current_dir(modules)
        .args(["-e", include_str!("support/grpc_web.js"), &proxy.url("")])
        .output()
        .expect("node starts");
    let of = |form: &str| {
        format!(
            "{form} hello w\u{f6}rld\n{form} 300000\n{form} 5 no such w\u{f6}rd\n\
             {form} [[\"x-own\",\"mine\"]]\n"
        )
    };
    let streams = "0 1 2 3 4 status 0\none error 15 lost the rest\n";
    let expected = of("text") + &of("binary") + streams;
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{errors}");
}

#[test]
fn a_page_asks_whether_it_may_call_before_it_does() {
    let proxy = Proxy::start(&web(nobody()));
    let url = proxy.url("/test.Echo/Unary");
    let ask = |origin: &str| {
        let origin = format!("Origin: {origin}");
        let asked = ["-X", "OPTIONS", "-H", &origin, "-H", "Access-Control-Request-Method: POST"];
        let headers = ["-H", "Access-Control-Request-Headers: content-type,x-grpc-web"];
        Curl::get(&url, &[asked.as_slice(), &headers].concat())
    };
    let known = ask("https://app.test");
    assert_eq!(known.status, 204);
    assert_eq!(known.headers("access-control-allow-origin"), ["https://app.test"]);
    assert_eq!(known.headers("access-control-allow-headers"), ["content-type,x-grpc-web"]);
    assert_eq!(known.headers("access-control-allow-methods"), ["POST"]);
    let unknown = ask("https://evil.test");
    assert_eq!(unknown.status, 403);
    assert!(unknown.headers("access-control-allow-origin").is_empty());
    // A call that fails here is told as gRPC-Web, and the page may read it.
    let page = ["-H", "Origin: https://app.test", "-H", "Content-Type: application/grpc-web+proto"];
    let failed = Curl::get(&url, &[page.as_slice(), &["-d", ""]].concat());
    assert_eq!((failed.status, failed.headers("grpc-status")), (200, vec!["14"]));
    assert_eq!(failed.headers("access-control-allow-origin"), ["https://app.test"]);
    assert_eq!(failed.headers("content-type"), ["application/grpc-web+proto"]);
}

/// Calls as curl would: the bytes that a browser sends, and those that it gets.
fn call(proxy: &Proxy, more: &[&str], method: &str, body: &[u8]) -> Curl {
    let directory = TempDir::new();
    let file = format!("@{}", directory.write("body", body).display());
    let arguments = [more, &["--data-binary", &file]].concat();
    Curl::get(&proxy.url(&format!("/test.Echo/{method}")), &arguments)
}

const BINARY: [&str; 2] = ["-H", "Content-Type: application/grpc-web+proto"];
const TEXT: [&str; 2] = ["-H", "Content-Type: application/grpc-web-text"];

#[test]
fn both_forms_are_spoken_over_both_versions_of_http() {
    let Some(server) = GrpcServer::start() else { return };
    let proxy = Proxy::start(&web(server.address));
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let binary = call(&proxy, &[&BINARY[..], &[version]].concat(), "Repeat", b"\0\0\0\0\x012");
        assert_eq!(binary.headers("content-type"), ["application/grpc-web"]);
        let messages = b"\0\0\0\0\x010\0\0\0\0\x011\x80\0\0\0";
        assert!(binary.body.starts_with(messages), "{:?}", binary.body);
        let trailers = String::from_utf8_lossy(&binary.body[messages.len() + 1..]);
        assert!(trailers.contains("grpc-status: 0\r\n"), "{trailers}");
        // Padded in the middle, as one may.
        let text = call(&proxy, &[&TEXT[..], &[version]].concat(), "Unary", b"AAAAAAI=aGk=");
        assert_eq!(text.headers("content-type"), ["application/grpc-web-text"]);
        assert!(text.text().starts_with("AAAAAAJoaQ==gAAAA"), "{}", text.text());
        assert_eq!((text.status, binary.status), (200, 200));
    }
}

#[test]
fn what_no_client_library_sends_is_refused_and_the_next_call_goes_through() {
    let Some(server) = GrpcServer::start() else { return };
    let proxy = Proxy::start(&web(server.address));
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        for body in ["AAAAA*==", "AAAA=", "A", "AAAAAAI=aGk"] {
            let odd = call(&proxy, &[&TEXT[..], &[version]].concat(), "Unary", body.as_bytes());
            assert_eq!((odd.status, odd.headers("grpc-status")), (200, vec!["13"]), "{body}");
        }
        // Cut in the middle of a message, or with a length that nothing follows: the server's to
        // refuse, and nobody waits for ever.
        for cut in [&b"\0\0\0"[..], b"\0\0\0\0\x09abc", b"\0\xff\xff\xff\xff"] {
            let cut = call(&proxy, &[&BINARY[..], &[version]].concat(), "Unary", cut);
            assert_eq!((cut.exit, cut.status), (0, 200), "{}", cut.stderr);
        }
        let good = call(&proxy, &[&TEXT[..], &[version]].concat(), "Unary", b"AAAAAAJoaQ==");
        assert!(good.text().starts_with("AAAAAAJoaQ==gAAAA"), "{}", good.text());
    }
    // Refused by their heads: over HTTP/2, curl fails where that overtakes its body.
    for timeout in ["5s", "123456789S", "-1S", "S", "5"] {
        let timeout = format!("grpc-timeout: {timeout}");
        let odd = call(&proxy, &[&BINARY[..], &["-H", &timeout]].concat(), "Unary", b"\0\0\0\0\0");
        let got = (odd.status, odd.headers("grpc-status"));
        assert_eq!(got, (200, vec!["13"]), "{timeout} {}", odd.stderr);
    }
    assert_eq!(client(&proxy, "print(unary(\"Unary\")(b\"hi\").decode())"), "hi");
}

/// Calls both ports that its fragment names, and shows what comes of it.
const PAGE: &str = r#"<body><script>
for (const port of location.hash.slice(1).split(',')) {
  const call = new XMLHttpRequest();
  call.open('POST', 'http://127.0.0.1:' + port + '/test.Echo/Unary', false);
  call.setRequestHeader('content-type', 'application/grpc-web-text');
  call.setRequestHeader('x-grpc-web', '1');
  let said;
  try { call.send('AAAAAAJoaQ=='); said = call.responseText; } catch (error) { said = error.name; }
  document.write('<p>' + said + '</p>');
}
</script>"#;

#[test]
fn a_page_in_a_browser_calls_where_its_origin_is_known_and_nowhere_else() {
    if !is_installed("chromium", "chromium") {
        return;
    }
    let Some(server) = GrpcServer::start() else { return };
    let pages = Proxy::start(&edge(&format!(
        "[[routes]]\nname = \"page\"\n\
         respond = {{ content_type = \"text/html\", body = '''{PAGE}''' }}\n"
    )));
    let origin = format!("http://{}", pages.address("edge"));
    let known = format!("[routes.grpc_web]\norigins = [\"{origin}\"]\n");
    let (knows, knows_not) =
        (Proxy::start(&echo(server.address, &known)), Proxy::start(&web(server.address)));
    let directory = TempDir::new();
    let ports = format!("{},{}", knows.port("edge"), knows_not.port("edge"));
    let output = Command::new(program("chromium"))
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
        .args(["--no-first-run", "--disable-background-networking", "--disable-component-update"])
        .arg(format!("--user-data-dir={}", directory.path().display()))
        .args(["--dump-dom", &format!("{origin}/#{ports}")])
        .env("HOME", directory.path())
        .output()
        .expect("chromium starts");
    let seen = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(seen.contains("<p>AAAAAAJoaQ==gAAAA"), "{seen}\n{errors}");
    assert!(seen.contains("<p>NetworkError</p>"), "{seen}\n{errors}");
}
