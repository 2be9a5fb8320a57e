//! What logs, events and the admin port tell of a client's TLS, and of who its certificate says it
//! is. All of that text is the client's: it is escaped as every other byte of a peer.

use serde::Serialize;

use crate::hexadecimal;
use crate::limits::TLS_FIELD_BYTES_MAX;
use crate::telemetry::access_log::optional;
use crate::telemetry::json;
use crate::tls::x509::Facts;

#[derive(Clone, Copy, Debug)]
pub struct ClientTls<'a> {
    /// Empty, as the cipher is, where it is not ended here.
    pub version: &'static str,
    pub cipher: &'static str,
    /// The host that the client asks for. Empty: none.
    pub server_name: &'a str,
    pub resumed: bool,
    /// Of a certificate that an authority of ours has signed.
    pub client: Option<&'a Facts>,
}

impl<'a> ClientTls<'a> {
    /// Of TLS that goes through as it came.
    pub fn passed(server_name: &'a str) -> ClientTls<'a> {
        ClientTls { version: "", cipher: "", server_name, resumed: false, client: None }
    }

    pub fn is_passed(&self) -> bool {
        self.version.is_empty()
    }

    pub fn common_name(&self) -> &'a str {
        self.client.and_then(|client| client.common_name.as_deref()).unwrap_or_default()
    }

    pub fn subject(&self) -> &'a str {
        self.client.map_or("", |client| client.subject.as_str())
    }

    pub fn spiffe_id(&self) -> &'a str {
        self.client.and_then(Facts::spiffe_id).unwrap_or_default()
    }

    /// As far as they are told, without the others that a certificate may be for.
    pub(super) fn names(&self, of: NamesOf) -> impl Iterator<Item = &'a str> {
        told(self.client.map_or(&[], of))
    }

    /// Appends a member of a JSON object.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b",\"tls\":{\"version\":");
        optional(self.version.as_bytes(), out);
        out.extend_from_slice(b",\"cipher\":");
        optional(self.cipher.as_bytes(), out);
        out.extend_from_slice(b",\"server_name\":");
        optional(self.server_name.as_bytes(), out);
        out.extend_from_slice(b",\"resumed\":");
        out.extend_from_slice(if self.resumed { b"true" } else { b"false" });
        out.extend_from_slice(b",\"client\":");
        match self.client {
            None => out.extend_from_slice(b"null"),
            Some(client) => {
                out.extend_from_slice(b"{\"common_name\":");
                optional(self.common_name().as_bytes(), out);
                out.extend_from_slice(b",\"subject\":");
                optional(self.subject().as_bytes(), out);
                out.extend_from_slice(b",\"fingerprint\":\"");
                hexadecimal::write(&client.fingerprint, out);
                out.push(b'"');
                for (key, of) in [("dns_names", DNS_NAMES), ("emails", EMAILS), ("uris", URIS)] {
                    out.extend_from_slice(b",\"");
                    out.extend_from_slice(key.as_bytes());
                    out.extend_from_slice(b"\":[");
                    for (index, name) in self.names(of).enumerate() {
                        if index > 0 {
                            out.push(b',');
                        }
                        json::string(name.as_bytes(), out);
                    }
                    out.push(b']');
                }
                out.extend_from_slice(b",\"spiffe_id\":");
                optional(self.spiffe_id().as_bytes(), out);
                out.push(b'}');
            }
        }
        out.push(b'}');
    }
}

/// Alternative names of one kind.
pub(super) type NamesOf = fn(&Facts) -> &[String];

pub(super) const DNS_NAMES: NamesOf = |facts| &facts.dns_names;
pub(super) const EMAILS: NamesOf = |facts| &facts.emails;
pub(super) const URIS: NamesOf = |facts| &facts.uris;

/// Whole names, as many of them as nobody needs more of.
fn told(names: &[String]) -> impl Iterator<Item = &str> {
    let mut left = TLS_FIELD_BYTES_MAX;
    names.iter().map(String::as_str).take_while(move |name| {
        let rest = left.checked_sub(name.len());
        left = rest.unwrap_or(left);
        rest.is_some()
    })
}

/// The same, to be sent to another core.
#[derive(Clone, Debug, Serialize)]
pub struct Told {
    pub version: Option<&'static str>,
    pub cipher: Option<&'static str>,
    pub server_name: Option<String>,
    pub resumed: bool,
    pub client: Option<ToldClient>,
}

#[derive(Clone, Debug, Serialize)]
pub struct ToldClient {
    pub common_name: Option<String>,
    pub subject: Option<String>,
    pub fingerprint: String,
    pub dns_names: Vec<String>,
    pub emails: Vec<String>,
    pub uris: Vec<String>,
    pub spiffe_id: Option<String>,
}

impl Told {
    pub fn of(tls: &ClientTls<'_>) -> Told {
        let word = |word: &'static str| (!word.is_empty()).then_some(word);
        let client = |client: &Facts| {
            let mut fingerprint = Vec::new();
            hexadecimal::write(&client.fingerprint, &mut fingerprint);
            ToldClient {
                common_name: text(tls.common_name()),
                subject: text(tls.subject()),
                fingerprint: String::from_utf8_lossy(&fingerprint).into_owned(),
                dns_names: tls.names(DNS_NAMES).map(str::to_owned).collect(),
                emails: tls.names(EMAILS).map(str::to_owned).collect(),
                uris: tls.names(URIS).map(str::to_owned).collect(),
                spiffe_id: text(tls.spiffe_id()),
            }
        };
        Told {
            version: word(tls.version),
            cipher: word(tls.cipher),
            server_name: text(tls.server_name),
            resumed: tls.resumed,
            client: tls.client.map(client),
        }
    }
}

/// As much as anybody needs of it: a certificate may hold kilobytes.
fn text(text: &str) -> Option<String> {
    let mut end = text.len().min(TLS_FIELD_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    (!text.is_empty()).then(|| text[..end].to_owned())
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::tls::x509::KeyKind;

    /// Of a certificate that says this of its owner.
    pub(crate) fn facts(name: &str) -> Facts {
        Facts {
            subject: format!("CN={name}"),
            common_name: Some(name.to_owned()),
            organizational_units: Vec::new(),
            issuer: String::new(),
            serial: String::new(),
            dns_names: Vec::new(),
            addresses: Vec::new(),
            uris: vec![format!("spiffe://corp.example/{name}")],
            emails: Vec::new(),
            not_before: UNIX_EPOCH,
            not_after: UNIX_EPOCH,
            fingerprint: [0xa5; 32],
            key_digest: [0; 32],
            key: KeyKind::P256,
            ocsp_responder: None,
            must_staple: false,
        }
    }

    pub(crate) fn of(facts: Option<&Facts>) -> ClientTls<'_> {
        ClientTls {
            version: "TLSv1.3",
            cipher: "TLS_AES_256_GCM_SHA384",
            server_name: "shop.example",
            resumed: true,
            client: facts,
        }
    }

    #[test]
    fn what_is_told_to_another_core_is_what_the_log_says() {
        let mut facts = facts("w\"\n");
        facts.dns_names = vec!["a.example".to_owned(), "*.b.example".to_owned()];
        facts.emails = vec!["\"a,b\"@example.com".to_owned()];
        for client in [None, Some(&facts)] {
            let tls = of(client);
            let mut logged = b"{\"\":0".to_vec();
            tls.encode(&mut logged);
            logged.push(b'}');
            assert!(json::check::is_valid(&logged));
            let logged: serde_json::Value = serde_json::from_slice(&logged).unwrap();
            assert_eq!(logged["tls"], serde_json::to_value(Told::of(&tls)).unwrap());
        }
        let mut passed = Vec::new();
        ClientTls::passed("a").encode(&mut passed);
        let expected = ",\"tls\":{\"version\":null,\"cipher\":null,\"server_name\":\"a\",\
                        \"resumed\":false,\"client\":null}";
        assert_eq!(String::from_utf8_lossy(&passed), expected);
    }

    #[test]
    fn a_certificate_cannot_fill_the_letters_between_cores() {
        let mut facts = facts(&"\u{e9}".repeat(TLS_FIELD_BYTES_MAX));
        facts.dns_names = vec!["a".repeat(TLS_FIELD_BYTES_MAX / 2 - 1); 9];
        facts.emails = vec!["a".repeat(TLS_FIELD_BYTES_MAX + 1); 2];
        let client = Told::of(&of(Some(&facts))).client.unwrap();
        assert!(client.subject.unwrap().len() <= TLS_FIELD_BYTES_MAX);
        assert_eq!(client.common_name.unwrap().len(), TLS_FIELD_BYTES_MAX);
        assert_eq!((client.dns_names.len(), client.emails.len()), (2, 0), "whole ones");
    }
}
