//! `GET /admin/events`: what happens, as it happens.

use std::rc::Rc;

use crate::admin::api::{Gives, Kind, Parameter};
use crate::admin::call::{Answer, Call};
use crate::admin::refusal::Refusal;
use crate::admin::shape::Shape;
use crate::admin::stream::{self, NDJSON, Seat, Stream};
use crate::control::Control;
use crate::control::message::Question;
use crate::events::bus::Kinds;
use crate::limits;

pub(super) const GIVES: Gives = Gives { status: 200, content_type: NDJSON, shape: Shape::Page };
pub(super) const PARAMETERS: &[Parameter] = &[
    Parameter {
        name: "kinds",
        kind: Kind::Words(&["connection", "request", "failure", "reload", "health", "audit"]),
        doc: "Which events, by comma: connection, request, failure, reload, health, audit; all.",
    },
    stream::COUNT,
    stream::SECONDS,
];

pub(super) async fn stream(control: &Rc<Control>, call: &Call) -> Result<Answer, Refusal> {
    let named = call
        .parameter("kinds")
        .map(|kinds| kinds.split(',').filter_map(Kinds::named).fold(Kinds::NONE, Kinds::and));
    let seat = Seat::take(control)?;
    let kinds = named.unwrap_or(Kinds::ALL);
    let subscription = control.subscribe(kinds, limits::STREAM_EVENTS_MAX);
    // Who answers this has been told what is wanted.
    control.ask(Question::Nothing).await;
    let bounds = stream::bounds(call);
    let stream = Stream::new(seat, subscription, bounds, call);
    Ok(Answer::stream(stream).changed(format!("a stream of events for {:?}", bounds.1)))
}
