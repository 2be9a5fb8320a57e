//! TLS: the streams that protocols are spoken on, and what they need. Certificates, authorities,
//! revocation lists and ticket keys are the control core's ([`material`], [`certificates`]); each
//! data core has a configuration of its own made of them.

pub mod certificates;
pub(crate) mod client;
pub(crate) mod handshake;
pub mod material;
pub(crate) mod record;
pub(crate) mod session;
pub(crate) mod server;
pub mod settings;
pub(crate) mod stream;
pub mod tickets;
pub mod x509;
