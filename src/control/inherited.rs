//! The new process of an upgrade: what the one before it hands over, and what that one is told.

use std::env;
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use crate::control::passed_on::PassedOn;
use crate::control::start::StartError;
use crate::control::upgrade::{Described, Manifest, Ready, Use, VARIABLE};
use crate::engine;
use crate::limits;
use crate::tls::setup::Staples;
use crate::tls::tickets::TicketKeys;

/// Sockets from the process before this one. Empty for one that was started in the usual way.
#[derive(Debug, Default)]
pub(super) struct Inherited {
    stream: Option<UnixStream>,
    sockets: Vec<(Described, TcpListener)>,
    taken: Vec<u32>,
    ports: Vec<Use>,
    /// What operators have told that process. `None`: it cannot say.
    passed_on: Option<PassedOn>,
}

impl Inherited {
    pub(super) fn receive() -> Result<Inherited, StartError> {
        if env::var_os(VARIABLE).is_none() {
            return Ok(Inherited::default());
        }
        let failed = |error: &dyn std::fmt::Display| {
            StartError::new(format!(
                "cannot take over sockets: {error}; {VARIABLE} is set only by a running corelane \
                 that upgrades itself"
            ))
        };
        let stdin = io::stdin().as_fd().try_clone_to_owned();
        let mut stream = UnixStream::from(stdin.map_err(|error| failed(&error))?);
        let received = stream.set_read_timeout(Some(limits::UPGRADE_SEND_TIMEOUT)).and_then(|()| {
            engine::receive_descriptors(
                &mut stream,
                limits::UPGRADE_MANIFEST_BYTES_MAX,
                limits::UPGRADE_SOCKETS_MAX,
            )
        });
        let (text, fds) = received.map_err(|error| failed(&error))?;
        let text = String::from_utf8_lossy(&text);
        let manifest: Manifest = toml::from_str(&text).map_err(|error| failed(&error))?;
        if manifest.sockets.len() != fds.len() {
            return Err(failed(&"their number is not the one announced"));
        }
        let mut passed_on = None;
        if manifest.passes_on {
            passed_on = Some(PassedOn::receive(&mut stream).map_err(|error| failed(&error))?);
        }
        log::info!("takes over {} sockets", fds.len());
        let sockets = manifest.sockets.into_iter().zip(fds.into_iter().map(TcpListener::from));
        let (stream, sockets) = (Some(stream), sockets.collect());
        Ok(Inherited { stream, sockets, passed_on, ..Inherited::default() })
    }

    /// The sockets of a listener with this name and address, and where they are bound.
    pub(super) fn take(
        &mut self,
        role: Use,
        name: &str,
        wanted: SocketAddr,
    ) -> Option<(SocketAddr, Vec<TcpListener>)> {
        let same = |(described, _): &mut (Described, TcpListener)| {
            described.role == role
                && described.wanted == wanted
                && (wanted.port() != 0 || described.name == name)
        };
        let (described, sockets): (Vec<_>, Vec<_>) = self.sockets.extract_if(.., same).unzip();
        let first = described.first()?;
        let bound = first.bound;
        match role {
            Use::Listener => self.taken.push(first.key),
            Use::Metrics | Use::Admin => self.ports.push(role),
        }
        Some((bound, sockets))
    }

    /// Those that the process before this one has sealed tickets with.
    pub(super) fn ticket_keys(&self) -> Option<TicketKeys> {
        self.passed_on.as_ref()?.ticket_keys.clone()
    }

    /// Those that it has stapled.
    pub(super) fn staples(&self) -> Staples {
        let passed = self.passed_on.iter().flat_map(|passed| passed.staples.iter().cloned());
        passed.collect()
    }

    pub(super) fn take_passed_on(&mut self) -> Option<PassedOn> {
        self.passed_on.take()
    }

    /// Tells the old process that this one serves. What it has not taken is dropped here, and
    /// closed there. The error: the old one does not hear it, and goes on by itself.
    pub(super) fn ready(self) -> Result<Predecessor, String> {
        let Some(mut stream) = self.stream else { return Ok(Predecessor::default()) };
        let ready = Ready { keys: self.taken, ports: self.ports, is_watched: true };
        let text = toml::to_string(&ready).expect("numbers and words have a form in TOML");
        engine::send_descriptors(&mut stream, text.as_bytes(), &[]).map_err(|error| {
            format!(
                "the process before this one does not hear that this one serves, and goes on \
                 itself: {error}; try the upgrade again"
            )
        })?;
        Ok(Predecessor(Some(stream)))
    }
}

/// The process before this one, while it drains: it takes connections again should this one die.
#[derive(Debug, Default)]
pub(super) struct Predecessor(Option<UnixStream>);

impl Predecessor {
    /// To read from it what it says last, beside the core.
    pub(super) fn stream(&self) -> Option<UnixStream> {
        self.0.as_ref()?.try_clone().ok()
    }

    /// From now on the end of this process is no accident, or its sockets are no longer those that
    /// it was given: the other one lets go of them.
    pub(super) fn settled(&mut self) {
        if let Some(mut stream) = self.0.take() {
            // It has room for a byte; and who has ended needs none.
            drop(stream.write_all(b"."));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_is_not_heard_knows_it() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let inherited = |stream| Inherited { stream: Some(stream), ..Inherited::default() };
        assert!(inherited(ours.try_clone().unwrap()).ready().is_ok());
        drop(theirs);
        let error = inherited(ours).ready().unwrap_err();
        assert!(error.contains("does not hear that this one serves"), "{error}");
        assert!(Inherited::default().ready().is_ok());
    }
}
