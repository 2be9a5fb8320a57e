//! TLS on the control core: what is made of files, keys and answers there, for data cores that read
//! none. Whatever changes, each core gets a setup of its own, made on a thread beside.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::control::Control;
use crate::control::message::ToShard;
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
}

/// What a setup is made of beside a plan, for another thread.
pub(super) struct Ingredients {
    pub(super) keys: TicketKeys,
    pub(super) staples: Staples,
}

impl Ingredients {
    /// Of a process that begins: with the keys of the one before it, if there was one.
    pub(super) fn begun(inherited: Option<TicketKeys>) -> Result<Ingredients, String> {
        let keys = inherited.map_or_else(|| TicketKeys::new(seconds(engine::wall_clock())), Ok);
        let keys = keys.map_err(|NoRandomness| "the system has no random bytes to give")?;
        Ok(Ingredients { keys, staples: Staples::new() })
    }

    pub(super) fn setups(&self, cores: usize, plan: &Plan) -> Result<Vec<Setup>, String> {
        Setup::for_cores(cores, plan, &plan.material, &self.keys, &self.staples)
    }
}

impl Keeper {
    pub(super) fn new(plan: &Plan, ingredients: Ingredients) -> Keeper {
        Keeper {
            material: RefCell::new(plan.material.share()),
            keys: RefCell::new(ingredients.keys),
            staples: RefCell::new(ingredients.staples),
        }
    }

    pub(super) fn ingredients(&self) -> Ingredients {
        Ingredients { keys: self.keys.borrow().clone(), staples: self.staples.borrow().clone() }
    }

    pub(super) fn ticket_keys(&self) -> TicketKeys {
        self.keys.borrow().clone()
    }

    /// A plan with its own is in force.
    pub(super) fn adopt(&self, plan: &Plan) {
        self.material.replace(plan.material.share());
    }
}

impl Control {
    /// Gives every core what it needs for what has changed beside the plan.
    pub(super) async fn renew_tls(self: &Rc<Self>) {
        loop {
            let plan = self.plan();
            let (version, cores) = (plan.version, self.shards.len());
            let material = self.tls.material.borrow().share();
            let Ingredients { keys, staples } = self.tls.ingredients();
            let making = move || Setup::for_cores(cores, &plan, &material, &keys, &staples);
            let made = self.watch.pool().run(making).await;
            if self.plan().version != version {
                continue; // made for a plan that is not in force any more
            }
            match made {
                Some(Ok(setups)) => {
                    let setups = RefCell::new(setups.into_iter());
                    self.to_each_shard(|_| {
                        let setup = setups.borrow_mut().next().unwrap_or_default();
                        ToShard::Tls(version, Box::new(setup))
                    });
                }
                Some(Err(error)) => log::error!("TLS stays as it is: {error}"),
                None => log::error!("TLS stays as it is: making it anew has panicked"),
            }
            return;
        }
    }

    /// How long it is until tickets need new keys.
    fn keys_left(&self) -> Duration {
        let made_at = UNIX_EPOCH + Duration::from_secs(self.tls.keys.borrow().made_at);
        let age = engine::wall_clock().duration_since(made_at).unwrap_or_default();
        self.plan().ticket_rotation.saturating_sub(age)
    }
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
                control.tls.keys.replace(keys);
                control.renew_tls().await;
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
