//! A future may be dropped at any await. A small proxy is cancelled after its first poll, its
//! second, and so on until it completes, while other connections are busy; the debug build poisons
//! returned buffers and checks them when they are lent again, so a late write would panic a task.
#![expect(clippy::unwrap_used, reason = "a test: every refusal is a failure")]

use std::cell::Cell;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::pin::pin;
use std::rc::Rc;
use std::sync::mpsc;
use std::task::Poll;
use std::thread;
use std::time::Duration;

use corelane::engine::{self, Doorbell, Listener, Placement, Side, Socket};

const PATIENCE: Duration = Duration::from_secs(60);
const BODY: usize = 300_000;
/// Connections that are busy while others are cancelled.
const LOAD: usize = 6;

/// What `future` returns, unless it needs more polls than these: then it is dropped.
async fn cancelled_after<T>(polls: usize, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut left = polls;
    std::future::poll_fn(move |context| {
        if let Poll::Ready(value) = future.as_mut().poll(context) {
            return Poll::Ready(Some(value));
        }
        left -= 1;
        if left == 0 { Poll::Ready(None) } else { Poll::Pending }
    })
    .await
}

/// One request of four bytes, one answer of `BODY`, over an upstream connection of its own.
async fn proxy(client: &Socket, upstream: SocketAddr) -> io::Result<()> {
    client.set_deadline(Side::Read, Some(PATIENCE));
    client.ready(Side::Read).await?;
    let mut buffer = engine::buffer();
    let mut have = 0;
    while have < 4 {
        have += some(client.recv(&mut buffer[have..4]).await?)?;
    }
    let upstream = Socket::connect(upstream, PATIENCE).await?;
    engine::sleep(Duration::from_millis(1)).await;
    send(&upstream, &buffer[..4]).await?;
    drop(buffer);
    let mut left = BODY;
    while left > 0 {
        upstream.set_deadline(Side::Read, Some(PATIENCE));
        upstream.ready(Side::Read).await?;
        let mut buffer = engine::buffer();
        let count = some(upstream.recv(&mut buffer[..7000]).await?)?;
        send(client, &buffer[..count]).await?;
        left -= count;
        engine::yield_now().await;
    }
    Ok(())
}

/// Answers requests of four bytes with a body whose every byte is the last one of the request.
async fn origin(socket: Socket) -> io::Result<()> {
    loop {
        let mut request = [0; 4];
        let mut have = 0;
        while have < 4 {
            have += some(socket.recv(&mut request[have..]).await?)?;
        }
        let mut left = BODY;
        while left > 0 {
            let mut buffer = engine::buffer();
            let count = left.min(50_000);
            buffer[..count].fill(request[3]);
            send(&socket, &buffer[..count]).await?;
            left -= count;
        }
    }
}

async fn send(socket: &Socket, bytes: &[u8]) -> io::Result<()> {
    socket.send(&[bytes, b"", b""], PATIENCE).await.map_err(|error| error.cause)
}

fn some(count: usize) -> io::Result<usize> {
    if count == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(count) }
}

fn listener() -> (Listener, SocketAddr) {
    let socket = engine::listen((Ipv4Addr::LOCALHOST, 0).into(), 1024).unwrap();
    let address = socket.local_addr().unwrap();
    (Listener::adopt(socket), address)
}

/// A client on its own thread: asks, and checks every byte that comes. Says whether all came.
fn ask(proxy: SocketAddr, number: u8) -> bool {
    let mut stream = TcpStream::connect(proxy).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // Two segments, so that the head itself is waited for.
    let sent = stream.write_all(b"GE").is_ok() && {
        thread::sleep(Duration::from_micros(300));
        stream.write_all(&[b'T', number]).is_ok()
    };
    let mut answer = vec![0; BODY];
    let mut have = 0;
    while sent && have < BODY {
        match stream.read(&mut answer[have..]) {
            Ok(0) | Err(_) => break,
            Ok(count) => have += count,
        }
    }
    assert!(answer[..have].iter().all(|&byte| byte == number), "bytes of another exchange");
    have == BODY
}

/// Serves each connection with `proxy`, cancelled after as many polls as `polls` says.
async fn serve(mut listener: Listener, upstream: SocketAddr, polls: impl Fn() -> usize + 'static) {
    loop {
        let client = listener.accept().await.unwrap();
        let polls = polls();
        engine::spawn(async move {
            let _ = cancelled_after(polls, proxy(&client, upstream)).await;
        });
    }
}

/// The core: an origin, a proxy that is cancelled and one that is not, until the test is over.
fn core(addresses: mpsc::Sender<[SocketAddr; 2]>, over: mpsc::Receiver<()>) {
    let bell = Doorbell::new().unwrap();
    let run = engine::run(Placement::Anywhere, bell, move || async move {
        let (mut origins, upstream) = listener();
        let (fragile, fragile_address) = listener();
        let (whole, whole_address) = listener();
        let next = Cell::new(0);
        engine::spawn(serve(fragile, upstream, move || {
            next.set(next.get() + 1);
            next.get()
        }));
        engine::spawn(serve(whole, upstream, || usize::MAX));
        engine::spawn(async move {
            loop {
                let socket = origins.accept().await.unwrap();
                engine::spawn(async move { drop(origin(socket).await) });
            }
        });
        addresses.send([fragile_address, whole_address]).unwrap();
        while over.try_recv().is_err() {
            engine::sleep(Duration::from_millis(5)).await;
        }
        // Those that end last take a few turns.
        for _ in 0..PATIENCE.as_millis() / 5 {
            if engine::core_state().descriptors <= 3 {
                break;
            }
            engine::sleep(Duration::from_millis(5)).await;
        }
        engine::sleep(Duration::from_millis(50)).await;
        // Whatever waited in quarantine is lent, and so looked at, once more.
        drop((0..400).map(|_| engine::buffer()).collect::<Vec<_>>());
        let state = engine::core_state();
        assert_eq!(state.panics, 0, "a task panicked, by a poisoned buffer or otherwise");
        assert_eq!(state.buffers, 0, "buffers of cancelled tasks came back");
        assert_eq!(state.descriptors, 3, "and their sockets are closed: the listeners are left");
        assert_eq!(state.timers, 0, "and their timers are gone");
    });
    run.unwrap();
}

#[test]
fn cancelling_at_every_await_leaves_nothing_behind_and_service_goes_on() {
    let (sender, addresses) = mpsc::channel();
    let (end, over) = mpsc::channel();
    let core = thread::spawn(move || core(sender, over));
    let [fragile, whole] = addresses.recv_timeout(PATIENCE).unwrap();
    let busy = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let load: Vec<_> = (0..LOAD)
        .map(|index| {
            let busy = std::sync::Arc::clone(&busy);
            thread::spawn(move || {
                while busy.load(std::sync::atomic::Ordering::SeqCst) {
                    assert!(ask(whole, index as u8), "a connection nobody cancelled was cut");
                }
            })
        })
        .collect();
    // Each is cancelled one poll later than the one before, until some have completed.
    let mut completed = 0;
    let mut cancelled = 0;
    while completed < 5 {
        if ask(fragile, (100 + cancelled % 100) as u8) {
            completed += 1;
        } else {
            cancelled += 1;
        }
        assert!(cancelled < 3000, "an exchange does not take that many polls");
    }
    assert!(cancelled > 10, "{cancelled} is less than there are awaits");
    busy.store(false, std::sync::atomic::Ordering::SeqCst);
    load.into_iter().for_each(|thread| thread.join().unwrap());
    (0..10).for_each(|number| assert!(ask(whole, number)));
    end.send(()).unwrap();
    core.join().unwrap();
}

#[test]
fn a_task_dropped_in_the_middle_of_a_send_frees_its_peer() {
    let run = engine::run(Placement::Anywhere, Doorbell::new().unwrap(), || async {
        let (mut listener, address) = listener();
        let reader = thread::spawn(move || {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            thread::sleep(Duration::from_millis(20)); // the sender finds the socket full
            let mut bytes = Vec::new();
            let _ = stream.read_to_end(&mut bytes);
            bytes.len()
        });
        let socket = listener.accept().await.unwrap();
        let total = Rc::new(vec![1; 64 << 20]);
        let sending = Rc::clone(&total);
        let sent = cancelled_after(1, async move { send(&socket, &sending).await }).await;
        assert!(sent.is_none(), "it was waiting");
        assert_eq!(Rc::strong_count(&total), 1, "the bytes are ours again at once");
        while !reader.is_finished() {
            engine::sleep(Duration::from_millis(5)).await;
        }
        let received = reader.join().unwrap();
        assert!(received > 0 && received < total.len());
    });
    run.unwrap();
}
