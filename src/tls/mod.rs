//! TLS: the streams that protocols are spoken on, and what they need. Certificates, authorities,
//! revocation lists and ticket keys are the control core's ([`material`], [`certificates`]); each
//! data core has a configuration of its own made of them.

pub mod certificates;
pub mod client_hello;
pub mod material;
pub mod settings;
pub mod x509;
