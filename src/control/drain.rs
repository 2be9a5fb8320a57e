//! Taking the process out of service and back, on an operator's word. Readiness turns first, so
//! that balancers send new clients elsewhere; after a delay every answer closes its connection and
//! idle ones are closed. New connections are still served, one answer each: a balancer that is slow
//! to notice loses no request. The process stays, and may come back.

use std::rc::Rc;
use std::time::Duration;

use crate::control::Control;
use crate::control::message::{Service, ToShard};
use crate::engine;

/// What the process is doing, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Running,
    /// Out of service on an operator's word.
    Draining,
    /// Told to end.
    Stopping,
}

impl State {
    pub(crate) fn label(self) -> &'static str {
        match self {
            State::Running => "running",
            State::Draining => "draining",
            State::Stopping => "stopping",
        }
    }
}

/// The process was told to end: there is no way back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stopping;

impl Control {
    pub(crate) fn state(&self) -> State {
        if self.draining.get() {
            return State::Stopping;
        }
        match self.service.get() {
            Service::Serving => State::Running,
            Service::Leaving | Service::Closing => State::Draining,
        }
    }

    /// Again with another delay: the new one counts from now.
    pub(crate) fn leave(self: &Rc<Self>, delay: Duration) -> Result<(), Stopping> {
        let turn = self.turn(Service::Leaving)?;
        self.closes_at.set(engine::now().checked_add(delay));
        let control = Rc::clone(self);
        engine::spawn(async move {
            engine::sleep(delay).await;
            if control.service_turn.get() == turn {
                control.tell(Service::Closing);
            }
        });
        Ok(())
    }

    pub(crate) fn resume(&self) -> Result<(), Stopping> {
        self.turn(Service::Serving).map(|_| ())
    }

    /// What was planned before does not happen any more.
    fn turn(&self, service: Service) -> Result<u64, Stopping> {
        if self.draining.get() {
            return Err(Stopping);
        }
        self.service_turn.set(self.service_turn.get() + 1);
        self.closes_at.set(None);
        self.tell(service);
        Ok(self.service_turn.get())
    }

    fn tell(&self, service: Service) {
        let before = self.service.replace(service);
        if before != service {
            let reason = match service {
                Service::Serving => "an operator put it back in service",
                Service::Leaving => "an operator took it out of service: it is not ready any more",
                Service::Closing => "out of service: every answer closes its connection now",
            };
            self.tell_health("process", self.state().label(), reason);
        }
        self.publish_health();
        self.to_shards(|| ToShard::Service(service));
    }
}
