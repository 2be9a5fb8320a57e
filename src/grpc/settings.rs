//! What a route has of gRPC in the plan.

use std::time::Duration;

use crate::grpc::status::Codes;
use crate::grpc::web::Web;

/// Of one route: its calls, whatever their service, or those of one service or method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grpc {
    /// Where its calls are counted: the how manyeth of all routes with gRPC this is.
    pub place: u32,
    /// Of one message, either way; 0: any.
    pub message_bytes_max: u32,
    /// How long a stream may be quiet in both directions; `None`: for ever.
    pub idle_timeout: Option<Duration>,
    pub retry: Retry,
    /// `None`: gRPC-Web is not taken.
    pub web: Option<Web>,
}

/// Which answers are not the last word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    pub on: Codes,
    /// Tries in all.
    pub attempts_max: u32,
}
