//! The fuzz corpus, replayed: each file of `tests/fuzz/corpus/<parser>/`, and what cheap mutations
//! make of it. A crash that a fuzzer finds becomes a file there.

use std::fs;
use std::path::Path;

#[test]
fn proxy_headers_hold_their_invariants() {
    replay("proxy_protocol", corelane::listener::proxy_protocol::fuzz);
}

#[test]
fn client_hellos_hold_their_invariants() {
    replay("client_hello", corelane::tls::client_hello::fuzz);
}

#[test]
fn frames_of_http2_hold_their_invariants() {
    replay("http2_frames", corelane::http2::frames::fuzz);
    replay("http2_frames", corelane::http2::abuse::fuzz);
    replay("http2_frames", corelane::http2::priority::fuzz);
}

#[test]
fn heads_hold_their_invariants() {
    replay("heads", corelane::http1::parse::fuzz);
}

#[test]
fn encoded_heads_hold_their_invariants() {
    replay("encode", corelane::http1::encode::fuzz);
    replay("heads", corelane::http1::encode::fuzz);
}

#[test]
fn bodies_hold_their_invariants() {
    replay("body", corelane::http1::body::fuzz);
}

#[test]
fn routing_holds_its_invariants() {
    replay("routing", corelane::routing::fuzz);
}

#[test]
fn grpc_holds_its_invariants() {
    replay("grpc", corelane::grpc::fuzz);
}

#[test]
fn answers_of_name_servers_hold_their_invariants() {
    replay("dns", corelane::discovery::dns_message::fuzz);
}

#[test]
fn client_addresses_hold_their_invariants() {
    replay("client_address", corelane::exchange::client_address::fuzz);
}

#[test]
fn trace_headers_hold_their_invariants() {
    replay("trace", corelane::telemetry::trace::fuzz);
}

#[test]
fn frames_of_websockets_hold_their_invariants() {
    replay("websocket", corelane::exchange::tunnel::websocket::fuzz);
}

#[test]
fn configurations_hold_their_invariants() {
    replay("configuration", corelane::config::fuzz);
}

#[test]
fn configurations_in_yaml_hold_their_invariants() {
    replay("configuration_yaml", corelane::config::fuzz_yaml);
}

#[test]
fn configurations_in_json_hold_their_invariants() {
    replay("configuration_json", corelane::config::fuzz_json);
}

/// Bytes that matter to a parser of text.
const INTERESTING: &[u8] = b"\r\n :\t\0;,#?_-0a%[]*/\x7f\xff\"'{}&!|>\\";

fn replay(parser: &str, fuzz: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(parser);
    let mut seeds = 0;
    for entry in fs::read_dir(&corpus).expect("the corpus is part of the repository") {
        let path = entry.expect("a readable folder").path();
        let bytes = fs::read(&path).expect("a readable file");
        seeds += 1;
        fuzz(&bytes);
        // Deterministic: one interesting byte at each place, another on the next seed.
        for at in 0..bytes.len().min(200) {
            let byte = INTERESTING[(at * 7 + seeds * 3) % INTERESTING.len()];
            let mut mutated = bytes.clone();
            mutated[at] = byte;
            fuzz(&mutated);
            mutated[at] = bytes[at];
            mutated.insert(at, byte);
            fuzz(&mutated);
            mutated.remove(at);
            mutated.remove(at);
            fuzz(&mutated);
        }
    }
    assert!(seeds >= 10, "{}: {seeds} seeds", corpus.display());
}
