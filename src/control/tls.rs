//! TLS on the control core: what is made of files, keys and answers there, for data cores that read
//! none. Whatever changes, each core gets a setup of its own, made on a thread beside.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::control::Control;
use crate::control::certificate_watch::Watched;
use crate::control::message::ToShard;
use crate::control::stapling::{self, Stapling};
use crate::engine::{self, Shared};
use crate::limits;
use crate::plan::Plan;
use crate::tls::material::Material;
use crate::tls::setup::{Setup, Staples};
use crate::tls::tickets::{NoRandomness, TicketKeys};

pub(super) struct Keeper {
    /// Of the plan in force, or newer than it was compiled with.
    material: RefCell<Shared<Material>>,
    keys: RefCell<TicketKeys>,
    staples: RefCell<Staples>,
    /// Counts up when any of them changes: a setup that was begun before is outdated.
    turn: Cell<u64>,
    /// Counts up with the material alone.
    material_turn: Cell<u64>,
    pub(super) watched: Watched,
    pub(super) stapling: Stapling,
}

/// What a setup is made of beside a plan, for another thread.
pub(super) struct Ingredients {
    keys: TicketKeys,
    staples: Staples,
    /// Of the keeper when it gave them.
    pub(super) turn: u64,
}

impl Ingredients {
    /// Of a process that begins: with the keys and staples of the one before it, if there was one.
    pub(super) fn begun(
        inherited: Option<TicketKeys>,
        staples: Staples,
        plan: &Plan,
    ) -> Result<Ingredients, String> {
        let now = engine::wall_clock();
        let keys = inherited.map_or_else(|| TicketKeys::new(seconds(now)), Ok);
        let keys = keys.map_err(|NoRandomness| "the system has no random bytes to give")?;
        let staples = stapling::still_good(staples, &plan.material, now);
        Ok(Ingredients { keys, staples, turn: 0 })
    }

    pub(super) fn setups(&self, cores: usize, plan: &Plan) -> Result<Vec<Setup>, String> {
        Setup::for_cores(cores, plan, &plan.material, &self.keys, &self.staples)
    }
}

impl Keeper {
    pub(super) fn new(plan: &Plan, ingredients: Ingredients) -> Keeper {
        let keeper = Keeper {
            material: RefCell::new(plan.material.share()),
            keys: RefCell::new(ingredients.keys),
            staples: RefCell::new(ingredients.staples),
            turn: Cell::new(ingredients.turn),
            material_turn: Cell::new(0),
            watched: Watched::default(),
            stapling: Stapling::default(),
        };
        keeper.watched.note_loaded(&plan.material, engine::wall_clock());
        keeper
    }

    pub(super) fn ingredients(&self) -> Ingredients {
        let (keys, staples) = (self.keys.borrow().clone(), self.staples.borrow().clone());
        Ingredients { keys, staples, turn: self.turn.get() }
    }

    pub(super) fn material(&self) -> Shared<Material> {
        self.material.borrow().share()
    }

    pub(super) fn material_turn(&self) -> u64 {
        self.material_turn.get()
    }

    pub(super) fn ticket_keys(&self) -> TicketKeys {
        self.keys.borrow().clone()
    }

    pub(super) fn staples(&self) -> Staples {
        self.staples.borrow().clone()
    }

    /// A plan with its own is in force.
    pub(super) fn adopt(&self, plan: &Plan) {
        self.use_material(plan.material.share());
        self.watched.forget_broken();
    }

    /// Gives back what was in use.
    pub(super) fn use_material(&self, material: Shared<Material>) -> Shared<Material> {
        self.watched.note_loaded(&material, engine::wall_clock());
        self.turn.update(|turn| turn + 1);
        self.material_turn.update(|turn| turn + 1);
        self.material.replace(material)
    }

    pub(super) fn has_staple(&self, fingerprint: &[u8; 32]) -> bool {
        self.staples.borrow().contains_key(fingerprint)
    }

    pub(super) fn change_staples(&self, change: impl FnOnce(&mut Staples)) {
        self.turn.update(|turn| turn + 1);
        change(&mut self.staples.borrow_mut());
    }

    fn use_keys(&self, keys: TicketKeys) {
        self.turn.update(|turn| turn + 1);
        self.keys.replace(keys);
    }

    /// Whether something has changed since these were given.
    pub(super) fn is_newer_than(&self, turn: u64) -> bool {
        self.turn.get() != turn
    }
}

impl Control {
    /// Gives every core what it needs for what has changed beside the plan. The error: why they
    /// stay with what they have.
    pub(super) async fn renew_tls(self: &Rc<Self>) -> Result<(), String> {
        loop {
            let plan = self.plan();
            let (version, cores) = (plan.version, self.shards.len());
            let material = self.tls.material();
            let Ingredients { keys, staples, turn } = self.tls.ingredients();
            let making = move || Setup::for_cores(cores, &plan, &material, &keys, &staples);
            let made = self.watch.pool().run(making).await;
            if self.plan().version != version || self.tls.is_newer_than(turn) {
                continue; // made for what is not in force any more
            }
            let setups = made.unwrap_or_else(|| Err("making it anew has panicked".to_owned()))?;
            let setups = RefCell::new(setups.into_iter());
            self.to_each_shard(|_| {
                let setup = setups.borrow_mut().next().unwrap_or_default();
                ToShard::Tls(version, Box::new(setup))
            });
            return Ok(());
        }
    }

    /// The same where nobody else says that it has failed.
    pub(super) async fn renew_tls_or_say(self: &Rc<Self>) {
        if let Err(error) = self.renew_tls().await {
            log::error!("TLS stays as it is: {error}");
        }
    }

    /// Keys that the process before this one has made while this one started. This one may have
    /// made newer ones by then.
    pub(super) async fn take_ticket_keys(self: &Rc<Self>, keys: Option<TicketKeys>) {
        let own = self.tls.ticket_keys();
        if let Some(keys) = keys.filter(|keys| *keys != own && keys.made_at >= own.made_at) {
            self.tls.use_keys(keys);
            self.renew_tls_or_say().await;
        }
    }

    /// How long new tickets are sealed with the same key by now.
    pub(super) fn ticket_key_age(&self) -> Duration {
        age(self.tls.keys.borrow().made_at, seconds(engine::wall_clock())).unwrap_or_default()
    }

    /// How long it is until tickets need new keys.
    fn keys_left(&self) -> Duration {
        let (made_at, now) = (self.tls.keys.borrow().made_at, seconds(engine::wall_clock()));
        left(made_at, self.plan().ticket_rotation, now)
    }
}

/// `None`: the clock of this machine was ahead when they were made.
fn age(made_at: u64, now: u64) -> Option<Duration> {
    now.checked_sub(made_at).map(Duration::from_secs)
}

/// Keys from the future are replaced at once: else they would stay until it has come.
fn left(made_at: u64, rotation: Duration, now: u64) -> Duration {
    age(made_at, now).map_or(Duration::ZERO, |age| rotation.saturating_sub(age))
}

/// New keys for tickets, again and again. Those of the next binary go on from these.
pub(super) async fn rotate_keys(control: Rc<Control>) {
    loop {
        // A new plan may want it sooner.
        engine::sleep(control.keys_left().min(limits::TICKET_ROTATION_LOOK_INTERVAL)).await;
        if !control.keys_left().is_zero() {
            continue;
        }
        let rotated = control.tls.keys.borrow().rotated(seconds(engine::wall_clock()));
        match rotated {
            Ok(keys) => {
                control.tls.use_keys(keys);
                control.renew_tls_or_say().await;
            }
            Err(NoRandomness) => {
                log::error!("no new keys for TLS tickets: the system has no random bytes to give");
                engine::sleep(limits::TICKET_ROTATION_LOOK_INTERVAL).await;
            }
        }
    }
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_due_after_their_time_whoever_made_them_and_at_once_when_the_clock_went_back() {
        let hour = Duration::from_secs(3600);
        assert_eq!(left(1_000, hour, 1_000), hour);
        assert_eq!(left(1_000, hour, 4_599), Duration::from_secs(1));
        assert_eq!(left(1_000, hour, 4_600), Duration::ZERO);
        assert_eq!(left(1_000, hour, 99_999), Duration::ZERO);
        assert_eq!(left(1_000, hour, 999), Duration::ZERO);
    }
}
