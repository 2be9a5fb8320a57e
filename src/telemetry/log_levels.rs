//! Which lines of the process's own log are written: a level for everything, and one for each
//! module that an operator wants to hear more or less of. Changed while running, by the control
//! core only; every thread that logs reads.

use log::{Level, LevelFilter};

use crate::engine::Counter;

/// Whose lines are about operators, who cannot turn them off.
pub const AUDIT: &str = "audit";

/// Folders of `src`.
pub const MODULES: [&str; 18] = [
    "admin",
    "balancing",
    "cli",
    "config",
    "control",
    "discovery",
    "engine",
    "events",
    "exchange",
    "http",
    "http1",
    "limits",
    "listener",
    "plan",
    "routing",
    "shard",
    "telemetry",
    "upstream",
];

static DEFAULT: Counter = Counter::new();
/// 0: as the default; else one more than the level.
static OWN: [Counter; MODULES.len()] = [const { Counter::new() }; MODULES.len()];

/// The level of all modules that have none of their own.
pub fn set_default(level: LevelFilter) {
    DEFAULT.set(level as u64);
    adjust();
}

/// The levels of these modules; all others have none of their own. False: there is no such module.
pub fn set_modules(levels: &[(String, LevelFilter)]) -> bool {
    let known = |(name, _): &(String, LevelFilter)| MODULES.contains(&name.as_str());
    if !levels.iter().all(known) {
        return false;
    }
    for (module, own) in MODULES.iter().zip(&OWN) {
        let level = levels.iter().find(|(name, _)| name == module);
        own.set(level.map_or(0, |(_, level)| *level as u64 + 1));
    }
    adjust();
    true
}

pub fn default() -> LevelFilter {
    filter(DEFAULT.read())
}

/// Those that have one of their own.
pub fn modules() -> Vec<(&'static str, LevelFilter)> {
    let own = MODULES.iter().zip(&OWN).map(|(module, own)| (*module, own.read()));
    own.filter(|(_, level)| *level > 0).map(|(module, level)| (module, filter(level - 1))).collect()
}

/// Whether a line of this target, such as `corelane::control::start`, is written.
pub fn admits(target: &str, level: Level) -> bool {
    if target == AUDIT {
        return true;
    }
    let inside = target.strip_prefix("corelane::").unwrap_or(target);
    let module = inside.split("::").next().unwrap_or(inside);
    let own = MODULES.iter().position(|known| *known == module).map_or(0, |at| OWN[at].read());
    level <= if own > 0 { filter(own - 1) } else { default() }
}

/// `log` drops what nobody wants before it costs anything.
fn adjust() {
    let most = modules().iter().map(|(_, level)| *level).fold(default(), Ord::max);
    log::set_max_level(most);
}

fn filter(level: u64) -> LevelFilter {
    LevelFilter::iter().find(|known| *known as u64 == level).unwrap_or(LevelFilter::Info)
}
