//! What an endpoint is told of whom a connection is for: the PROXY protocol, outgoing.

use std::io;
use std::net::SocketAddr;

use crate::listener::proxy_protocol::{self, Addresses, Certificate, Tls, Tlvs};
use crate::shard::Origin;
use crate::tls::settings::ProxyVersion;

/// `here`: the address that the client has connected to.
pub(crate) fn greeting(
    version: ProxyVersion,
    origin: &Origin,
    here: io::Result<SocketAddr>,
) -> Vec<u8> {
    let mut out = Vec::new();
    let source = origin.speaks_for();
    let told = origin.proxied().map(|proxied| proxied.destination);
    let destination = told.or(here.ok());
    let addresses = destination.map(|destination| Addresses { source, destination });
    match version {
        ProxyVersion::V1 => proxy_protocol::write_v1(addresses, &mut out),
        ProxyVersion::V2 => proxy_protocol::write_v2(addresses, &tlvs(origin), &mut out),
    }
    out
}

/// What is known of the client's own connection, or was told by a peer that is trusted.
fn tlvs(origin: &Origin) -> Tlvs<'_> {
    let proxied = origin.proxied();
    let tls = origin.tls().map(|accepted| {
        let identity = accepted.identity.as_ref();
        let certificate = match identity.map(|identity| identity.facts.common_name.as_deref()) {
            None => Certificate::None,
            Some(common_name) => Certificate::Verified { common_name },
        };
        Tls { version: Some(accepted.version.name()), certificate }
    });
    Tlvs {
        alpn: origin.tls().and_then(|accepted| accepted.alpn.as_deref()),
        authority: origin.host(),
        unique_id: proxied.and_then(|proxied| proxied.unique_id.as_deref()),
        tls,
        checksum: true,
    }
}
