//! Facts for the audit log that the control core knows: what was changed, by whom, and what was
//! refused. Whoever changes anything calls [`Control::audit`] once, whether it worked or not.

use crate::control::Control;
use crate::control::reload::{Refused, Report, Trigger};
use crate::engine;
use crate::telemetry::audit_log::{Event, Outcome, Record};
use crate::telemetry::process_log;

impl Control {
    /// Writes one line to the audit log; to the process's own where there is no such file.
    pub(crate) fn audit(&self, record: &Record<'_>) {
        self.audit_after(0, record);
    }

    /// The same when `untold` of its kind were left out before it.
    pub(crate) fn audit_after(&self, untold: u64, record: &Record<'_>) {
        let mut line = Vec::new();
        record.encode(untold, &mut line);
        self.tell_audit(record);
        let lost = match &self.totals.borrow().log {
            Some(publisher) if self.plan().audit_log.is_some() => {
                !publisher.audit(self.plan().version, line.clone())
            }
            Some(_) | None => true,
        };
        if lost {
            process_log::audit(&String::from_utf8_lossy(line.trim_ascii_end()));
        }
    }

    /// The beginning or the end of the process, which its own log tells as well.
    pub(crate) fn audit_process(&self, event: Event) {
        let plan = self.plan();
        if plan.audit_log.is_none() {
            return;
        }
        let target = format!("plan {}", plan.version);
        let detail = format!("corelane {} pid {}", env!("CARGO_PKG_VERSION"), std::process::id());
        self.audit(&Record {
            at: engine::wall_clock(),
            event,
            outcome: Outcome::Done,
            actor: "",
            peer: None,
            action: "",
            target: &target,
            detail: &detail,
        });
    }

    /// A reload, which the process's own log tells as well. `before` was in force until then.
    pub(crate) fn audit_reload(
        &self,
        trigger: Trigger,
        before: u64,
        outcome: &Result<Report, Refused>,
    ) {
        if self.plan().audit_log.is_none() {
            return;
        }
        let (done, target, detail) = match outcome {
            Ok(report) => {
                let (version, warnings) = (report.version, report.warnings.len());
                let detail = format!("plan {before} was in force; {warnings} warnings");
                (Outcome::Done, format!("plan {version}"), detail)
            }
            Err(refused) => {
                let stays = format!("plan {before} stays in force: {refused}");
                (Outcome::Failed, format!("plan {before}"), stays)
            }
        };
        self.audit(&Record {
            at: engine::wall_clock(),
            event: Event::ConfigChange,
            outcome: done,
            actor: &trigger.to_string(),
            peer: None,
            action: "reload",
            target: &target,
            detail: &detail,
        });
    }
}
