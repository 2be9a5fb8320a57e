//! From text to a plan.
