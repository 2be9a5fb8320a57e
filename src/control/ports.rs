//! What the process listens on: bound before anything else is changed, so that a port that cannot
//! be had refuses the whole plan. A listener that stays keeps its very sockets, and with them the
//! connections that the kernel has queued there.

use std::io;
use std::net::{SocketAddr, TcpListener};

use crate::control::inherited::Inherited;
use crate::control::start::StartError;
use crate::control::upgrade::{Described, Use};
use crate::engine;
use crate::limits;
use crate::plan::{Listener, ListenerKey, Plan};

/// What is bound already. A copy goes where binding is done.
#[derive(Clone, Debug, Default)]
pub(super) struct Held {
    given: u32,
    listeners: Vec<HeldListener>,
    /// Removed, but some cores have not closed their sockets yet: how many.
    closing: Vec<(ListenerKey, SocketAddr, usize)>,
    metrics: Option<HeldPort>,
    admin: Option<HeldPort>,
}

#[derive(Clone, Debug)]
struct HeldListener {
    key: ListenerKey,
    name: String,
    /// As configured.
    wanted: SocketAddr,
    bound: SocketAddr,
    sockets: usize,
}

#[derive(Clone, Copy, Debug)]
struct HeldPort {
    wanted: SocketAddr,
    bound: SocketAddr,
}

/// What a plan needs beyond what is held.
#[derive(Debug)]
pub(super) struct Bound {
    held: Held,
    pub(super) keys: Vec<ListenerKey>,
    /// By listener, then by core.
    pub(super) sockets: Vec<(ListenerKey, Vec<TcpListener>)>,
    pub(super) metrics: PortChange,
    pub(super) admin: PortChange,
}

/// What a process listens on that takes connections again.
#[derive(Debug)]
pub(super) struct Again {
    pub(super) listeners: Vec<(ListenerKey, TcpListener)>,
    pub(super) metrics: PortChange,
    pub(super) admin: PortChange,
}

#[derive(Debug)]
pub(super) enum PortChange {
    Same,
    Off,
    To(TcpListener),
}

impl Held {
    /// Binds what `plan` has more, one socket per core. Port 0 is chosen by the kernel once, shared
    /// by the cores, and kept for as long as the listener has its name; the plan is told.
    pub(super) fn bind(
        &self,
        plan: &mut Plan,
        inherited: &mut Inherited,
    ) -> Result<Bound, StartError> {
        let mut next = Held { listeners: Vec::new(), ..self.clone() };
        let (mut keys, mut sockets) = (Vec::new(), Vec::new());
        for listener in &mut plan.listeners {
            let wanted = listener.bind;
            if let Some(known) = self.find(wanted, &listener.name) {
                listener.bind = known.bound;
                keys.push(known.key);
                next.listeners.push(HeldListener { name: listener.name.clone(), ..known.clone() });
                continue;
            }
            let by_core = self.listen(listener, plan.cores, inherited)?;
            next.given += 1;
            let key = ListenerKey(next.given);
            keys.push(key);
            let (name, bound) = (listener.name.clone(), listener.bind);
            let count = by_core.len();
            next.listeners.push(HeldListener { key, name, wanted, bound, sockets: count });
            sockets.push((key, by_core));
        }
        let metrics = self.port(Use::Metrics, plan.metrics, &mut next.metrics, inherited)?;
        let admin = self.port(Use::Admin, plan.admin, &mut next.admin, inherited)?;
        for gone in self.listeners.iter().filter(|known| !keys.contains(&known.key)) {
            next.closing.push((gone.key, gone.bound, gone.sockets));
        }
        Ok(Bound { held: next, keys, sockets, metrics, admin })
    }

    fn find(&self, wanted: SocketAddr, name: &str) -> Option<&HeldListener> {
        let same = |known: &&HeldListener| {
            known.wanted == wanted && (wanted.port() != 0 || known.name == name)
        };
        self.listeners.iter().find(same)
    }

    fn listen(
        &self,
        listener: &mut Listener,
        cores: usize,
        inherited: &mut Inherited,
    ) -> Result<Vec<TcpListener>, StartError> {
        let name = &listener.name;
        let mut sockets = Vec::new();
        match inherited.take(Use::Listener, name, listener.bind) {
            Some((bound, taken)) => (listener.bind, sockets) = (bound, taken),
            None => self.claim(name, listener.bind)?,
        }
        while sockets.len() < cores {
            let socket = listen(name, listener.bind)?;
            listener.bind = socket.local_addr().unwrap_or(listener.bind);
            sockets.push(socket);
        }
        Ok(sockets)
    }

    fn port(
        &self,
        role: Use,
        wanted: Option<SocketAddr>,
        next: &mut Option<HeldPort>,
        inherited: &mut Inherited,
    ) -> Result<PortChange, StartError> {
        let (held, name) = match role {
            Use::Admin => (self.admin, "admin"),
            Use::Metrics | Use::Listener => (self.metrics, "metrics"),
        };
        match (held, wanted) {
            (None, None) => Ok(PortChange::Same),
            (Some(held), Some(wanted)) if held.wanted == wanted => Ok(PortChange::Same),
            (Some(_), None) => {
                *next = None;
                Ok(PortChange::Off)
            }
            (Some(_) | None, Some(wanted)) => {
                let taken = inherited.take(role, name, wanted);
                let socket = match taken.and_then(|(_, mut sockets)| sockets.pop()) {
                    Some(socket) => socket,
                    None => {
                        self.claim(name, wanted)?;
                        listen(name, wanted)?
                    }
                };
                *next = Some(HeldPort { wanted, bound: socket.local_addr().unwrap_or(wanted) });
                Ok(PortChange::To(socket))
            }
        }
    }

    /// Of all listeners.
    pub(super) fn listening_sockets(&self) -> usize {
        self.listeners.iter().map(|listener| listener.sockets).sum()
    }

    /// What a new process is told of a listener's socket.
    pub(super) fn describe(&self, key: ListenerKey) -> Option<Described> {
        let known = self.listeners.iter().find(|known| known.key == key)?;
        let HeldListener { name, wanted, bound, .. } = known.clone();
        Some(Described { role: Use::Listener, name, wanted, bound, key: key.0 })
    }

    /// And of those of the control core.
    pub(super) fn describe_own(&self, role: Use) -> Option<Described> {
        let (held, name) = match role {
            Use::Metrics => (self.metrics?, "metrics"),
            Use::Admin => (self.admin?, "admin"),
            Use::Listener => return None,
        };
        let HeldPort { wanted, bound } = held;
        Some(Described { role, name: name.to_owned(), wanted, bound, key: 0 })
    }

    /// Without SO_REUSEPORT: with it, another process of the same user would silently share the
    /// address. It would find ourselves as well, so it is not asked about a port that we have.
    fn claim(&self, name: &str, address: SocketAddr) -> Result<(), StartError> {
        let ports = [self.metrics, self.admin].into_iter().flatten().map(|port| port.bound);
        let closing = self.closing.iter().map(|(_, address, _)| *address);
        let listeners = self.listeners.iter().map(|listener| listener.bound);
        if ports.chain(closing).chain(listeners).any(|ours| ours.port() == address.port()) {
            return Ok(());
        }
        engine::is_free(address).map_err(|error| cannot_listen(name, address, &error))
    }

    /// Whether the cores have closed every socket of every listener, as far as `left` tells.
    pub(super) fn are_left(&self, left: &[ListenerKey]) -> bool {
        let closed = |key| left.iter().filter(|left| **left == key).count();
        self.listeners.iter().all(|listener| closed(listener.key) >= listener.sockets)
    }

    /// Sockets for everything that is held, after it was given away: those that were kept, and new
    /// ones for the rest. What cannot be had is told of, and not held any more: the next reload
    /// tries to bind it.
    pub(super) fn listen_again(
        &mut self,
        mut kept: Vec<(ListenerKey, TcpListener)>,
        metrics: Option<TcpListener>,
        admin: Option<TcpListener>,
    ) -> Again {
        let mut listeners = Vec::new();
        for held in &mut self.listeners {
            let mut sockets: Vec<_> = kept.extract_if(.., |(key, _)| *key == held.key).collect();
            let missing = if sockets.is_empty() { held.sockets } else { 0 };
            for socket in (0..missing).map(|_| listen(&held.name, held.bound)) {
                match socket {
                    Ok(socket) => sockets.push((held.key, socket)),
                    Err(error) => log::error!("{error}; the next reload tries again"),
                }
            }
            held.sockets = sockets.len();
            listeners.extend(sockets);
        }
        self.listeners.retain(|held| held.sockets > 0);
        let port = |name, held: &mut Option<HeldPort>, kept: Option<TcpListener>| {
            let Some(HeldPort { bound, .. }) = *held else { return PortChange::Same };
            match kept.map_or_else(|| listen(name, bound), Ok) {
                Ok(socket) => PortChange::To(socket),
                Err(error) => {
                    log::error!("{error}; the next reload tries again");
                    *held = None;
                    PortChange::Off
                }
            }
        };
        let metrics = port("metrics", &mut self.metrics, metrics);
        let admin = port("admin", &mut self.admin, admin);
        Again { listeners, metrics, admin }
    }

    /// A core has closed its socket of a listener.
    pub(super) fn closed(&mut self, key: ListenerKey) {
        for (closing, _, cores) in &mut self.closing {
            if *closing == key {
                *cores -= 1;
            }
        }
        self.closing.retain(|(_, _, cores)| *cores > 0);
    }
}

impl Bound {
    /// What is held once this is in force. `now` is what is held meanwhile: cores may have closed
    /// sockets since the copy was made.
    pub(super) fn take_held(&mut self, now: &Held) -> Held {
        let mut next = std::mem::take(&mut self.held);
        let new = |key: ListenerKey| now.listeners.iter().any(|known| known.key == key);
        next.closing.retain(|(key, _, _)| {
            new(*key) || now.closing.iter().any(|(closing, _, _)| closing == key)
        });
        for (key, _, cores) in &mut next.closing {
            if let Some((_, _, left)) = now.closing.iter().find(|(closing, _, _)| closing == key) {
                *cores = *left;
            }
        }
        next
    }

    /// The harness of every test and the eyes of every operator look for these lines.
    pub(super) fn announce(&self, plan: &Plan) {
        for (key, by_core) in &self.sockets {
            let at = self.keys.iter().position(|known| known == key);
            let name = at.map_or("", |at| plan.listeners[at].name.as_str());
            by_core.first().into_iter().for_each(|socket| announce(name, socket));
        }
        for (name, change) in [("metrics", &self.metrics), ("admin", &self.admin)] {
            if let PortChange::To(socket) = change {
                announce(name, socket);
            }
        }
    }
}

fn announce(name: &str, socket: &TcpListener) {
    if let Ok(address) = socket.local_addr() {
        log::info!("listening on {address} as {name}");
    }
}

fn listen(name: &str, address: SocketAddr) -> Result<TcpListener, StartError> {
    engine::listen(address, limits::LISTEN_BACKLOG)
        .map_err(|error| cannot_listen(name, address, &error))
}

fn cannot_listen(name: &str, address: SocketAddr, error: &io::Error) -> StartError {
    const CURES: [(io::ErrorKind, &str); 3] = [
        (io::ErrorKind::AddrInUse, "another process listens there: stop it or choose another port"),
        (io::ErrorKind::PermissionDenied, "ports below 1024 need CAP_NET_BIND_SERVICE"),
        (io::ErrorKind::AddrNotAvailable, "no interface of this machine has that address"),
    ];
    let known = CURES.iter().find(|(kind, _)| *kind == error.kind());
    let cure = known.map_or("check the address", |(_, cure)| cure);
    StartError::new(format!("cannot listen on {address} as {name}: {error}; {cure}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_had_again_is_not_held() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let bound = taken.local_addr().unwrap();
        let (port, key) = (HeldPort { wanted: bound, bound }, ListenerKey(1));
        let name = "edge".to_owned();
        let listener = HeldListener { key, name, wanted: bound, bound, sockets: 2 };
        let (listeners, metrics) = (vec![listener], Some(port));
        let mut held = Held { given: 1, listeners, metrics, ..Held::default() };
        let again = held.listen_again(Vec::new(), None, None);
        assert!(again.listeners.is_empty() && matches!(again.metrics, PortChange::Off));
        assert!(matches!(again.admin, PortChange::Same));
        assert!(held.find(bound, "edge").is_none(), "a reload would take it for bound");
        assert!(held.metrics.is_none());
    }
}
