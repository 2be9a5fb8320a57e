//! The keys of `[hot_reload]`.

use super::keys::Fallback::Is;
use super::keys::{Key, key};

pub(super) const HOT_RELOAD: &[Key] = &[
    key(
        "hot_reload.watch",
        "true or false",
        Is("true"),
        "watch = false",
        "whether changes of the configuration file and of certificates are noticed; SIGHUP reads \
         both",
    ),
    key(
        "hot_reload.poll_interval",
        "duration",
        Is("\"5s\""),
        "poll_interval = \"30s\"",
        "how often the server of `--config http://…` is asked for a change, while `watch` is on",
    ),
    key(
        "hot_reload.poll_timeout",
        "duration",
        Is("\"5s\""),
        "poll_timeout = \"10s\"",
        "what that server gets for its whole answer, less than 20s",
    ),
    key(
        "hot_reload.max_generations",
        "number",
        Is("8"),
        "max_generations = 3",
        "configurations that may be in use at once; with more, exchanges of the oldest are cut",
    ),
    key(
        "hot_reload.max_age",
        "duration",
        Is("\"0s\""),
        "max_age = \"1h\"",
        "how long after a reload exchanges may go on that began before it; 0s: to their end",
    ),
];
