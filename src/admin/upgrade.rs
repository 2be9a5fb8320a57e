//! `POST /admin/upgrade`: a new process on the same sockets.

use std::rc::Rc;

use serde::Serialize;

use crate::admin::call::Answer;
use crate::admin::refusal::Refusal;
use crate::admin::shape::Shape;
use crate::control::Control;
use crate::control::upgrade::Upgraded;

pub(super) const SHAPE: Shape =
    Shape::Object(&[("pid", Shape::Whole), ("warnings", Shape::List(&Shape::Text))]);

#[derive(Serialize)]
struct Page {
    /// Of the process that serves from now on.
    pid: u32,
    /// What the new process does not know.
    warnings: Vec<String>,
}

/// The answer is on its way before this process stops taking connections.
pub(super) async fn upgrade(control: &Rc<Control>) -> Result<Answer, Refusal> {
    let Upgraded { pid, warnings } = control.upgrade().await.map_err(Refusal::UpgradeFailed)?;
    Ok(Answer::json(&Page { pid, warnings })
        .changed(format!("process {pid} serves, this one drains")))
}
