//! Session tickets (RFC 8446 section 4.6.1, RFC 5077): a client comes back to any core, after any
//! reload, and to the next binary. The control core makes the keys and hands them out; a ticket is
//! sealed with a key derived for its scope, so that one of a listener that asks for no certificate
//! opens no door of one that does.

use std::fmt;
use std::sync::Arc as Handle; // tidy: required by rustls
use std::time::Duration;

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use aws_lc_rs::{hmac, rand};
use rustls::server::ProducesTickets;
use serde::{Deserialize, Serialize};

const NAME: usize = 16;
const NONCE: usize = 12;

/// What all keys are derived from, the newest first: new tickets are sealed with that one.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TicketKeys {
    current: [u8; 32],
    previous: Option<[u8; 32]>,
    /// Seconds since 1970.
    pub made_at: u64,
}

impl fmt::Debug for TicketKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TicketKeys(made at {})", self.made_at)
    }
}

/// The system has no randomness to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRandomness;

impl TicketKeys {
    pub fn new(now: u64) -> Result<TicketKeys, NoRandomness> {
        Ok(TicketKeys { current: secret()?, previous: None, made_at: now })
    }

    /// Tickets of the key before are good for one more round, and end it with a new one.
    pub fn rotated(&self, now: u64) -> Result<TicketKeys, NoRandomness> {
        Ok(TicketKeys { current: secret()?, previous: Some(self.current), made_at: now })
    }
}

fn secret() -> Result<[u8; 32], NoRandomness> {
    let mut secret = [0; 32];
    rand::fill(&mut secret).map_err(|_| NoRandomness)?;
    Ok(secret)
}

/// Seals and opens the tickets of one scope.
pub(super) fn ticketer(
    keys: &TicketKeys,
    scope: &[u8],
    lifetime: Duration,
) -> Handle<dyn ProducesTickets> {
    let secrets = [Some(keys.current), keys.previous].into_iter().flatten();
    let keys = secrets.filter_map(|secret| Key::derive(&secret, scope)).collect();
    let lifetime = u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX);
    Handle::new(Ticketer { keys, lifetime })
}

struct Ticketer {
    keys: Vec<Key>,
    lifetime: u32,
}

struct Key {
    /// Says which key a ticket is sealed with.
    name: [u8; NAME],
    key: RandomizedNonceKey,
}

impl Key {
    fn derive(secret: &[u8; 32], scope: &[u8]) -> Option<Key> {
        let secret = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let part = |label: &[u8]| {
            let mut context = hmac::Context::with_key(&secret);
            [label, b"\0", scope].iter().for_each(|bytes| context.update(bytes));
            context.sign()
        };
        let name = part(b"name").as_ref()[..NAME].try_into().ok()?;
        let key = RandomizedNonceKey::new(&AES_256_GCM, part(b"key").as_ref()).ok()?;
        Some(Key { name, key })
    }
}

impl fmt::Debug for Ticketer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ticketer({} keys)", self.keys.len())
    }
}

impl ProducesTickets for Ticketer {
    fn enabled(&self) -> bool {
        !self.keys.is_empty()
    }

    fn lifetime(&self) -> u32 {
        self.lifetime
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let key = self.keys.first()?;
        let mut sealed = plain.to_vec();
        let aad = Aad::from(key.name);
        let nonce = key.key.seal_in_place_append_tag(aad, &mut sealed).ok()?;
        Some([&key.name[..], nonce.as_ref(), &sealed].concat())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_first_chunk::<NAME>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE>()?;
        let key = self.keys.iter().find(|key| key.name == *name)?;
        let mut plain = sealed.to_vec();
        let nonce = Nonce::from(nonce);
        let length = key.key.open_in_place(nonce, Aad::from(key.name), &mut plain).ok()?.len();
        plain.truncate(length);
        Some(plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(keys: &TicketKeys, scope: &[u8]) -> Handle<dyn ProducesTickets> {
        ticketer(keys, scope, Duration::from_secs(60))
    }

    #[test]
    fn a_ticket_is_good_until_its_key_was_replaced_twice_and_in_its_scope_only() {
        let first = TicketKeys::new(0).unwrap();
        let ticket = of(&first, b"edge").encrypt(b"session").unwrap();
        let again = of(&first, b"edge").encrypt(b"session").unwrap();
        assert_ne!(ticket, again, "the same session twice looks different");
        let second = first.rotated(1).unwrap();
        let third = second.rotated(2).unwrap();
        // As the next binary has them.
        let passed: TicketKeys =
            serde_json::from_str(&serde_json::to_string(&second).unwrap()).unwrap();
        for keys in [&first, &second, &passed] {
            assert_eq!(of(keys, b"edge").decrypt(&ticket).as_deref(), Some(&b"session"[..]));
            assert_eq!(of(keys, b"internal").decrypt(&ticket), None);
        }
        assert_eq!(of(&third, b"edge").decrypt(&ticket), None);
        assert_eq!(of(&TicketKeys::new(0).unwrap(), b"edge").decrypt(&ticket), None);
    }

    #[test]
    fn what_is_no_ticket_of_ours_opens_nothing() {
        let keys = TicketKeys::new(0).unwrap();
        let ticketer = of(&keys, b"edge");
        let ticket = ticketer.encrypt(b"session").unwrap();
        for length in 0..ticket.len() {
            assert_eq!(ticketer.decrypt(&ticket[..length]), None);
        }
        for bit in 0..ticket.len() * 8 {
            let mut changed = ticket.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(ticketer.decrypt(&changed), None);
        }
        assert!(format!("{keys:?}").len() < 40, "nothing secret is printed");
    }
}
