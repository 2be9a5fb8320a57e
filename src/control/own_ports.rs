//! The ports that the control core serves itself: metrics and admin, over reloads and upgrades.

use std::cell::{Cell, RefCell};
use std::net::TcpListener;
use std::rc::Rc;

use crate::admin::{self, Port};
use crate::control::Control;
use crate::control::ending::Ending;
use crate::control::ports::{Held, PortChange};
use crate::control::upgrade::{Described, Use};
use crate::engine;

#[derive(Default)]
pub(super) struct OwnPorts {
    metrics: RefCell<OwnPort>,
    admin: RefCell<OwnPort>,
    /// Also those that are closing.
    served: Cell<usize>,
}

#[derive(Default)]
struct OwnPort {
    is_open: bool,
    ending: Ending,
    /// For a process that may take over.
    socket: Option<TcpListener>,
}

impl OwnPorts {
    /// They are another process's from now on.
    pub(super) fn end(&self) {
        for port in [&self.metrics, &self.admin] {
            port.take().ending.end();
        }
    }

    /// Whoever came to one that was closed has been answered.
    pub(super) fn are_left(&self) -> bool {
        let open = [&self.metrics, &self.admin];
        let open = open.iter().filter(|port| port.borrow().is_open).count();
        self.served.get() <= open
    }

    /// Each once more, for another process.
    pub(super) fn sockets(&self, held: &Held) -> Vec<(Described, TcpListener)> {
        let ports = [(Use::Metrics, &self.metrics), (Use::Admin, &self.admin)];
        let duplicate = |(role, port): (Use, &RefCell<OwnPort>)| {
            let socket = port.borrow().socket.as_ref()?.try_clone().ok()?;
            Some((held.describe_own(role)?, socket))
        };
        ports.into_iter().filter_map(duplicate).collect()
    }
}

impl Control {
    /// Metrics and admin move at once; their connections end with the request that runs.
    pub(super) fn change_ports(self: &Rc<Self>, metrics: PortChange, admin: PortChange) {
        let own_ports = &self.reloads.own_ports;
        let ports =
            [(metrics, &own_ports.metrics, Port::Metrics), (admin, &own_ports.admin, Port::Admin)];
        for (change, own, port) in ports {
            match change {
                PortChange::Same => {}
                PortChange::Off => own.take().ending.end(),
                PortChange::To(socket) => {
                    let ending = Ending::default();
                    let kept = socket.try_clone().ok();
                    let new = OwnPort { is_open: true, ending: ending.clone(), socket: kept };
                    own.replace(new).ending.end();
                    let control = Rc::clone(self);
                    own_ports.served.set(own_ports.served.get() + 1);
                    engine::spawn(async move {
                        let listener = engine::Listener::adopt(socket);
                        admin::serve(Rc::clone(&control), listener, port, ending.come()).await;
                        let served = &control.reloads.own_ports.served;
                        served.set(served.get() - 1);
                        control.wake();
                    });
                }
            }
        }
    }
}
