//! TLS: the streams that protocols are spoken on, and what they need. Certificates, authorities,
//! revocation lists and ticket keys are the control core's ([`material`], [`certificates`]); each
//! data core has a configuration of its own made of them.

pub mod authorities;
pub mod certificates;
pub mod der;
pub mod distinguished_name;
pub mod files;
pub mod key_encryption;
pub mod material;
pub mod ocsp;
pub mod pem;
pub mod pkcs12;
pub mod settings;
#[cfg(test)]
pub(crate) mod test_pki;
pub mod x509;
