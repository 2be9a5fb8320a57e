//! What is remembered of an exchange: written once, when it ends.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime};

use crate::exchange::failure::Failure;

/// Where an exchange was when it ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    #[default]
    RequestHead,
    Route,
    Queue,
    Connect,
    RequestBody,
    FirstByte,
    ResponseBody,
    Done,
}

/// Adjacent spans of an exchange: they add up to the total.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// First byte of the request to the whole head parsed.
    pub head: Duration,
    /// Waiting for a free upstream connection.
    pub queue: Duration,
    pub connect: Duration,
    /// From connected to the first byte of the response head.
    pub first_byte: Duration,
    /// From there to the last byte given to the client.
    pub body: Duration,
    pub total: Duration,
}

#[derive(Debug)]
pub struct Record<'a> {
    pub at: SystemTime,
    pub request_id: &'a [u8],
    pub peer: SocketAddr,
    pub client: IpAddr,
    pub listener: &'a str,
    /// Empty when none was found.
    pub route: &'a str,
    pub cluster: &'a str,
    pub endpoint: Option<SocketAddr>,
    pub method: &'a [u8],
    pub target: &'a [u8],
    pub host: &'a [u8],
    pub version: &'a str,
    pub referer: &'a [u8],
    pub user_agent: &'a [u8],
    /// 0 when nothing was answered.
    pub status: u16,
    pub bytes_received: u64,
    /// Everything sent to the client, heads included.
    pub bytes_sent: u64,
    /// Body bytes sent to the client (CLF's %b).
    pub body_bytes_sent: u64,
    pub timings: Timings,
    pub attempts: u8,
    /// The upstream connection was a kept one.
    pub reused: bool,
    pub failure: Option<Failure>,
    pub phase: Phase,
}
