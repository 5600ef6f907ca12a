//! What the tests of the sink share.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test takes what it needs of this"
)]

pub mod client;
pub mod sign;
