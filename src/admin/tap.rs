//! `GET /admin/tap`: exchanges as they end, heads and bodies, secrets hidden.

use std::rc::Rc;

use crate::admin::api::{Kind, Parameter};
use crate::admin::call::{Answer, Call};
use crate::admin::refusal::Refusal;
use crate::admin::stream::{self, Seat, Stream};
use crate::control::Control;
use crate::control::message::Question;
use crate::events::bus::Event;
use crate::limits;
use crate::telemetry::tap::{Filter, Statuses};

const fn named(name: &'static str, doc: &'static str) -> Parameter {
    Parameter { name, kind: Kind::Text, doc }
}

pub(super) const PARAMETERS: &[Parameter] = &[
    named("route", "Of this route."),
    named("cluster", "Of this cluster."),
    Parameter { name: "client", kind: Kind::Network, doc: "Of clients in this network." },
    Parameter { name: "status", kind: Kind::Status, doc: "With this status, or class: 404, 5xx." },
    named("path", "Whose path begins like this."),
    named("method", "Of this method."),
    Parameter {
        name: "body",
        kind: Kind::Whole { max: limits::TAP_BODY_BYTES_MAX as u64 },
        doc: "Bytes to show of each body; 0. Members and fields named like secrets are hidden.",
    },
    stream::COUNT,
    stream::SECONDS,
];

pub(super) async fn stream(control: &Rc<Control>, call: &Call) -> Result<Answer, Refusal> {
    let text = |name| call.parameter(name).map(str::to_owned);
    let filter = Filter {
        method: text("method"),
        path: text("path"),
        client: call.parameter("client").and_then(|network| network.parse().ok()),
        route: text("route"),
        cluster: text("cluster"),
        status: call.parameter("status").and_then(Statuses::parse),
    };
    let plan = control.plan();
    if let Some(route) = &filter.route
        && !plan.routes.iter().any(|known| known.name == *route)
    {
        return Err(Refusal::Absent(format!("there is no route `{route}`")));
    }
    if let Some(cluster) = &filter.cluster
        && !plan.clusters.iter().any(|known| known.name == *cluster)
    {
        return Err(Refusal::Absent(format!("there is no cluster `{cluster}`")));
    }
    let seat = Seat::take(control)?;
    let (count, time) = stream::bounds(call);
    let body_bytes = call.whole("body").unwrap_or_default() as usize;
    let Some((subscription, tapped)) = control.tap(filter, count, body_bytes) else {
        let message = "a tap runs already, and there is one at a time: end it".to_owned();
        return Err(Refusal::TooManyStreams(message));
    };
    // Who answers this has it.
    control.ask(Question::Nothing).await;
    let id = tapped.id;
    let ours = move |event: &Event| matches!(event, Event::Exchange(shown) if shown.tap == id);
    let hides = tapped.tap.clone();
    let stream = Stream::new(seat, subscription, (count, time), call)
        .unless(move |plan| {
            let other = "a new configuration hides other things: begin a new tap";
            (!hides.hides_as(plan)).then_some(other)
        })
        .only(ours, tapped);
    let wanted: Vec<String> =
        call.query.iter().map(|(name, value)| format!("{name}={value}")).collect();
    Ok(Answer::stream(stream).changed(format!("a tap of {}", wanted.join(" "))))
}
