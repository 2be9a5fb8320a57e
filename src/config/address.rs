//! Addresses in a configuration: where to listen, where endpoints are, which networks are
//! trusted. Pure functions, like those of `value.rs`.

use std::net::SocketAddr;

use toml::de::DeValue;

use super::error::Wrong;
use super::value::string;
use crate::plan::{Address, HttpUrl, Network, NotANetwork};

pub(super) fn socket_address(value: &DeValue<'_>) -> Result<SocketAddr, Wrong> {
    let given = string(value)?;
    given.parse().map_err(|_| {
        let wrong = Wrong::new(format!("`{given}` is not an address to listen on"))
            .note("expected an IP address and a port: \"0.0.0.0:8080\", \"[::1]:8080\"");
        match given.strip_prefix(':').or(given.strip_prefix("*:")).map(str::parse::<u16>) {
            Some(Ok(port)) => wrong.note(format!("did you mean `0.0.0.0:{port}`?")),
            Some(Err(_)) | None => wrong,
        }
    })
}

/// A name without a port, as `Host` may have it.
pub(super) fn host_name(value: &DeValue<'_>) -> Result<String, Wrong> {
    let given = string(value)?;
    if is_host_name(given) {
        return Ok(given.to_ascii_lowercase());
    }
    Err(Wrong::new(format!("`{given}` is not the name of a host"))
        .note("expected a name without a port: \"admin.internal\""))
}

/// `ip:port`, `[v6]:port` or `name:port`.
pub(super) fn endpoint_address(value: &DeValue<'_>) -> Result<Address, Wrong> {
    let given = string(value)?;
    parse_address(given).ok_or_else(|| {
        let wrong = Wrong::new(format!("`{given}` is not the address of an endpoint"))
            .note("expected \"10.0.0.1:8080\", \"[2001:db8::1]:8080\" or \"app.internal:8080\"");
        match given.split_once("://") {
            Some((_, rest)) => wrong.note(format!("write it without the scheme: \"{rest}\"")),
            None => wrong,
        }
    })
}

pub fn parse_address(given: &str) -> Option<Address> {
    if let Ok(address) = given.parse::<SocketAddr>() {
        return (address.port() > 0).then_some(Address::Ip(address));
    }
    let (host, port) = given.rsplit_once(':')?;
    if port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let port = port.parse::<u16>().ok().filter(|port| *port > 0)?;
    is_host_name(host).then(|| Address::Name(host.to_ascii_lowercase(), port))
}

/// Why a text is no URL that can be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WrongUrl {
    Https,
    /// `user:password@`.
    User,
    Other(String),
}

/// `http://host[:port][/path][?query]`.
pub fn http_url(given: &str) -> Result<HttpUrl, WrongUrl> {
    let no_url = || {
        // A query may be a secret.
        let shown = match given.split_once('?') {
            Some((before, _)) => format!("{before}?(hidden)"),
            None => given.to_owned(),
        };
        WrongUrl::Other(format!("`{shown}` is not an http URL"))
    };
    let rest = match given.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
        Some((scheme, _)) if scheme.eq_ignore_ascii_case("https") => return Err(WrongUrl::Https),
        Some(_) | None => return Err(no_url()),
    };
    let (authority, path) = match rest.find('/') {
        Some(slash) => rest.split_at(slash),
        None => (rest, ""),
    };
    if authority.contains('@') {
        return Err(WrongUrl::User);
    }
    let plain = path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
    if !plain || authority.contains('?') {
        return Err(no_url());
    }
    let has_port = authority.rsplit(']').next().is_some_and(|after| after.contains(':'));
    let address = if has_port { authority.to_owned() } else { format!("{authority}:80") };
    let Some(address) = parse_address(&address) else {
        return Err(WrongUrl::Other(format!("`{authority}` is not a host and port")));
    };
    Ok(HttpUrl { address, authority: authority.to_owned(), path: path.to_owned() })
}

/// Labels of letters, digits, `-` and `_` (RFC 1123 §2.1, and the underscore of container names).
fn is_host_name(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // a last label of digits only is a mistyped IPv4 address
    let numeric = host.rsplit('.').next().is_some_and(|l| l.bytes().all(|b| b.is_ascii_digit()));
    host.len() <= 253 && host.split('.').all(label) && !numeric
}

/// A CIDR block or one address.
pub(super) fn network(value: &DeValue<'_>) -> Result<Network, Wrong> {
    let given = string(value)?;
    given.parse().map_err(|error| match error {
        NotANetwork::Syntax => Wrong::new(format!("`{given}` is not a network"))
            .note("expected an address or a block: \"10.0.0.0/8\", \"192.168.1.7\", \"fd00::/8\""),
        NotANetwork::BeyondMask(meant) => {
            Wrong::new(format!("`{given}` has bits set beyond its mask"))
                .note(format!("did you mean `{meant}`?"))
        }
    })
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::super::value::Written;
    use super::*;

    fn read<T>(text: &str, parse: impl Fn(&DeValue<'_>) -> Result<T, Wrong>) -> Result<T, String> {
        let value = DeValue::parse(text).expect("the test is TOML");
        parse(value.get_ref()).map_err(|wrong| wrong.message)
    }

    #[test]
    fn endpoints_are_addresses_or_names_with_a_port() {
        let name = |name: &str, port| Some(Address::Name(name.to_owned(), port));
        assert_eq!(parse_address("App.Internal:80"), name("app.internal", 80));
        assert_eq!(parse_address("my_app:8080"), name("my_app", 8080));
        assert_eq!(parse_address("app.internal.:80"), name("app.internal.", 80));
        assert_eq!(parse_address("[::1]:80"), Some(Address::Ip("[::1]:80".parse().unwrap())));
        let wrong = [
            "",
            ":80",
            "a",
            "a:",
            "a:0",
            "1.1.1.1:0",
            "a:+80",
            "a:65536",
            "1.1.1.256:80",
            "1.1.1:80",
            "::1:80",
            "-a:80",
            "a-.b:80",
            "a..b:80",
            "a b:80",
            "a:80/",
            "u@a:80",
            "a/b:80",
            "80",
        ];
        for wrong in wrong {
            assert_eq!(parse_address(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn networks_are_kept_in_the_form_that_addresses_are_compared_in() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let block = read("\"10.0.0.0/8\"", network).unwrap();
        assert!(block.contains(ip("10.255.0.1")) && !block.contains(ip("11.0.0.1")));
        let one = read("\"192.168.1.7\"", network).unwrap();
        assert!(one.contains(ip("192.168.1.7")) && !one.contains(ip("192.168.1.6")));
        let mapped = read("\"::ffff:10.0.0.0/104\"", network).unwrap();
        assert_eq!(mapped, block);
        assert!(mapped.contains(ip("::ffff:10.1.2.3")));
        for all in ["\"0.0.0.0/0\"", "\"::/0\"", "\"fd00::/8\"", "\"::1\""] {
            let network = read(all, network).unwrap();
            assert_eq!(read(&network.written().to_string(), super::network), Ok(network));
        }
        for wrong in ["10.0.0.1/8", "10.0.0.0/33", "10.0.0.0/", "/8", "fd00::1/8", "x"] {
            assert!(read(&format!("\"{wrong}\""), network).is_err(), "{wrong}");
        }
    }
}
