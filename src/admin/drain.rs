//! `POST /admin/drain` and `POST /admin/resume`.

use std::rc::Rc;

use serde::{Deserialize, Serialize};

use crate::admin::call::{Answer, Call, given};
use crate::admin::refusal::Refusal;
use crate::admin::shape::Shape;
use crate::config;
use crate::control::Control;

pub(super) const TAKES: Shape = Shape::Optional(&[("delay", Shape::Time)]);
pub(super) const SHAPE: Shape =
    Shape::Object(&[("state", Shape::Word(&["running", "draining"])), ("delay_ms", Shape::Whole)]);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    #[serde(default, deserialize_with = "given")]
    delay: Option<String>,
}

#[derive(Serialize)]
struct Page {
    state: &'static str,
    /// Until answers close their connections.
    delay_ms: u64,
}

pub(super) async fn drain(control: &Rc<Control>, call: &Call) -> Result<Answer, Refusal> {
    let body: Body = call.json()?;
    let from_body = body.delay.map(|text| {
        config::parse_time(&text).map_err(|_| {
            Refusal::Invalid("body: delay: expected a duration such as \"30s\"".to_owned())
        })
    });
    let delay = call.time("delay").or(from_body.transpose()?).unwrap_or_default();
    control.leave(delay).map_err(|_| stopping())?;
    let millis = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
    let page = Page { state: control.state().label(), delay_ms: millis };
    Ok(Answer::json(&page).changed(format!("out of service, connections close after {delay:?}")))
}

pub(super) async fn resume(control: &Rc<Control>) -> Result<Answer, Refusal> {
    control.resume().map_err(|_| stopping())?;
    let page = Page { state: control.state().label(), delay_ms: 0 };
    Ok(Answer::json(&page).changed("back in service"))
}

fn stopping() -> Refusal {
    Refusal::Conflict("this process was told to end, there is no way back".to_owned())
}
