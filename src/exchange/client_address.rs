//! Who a request is from: the peer, or, when the peer is a trusted proxy, whom it speaks for.

use std::net::{IpAddr, SocketAddr};

use crate::plan::Network;

/// Walks `X-Forwarded-For` from the right, each entry vouched for by the trusted proxy to its
/// right; the first address that is not itself a trusted proxy is the client. What stands to the
/// left of it anybody may have written. Several lines are one list (RFC 9110 section 5.3): a proxy
/// may add a line of its own behind the one that it was sent.
pub(crate) fn client_address<'a>(
    peer: IpAddr,
    trusted: &[Network],
    lines: impl IntoIterator<Item = &'a [u8], IntoIter: DoubleEndedIterator>,
) -> IpAddr {
    let mut client = peer.to_canonical();
    if !is_trusted(client, trusted) {
        return client;
    }
    let entries = lines.into_iter().rev().flat_map(|line| line.rsplit(|&byte| byte == b','));
    for entry in entries {
        let Some(address) = parse(entry) else { return client };
        client = address.to_canonical();
        if !is_trusted(client, trusted) {
            return client;
        }
    }
    client
}

pub(crate) fn is_trusted(address: IpAddr, trusted: &[Network]) -> bool {
    trusted.iter().any(|network| network.contains(address))
}

/// An address, with or without a port.
fn parse(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry.trim_ascii()).ok()?;
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

pub fn fuzz(bytes: &[u8]) {
    let trusted = [Network { address: IpAddr::from([10, 0, 0, 0]), bits: 8 }];
    let stranger = IpAddr::from([192, 0, 2, 1]);
    assert_eq!(client_address(stranger, &trusted, Some(bytes)), stranger);
    client_address(IpAddr::from([10, 0, 0, 1]), &trusted, Some(bytes));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, header: &str) -> String {
        let trusted = [
            Network { address: IpAddr::from([10, 0, 0, 0]), bits: 8 },
            Network { address: "fd00::".parse().unwrap(), bits: 8 },
        ];
        let header = (!header.is_empty()).then_some(header.as_bytes());
        client_address(peer.parse().unwrap(), &trusted, header).to_string()
    }

    #[test]
    fn a_stranger_is_never_believed() {
        assert_eq!(client("192.0.2.1", "1.2.3.4"), "192.0.2.1");
    }

    #[test]
    fn a_trusted_proxy_is_believed_for_the_entry_it_added() {
        assert_eq!(client("10.0.0.1", "1.2.3.4"), "1.2.3.4");
        assert_eq!(client("10.0.0.1", "6.6.6.6, 1.2.3.4"), "1.2.3.4");
        assert_eq!(client("10.0.0.1", ""), "10.0.0.1");
    }

    #[test]
    fn the_walk_goes_through_trusted_proxies_from_the_right() {
        assert_eq!(client("10.0.0.1", "6.6.6.6, 1.2.3.4, 10.9.9.9"), "1.2.3.4");
        assert_eq!(client("10.0.0.1", "10.1.1.1, 10.2.2.2"), "10.1.1.1");
    }

    #[test]
    fn the_walk_goes_through_all_lines_from_the_last() {
        let trusted = [Network { address: IpAddr::from([10, 0, 0, 0]), bits: 8 }];
        let lines: [&[u8]; 3] = [b"6.6.6.6", b"7.7.7.7, 1.2.3.4", b"10.9.9.9"];
        let client = client_address(IpAddr::from([10, 0, 0, 1]), &trusted, lines);
        assert_eq!(client, IpAddr::from([1, 2, 3, 4]));
    }

    #[test]
    fn an_entry_that_is_no_address_ends_the_walk() {
        assert_eq!(client("10.0.0.1", "1.2.3.4, unknown, 10.2.2.2"), "10.2.2.2");
        assert_eq!(client("10.0.0.1", "1.2.3.4,"), "10.0.0.1");
    }

    #[test]
    fn ports_brackets_and_mapped_addresses_are_understood() {
        assert_eq!(client("10.0.0.1", "1.2.3.4:5678"), "1.2.3.4");
        assert_eq!(client("fd00::1", "[2001:db8::1]:443"), "2001:db8::1");
        assert_eq!(client("fd00::1", "[2001:db8::1]"), "2001:db8::1");
        assert_eq!(client("::ffff:10.0.0.1", "1.2.3.4"), "1.2.3.4");
    }
}
