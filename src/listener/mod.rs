//! From a bound address to a connection: accepting, the connection limit, evening out between
//! cores.

mod balance;
pub(crate) mod greeting;
pub(crate) mod blacklist;
pub(crate) mod limit;
pub(crate) mod opening;
mod passthrough;
pub mod proxy_protocol;

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Poll;

use crate::control::message::{Room, Shortage, ToControl, ToShard};
use crate::engine::{self, Listener, Socket};
use crate::http1;
use crate::http2;
use crate::limits;
use crate::listener::limit::{Told, Waiting};
use crate::shard::Shard;
use crate::shard::connections::Seated;
use crate::shard::doors::Door;
use crate::shard::events;
use crate::shard::life::{Counted, Life};
use crate::tls::stream::Stream;

/// Takes connections from one listening socket until the core drains or the listener is removed;
/// then those still queued in the kernel, and closes it.
pub(crate) async fn accept(shard: Rc<Shard>, door: Rc<Door>, mut listener: Listener) {
    let session = Life::enter(&shard);
    match listener.duplicate() {
        Ok(spare) => door.keep_spare(spare),
        Err(error) => log::warn!("this process cannot be upgraded: {error}"),
    }
    let mut in_hand = None;
    until_closing(&shard, &door, take(&shard, &door, &mut listener, &mut in_hand)).await;
    door.drop_spares();
    let last = if door.is_handed_over() { listener.leave().await } else { listener.last().await };
    for socket in in_hand.into_iter().chain(last) {
        // They were let in before the end was known: the limit does not turn them away now.
        shard.open.add(1);
        admit(&shard, &door, socket);
    }
    drop((listener, session));
    shard.mail.to_control(ToControl::ListenerClosed(door.key));
}

/// `in_hand` is accepted, but finds no room yet. The rest waits in the kernel's queue: nothing is
/// refused, nothing is lost.
async fn take(
    shard: &Rc<Shard>,
    door: &Rc<Door>,
    listener: &mut Listener,
    in_hand: &mut Option<Socket>,
) {
    let mut told = Told::default();
    loop {
        match listener.accept().await {
            Ok(socket) => *in_hand = Some(socket),
            Err(error) => without_descriptors(shard, error, &mut told).await,
        }
        if in_hand.is_some() && !limit::take_place(shard) {
            listener.pause();
            until_room(shard, &mut told).await;
        }
        if let Some(socket) = in_hand.take() {
            admit(shard, door, socket);
        }
    }
}

/// A connection that another core has accepted for us, and counted here already.
pub(crate) fn take_over(shard: Rc<Shard>, door: Rc<Door>, socket: Socket, peer: SocketAddr) {
    let counted = Counted::new(&shard, &door, true);
    serve(shard, counted, door, peer, socket);
}

/// Its place among the process's connections is taken.
fn admit(shard: &Rc<Shard>, door: &Rc<Door>, socket: Socket) {
    shard.counters().accepted.add(1);
    door.cells().accepted.add(1);
    // Gone already: nothing to serve.
    let Ok(peer) = socket.peer_address() else {
        shard.open.add(-1);
        return;
    };
    if shard.guard.turns_away(peer.ip()) {
        shard.counters().blocked.add(1);
        shard.stir();
        shard.open.add(-1);
        return;
    }
    // A core that drains asks nothing more of the others: they may be done. And a listener that is
    // removed may be unknown to them already.
    if shard.mail.cores() > 1 && !shard.life.is_draining() && !door.is_closing() {
        let open = shard.all_counters.iter().map(|counters| counters.connections.read());
        if let Some(core) = balance::better_core(shard.mail.core(), open) {
            return hand_over(shard, core, door, socket, peer);
        }
    }
    let counted = Counted::new(shard, door, false);
    serve(Rc::clone(shard), counted, Rc::clone(door), peer, socket);
}

fn hand_over(shard: &Rc<Shard>, core: usize, door: &Rc<Door>, socket: Socket, peer: SocketAddr) {
    let Some(fd) = socket.take() else {
        unreachable!("nothing has waited on a socket that was accepted just now")
    };
    // Counted there at once, so that the next decision, here or elsewhere, already sees it.
    shard.all_counters[core].connections.add(1);
    match shard.mail.offer(core, ToShard::Connection(door.key, fd, peer)) {
        Ok(()) => shard.counters().handed_over.add(1),
        Err(ToShard::Connection(_, fd, peer)) => {
            shard.all_counters[core].connections.add(-1);
            let counted = Counted::new(shard, door, false);
            serve(Rc::clone(shard), counted, Rc::clone(door), peer, Socket::adopt(fd));
        }
        Err(_) => unreachable!("a letter comes back as it was"),
    }
}

fn serve(shard: Rc<Shard>, counted: Counted, door: Rc<Door>, peer: SocketAddr, socket: Socket) {
    engine::spawn(async move {
        let session = Life::enter(&shard);
        let seated = Seated::new(&shard, Rc::clone(&door), peer);
        let origin = seated.origin.clone();
        let opening = door.opening();
        // A small task is left of it while the connection is idle.
        let ready = match opening.is_needed(peer) {
            true => Box::pin(opening.pass(&shard, origin, socket)).await,
            false => Some(((Stream::plain(socket), None), origin)),
        };
        drop(opening);
        if let Some(((stream, passes_to), origin)) = ready {
            let told = events::connection_opened(&shard, &origin);
            match passes_to {
                None if origin.is_http2() => {
                    Box::pin(http2::server::serve(&shard, origin, stream, Vec::new())).await;
                }
                None => {
                    let again = origin.clone();
                    if let Some((stream, begun)) =
                        http1::server::serve(&shard, origin, stream).await
                    {
                        Box::pin(http2::server::serve(&shard, again, stream, begun)).await;
                    }
                }
                Some(cluster) => {
                    Box::pin(passthrough::run(&shard, &origin, &stream, &cluster)).await;
                }
            }
            drop(told);
        }
        drop((counted, session, seated));
    });
}

/// Until the client in hand has a place.
async fn until_room(shard: &Rc<Shard>, told: &mut Told) {
    let _waiting = Waiting::new(shard);
    let mut pause = limits::FULL_RETRY_INTERVAL_MIN;
    let (wanted_by, shortage) = (shard.mail.core(), Shortage::Connections);
    loop {
        told.tell(shard, || ToControl::Full);
        // The others are given the time to find one that is idle for long.
        let briefly_too = pause == limits::FULL_RETRY_INTERVAL;
        limit::make_room(shard, Room { wanted_by, shortage, briefly_too });
        engine::sleep(pause).await;
        if limit::take_place(shard) {
            return;
        }
        pause = (pause * 2).min(limits::FULL_RETRY_INTERVAL);
    }
}

/// No descriptor or memory is left: try again when some connection may have ended.
async fn without_descriptors(shard: &Rc<Shard>, error: io::Error, told: &mut Told) {
    match error.raw_os_error() {
        Some(libc::ECONNABORTED | libc::EINTR | libc::EPROTO) => {}
        Some(_) | None => {
            shard.counters().accept_errors.add(1);
            told.tell(shard, || ToControl::CannotAccept(error));
            let (wanted_by, shortage) = (shard.mail.core(), Shortage::Descriptors);
            limit::make_room(shard, Room { wanted_by, shortage, briefly_too: true });
            engine::sleep(limits::ACCEPT_RETRY_INTERVAL).await;
        }
    }
}

/// Runs `future`, which has no end of its own, until the core drains or the door closes.
async fn until_closing(shard: &Shard, door: &Door, future: impl Future<Output = ()>) {
    let mut future = std::pin::pin!(future);
    let mut registered = false;
    std::future::poll_fn(|context| {
        if shard.life.is_draining() || door.is_closing() {
            return Poll::Ready(());
        }
        if !std::mem::replace(&mut registered, true) {
            door.tell_when_closing(context);
            let _ = shard.life.poll_draining(context);
        }
        future.as_mut().poll(context)
    })
    .await;
}
