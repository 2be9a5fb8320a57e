//! Connections that came to nothing, in the process log: one of each kind a second, with the number
//! of those that were left out, however many cores tell of them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Instant;

use crate::control::Control;
use crate::control::message::Trouble;
use crate::engine;
use crate::limits;

/// By label, and whether somebody wants to know.
type Kind = (&'static str, bool);

/// When each kind was last told of, and how many there were since.
#[derive(Debug, Default)]
pub(super) struct Troubles(RefCell<HashMap<Kind, (Instant, u64)>>);

impl Control {
    pub(super) fn tell_trouble(&self, trouble: &Trouble) {
        let Trouble { listener, peer, label, detail, quiet, .. } = trouble;
        let Some(untold) = self.troubles.allows(trouble, engine::now()) else { return };
        let more = match untold {
            0 => String::new(),
            _ => format!(" (and {untold} more since the last line of this kind)"),
        };
        let through = trouble.through.map(|peer| format!(" through {peer}")).unwrap_or_default();
        match listener {
            Some(key) => {
                let name = self.listener_names().of(*key);
                let level = if *quiet { log::Level::Debug } else { log::Level::Info };
                let what = if trouble.was_served { "was cut off" } else { "was not served" };
                log::log!(
                    level,
                    "{peer}{through} {what} by listener {name} ({label}): {detail}{more}"
                );
            }
            None => log::warn!("endpoint {peer} ({label}): {detail}{more}"),
        }
    }
}

impl Troubles {
    /// How many were left out before this one; `None`: so is this one.
    fn allows(&self, trouble: &Trouble, now: Instant) -> Option<u64> {
        let kind = (trouble.label, trouble.quiet);
        let mut kinds = self.0.borrow_mut();
        let Some((at, untold)) = kinds.get_mut(&kind) else {
            kinds.insert(kind, (now, 0));
            return Some(trouble.untold);
        };
        if now - *at < limits::TROUBLE_INTERVAL {
            *untold += 1 + trouble.untold;
            return None;
        }
        *at = now;
        Some(std::mem::take(untold) + trouble.untold)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_several_cores_tell_of_is_one_line_that_counts_them_all() {
        let (troubles, now) = (Troubles::default(), Instant::now());
        let trouble = |untold| Trouble {
            listener: None,
            peer: ([127, 0, 0, 1], 9).into(),
            through: None,
            label: "timeout",
            detail: String::new(),
            untold,
            quiet: false,
            was_served: false,
        };
        assert_eq!(troubles.allows(&trouble(0), now), Some(0));
        assert_eq!(troubles.allows(&trouble(0), now), None);
        assert_eq!(troubles.allows(&trouble(5), now), None);
        let later = now + limits::TROUBLE_INTERVAL;
        assert_eq!(troubles.allows(&Trouble { quiet: true, ..trouble(0) }, later), Some(0));
        assert_eq!(troubles.allows(&trouble(2), later), Some(9));
    }
}
