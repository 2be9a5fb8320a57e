//! `POST /admin/clusters/{cluster}/endpoints/{address}/drain`, `…/maintenance`, `…/ready` and
//! `…/weight` (by PUT as well): an endpoint out of service and back, by its name or by one of its addresses.

use std::rc::Rc;

use serde::{Deserialize, Deserializer};

use crate::admin::call::{Answer, Call, given, whole};
use crate::admin::clusters;
use crate::admin::refusal::Refusal;
use crate::admin::shape::Shape;
use crate::control::Control;
use crate::control::overrides::{Admission, Said, Target};
use crate::limits;

pub(super) const TAKES: Shape = Shape::Optional(&[("reason", Shape::Text)]);
pub(super) const TAKES_WEIGHT: Shape = Shape::Object(&[("weight", Shape::OrNull(&Shape::Weight))]);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    #[serde(default, deserialize_with = "given")]
    reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WeightBody {
    /// `None`, which has to be said: as configured.
    #[serde(deserialize_with = "or_null")]
    weight: Option<u64>,
}

/// A member that may be null, but not be left out.
fn or_null<'d, D: Deserializer<'d>>(reader: D) -> Result<Option<u64>, D::Error> {
    let number = Option::<Whole>::deserialize(reader)?;
    Ok(number.map(|Whole(number)| number))
}

#[derive(Deserialize)]
struct Whole(#[serde(deserialize_with = "whole")] u64);

pub(super) async fn admit(
    control: &Rc<Control>,
    call: &Call,
    admission: Admission,
) -> Result<Answer, Refusal> {
    let Body { reason } = call.json()?;
    let reason = reason.unwrap_or_default();
    if reason.chars().count() > limits::ADMIN_REASON_CHARS_MAX {
        let max = limits::ADMIN_REASON_CHARS_MAX;
        return Err(Refusal::Invalid(format!("body: reason: expected at most {max} characters")));
    }
    let word = admission.label();
    say(control, call, &Said::Admission(admission), &format!("{word} by {}", call.who), &reason)
        .await
}

pub(super) async fn weigh(control: &Rc<Control>, call: &Call) -> Result<Answer, Refusal> {
    let WeightBody { weight } = call.json()?;
    let max = limits::WEIGHT_MAX;
    let known = weight.map(|weight| u32::try_from(weight).ok().filter(|weight| *weight <= max));
    let too_large = || Refusal::Invalid(format!("body: weight: expected at most {max}, or null"));
    let weight = known.map(|weight| weight.ok_or_else(too_large)).transpose()?;
    let what = match weight {
        Some(weight) => format!("weight {weight} by {}", call.who),
        None => format!("weight as configured by {}", call.who),
    };
    say(control, call, &Said::Weight(weight), &what, "").await
}

/// An address is not ready while its name is not.
fn may_be_ready(control: &Control, cluster: &str, target: &Target) -> Result<(), Refusal> {
    let Target::Of(name, _) = target else { return Ok(()) };
    let of_name = control.override_of(cluster, name, None);
    let state = of_name.map_or(Admission::Ready, |said| said.admission);
    if state == Admission::Ready {
        return Ok(());
    }
    Err(Refusal::Conflict(format!(
        "{name}, the name of this address, is {state}, which holds for all of its addresses: take \
         that back first, with POST /admin/clusters/{cluster}/endpoints/{name}/ready",
        state = state.label()
    )))
}

/// Answered when every core that is not stuck goes by it.
async fn say(
    control: &Rc<Control>,
    call: &Call,
    said: &Said,
    what: &str,
    why: &str,
) -> Result<Answer, Refusal> {
    let [cluster, endpoint] = &call.values[..] else {
        unreachable!("the path of the table has two values")
    };
    if !control.plan().clusters.iter().any(|known| known.name == *cluster) {
        return Err(clusters::no_such_cluster());
    }
    let targets = control.targets(cluster, endpoint);
    if targets.is_empty() {
        let message = "this cluster has no endpoint with this name and port, or address and port: \
                       GET /admin/clusters lists all";
        return Err(Refusal::Absent(message.to_owned()));
    }
    if let Said::Admission(Admission::Ready) = said {
        targets.iter().try_for_each(|target| may_be_ready(control, cluster, target))?;
    }
    let reason = if why.is_empty() { what.to_owned() } else { format!("{what}: {why}") };
    control.say(cluster, targets, said, &reason);
    // It asks every core, and letters do not overtake each other: who answers has this one.
    let gone = |_| {
        let message = "it was done, but a reload has taken the cluster away meanwhile";
        Refusal::Conflict(message.to_owned())
    };
    let answer = clusters::one(control, call).await.map_err(gone)?;
    Ok(answer.changed(format!("{cluster} {endpoint}: {reason}")))
}
