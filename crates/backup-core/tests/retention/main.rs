//! The retention engine against its fifteen rules, and against a slow and obvious second one.
#![allow(clippy::unwrap_used)]

mod histories;
mod oracle;
mod policies;
mod rules;
