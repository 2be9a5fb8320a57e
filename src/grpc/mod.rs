//! gRPC: what the proxy itself says in it, and what it looks at while calls pass. Messages are
//! never decoded but by the health service, and never held: a stream of any kind goes through as it
//! comes. Used by [`crate::exchange`]; which calls go where is an ordinary matter of routes.

use crate::base64;

pub(crate) mod call;
mod head;
pub mod health;
pub mod messages;
pub mod settings;
pub mod status;
pub mod timeout;
pub mod web;

/// Of a request or response whose body is gRPC messages: `application/grpc`, with a `+proto` or
/// another format behind it.
pub fn is_grpc(content_type: &[u8]) -> bool {
    matches!(suffix(content_type, b"application/grpc"), Some(b"" | [b'+' | b';' | b' ', ..]))
}

/// What stands behind `name`, in any case.
pub(crate) fn suffix<'t>(text: &'t [u8], name: &[u8]) -> Option<&'t [u8]> {
    let (found, rest) = text.split_at_checked(name.len())?;
    found.eq_ignore_ascii_case(name).then_some(rest)
}

/// For the fuzzer: whatever bytes come, they are read the same however they are cut.
pub fn fuzz(bytes: &[u8]) {
    messages::fuzz(bytes);
    timeout::fuzz(bytes);
    base64::fuzz(bytes);
    web::fuzz(bytes);
    health::fuzz(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_is_told_by_its_content_type_and_grpc_web_is_another() {
        for grpc in ["application/grpc", "application/grpc+proto", "Application/gRPC; a=b"] {
            assert!(is_grpc(grpc.as_bytes()), "{grpc}");
        }
        for other in ["", "application/grp", "application/grpcx", "application/grpc-web", "a/grpc"]
        {
            assert!(!is_grpc(other.as_bytes()), "{other}");
        }
    }
}
