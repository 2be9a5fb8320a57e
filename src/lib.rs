//! Corelane: a proxy for Linux. One executor pinned to each core, io_uring underneath, nothing
//! shared between cores on the request path. This page is the map; it is kept true.
//!
//! # Words
//!
//! One word, one thing, in code, configuration, metrics and logs.
//!
//! - **core**: a thread with a role. *Data* cores (N, pinned) carry traffic; the *control* core
//!   holds everything that is one per process; the *publisher* writes what leaves for the outside.
//! - **shard**: everything that one data core owns ([`shard`]). Never `Send`, never shared.
//! - **plan**: compiled configuration ([`plan`]). **generation**: a plan and the state that its ids
//!   name, on one shard.
//! - **listener → connection → session → exchange**: a bound address; an accepted peer; HTTP
//!   spoken on it; one request and its answer.
//! - **route, cluster, endpoint, attempt**: which requests; where they may go; one address; one
//!   try.
//! - **tunnel**: a connection, or a stream of HTTP/2, that has gone over to another protocol, such
//!   as WebSocket ([`exchange::tunnel`]).
//! - **peer address, client address**: who holds the socket; whom it speaks for.
//! - **failure**: why an exchange did not succeed ([`exchange::failure`]: the only table of
//!   statuses).
//!
//! # Cores
//!
//! The control core makes every listening socket and lends it to a shard; it compiles plans,
//! resolves names, merges statistics, serves metrics and admin, and takes signals. Cores speak by
//! letters ([`control::message`]: what is not there is not shared), applied at one point of a
//! core's turn. What is shared outside letters lives in [`engine`]: counters that one core writes
//! and others read, and what makes a limit mean the whole process: open connections, waiting
//! exchanges, connection slots, and which cores wait for one.
//!
//! A core's turn: run every woken task, then enter the ring once, which submits, reaps and, when
//! nothing is runnable, sleeps. Sockets are polled by edge for their lifetime and read and written
//! directly; buffers and workspaces are lent while bytes are in hand and given back before waiting.
//!
//! # The path of a request
//!
//! [`listener`] accepts, evens out between cores → [`listener::opening`]: the PROXY protocol, TLS
//! or plain, a handshake, or TLS that passes through → [`http1::server`] reads a head
//! ([`http1::parse`]), or [`http2::server`] has one of each of its streams, written as HTTP/1 would
//! write it ([`http2::request`]) → [`exchange::run`]: admit, route ([`routing`]), then a reply of
//! our own or [`exchange::attempt`]: a connection from [`upstream::pool`] or a stream of a shared
//! one ([`upstream::multiplex`]), the head rewritten ([`http1::encode`]), [`exchange::relay`] up
//! and down (a long body unread, through a pipe) → recorded once: counters, access log, and spans
//! when it is traced. On a route for [`grpc`] it is a call as well: its deadline, its messages and
//! how it ended are gRPC's.
//!
//! A head is HTTP/1's bytes and a table everywhere inside: every rule about headers exists once,
//! and HTTP/2 converts at its edges ([`http2`]). A stream is an exchange in a task of its own, so
//! that what stalls or breaks off one of them is nothing to the others. Where a client or an
//! endpoint speaks of priorities, [`http2::priority`] says whose turn it is to send; streams of a
//! connection on which nobody does share it, and are never put in a line.
//!
//! # A new configuration
//!
//! [`provider`] says where it comes from: a file (`control/file_watch.rs` notices its changes), or
//! a server that `control/config_poll.rs` asks. `control/reload.rs` reads, checks, compiles and
//! binds it on a thread beside; when nothing can fail any more each core installs it by letter.
//! What lives longer than a plan has a key of its own ([`plan::ClusterKey`],
//! [`plan::ListenerKey`]), given out once: letters name those, since cores may be at different
//! plans for a moment. A cluster of the same name is the same object in every generation; a
//! listening socket stays with its address; an exchange stays with its generation.
//!
//! What TLS needs beside a plan changes without one: files of certificates
//! (`control/certificate_watch.rs`), staples (`control/stapling.rs`) and ticket keys
//! (`control/tls.rs`). Each core is sent a [`tls::setup`] made of all of it; sessions go on.
//!
//! # A new binary, and what operators see
//!
//! `control/upgrade.rs` starts the program again and hands it every listening socket; when it
//! serves, this process drains. `admin/api.rs` is the one table of what operators may ask: router,
//! roles and OpenAPI come from it. What happens is told on the event bus ([`events::bus`]), which
//! costs nothing while nobody subscribes; logs and spans leave by the publisher's threads.
//!
//! # Where this departs from the first design, and why
//!
//! - A core sleeps in its own ring, not in glommio's: one place to be woken at, no eventfd to arm,
//!   no moment in which a wake-up can be lost, one system call less each time. glommio schedules.
//! - A maximum of connections is a counter of the process ([`engine::Permits`]), not slots leased
//!   by an owner core: it is touched when a connection opens or closes, never for a request on a
//!   kept one, is exact without a protocol, and one hot core may use all of it. Waiting is per
//!   core and bounded; whoever frees a slot tells a core that waits.
//! - Connecting is a system call and a poll like everything else, so the kernel never holds memory
//!   of ours: a future may be dropped at any await without a buffer left behind.
//! - Durations are counted in fixed buckets, in cells like all counters, not in histograms that are
//!   handed over: a scrape reads them where they are, and counting one is two additions. They
//!   belong to names, not to plans, so that they outlive a reload.
//! - rustls shakes hands and no more: records are ours from then on (`tls/record.rs`). It would
//!   copy and allocate each of them; sealed from where the plaintext is, 1 MiB costs half, and an
//!   idle connection holds two keys instead of a state machine.
//! - A ClientHello is looked at where the kernel keeps it, and read by rustls afterwards: a client
//!   that is slow with it holds nothing of ours, and one whose TLS passes through was never read.
//! - Configuration is read by a small reader over a tree with places ([`config`]) and not by
//!   serde's derive, which stops at the first error: an operator gets all of them at once. TOML's
//!   parser has such a tree; YAML and JSON are turned into the same one.

// In the order that bytes meet them.
pub mod listener;
pub mod tls;
pub mod http1;
pub mod http2;
pub mod http;
pub mod exchange;
pub mod grpc;
pub mod routing;
mod upstream;
mod balancing;

// What they run on.
mod shard;
pub mod engine;
pub mod limits;

// How bytes are written as text.
mod base64;
mod hexadecimal;

// What steers them.
pub mod cli;
pub mod upgrade_command;
pub mod config;
pub mod provider;
pub mod machine;
pub mod plan;
pub mod control;
mod admin;
pub mod discovery;

// What leaves.
pub mod events;
pub mod telemetry;
