//! A new binary on the same sockets. The running process starts its program again, hands it every
//! listening socket over a UNIX stream (its standard input), and waits for it to say that it
//! serves; only then it stops accepting and drains. What the kernel has queued stays where it is,
//! and the new process takes it. One that fails, or says nothing in time, is ended, and nothing has
//! changed. What becomes of one that serves is watched by [`super::successor`].

use std::cell::{Cell, RefCell};
use std::env;
use std::ffi::OsString;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::rc::Rc;
use std::thread;

use serde::{Deserialize, Serialize};

use crate::control::Control;
use crate::control::message::ToShard;
use crate::control::passed_on::PassedOn;
use crate::control::successor::{Started, Successor};
use crate::engine::{self, Signals};
use crate::limits;
use crate::plan::ListenerKey;

/// Set for a process whose standard input brings it sockets.
pub(super) const VARIABLE: &str = "CORELANE_UPGRADE";

/// How this process was started, to start it again.
#[derive(Clone, Debug)]
pub(super) struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
}

impl Program {
    /// At the start: later the path may lead to the file that the new binary has replaced.
    pub(super) fn current() -> io::Result<Program> {
        let running = env::current_exe()?;
        let asked = env::args_os().next().map(PathBuf::from).unwrap_or_default();
        // By the path that it was asked for, if that is one: a link on it may lead to a new
        // binary by then.
        let path = match std::path::absolute(&asked) {
            Ok(path) if asked.canonicalize().ok() == running.canonicalize().ok() => path,
            Ok(_) | Err(_) => running,
        };
        Ok(Program { path, arguments: env::args_os().skip(1).collect() })
    }
}

/// What a socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Use {
    Listener,
    Metrics,
    Admin,
}

/// One socket, as the old process knows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Described {
    pub(super) role: Use,
    pub(super) name: String,
    /// As configured.
    pub(super) wanted: SocketAddr,
    pub(super) bound: SocketAddr,
    /// What the old process calls the listener.
    pub(super) key: u32,
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Manifest {
    #[serde(default)]
    pub(super) sockets: Vec<Described>,
    /// Another message follows: what operators have said.
    #[serde(default)]
    pub(super) passes_on: bool,
}

/// An upgrade that has succeeded.
#[derive(Clone, Debug)]
pub(crate) struct Upgraded {
    /// Of the process that serves from now on.
    pub(crate) pid: u32,
    /// What an operator should know, one line each.
    pub(crate) warnings: Vec<String>,
}

/// What the new process says when it serves.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Ready {
    /// The listeners that it has taken over.
    #[serde(default)]
    pub(super) keys: Vec<u32>,
    /// And the ports of the control core.
    #[serde(default)]
    pub(super) ports: Vec<Use>,
    /// It keeps the stream open for as long as it lives, and says a byte there before it ends on
    /// purpose. A version that knows nothing of this says nothing here.
    #[serde(default)]
    pub(super) is_watched: bool,
}

/// One at a time, and once it has succeeded none.
#[derive(Debug, Default)]
pub(super) struct Upgrades {
    pub(super) lent: RefCell<Lent>,
    /// A listener for each socket of it that a core has closed, while this process drains.
    pub(super) left: RefCell<Vec<ListenerKey>>,
    state: RefCell<State>,
    /// To the process that is being started.
    stream: RefCell<Option<UnixStream>>,
    given_up: Cell<bool>,
}

/// What the cores have lent for an upgrade.
#[derive(Debug, Default)]
pub(super) struct Lent {
    round: u64,
    sockets: Vec<(ListenerKey, TcpListener)>,
}

impl Lent {
    /// Nothing yet, for the next upgrade. Its number.
    fn begin(&mut self) -> u64 {
        *self = Lent { round: self.round + 1, sockets: Vec::new() };
        self.round
    }

    /// What came, for an upgrade that has what it needs, or waits no longer.
    fn end(&mut self) -> Vec<(ListenerKey, TcpListener)> {
        self.round += 1;
        std::mem::take(&mut self.sockets)
    }

    /// What comes late, for an upgrade that is over, is closed.
    pub(super) fn add(&mut self, round: u64, sockets: Vec<(ListenerKey, TcpListener)>) {
        if round == self.round {
            self.sockets.extend(sockets);
        }
    }
}

#[derive(Clone, Debug, Default)]
enum State {
    #[default]
    Idle,
    Running,
    /// The new process serves.
    HandedOver(Rc<Successor>),
}

impl Upgrades {
    pub(super) fn is_running(&self) -> bool {
        matches!(*self.state.borrow(), State::Running)
    }

    fn given_up(&self) -> bool {
        self.given_up.get()
    }

    /// A new process that does not serve yet is ended. One that has said that it does, does.
    fn give_up(&self) {
        self.given_up.set(true);
        if let Some(stream) = self.stream.take() {
            drop(stream.shutdown(Shutdown::Both));
        }
    }

    /// The process that has taken over.
    pub(super) fn successor(&self) -> Option<Rc<Successor>> {
        match &*self.state.borrow() {
            State::Idle | State::Running => None,
            State::HandedOver(successor) => Some(Rc::clone(successor)),
        }
    }

    /// The listeners that another process has taken over.
    pub(super) fn handed_over(&self) -> Option<Vec<ListenerKey>> {
        self.successor().map(|successor| successor.keys.clone())
    }

    /// Whoever had taken over is gone.
    pub(super) fn begin_again(&self) {
        self.state.replace(State::Idle);
    }
}

impl Control {
    pub(crate) fn upgrade_state(&self) -> &'static str {
        match &*self.upgrades.state.borrow() {
            State::Idle => "idle",
            State::Running => "running",
            State::HandedOver(_) => "handed_over",
        }
    }

    /// The process that serves in the place of this one.
    pub(crate) fn handed_over_to(&self) -> Option<u32> {
        self.upgrades.successor().map(|successor| successor.pid)
    }

    /// Starts the program anew. `Ok`: it serves, while this process drains. `Err`: why everything
    /// is as it was.
    pub(crate) async fn upgrade(self: &Rc<Self>) -> Result<Upgraded, String> {
        if self.draining.get() {
            return Err("this process is draining".to_owned());
        }
        if !matches!(*self.upgrades.state.borrow(), State::Idle) {
            return Err("an upgrade is running already".to_owned());
        }
        self.upgrades.state.replace(State::Running);
        let warnings = self.lost_by_upgrade().await;
        let outcome = self.hand_over().await;
        self.upgrades.stream.take();
        let given_up = self.upgrades.given_up();
        let outcome = outcome.map_err(|reason| match given_up {
            true => "it was given up: this process is to stop".to_owned(),
            false => reason,
        });
        let (state, result) = match outcome {
            Ok(started) => {
                let successor = self.watch_successor(started);
                let pid = successor.pid;
                log::info!("process {pid} serves from now on, this one drains");
                warnings.iter().for_each(|warning| log::warn!("{warning}"));
                self.notify.handed_over(pid);
                // One before this could take sockets again that are a third's by now.
                self.predecessor.borrow_mut().settled();
                (State::HandedOver(successor), Ok(Upgraded { pid, warnings }))
            }
            Err(reason) => {
                log::error!("the upgrade has failed, this process goes on: {reason}");
                (State::Idle, Err(reason))
            }
        };
        self.upgrades.state.replace(state);
        self.wake();
        result
    }

    /// Before this process drains because it was told to: one that was being started must not
    /// outlive it. The listeners that another process has by then.
    pub(super) async fn end_upgrade(&self) -> Vec<ListenerKey> {
        self.upgrades.give_up();
        self.wake();
        self.until(limits::INSTALL_TIMEOUT, |control| !control.upgrades.is_running()).await;
        let successor = self.upgrades.successor();
        // This process is to end, whatever becomes of the other one.
        successor.iter().for_each(|successor| successor.let_go());
        successor.map(|successor| successor.keys.clone()).unwrap_or_default()
    }

    async fn hand_over(self: &Rc<Self>) -> Result<Started, String> {
        // It may bind and close listeners. Those to come wait for this upgrade.
        let settled = |control: &Control| !control.reloads.is_busy() || control.upgrades.given_up();
        if !self.until(limits::UPGRADE_READY_TIMEOUT, settled).await {
            return Err("a reload is running and does not end".to_owned());
        }
        let sockets = self.all_sockets().await?;
        let cannot = |error: io::Error| format!("cannot make a UNIX stream: {error}");
        let (ours, theirs) = UnixStream::pair().map_err(cannot)?;
        self.upgrades.stream.replace(Some(ours.try_clone().map_err(cannot)?));
        if self.upgrades.given_up() {
            return Err("it was given up".to_owned());
        }
        let program = self.program.clone();
        let passed_on = self.to_pass_on();
        let work = move || hand_over(&program, sockets, &passed_on, ours, theirs);
        let started = self.watch.pool().run(work).await;
        started.unwrap_or_else(|| Err("handing over has panicked".to_owned()))
    }

    /// A duplicate of every listening socket of the process.
    async fn all_sockets(&self) -> Result<Vec<(Described, TcpListener)>, String> {
        let round = self.upgrades.lent.borrow_mut().begin();
        self.to_shards(|| ToShard::LendSockets(round));
        let wanted = self.held.borrow().listening_sockets();
        let all = |control: &Control| control.upgrades.lent.borrow().sockets.len() >= wanted;
        let have_all = self.until(limits::INSTALL_TIMEOUT, all).await;
        let lent = self.upgrades.lent.borrow_mut().end();
        if !have_all {
            return Err("a data core does not lend its sockets".to_owned());
        }
        let held = self.held.borrow();
        let known = |(key, socket)| Some((held.describe(key)?, socket));
        let mut sockets: Vec<_> = lent.into_iter().filter_map(known).collect();
        sockets.extend(self.reloads.own_ports.sockets(&held));
        Ok(sockets)
    }
}

/// Blocks until the new process serves, or has failed.
fn hand_over(
    program: &Program,
    sockets: Vec<(Described, TcpListener)>,
    passed_on: &PassedOn,
    mut ours: UnixStream,
    theirs: UnixStream,
) -> Result<Started, String> {
    let said = passed_on.text()?; // before a process is started in vain
    let mut command = Command::new(&program.path);
    Signals::unblock_in(&mut command);
    let mut child = command
        .args(&program.arguments)
        .env(VARIABLE, "1")
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
        .spawn()
        .map_err(|error| format!("cannot start {}: {error}", program.path.display()))?;
    drop(command); // and with it our handle on the child's end of the stream
    match serves(&mut ours, &sockets, &said) {
        Ok(Ready { keys, ports, is_watched }) => {
            let keys = keys.into_iter().map(ListenerKey).collect();
            Ok(Started { child, stream: ours, keys, ports, is_watched, sockets })
        }
        Err(error) => Err(ended(&mut child, &error)),
    }
}

fn serves(
    stream: &mut UnixStream,
    sockets: &[(Described, TcpListener)],
    said: &[u8],
) -> io::Result<Ready> {
    stream.set_write_timeout(Some(limits::UPGRADE_SEND_TIMEOUT))?;
    stream.set_read_timeout(Some(limits::UPGRADE_READY_TIMEOUT))?;
    let described = sockets.iter().map(|(described, _)| described.clone()).collect();
    let manifest = Manifest { sockets: described, passes_on: true };
    let manifest = toml::to_string(&manifest).map_err(io::Error::other)?;
    let fds: Vec<BorrowedFd<'_>> = sockets.iter().map(|(_, socket)| socket.as_fd()).collect();
    engine::send_descriptors(stream, manifest.as_bytes(), &fds)?;
    engine::send_descriptors(stream, said, &[])?;
    let most = limits::UPGRADE_MANIFEST_BYTES_MAX;
    let (text, _) = engine::receive_descriptors(stream, most, 0)?;
    toml::from_str(&String::from_utf8_lossy(&text)).map_err(io::Error::other)
}

/// Ends a new process that does not serve, and says what is known of it.
fn ended(child: &mut Child, error: &io::Error) -> String {
    if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) {
        let limit = limits::UPGRADE_READY_TIMEOUT;
        return killed(child, &format!("did not serve within {limit:?}"));
    }
    // It may be about to end by itself, which tells more.
    match end_of(child) {
        Some(status) => format!("the new process ended ({status}); its log says why"),
        None => killed(child, &format!("does not say that it serves ({error})")),
    }
}

fn killed(child: &mut Child, why: &str) -> String {
    drop(child.kill());
    match child.wait() {
        Ok(_) => format!("the new process {why}, it was ended"),
        Err(error) => format!("the new process {why}, and is lost: {error}"),
    }
}

/// `None`: it goes on running.
pub(super) fn end_of(child: &mut Child) -> Option<ExitStatus> {
    let end = engine::precise_now() + limits::UPGRADE_END_GRACE;
    loop {
        if let Some(status) = child.try_wait().ok().flatten() {
            return Some(status);
        }
        if engine::precise_now() >= end {
            return None;
        }
        thread::sleep(limits::CORE_STOP_LOOK_INTERVAL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_that_are_lent_too_late_are_not_those_of_the_next_upgrade() {
        let socket = |key| {
            let socket = TcpListener::bind("127.0.0.1:0").expect("a port is free");
            vec![(ListenerKey(key), socket)]
        };
        let mut lent = Lent::default();
        let first = lent.begin();
        assert!(lent.end().is_empty());
        lent.add(first, socket(1));
        assert!(lent.sockets.is_empty(), "held, it would keep a queue open");
        let second = lent.begin();
        lent.add(first, socket(1));
        lent.add(second, socket(2));
        let keys: Vec<ListenerKey> = lent.end().iter().map(|(key, _)| *key).collect();
        assert_eq!(keys, [ListenerKey(2)]);
    }
}
