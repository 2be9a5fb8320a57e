//! No request on a kept connection allocates: the data core's memory is set up while a connection
//! is new, and used again. The library runs in this process, under an allocator that counts what
//! the threads named `core-…` ask for, and remembers where.
#![expect(unsafe_code, reason = "a global allocator")]

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::SystemTime;

use support::{Origin, PATIENCE, Pki, RawClient, Respond, SecureClient};

/// What housekeeping, five times a second, may take in all: it does not grow with the requests.
const HOUSEKEEPING: usize = 64;
/// How many places are remembered for the message of a failure.
const PLACES: usize = 6;

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static ON: AtomicBool = AtomicBool::new(false);
static COUNT: AtomicUsize = AtomicUsize::new(0);
static FOUND: Mutex<Vec<String>> = Mutex::new(Vec::new());

thread_local! {
    /// This thread is noting down an allocation: that allocates too.
    static NOTING: Cell<bool> = const { Cell::new(false) };
}

// SAFETY: everything is the system allocator's; counting touches none of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note();
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note();
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note();
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

fn note() {
    if !ON.load(Ordering::Relaxed) || NOTING.get() || !is_data_core() {
        return;
    }
    let before = COUNT.fetch_add(1, Ordering::Relaxed);
    if before % 97 < PLACES {
        NOTING.set(true);
        if let Ok(mut found) = FOUND.lock()
            && found.len() < PLACES
        {
            found.push(place());
        }
        NOTING.set(false);
    }
}

/// The functions of ours on the stack.
fn place() -> String {
    let trace = Backtrace::force_capture().to_string();
    let ours = trace.lines().filter(|line| line.contains("at ./src/"));
    ours.map(str::trim).take(8).collect::<Vec<_>>().join("\n    ")
}

/// By the name that the kernel has of this thread: asking for it allocates nothing.
fn is_data_core() -> bool {
    let mut name = [0_u8; 16];
    // SAFETY: the kernel writes at most 16 bytes.
    unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
    name.starts_with(b"core-")
}

/// Hears where the proxy listens.
struct Listening(Mutex<Sender<SocketAddr>>);

impl log::Log for Listening {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let line = record.args().to_string();
        let address = line.strip_prefix("listening on ").and_then(|rest| rest.split(' ').next());
        if let Some(address) = address.and_then(|address| address.parse().ok()) {
            let _ = self.0.lock().expect("one thread says it").send(address);
        }
    }

    fn flush(&self) {}
}

/// The library, in this process, until it ends: the addresses of its listeners.
fn start<const N: usize>(toml: &str) -> [SocketAddr; N] {
    let (sender, addresses) = mpsc::channel();
    let logger = Box::leak(Box::new(Listening(Mutex::new(sender))));
    log::set_logger(logger).expect("the only logger of this process");
    log::set_max_level(log::LevelFilter::Info);
    let mut document = corelane::config::load("test.toml", toml).unwrap_or_else(|e| panic!("{e}"));
    document.find_certificates(SystemTime::now()).unwrap_or_else(|e| panic!("{e}"));
    let plan = corelane::config::compile(&document, 1, 1).unwrap_or_else(|e| panic!("{e}"));
    let source = corelane::cli::Run::default().source().expect("the built-in one");
    let begun = corelane::provider::Beginning::of(document);
    thread::spawn(move || corelane::control::run(plan, source, &begun).expect("it runs"));
    [(); N].map(|()| addresses.recv_timeout(PATIENCE).expect("it says where it listens"))
}

/// Complains when `times` requests allocate anything at all.
fn count(times: usize, name: &str, exchange: impl FnMut()) -> Vec<String> {
    let counted = allocations(times, exchange);
    if counted <= HOUSEKEEPING {
        return Vec::new();
    }
    let places = FOUND.lock().expect("nobody panics with it").join("\n  - ");
    vec![format!("{name}: {counted} allocations in {times} requests, some of them:\n  - {places}")]
}

/// Sends a request often enough to warm up, then `times` times while counting.
fn allocations(times: usize, mut exchange: impl FnMut()) -> usize {
    (0..times.min(1000)).for_each(|_| exchange());
    FOUND.lock().expect("nobody panics with it").clear();
    COUNT.store(0, Ordering::SeqCst);
    ON.store(true, Ordering::SeqCst);
    (0..times).for_each(|_| exchange());
    ON.store(false, Ordering::SeqCst);
    COUNT.load(Ordering::SeqCst)
}

/// Sends `request` on one connection, as often as it is called.
fn plain(address: SocketAddr, request: &str) -> impl FnMut() {
    let mut client = RawClient::connect(address);
    move || {
        client.send(request);
        assert_eq!(client.read_response().status, 200);
    }
}

/// The same under TLS, of a client that shows a certificate.
fn secure(address: SocketAddr, pki: &Pki, request: &str) -> impl FnMut() {
    let config = SecureClient::config_with(&pki.path("ca.pem"), &pki.path("client.pem"));
    let mut client = SecureClient::connect_with(address, "www.example.com", Arc::new(config));
    move || {
        client.send(request);
        assert_eq!(client.read_response().status, 200);
    }
}

/// Everything to `origin`; but for small ones, its requests are traced where they say so.
fn proxying(origin: &Origin, pki: &Pki) -> String {
    let [cert, key, ca] = ["www.pem", "www.key", "ca.pem"].map(|name| pki.path(name));
    format!(
        "cores = 1\nmetrics = {{ enabled = false }}\nadmin = {{ enabled = false }}\n\
         [[listeners]]\nname = \"edge\"\nbind = \"127.0.0.1:0\"\n\n\
         [[listeners]]\nname = \"secure\"\nbind = \"127.0.0.1:0\"\n\
         [listeners.tls]\ncertificates = [{{ cert = {cert:?}, key = {key:?} }}]\n\
         client_auth = {{ mode = \"required\", ca = [{ca:?}], \
         headers = {{ X-CN = \"common_name\" }} }}\n\n\
         [logging.access]\npath = \"/dev/null\"\nrequest_headers = [\"cookie\"]\n\
         response_headers = [\"content-type\"]\n\n\
         [tracing]\nenabled = true\nsample = 0.0\n\
         propagate = [\"w3c\", \"b3\", \"b3multi\", \"jaeger\"]\n\
         otlp.endpoint = \"{}\"\n\n\
         [[routes]]\nname = \"untraced\"\npaths = [\"/small\"]\ncluster = \"origin\"\n\
         tracing = false\n\n\
         [[routes]]\nname = \"own\"\npaths = [\"/own\"]\n\
         respond = {{ status = 200, body = \"hi\" }}\n\n\
         [[routes]]\nname = \"all\"\npaths = [\"/*\"]\ncluster = \"origin\"\n\
         timeout = \"20s\"\n\
         request_headers = {{ set = {{ \"x-a\" = \"1\" }}, remove = [\"x-b\"] }}\n\n\
         [clusters.origin]\nendpoints = [{{ address = \"{}\" }}]\n",
        origin.url("/v1/traces"),
        origin.address()
    )
}

fn origin() -> Origin {
    Origin::start()
        .on("GET /small", Respond::text("hello"))
        .on("GET /large", Respond::bytes(vec![b'x'; 200_000]))
        .on("GET /chunked", Respond::bytes(vec![b'x'; 10_000]).chunked(1000))
        .on("GET /traced", Respond::text("hello"))
        .on("POST /v1/traces", Respond::text(""))
        .on("POST /upload", Respond::text("thanks"))
}

#[test]
fn a_request_on_a_kept_connection_allocates_nothing() {
    let origin = origin();
    let pki = Pki::new();
    pki.authority("ca");
    pki.sign("ca", "www", "/CN=www", "DNS:www.example.com");
    pki.sign("ca", "client", "/CN=client", "URI:spiffe://corp.example/client");
    let [address, secured] = start(&proxying(&origin, &pki));
    let get = |path: &str| {
        format!(
            "GET {path} HTTP/1.1\r\nHost: test\r\nUser-Agent: a client\r\nAccept: */*\r\n\
             Referer: http://from/?a=b&token=c\r\n\
             X-B: 2\r\nCookie: a=b; c=d\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n"
        )
    };
    let traced = get("/traced").replace(
        "\r\n\r\n",
        "\r\ntraceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n\r\n",
    );
    let post = format!(
        "POST /upload HTTP/1.1\r\nHost: test\r\nContent-Length: 1000\r\n\r\n{}",
        "y".repeat(1000)
    );
    let chunked = "POST /upload HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n\
                   5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n";
    let chunked_large = format!(
        "POST /upload HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n",
        format!("2000\r\n{}\r\n", "y".repeat(0x2000)).repeat(20)
    );
    let large = format!(
        "POST /upload HTTP/1.1\r\nHost: test\r\nContent-Length: 300000\r\n\r\n{}",
        "y".repeat(300_000)
    );
    let under_tls = [
        (get("/small"), 2_000, "a small GET under TLS"),
        (get("/chunked"), 1_000, "a chunked response under TLS"),
        (get("/large"), 300, "a response of many reads under TLS"),
        (post.clone(), 1_000, "a request with a body under TLS"),
    ];
    let under_tls: Vec<String> = under_tls
        .into_iter()
        .flat_map(|(request, times, name)| count(times, name, secure(secured, &pki, &request)))
        .collect();
    assert!(under_tls.is_empty(), "{}", under_tls.join("\n"));
    let complaints: Vec<String> = [
        (get("/small"), 10_000, "a small GET"),
        (get("/traced"), 2_000, "a traced one that is not recorded"),
        (traced, 2_000, "one that is recorded"),
        (get("/own"), 1_000, "a response of our own"),
        (get("/chunked"), 1_000, "a chunked response"),
        (get("/large"), 300, "a response of many reads"),
        (post, 1_000, "a request with a body"),
        (chunked.to_owned(), 1_000, "a chunked request"),
    ]
    .into_iter()
    .flat_map(|(request, times, name)| count(times, name, plain(address, &request)))
    .collect();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));

    // Upload and download at the same time live in two boxes and a chunk's framing in two more,
    // made once per such request: all others stay small for it. Not one more, however many reads.
    let uploads = [(large, "a request of many reads"), (chunked_large, "a chunked one")];
    for (request, name) in uploads {
        let counted = allocations(300, plain(address, &request));
        assert!(counted <= 4 * 300 + HOUSEKEEPING, "{name}");
    }
}
