//! Why an exchange did not succeed: one table. Status codes of failures are written nowhere else.

use crate::http::head::Keep;
use crate::http1::parse::Malformed;

/// Who is to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Client,
    Proxy,
    Upstream,
}

impl Side {
    pub fn label(self) -> &'static str {
        match self {
            Side::Client => "client",
            Side::Proxy => "proxy",
            Side::Upstream => "upstream",
        }
    }
}

/// Whether the same request may be tried once more on another upstream connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    Never,
    /// Only when the connection was a kept one and no byte of an answer came: the server had closed
    /// it before it saw the request (RFC 9112 9.3.1). The method must allow it as well.
    Reused,
    /// The server says that it has not begun with the request (RFC 9113 section 8.7), so any may be
    /// tried again that is still here in full.
    Unprocessed,
    /// No byte of the request has left: any request may be tried again.
    Safe,
}

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// What the client is answered; 0 when nothing can be. Once a response head is out, nothing can
    /// be answered whatever the row says: the connection is cut instead.
    pub status: u16,
    /// `error.code` of the JSON answer: what programs read. Several failures may share one.
    pub code: &'static str,
    /// In logs and metrics: one per failure.
    pub label: &'static str,
    pub side: Side,
    pub retry: Retry,
    /// Of the client's connection, after the answer. `Open` still needs the request body to have
    /// been read to its end.
    pub keep: Keep,
    /// `error.message`: what the person at the other end reads.
    pub message: &'static str,
}

/// Makes the enum, the list of all and the table from one text, so that none can miss a row.
macro_rules! failures {
    ($(
        $(#[$doc:meta])*
        $name:ident: $status:literal $code:ident $label:literal $side:ident $retry:ident $keep:ident
            $message:literal;
    )+) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Failure {
            /// The head breaks a rule of RFC 9112 or one of ours.
            Malformed(Malformed),
            $($(#[$doc])* $name,)+
        }

        impl Failure {
            /// Every failure, in the order of the table; one stands for all malformed heads.
            pub const ALL: [Failure; Failure::COUNT] =
                [Failure::Malformed(ANY_MALFORMED), $(Failure::$name,)+];
            /// How many slots counters by reason need.
            pub const COUNT: usize = 1 + [$($label,)+].len();

            pub fn row(self) -> Row {
                match self {
                    Failure::Malformed(malformed) => malformed_row(malformed),
                    $(Failure::$name => Row {
                        status: $status,
                        code: stringify!($code),
                        label: $label,
                        side: Side::$side,
                        retry: Retry::$retry,
                        keep: Keep::$keep,
                        message: $message,
                    },)+
                }
            }

            /// The slot of this failure in counters; `ALL[index]` is its kind.
            pub fn index(self) -> usize {
                /// Without the payload, so that the discriminants are dense.
                enum Kind {
                    Malformed,
                    $($name,)+
                }
                let kind = match self {
                    Failure::Malformed(_) => Kind::Malformed,
                    $(Failure::$name => Kind::$name,)+
                };
                kind as usize
            }
        }
    };
}

impl Failure {
    /// What honest clients hardly ever do, and those who look for a way in do all day.
    pub fn is_suspicious(self) -> bool {
        matches!(
            self,
            Failure::Malformed(_)
                | Failure::BodyMalformed
                | Failure::BadPath
                | Failure::UrlTooLong
                | Failure::HeadTooLarge
                | Failure::TooManyHeaders
                | Failure::MethodRefused
        )
    }
}

failures! {
    // --- what the client sent -----------------------------------------------------------------
    UrlTooLong: 414 URL_TOO_LONG "url_too_long" Client Never Close
        "the request target is longer than this proxy accepts";
    HeadTooLarge: 431 HEADERS_TOO_LARGE "head_too_large" Client Never Close
        "the request head is larger than this proxy accepts";
    TooManyHeaders: 431 HEADERS_TOO_LARGE "too_many_headers" Client Never Close
        "the request has more header lines than this proxy accepts";
    BodyTooLarge: 413 BODY_TOO_LARGE "body_too_large" Client Never Close
        "the request body is larger than this proxy accepts";
    BodyMalformed: 400 INVALID_REQUEST "body_malformed" Client Never Close
        "the chunked framing of the request body is broken";
    VersionUnsupported: 505 VERSION_NOT_SUPPORTED "version_unsupported" Client Never Close
        "this HTTP version is not spoken here, use HTTP/1.1";
    /// TRACE, and CONNECT where no forward proxy is.
    MethodRefused: 405 METHOD_NOT_ALLOWED "method_refused" Client Never Close
        "this method is not allowed here";
    /// `Expect` with anything but `100-continue` (RFC 9110 10.1.1). The client may or may not send
    /// its body now: only a new connection is unambiguous.
    ExpectationUnsupported: 417 EXPECTATION_FAILED "expectation_unsupported" Client Never Close
        "the only expectation met here is 100-continue";
    /// The target cannot be routed: it climbs above the root, or has a broken escape or a NUL.
    BadPath: 400 INVALID_REQUEST "bad_path" Client Never Open
        "the path climbs above the root or has a broken percent escape";
    NoRoute: 404 NO_ROUTE "no_route" Client Never Open
        "no route matches this host and path";
    /// The client's TLS names a host that shares no certificate with the one asked for (RFC 9110
    /// 15.5.20).
    Misdirected: 421 MISDIRECTED_REQUEST "misdirected" Client Never Open
        "this connection is not for the host that was asked for";
    /// On a port that speaks TLS only.
    PlainHttpOnTls: 400 INVALID_REQUEST "plain_http_on_tls" Client Never Close
        "this port speaks TLS, use https://";
    Blacklisted: 403 BLACKLISTED "blacklisted" Client Never Close
        "this address may not use this service";
    /// On a route for gRPC; the protocol asks for this status.
    NotGrpc: 415 NOT_GRPC "not_grpc" Client Never Open
        "this route takes gRPC only";
    /// On a route for gRPC, whose calls end with trailers. Other servers of gRPC say it so.
    GrpcWithoutTrailers: 505 VERSION_NOT_SUPPORTED "grpc_without_trailers" Client Never Close
        "gRPC needs trailers, use HTTP/2, or HTTP/1.1 with TE: trailers";
    /// A preflight of a page that may not call.
    OriginRefused: 403 ORIGIN_REFUSED "origin_refused" Client Never Open
        "pages of this origin may not call this service";
    DeadlineMalformed: 400 INVALID_REQUEST "deadline_malformed" Client Never Open
        "the grpc-timeout is not up to eight digits and one of the units H, M, S, m, u, n";
    WebBodyMalformed: 400 INVALID_REQUEST "web_body_malformed" Client Never Close
        "the body is not base64, as its content type says";
    MessageTooLarge: 413 BODY_TOO_LARGE "message_too_large" Client Never Close
        "a message is larger than this proxy accepts";
    RateLimited: 429 RATE_LIMITED "rate_limited" Client Never Open
        "too many requests, try again later";
    HeaderTimeout: 408 REQUEST_TIMEOUT "header_timeout" Client Never Close
        "the request head did not arrive in time";
    BodyTimeout: 408 REQUEST_TIMEOUT "body_timeout" Client Never Close
        "the request body stopped arriving";
    BodyTooSlow: 408 REQUEST_TIMEOUT "body_too_slow" Client Never Close
        "the request body arrives too slowly";
    ClientClosed: 0 CLIENT_CLOSED "client_closed" Client Never Close
        "the client closed the connection";
    ClientWriteTimeout: 0 CLIENT_TIMEOUT "client_write_timeout" Client Never Close
        "the client stopped taking the response";
    ClientTooSlow: 0 CLIENT_TIMEOUT "client_too_slow" Client Never Close
        "the client takes the response too slowly";

    /// Of a connection that passes through, or of a tunnel: both ways.
    IdleTimeout: 0 IDLE_TIMEOUT "idle_timeout" Client Never Close
        "nothing was said for too long";

    // --- what became of the upstream ----------------------------------------------------------
    NoEndpoint: 503 NO_HEALTHY_BACKEND "no_endpoint" Upstream Never Open
        "no healthy backend is available";
    EndpointUnresolved: 503 NO_HEALTHY_BACKEND "endpoint_unresolved" Upstream Never Open
        "the name of the backend has no address at the moment";
    EndpointsDrained: 503 NO_HEALTHY_BACKEND "endpoints_drained" Upstream Never Open
        "all backends were taken out of service by an operator";
    CircuitOpen: 503 CIRCUIT_OPEN "circuit_open" Upstream Never Open
        "the backend is failing and is being spared, try again later";
    ConnectRefused: 502 BACKEND_UNREACHABLE "connect_refused" Upstream Safe Open
        "the backend refuses connections";
    ConnectFailed: 502 BACKEND_UNREACHABLE "connect_failed" Upstream Safe Open
        "the backend cannot be reached";
    ConnectTimeout: 504 BACKEND_TIMEOUT "connect_timeout" Upstream Safe Open
        "the backend did not accept a connection in time";
    UpstreamTlsFailed: 502 BACKEND_UNREACHABLE "upstream_tls_failed" Upstream Safe Open
        "the TLS handshake with the backend failed";
    UpstreamTlsUntrusted: 502 BACKEND_UNREACHABLE "upstream_tls_untrusted" Upstream Safe Open
        "the certificate of the backend is not trusted";
    UpstreamTlsTimeout: 504 BACKEND_TIMEOUT "upstream_tls_timeout" Upstream Safe Open
        "the TLS handshake with the backend did not end in time";
    /// It has chosen another version of HTTP by ALPN, or answers in one.
    UpstreamNotHttp2: 502 BACKEND_UNREACHABLE "upstream_not_http2" Upstream Safe Open
        "the backend does not speak HTTP/2";
    /// It speaks HTTP/2, and has not said that it knows requests for tunnels (RFC 8441 section 3).
    UpstreamNoTunnel: 502 BACKEND_UNREACHABLE "upstream_no_tunnel" Upstream Safe Open
        "the backend takes no WebSocket, or other upgrade, over HTTP/2";
    /// REFUSED_STREAM, or a GOAWAY that leaves the request out.
    UpstreamRefused: 503 BACKEND_UNREACHABLE "upstream_refused" Upstream Unprocessed Open
        "the backend takes no more requests at the moment";
    UpstreamClosed: 502 BACKEND_UNREACHABLE "upstream_closed" Upstream Reused Open
        "the backend closed the connection without an answer";
    UpstreamReset: 502 BACKEND_UNREACHABLE "upstream_reset" Upstream Reused Open
        "the backend reset the connection";
    UpstreamMalformed: 502 BACKEND_INVALID_RESPONSE "upstream_malformed" Upstream Never Open
        "the backend sent an invalid response";
    UpstreamHeadTooLarge: 502 BACKEND_INVALID_RESPONSE "upstream_head_too_large" Upstream Never Open
        "the backend sent a response head that is too large";
    UpstreamBodyMalformed: 502 BACKEND_INVALID_RESPONSE "upstream_body_malformed" Upstream Never
        Close "the backend sent a body with broken framing";
    UpstreamBodyCut: 502 BACKEND_INVALID_RESPONSE "upstream_body_cut" Upstream Never Close
        "the backend closed the connection in the middle of its response";
    FirstByteTimeout: 504 BACKEND_TIMEOUT "first_byte_timeout" Upstream Never Open
        "the backend did not answer in time";
    UpstreamReadTimeout: 504 BACKEND_TIMEOUT "upstream_read_timeout" Upstream Never Close
        "the backend stopped in the middle of its response";
    UpstreamWriteTimeout: 504 BACKEND_TIMEOUT "upstream_write_timeout" Upstream Never Close
        "the backend stopped taking the request";
    UpstreamMessageTooLarge: 502 BACKEND_INVALID_RESPONSE "upstream_message_too_large" Upstream
        Never Close "the backend sent a message that is larger than this proxy accepts";
    /// Of a stream, both ways.
    StreamIdleTimeout: 504 BACKEND_TIMEOUT "stream_idle_timeout" Upstream Never Close
        "nothing was said on this stream for too long";
    /// The caller's own.
    DeadlineTimeout: 504 BACKEND_TIMEOUT "deadline_timeout" Upstream Never Close
        "the deadline of the caller has passed";
    /// An answer that another try may better: counted, never given.
    GrpcStatus: 503 BACKEND_REFUSED "grpc_status" Upstream Never Open
        "the backend refused the call with a status that is tried again";
    ExchangeTimeout: 504 BACKEND_TIMEOUT "exchange_timeout" Upstream Never Close
        "the request took longer than its route allows";

    // --- what the proxy itself had to refuse --------------------------------------------------
    PoolFull: 503 OVERLOADED "pool_full" Proxy Never Open
        "too many requests wait for this backend already";
    PoolTimeout: 503 OVERLOADED "pool_timeout" Proxy Never Open
        "no connection to the backend became free in time";
    /// Sparing the endpoint, or trying another, would not help: no socket could be made.
    OutOfDescriptors: 503 OVERLOADED "out_of_descriptors" Proxy Never Open
        "this proxy has no file descriptor left for a connection to the backend";
    ConnectionLimit: 503 OVERLOADED "connection_limit" Proxy Never Close
        "too many connections are open";
    Draining: 503 SHUTTING_DOWN "draining" Proxy Never Close
        "this proxy is shutting down, try again on a new connection";
    /// Configuration has changed too often, or too long ago, for it to go on.
    GenerationRetired: 503 SHUTTING_DOWN "generation_retired" Proxy Never Close
        "the configuration that this request began with is retired, try again";
    Internal: 500 INTERNAL_ERROR "internal" Proxy Never Close
        "something went wrong in this proxy";
}

impl Failure {
    pub fn status(self) -> u16 {
        self.row().status
    }

    pub fn label(self) -> &'static str {
        self.row().label
    }

    pub fn side(self) -> Side {
        self.row().side
    }

    /// `Retry-After` of the answer (RFC 9110 10.2.3), for failures that pass by themselves.
    pub fn retry_after_seconds(self) -> Option<u32> {
        matches!(self.status(), 503 | 429).then_some(RETRY_AFTER_SECONDS)
    }

    /// Counted by `tls_proxy_timeout_errors_total`.
    pub fn is_timeout(self) -> bool {
        self.label().ends_with("_timeout")
            || matches!(self, Failure::BodyTooSlow | Failure::ClientTooSlow)
    }
}

impl Failure {
    /// What a response head that is refused means: whatever its fault, the client gets a 502.
    pub fn from_upstream(malformed: Malformed) -> Failure {
        if matches!(malformed, Malformed::HeadTooLarge | Malformed::TooManyHeaders) {
            Failure::UpstreamHeadTooLarge
        } else {
            Failure::UpstreamMalformed
        }
    }
}

/// Where the parser's refusals become failures: the kinds that have a status of their own are
/// named.
impl From<Malformed> for Failure {
    fn from(malformed: Malformed) -> Failure {
        const NAMED: [(Malformed, Failure); 5] = [
            (Malformed::UrlTooLong, Failure::UrlTooLong),
            (Malformed::HeadTooLarge, Failure::HeadTooLarge),
            (Malformed::TooManyHeaders, Failure::TooManyHeaders),
            (Malformed::VersionUnsupported, Failure::VersionUnsupported),
            (Malformed::ExpectationUnknown, Failure::ExpectationUnsupported),
        ];
        let named = NAMED.iter().find(|(rule, _)| *rule == malformed);
        named.map_or(Failure::Malformed(malformed), |(_, failure)| *failure)
    }
}

/// Stands for all of them in `Failure::ALL`.
const ANY_MALFORMED: Malformed = Malformed::RequestLine;

fn malformed_row(malformed: Malformed) -> Row {
    Row {
        status: 400,
        code: "INVALID_REQUEST",
        label: malformed.label(),
        side: Side::Client,
        retry: Retry::Never,
        keep: Keep::Close,
        message: malformed.message(),
    }
}

/// Long enough that a client's retry meets another state of things, short enough not to be noticed.
const RETRY_AFTER_SECONDS: u32 = 1;

const _: () = assert!(size_of::<Failure>() <= 2);

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::fmt::Write as _;

    use super::*;
    use crate::telemetry::snapshot;

    #[test]
    fn the_table_is_as_reviewed() {
        let mut table = String::new();
        for failure in Failure::ALL {
            let row = failure.row();
            let Row { status, code, label, message, .. } = row;
            let (side, retry, keep) = (row.side.label(), row.retry, row.keep);
            writeln!(
                table,
                "{status:03} {code:25} {label:24} {side:9} {retry:?} {keep:?} timeout={} {message}",
                failure.is_timeout(),
            )
            .unwrap();
        }
        snapshot::snapshot("telemetry/failure.txt", &table);
    }

    #[test]
    fn every_failure_has_its_own_label_and_slot() {
        let labels: HashSet<&str> = Failure::ALL.iter().map(|failure| failure.label()).collect();
        assert_eq!(labels.len(), Failure::COUNT);
        for (index, failure) in Failure::ALL.into_iter().enumerate() {
            assert_eq!(failure.index(), index);
        }
    }

    #[test]
    fn labels_are_the_names_in_snake_case() {
        for failure in Failure::ALL.into_iter().skip(1) {
            let mut snake = String::new();
            for letter in format!("{failure:?}").chars() {
                if letter.is_ascii_uppercase() && !snake.is_empty() {
                    snake.push('_');
                }
                snake.push(letter.to_ascii_lowercase());
            }
            assert_eq!(failure.label(), snake);
        }
    }

    #[test]
    fn nothing_is_retried_once_the_backend_may_have_seen_the_request() {
        for failure in Failure::ALL {
            let row = failure.row();
            if row.retry == Retry::Safe {
                let before =
                    ["connect_", "upstream_tls_", "upstream_not_http2", "upstream_no_tunnel"];
                let is_before = before.iter().any(|part| row.label.starts_with(part));
                assert!(is_before, "{failure:?}");
            }
            if row.side == Side::Client {
                assert_eq!(row.retry, Retry::Never, "{failure:?}");
            }
        }
    }

    #[test]
    fn what_cannot_be_answered_closes_the_connection() {
        for failure in Failure::ALL {
            if failure.status() == 0 {
                assert_eq!(failure.row().keep, Keep::Close, "{failure:?}");
            }
        }
    }

    #[test]
    fn messages_are_lower_case_without_a_full_stop() {
        for failure in Failure::ALL {
            let message = failure.row().message;
            assert!(message.starts_with(|first: char| first.is_ascii_lowercase()), "{message}");
            assert!(!message.ends_with('.'), "{message}");
        }
    }

    #[test]
    fn refusals_that_pass_tell_when_to_come_back() {
        assert_eq!(Failure::PoolFull.retry_after_seconds(), Some(1));
        assert_eq!(Failure::ConnectRefused.retry_after_seconds(), None);
    }
}
