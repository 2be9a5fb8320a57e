//! Why an exchange did not succeed: one table. Status codes of failures are written nowhere else.

use crate::http1::parse::Malformed;

/// Who is to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Client,
    Proxy,
    Upstream,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    Malformed(Malformed),
    UrlTooLong,
    HeadTooLarge,
    BodyTooLarge,
    BodyMalformed,
    VersionUnsupported,
    MethodRefused,
    NoRoute,
    HeaderTimeout,
    BodyTimeout,
    BodyTooSlow,
    ClientClosed,
    ClientWriteTimeout,
    NoEndpoint,
    EndpointUnresolved,
    ConnectRefused,
    ConnectFailed,
    ConnectTimeout,
    PoolFull,
    PoolTimeout,
    UpstreamClosed,
    UpstreamReset,
    UpstreamMalformed,
    UpstreamHeadTooLarge,
    UpstreamBodyMalformed,
    UpstreamBodyCut,
    FirstByteTimeout,
    UpstreamReadTimeout,
    UpstreamWriteTimeout,
    ExchangeTimeout,
    ConnectionLimit,
    Draining,
    Internal,
}
