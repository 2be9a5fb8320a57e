//! The process that has taken over, while this one drains. Should it die, this one takes
//! connections again: it still has a duplicate of every socket that it gave away, so nothing that
//! the kernel has queued is lost. What the dead one had accepted is, and so is what waits in
//! sockets that it had opened itself. One that hangs is not noticed, nor one that dies after this
//! process has ended.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, ExitStatus};
use std::rc::Rc;

use crate::control::Control;
use crate::control::message::ToShard;
use crate::control::pid_file::PidFile;
use crate::control::upgrade::{Described, Use, end_of};
use crate::engine::{self, Descriptor};
use crate::limits;
use crate::plan::ListenerKey;

/// The new process has said that it serves.
#[derive(Debug)]
pub(super) struct Successor {
    pub(super) pid: u32,
    /// The listeners that are its own now.
    pub(super) keys: Vec<ListenerKey>,
    /// What it was given and has taken. Empty once it can do without.
    sockets: RefCell<Vec<(Described, TcpListener)>>,
    fate: RefCell<Fate>,
    /// It is new: this process stays, whatever there is to do.
    is_fresh: Cell<bool>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    /// Nobody would notice its end.
    Unwatched,
    Watched,
    /// How it has ended.
    Died(String),
}

/// What starting it has brought: its end of the stream is open for as long as it lives.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) child: Child,
    pub(super) stream: UnixStream,
    pub(super) keys: Vec<ListenerKey>,
    pub(super) ports: Vec<Use>,
    pub(super) is_watched: bool,
    /// All that it was offered.
    pub(super) sockets: Vec<(Described, TcpListener)>,
}

impl Successor {
    /// This process may end: there is no more to do for it.
    pub(super) fn is_left_alone(&self) -> bool {
        !self.is_fresh.get() && !matches!(*self.fate.borrow(), Fate::Died(_))
    }

    fn died(&self) -> Option<String> {
        match &*self.fate.borrow() {
            Fate::Unwatched | Fate::Watched => None,
            Fate::Died(how) => Some(how.clone()),
        }
    }

    /// Its sockets are its own affair from now on. Held any longer, they would queue connections
    /// when it closes them.
    pub(super) fn let_go(&self) {
        self.fate.replace(Fate::Unwatched);
        self.is_fresh.set(false);
        self.sockets.take();
    }
}

impl Control {
    pub(super) fn watch_successor(self: &Rc<Self>, started: Started) -> Rc<Successor> {
        let Started { child, stream, keys, ports, is_watched, mut sockets } = started;
        let pid = child.id();
        sockets.retain(|(described, _)| match described.role {
            Use::Listener => keys.contains(&ListenerKey(described.key)),
            Use::Metrics | Use::Admin => ports.contains(&described.role),
        });
        let fate = RefCell::new(if is_watched { Fate::Watched } else { Fate::Unwatched });
        let (sockets, is_fresh) = (RefCell::new(sockets), Cell::new(is_watched));
        let successor = Rc::new(Successor { pid, keys, sockets, fate, is_fresh });
        if !is_watched {
            successor.let_go();
            return successor;
        }
        let (control, watched) = (Rc::clone(self), Rc::clone(&successor));
        engine::spawn(async move {
            let gone = match control.pass_on_the_rest(stream).await {
                Ok(stream) => until_gone(stream).await,
                Err(error) => Err(error),
            };
            match gone {
                Ok(true) => {
                    let status = control.watch.pool().run(move || status_of(child)).await;
                    control.successor_gone(&watched, status.flatten());
                }
                Ok(false) => watched.let_go(),
                Err(error) => {
                    log::warn!("process {pid} is not watched any more: {error}");
                    watched.let_go();
                }
            }
            control.wake();
        });
        let (control, fresh) = (Rc::clone(self), Rc::clone(&successor));
        engine::spawn(async move {
            engine::sleep(limits::UPGRADE_WATCH_TIME).await;
            fresh.is_fresh.set(false);
            control.wake();
        });
        successor
    }

    /// What was said while it started. Nothing more is said to this process: it would be lost.
    async fn pass_on_the_rest(&self, mut stream: UnixStream) -> io::Result<UnixStream> {
        // What this process writes into the file of the blacklist comes before what the other does.
        self.until(limits::BLACKLIST_STOP_TIMEOUT, Control::is_blacklist_saved).await;
        let rest = self.to_pass_on();
        let work = move || (rest.send(&mut stream), stream);
        let sent = self.watch.pool().run(work).await;
        let (sent, stream) = sent.ok_or_else(|| io::Error::other("sending has panicked"))?;
        if let Err(error) = sent {
            log::error!(
                "what operators have said during the upgrade is not known to the new process: \
                 {error}"
            );
        }
        Ok(stream)
    }

    fn successor_gone(&self, successor: &Successor, status: Option<ExitStatus>) {
        let pid = successor.pid;
        if *successor.fate.borrow() != Fate::Watched {
            return;
        }
        match status {
            Some(status) => {
                successor.fate.replace(Fate::Died(status.to_string()));
            }
            None => {
                log::warn!(
                    "process {pid} has closed its stream to this process and goes on: it is left \
                     alone from now on"
                );
                successor.let_go();
            }
        }
    }

    /// Also when there is none.
    pub(super) fn is_successor_left_alone(&self) -> bool {
        self.upgrades.successor().is_none_or(|successor| successor.is_left_alone())
    }

    /// How the process that has taken over has ended, by accident.
    pub(super) async fn successor_died(&self) -> String {
        loop {
            let died = self.upgrades.successor().and_then(|successor| successor.died());
            match died {
                Some(how) => return how,
                None => self.changed_once().await,
            }
        }
    }

    /// Takes connections again, after the process that had taken over has died. False: data cores
    /// do not follow.
    pub(super) async fn take_over_again(self: &Rc<Self>, how: &str, pid_file: &PidFile) -> bool {
        let Some(successor) = self.upgrades.successor() else { return false };
        let pid = successor.pid;
        log::error!(
            "process {pid} has ended ({how}) after it took over: this process takes connections \
             again; those that it had accepted are lost, and what operators have said to it, but \
             for what it has saved"
        );
        // What still closes the sockets of before would close those to come.
        let closed =
            |control: &Control| control.held.borrow().are_left(&control.upgrades.left.borrow());
        if !self.until(limits::INSTALL_TIMEOUT, closed).await {
            return false;
        }
        self.upgrades.left.borrow_mut().clear();
        self.blacklist_again().await;
        let sockets = self.sockets_again(successor.sockets.take());
        self.resumed.iter().for_each(|resumed| resumed.set(false));
        let mut by_core: Vec<_> = self.shards.iter().map(|_| Vec::new()).collect();
        let cores = by_core.len();
        for (index, socket) in sockets.into_iter().enumerate() {
            by_core[index % cores].push(socket);
        }
        for (letters, sockets) in self.shards.iter().zip(by_core) {
            letters.send(ToShard::TakeAgain(sockets));
        }
        self.wake();
        let all = |control: &Control| control.resumed.iter().all(Cell::get);
        if !self.until(limits::INSTALL_TIMEOUT, all).await {
            return false;
        }
        // Whatever they had said of having drained came before.
        self.drained.iter().for_each(|drained| drained.set(false));
        self.draining.set(false);
        self.upgrades.begin_again();
        self.blacklist_changed();
        if let Some(publisher) = &self.totals.borrow().log {
            publisher.rotate(true);
        }
        if let Err(error) = pid_file.write_again() {
            log::error!("{error}");
        }
        self.notify.took_again(self.plan().version);
        self.publish_health();
        self.tell_health("process", "serving", "the process that had taken over has ended");
        self.wake();
        self.read_what_has_changed_meanwhile();
        true
    }

    /// The new process has read it, or would have; a server is polled again anyway.
    fn read_what_has_changed_meanwhile(self: &Rc<Self>) {
        if self.plan().hot_reload.watch && self.source.provider.file().is_some() {
            let control = Rc::clone(self);
            engine::spawn(async move { control.reload_changed().await });
        }
    }

    /// Of every listener, and the control core's own ports, which are served again at once.
    fn sockets_again(
        self: &Rc<Self>,
        kept: Vec<(Described, TcpListener)>,
    ) -> Vec<(ListenerKey, TcpListener)> {
        let (kept, own): (Vec<_>, Vec<_>) =
            kept.into_iter().partition(|(described, _)| described.role == Use::Listener);
        let of = |role| own.iter().position(|(described, _)| described.role == role);
        let (metrics, admin) = (of(Use::Metrics), of(Use::Admin));
        let mut own: Vec<_> = own.into_iter().map(|(_, socket)| Some(socket)).collect();
        let mut taken = |at: Option<usize>| at.and_then(|at| own[at].take());
        let (metrics, admin) = (taken(metrics), taken(admin));
        let kept = kept.into_iter().map(|(described, socket)| (ListenerKey(described.key), socket));
        let again = self.held.borrow_mut().listen_again(kept.collect(), metrics, admin);
        self.change_ports(again.metrics, again.admin);
        again.listeners
    }
}

/// True: the other end is closed without a word.
async fn until_gone(stream: UnixStream) -> io::Result<bool> {
    stream.set_nonblocking(true)?;
    let stream = Descriptor::new(OwnedFd::from(stream));
    match stream.read(&mut [0]).await {
        Ok(count) => Ok(count == 0),
        // It has ended with something of ours unread.
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(true),
        Err(error) => Err(error),
    }
}

/// Blocks.
fn status_of(mut child: Child) -> Option<ExitStatus> {
    end_of(&mut child)
}
