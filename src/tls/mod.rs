//! TLS: the streams that protocols are spoken on, and what they need. Certificates, authorities,
//! revocation lists and ticket keys are the control core's ([`material`], [`certificates`]); each
//! data core has a [`setup`] of its own made of them. rustls shakes hands ([`handshake`]); records
//! are ours after that ([`session`], [`record`]).

pub mod authorities;
pub mod certificates;
pub(crate) mod client;
pub mod client_hello;
pub mod der;
pub mod distinguished_name;
pub mod files;
pub(crate) mod handshake;
pub(crate) mod identity;
pub mod key_encryption;
pub mod material;
pub(crate) mod names;
pub mod ocsp;
pub mod pem;
pub mod pkcs12;
pub(crate) mod record;
pub(crate) mod refusal;
pub(crate) mod responder;
pub(crate) mod server;
pub(crate) mod session;
pub mod settings;
pub mod setup;
pub(crate) mod stream;
#[cfg(test)]
pub(crate) mod test_pki;
pub mod tickets;
pub(crate) mod trust;
pub mod x509;
