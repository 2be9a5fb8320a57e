//! A connection whose TLS is not ended here: its bytes go to a cluster and back as they are, from
//! pipe to pipe, until both sides have said that they are done.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Instant;

use crate::engine::{self, Counter, Side, Socket};
use crate::exchange::carry::Carrier;
use crate::exchange::failure::Failure;
use crate::limits;
use crate::listener::greeting::greeting;
use crate::plan::ClusterId;
use crate::shard::{Origin, Shard};
use crate::tls::stream::Stream;
use crate::upstream::pool::{Lease, Wanted};

pub(super) async fn run(shard: &Rc<Shard>, origin: &Origin, socket: Socket, cluster: &str) {
    let client = Stream::plain(socket);
    let lease = match Box::pin(connect(shard, origin, &client, cluster)).await {
        Ok(lease) => lease,
        Err(failure) => {
            shard.counters().failures[failure.index()].add(1);
            // Nothing can be said in a protocol that is not ours.
            client.set_reset_on_close(true);
            return;
        }
    };
    let (counters, now) = (shard.counters(), engine::now());
    let last = Cell::new(now);
    let up = pump(&client, lease.stream(), &counters.bytes_in, &last);
    let down = pump(lease.stream(), &client, &counters.bytes_out, &last);
    if both(up, down).await.is_err() {
        // One that was cut must not look as if it had ended.
        client.set_reset_on_close(true);
        lease.stream().set_reset_on_close(true);
    }
}

/// Another endpoint when one cannot be reached: nothing was said to it yet.
async fn connect(
    shard: &Rc<Shard>,
    origin: &Origin,
    client: &Stream,
    name: &str,
) -> Result<Lease, Failure> {
    let generation = shard.generation();
    let plan = &generation.plan;
    let id = plan.clusters.iter().position(|cluster| cluster.name == name);
    // The listener is of an older plan, and on its way out.
    let id = id.ok_or(Failure::NoEndpoint)?;
    let (cluster, timeouts) =
        (generation.cluster(ClusterId(id as u32)), plan.clusters[id].timeouts);
    let greeting = greeting(plan.clusters[id].proxy_protocol, origin, client);
    let mut refused = Vec::new();
    loop {
        let with = (timeouts.connect, greeting.as_slice());
        match cluster.acquire(Wanted::Bare, &refused, with, |_, _| {}).await {
            Ok(lease) => return Ok(lease),
            Err((not, address)) => {
                refused.extend(address);
                let again = address.is_some()
                    && cluster.has_another(&refused)
                    && refused.len() < limits::CONNECT_ATTEMPTS_MAX;
                if !again {
                    return Err(not.failure);
                }
            }
        }
    }
}

/// One way, to its end; the other side hears of that.
async fn pump(
    from: &Stream,
    to: &Stream,
    counter: &Counter,
    last: &Cell<Instant>,
) -> io::Result<()> {
    let mut carrier = Carrier::new(from, to);
    let mut turns = 0;
    loop {
        from.set_deadline(Side::Read, Some(limits::PASSTHROUGH_IDLE_TIMEOUT));
        let count = match carrier.take(from, u64::MAX).await {
            Ok(0) => {
                to.finish();
                return Ok(());
            }
            Ok(count) => count,
            // Silent, while the other way goes on.
            Err(error)
                if error.kind() == io::ErrorKind::TimedOut
                    && engine::now() - last.get() < limits::PASSTHROUGH_IDLE_TIMEOUT =>
            {
                continue;
            }
            Err(error) => return Err(error),
        };
        last.set(engine::now());
        let given = carrier.give(to, limits::PASSTHROUGH_IDLE_TIMEOUT, |_| true).await;
        given.map_err(|error| error.cause)?;
        last.set(engine::now());
        counter.add(count as u64);
        turns += 1;
        if turns % limits::IO_PER_TURN == 0 {
            engine::yield_now().await;
        }
    }
}

/// Until both have ended, or one has failed.
async fn both(
    one: impl Future<Output = io::Result<()>>,
    other: impl Future<Output = io::Result<()>>,
) -> io::Result<()> {
    let (mut one, mut other) = (pin!(one), pin!(other));
    let (mut one_is_over, mut other_is_over) = (false, false);
    std::future::poll_fn(|context| {
        if !one_is_over && let Poll::Ready(result) = one.as_mut().poll(context) {
            result?;
            one_is_over = true;
        }
        if !other_is_over && let Poll::Ready(result) = other.as_mut().poll(context) {
            result?;
            other_is_over = true;
        }
        match one_is_over && other_is_over {
            true => Poll::Ready(Ok(())),
            false => Poll::Pending,
        }
    })
    .await
}
