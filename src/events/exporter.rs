//! An exporter: a thread beside the publisher that sends spans to one collector. It takes batches
//! from the data cores, makes requests of them, and sends one after the other. While a collector is
//! slow or away, batches wait in the queues, and the data cores drop and count what finds no room.

use std::io;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Select, Sender, TryRecvError, TrySendError};

use crate::events::collector::{self, Answer};
use crate::events::span_queue::{self, SpanBatch, SpanConsumer, SpanProducer};
use crate::http1::blocking_client::{Line, jitter, reason};
use crate::limits;
use crate::plan::{Collector, Spoken};
use crate::telemetry::trace::span::{self, Span};
use crate::telemetry::trace::{otlp, zipkin};

/// From the control core.
#[derive(Debug)]
pub(crate) enum Order {
    /// Send to this collector from now on, what waits included: a new plan says so.
    SendTo(Box<Collector>),
    /// Send what is queued by now, then end. What is not sent by then is given up.
    Stop { by: Instant },
}

/// Spans, since the start. Those that a producer dropped are its own to count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Exported {
    pub(crate) taken: u64,
    pub(crate) failed: u64,
}

/// What starting gives: the control core's end, one producer for each data core, and the thread.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) handle: ExporterHandle,
    pub(crate) producers: Vec<SpanProducer>,
    pub(crate) thread: JoinHandle<()>,
}

pub(crate) fn start(
    collector: Collector,
    cores: usize,
    clock: fn() -> Instant,
) -> io::Result<Started> {
    let (producers, consumers) = (0..cores).map(|_| span_queue::pair()).unzip();
    let (worker, handle) = Worker::new(collector, consumers, clock);
    let thread = thread::Builder::new().name("exporter".to_owned()).spawn(move || worker.run())?;
    Ok(Started { handle, producers, thread })
}

/// Orders that wait for the exporter.
const ORDERS_MAX: usize = 8;

/// The control core's end. Dropping it stops the exporter as well.
#[derive(Debug)]
pub(crate) struct ExporterHandle {
    orders: Sender<Order>,
    /// The other end, so that an order that nobody followed makes room for a newer one.
    waiting_orders: Receiver<Order>,
    exported: Receiver<Exported>,
    last: Exported,
}

impl ExporterHandle {
    /// For a new plan. Never blocks.
    pub(crate) fn send_to(&self, collector: Collector) {
        let mut order = Order::SendTo(Box::new(collector));
        while let Err(TrySendError::Full(refused)) = self.orders.try_send(order) {
            // Where it would have been sent before does not count any more.
            drop(self.waiting_orders.try_recv());
            order = refused;
        }
    }

    /// The sums as of the exporter's last request. Never blocks.
    pub(crate) fn exported(&mut self) -> Exported {
        if let Ok(exported) = self.exported.try_recv() {
            self.last = exported;
        }
        self.last
    }

    /// Has everything sent that is queued by now: after the data cores have offered their last
    /// batch. Never blocks.
    pub(crate) fn stop(&self, by: Instant) {
        drop(self.orders.try_send(Order::Stop { by }));
    }

    /// Blocks until it has ended, at most until a little after `by`. False: it has not, do not join
    /// it.
    pub(crate) fn until_ended(self, by: Instant) -> (bool, Exported) {
        let ExporterHandle { orders, exported, mut last, .. } = self;
        drop(orders); // were the order lost, this is one as well
        loop {
            match exported.recv_deadline(by + STOP_GRACE) {
                Ok(exported) => last = exported,
                Err(RecvTimeoutError::Disconnected) => return (true, last),
                Err(RecvTimeoutError::Timeout) => return (false, last),
            }
        }
    }
}

/// What the thread gets to notice that its time is over: the kernel's timeouts of sockets may be an
/// eighth late.
pub(crate) const STOP_GRACE: Duration = Duration::from_millis(500);

/// The thread.
#[derive(Debug)]
struct Worker {
    consumers: Vec<SpanConsumer>,
    /// By consumer: its core has ended, and all that it sent is taken.
    ended: Vec<bool>,
    orders: Receiver<Order>,
    exported_in: Sender<Exported>,
    /// The other end, so that sums that nobody fetched make room for newer ones.
    exported_out: Receiver<Exported>,
    exported: Exported,
    line: Line,
    collector: Collector,
    clock: fn() -> Instant,
    /// It was told to stop.
    stop_by: Option<Instant>,
    /// Used again for every request.
    request: Vec<u8>,
    complained: Option<Instant>,
}

/// What becomes of a request after one try.
#[derive(Debug, PartialEq, Eq)]
enum Tried {
    Taken {
        rejected: u64,
    },
    Refused(String),
    /// Later, perhaps; the collector may have said when.
    Again {
        reason: String,
        after: Option<Duration>,
    },
}

impl Worker {
    fn new(
        collector: Collector,
        consumers: Vec<SpanConsumer>,
        clock: fn() -> Instant,
    ) -> (Worker, ExporterHandle) {
        let (orders_in, orders) = crossbeam_channel::bounded(ORDERS_MAX);
        let (exported_in, exported) = crossbeam_channel::bounded(1);
        let worker = Worker {
            ended: vec![false; consumers.len()],
            consumers,
            orders: orders.clone(),
            exported_in,
            exported_out: exported.clone(),
            exported: Exported::default(),
            line: Line::new(clock),
            collector,
            clock,
            stop_by: None,
            request: Vec::new(),
            complained: None,
        };
        let handle = ExporterHandle {
            orders: orders_in,
            waiting_orders: orders,
            exported,
            last: Exported::default(),
        };
        (worker, handle)
    }

    fn run(mut self) {
        loop {
            let batches = self.gather();
            if batches.is_empty() && self.stop_by.is_some() {
                return;
            }
            self.deliver(&batches);
            self.give_back(batches);
            self.tell();
        }
    }

    fn give_back(&self, batches: Vec<(usize, SpanBatch)>) {
        for (consumer, batch) in batches {
            self.consumers[consumer].give_back(batch.records);
        }
    }

    /// Waits for records; then, for a moment, for more of them. By consumer, whose buffers they
    /// are. Empty only after an order.
    fn gather(&mut self) -> Vec<(usize, SpanBatch)> {
        let mut batches: Vec<(usize, SpanBatch)> = Vec::new();
        let (mut bytes, mut until) = (0, None);
        loop {
            self.obey();
            let before = batches.len();
            for (number, consumer) in self.consumers.iter().enumerate() {
                while bytes < limits::TRACE_REQUEST_BYTES {
                    match consumer.batches.try_recv() {
                        Ok(batch) => {
                            bytes += batch.records.len();
                            batches.push((number, batch));
                        }
                        Err(TryRecvError::Empty) => break,
                        Err(TryRecvError::Disconnected) => {
                            self.ended[number] = true;
                            break;
                        }
                    }
                }
            }
            if before == 0 && !batches.is_empty() {
                until = Some((self.clock)() + limits::TRACE_REQUEST_AGE_MAX);
            }
            let full = bytes >= limits::TRACE_REQUEST_BYTES || self.stop_by.is_some();
            if full || !self.wait(until) {
                return batches;
            }
        }
    }

    /// Until a batch or an order is there, or seems to be; false when `until` was first.
    fn wait(&self, until: Option<Instant>) -> bool {
        let mut select = Select::new();
        // A core that has ended would be ready for ever.
        for (consumer, _) in self.consumers.iter().zip(&self.ended).filter(|(_, ended)| !**ended) {
            select.recv(&consumer.batches);
        }
        select.recv(&self.orders);
        match until {
            None => {
                select.ready();
                true
            }
            Some(until) => select.ready_deadline(until).is_ok(),
        }
    }

    fn obey(&mut self) {
        loop {
            match self.orders.try_recv() {
                Ok(order) => self.follow(order),
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => {
                    self.stop_by.get_or_insert((self.clock)() + limits::TRACE_STOP_TIMEOUT);
                    return;
                }
            }
        }
    }

    fn follow(&mut self, order: Order) {
        match order {
            Order::SendTo(collector) => {
                self.collector = *collector;
                self.line.hang_up();
                self.complained = None;
            }
            Order::Stop { by } => self.stop_by = Some(by),
        }
    }

    /// One request, as often as it takes.
    fn deliver(&mut self, batches: &[(usize, SpanBatch)]) {
        let spans = batches.iter().map(|(_, batch)| u64::from(batch.spans)).sum::<u64>();
        let mut backoff = limits::TRACE_BACKOFF_MIN;
        for number in 1.. {
            if spans == 0 {
                return;
            }
            match self.attempt(batches) {
                Tried::Taken { rejected } => {
                    let rejected = rejected.min(spans);
                    self.exported.taken += spans - rejected;
                    self.exported.failed += rejected;
                    if rejected > 0 {
                        self.complain(&format!("it rejected {rejected} of {spans} spans"), 0);
                    }
                    return;
                }
                Tried::Refused(reason) => return self.give_up(spans, &reason),
                Tried::Again { reason, after } => {
                    let wait = after.unwrap_or(backoff).min(limits::TRACE_RETRY_AFTER_MAX);
                    if number >= limits::TRACE_TRIES_MAX || !self.is_worth_waiting(wait) {
                        return self.give_up(spans, &reason);
                    }
                    self.complain(&reason, 0);
                    self.pause(wait + jitter(wait));
                    backoff = (backoff * 2).min(limits::TRACE_BACKOFF_MAX);
                }
            }
        }
    }

    /// At the end of the process, only if there is time left after it.
    fn is_worth_waiting(&self, wait: Duration) -> bool {
        self.stop_by.is_none_or(|by| (self.clock)() + wait < by)
    }

    /// An order ends it.
    fn pause(&mut self, wait: Duration) {
        if let Ok(order) = self.orders.recv_timeout(wait) {
            self.follow(order);
        }
    }

    fn attempt(&mut self, batches: &[(usize, SpanBatch)]) -> Tried {
        let now = (self.clock)();
        let mut by = now + self.collector.timeout;
        if let Some(stop) = self.stop_by {
            by = by.min(stop);
        }
        self.request.clear();
        write_request(&self.collector, batches, &mut self.request);
        match collector::post(&mut self.line, &self.collector, &self.request, by) {
            Ok(answer) => judge(self.collector.spoken, &answer),
            Err(error) => Tried::Again { reason: reason(&error), after: None },
        }
    }

    fn give_up(&mut self, spans: u64, reason: &str) {
        self.exported.failed += spans;
        self.complain(reason, spans);
    }

    fn complain(&mut self, reason: &str, lost: u64) {
        let now = (self.clock)();
        let interval = limits::TRACE_COMPLAINT_INTERVAL;
        if self.complained.is_none_or(|last| now.saturating_duration_since(last) >= interval) {
            self.complained = Some(now);
            log::warn!(
                "tracing: {} did not take spans: {reason}; {lost} are lost with this request, {} \
                 since the start; check the endpoint of [tracing], sending goes on by itself",
                self.collector.url,
                self.exported.failed
            );
        }
    }

    fn tell(&self) {
        let _ = self.exported_out.try_recv();
        let _ = self.exported_in.try_send(self.exported);
    }
}

fn write_request(collector: &Collector, batches: &[(usize, SpanBatch)], out: &mut Vec<u8>) {
    let service = &collector.service;
    let spans = |write: &mut dyn FnMut(&Span<'_>)| {
        for (_, batch) in batches {
            let mut records = &batch.records[..];
            while let Some(exchange) = span::decode(&mut records) {
                exchange.spans().iter().for_each(&mut *write);
            }
        }
    };
    match collector.spoken {
        Spoken::OtlpProtobuf => otlp::request(out, service, spans),
        Spoken::OtlpJson => otlp::json_request(out, service, spans),
        Spoken::Zipkin => zipkin::request(out, service, spans),
    }
}

/// OTLP/HTTP names the statuses that are worth another try; Zipkin's servers mean the same.
fn judge(spoken: Spoken, answer: &Answer) -> Tried {
    let rejected = || match spoken {
        Spoken::OtlpProtobuf => otlp::rejected(&answer.body),
        Spoken::OtlpJson => otlp::json_rejected(&answer.body),
        Spoken::Zipkin => 0,
    };
    let reason = || format!("it answered {}", answer.status);
    match answer.status {
        200..300 => Tried::Taken { rejected: rejected() },
        429 | 502 | 503 | 504 => Tried::Again { reason: reason(), after: answer.retry_after },
        _ => Tried::Refused(reason()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread::JoinHandle;

    use super::*;
    use crate::plan::{Address, HttpUrl};
    use crate::telemetry::trace::otlp::Service;
    use crate::telemetry::trace::span::tests::batch;

    /// What `batch` has: an exchange with two attempts, and one without.
    const SPANS: u64 = 4;

    fn collector(listener: &TcpListener) -> Collector {
        let address = listener.local_addr().unwrap();
        Collector {
            url: HttpUrl {
                address: Address::Ip(address),
                authority: address.to_string(),
                path: "/".to_owned(),
            },
            spoken: Spoken::OtlpJson,
            headers: Vec::new(),
            timeout: Duration::from_secs(20),
            service: Service { name: "a".to_owned(), id: None },
        }
    }

    /// Answers one request, and gives back what it was.
    fn answer(listener: TcpListener, answer: &'static str) -> JoinHandle<String> {
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let (mut request, mut room) = (Vec::new(), [0; 4096]);
            while !request.ends_with(b"]}]}]}") {
                let count = stream.read(&mut room).unwrap();
                request.extend_from_slice(&room[..count]);
            }
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8(request).unwrap()
        })
    }

    fn offer(producer: &mut SpanProducer) {
        producer.push(SPANS as u32, |out| out.extend_from_slice(&batch()));
        producer.flush();
    }

    const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";

    #[test]
    fn a_stop_sends_what_is_queued_by_every_core() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut started = start(collector(&listener), 2, Instant::now).unwrap();
        started.producers.iter_mut().for_each(offer);
        let peer = answer(listener, OK);
        let by = Instant::now() + Duration::from_secs(20);
        started.handle.stop(by);
        let exported = Exported { taken: 2 * SPANS, failed: 0 };
        assert_eq!(started.handle.until_ended(by), (true, exported));
        assert_eq!(peer.join().unwrap().matches("\"spanId\"").count(), 8);
        started.thread.join().unwrap();
    }

    #[test]
    fn an_order_sends_what_waits_to_another_collector() {
        let [first, second] = [0; 2].map(|port| TcpListener::bind(("127.0.0.1", port)).unwrap());
        let mut started = start(collector(&first), 1, Instant::now).unwrap();
        let later = "HTTP/1.1 503 Later\r\nRetry-After: 60\r\nContent-Length: 0\r\n\r\n";
        let refusing = answer(first, later);
        offer(&mut started.producers[0]);
        refusing.join().unwrap();
        let taking = collector(&second);
        let taken = answer(second, OK);
        started.handle.send_to(taking);
        taken.join().unwrap();
        let by = Instant::now() + Duration::from_secs(20);
        started.handle.stop(by);
        assert_eq!(started.handle.until_ended(by).1, Exported { taken: SPANS, failed: 0 });
    }

    #[test]
    fn a_core_that_ends_takes_no_place_from_another() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ((first, out), (mut second, second_out)) = (span_queue::pair(), span_queue::pair());
        let (mut worker, _handle) =
            Worker::new(collector(&listener), vec![out, second_out], Instant::now);
        drop(first);
        offer(&mut second);
        let batches = worker.gather();
        assert_eq!(batches.len(), 1);
        let buffer = batches[0].1.records.as_ptr();
        worker.give_back(batches);
        (0..2).for_each(|_| offer(&mut second));
        let used = worker.gather().iter().any(|(_, batch)| batch.records.as_ptr() == buffer);
        assert!(used, "the buffer has not come back");
    }

    #[test]
    fn a_dropped_handle_and_ended_cores_end_the_thread() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let Started { handle, producers, thread } =
            start(collector(&listener), 3, Instant::now).unwrap();
        drop(producers);
        drop(handle);
        thread.join().unwrap();
    }
}
