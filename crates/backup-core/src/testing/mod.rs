//! The conformance kit and the fault kit, for every plugin: ours and yours.
//!
//! A plugin depends on `backup-core` with the feature `testing`, and on tokio, for its tests, and
//! writes one line for each thing that it brings:
//!
//! ```
//! # use backup_core::MemorySink;
//! backup_core::testing::sink!(memory, async { MemorySink::new() });
//! # fn main() {}
//! ```
//!
//! That is a module `memory` with one test for each public function of [`sink`](mod@sink), under
//! the function's name. A case that is added here reaches every plugin with its next
//! `cargo test`. The expression is evaluated once for each case; it gives the thing to be tested,
//! or a pair of it and of whatever must live as long as the test (a temporary folder), or the
//! full fixture. Attributes go in front of the name, for cases that need a server:
//! `sink!(#[ignore = "needs S3"] s3, async { .. })`.
//!
//! [`faults`] holds sinks, sources and transforms that fail on purpose.

pub mod faults;
pub mod sink;
pub mod source;
pub mod target;
pub mod transform;

#[doc(hidden)]
#[path = "private.rs"]
pub mod __private;
#[cfg(test)]
mod broken;

#[doc(inline)]
pub use crate::__sink_kit as sink;
#[doc(inline)]
pub use crate::__source_kit as source;
#[doc(inline)]
pub use crate::__target_kit as target;
#[doc(inline)]
pub use crate::__transform_kit as transform;

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};

/// `len` bytes that no codec makes smaller, the same ones for the same `seed`.
pub fn noise(len: usize, seed: u64) -> Bytes {
    let mut bytes = BytesMut::with_capacity(len + 8);
    // SplitMix64, by Sebastiano Vigna: public domain.
    let mut state = seed;
    while bytes.len() < len {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bytes.put_u64_le(z ^ (z >> 31));
    }
    bytes.truncate(len);
    bytes.freeze()
}

/// What the variable `name` says of a real server: its URL, the folder of its programs. `None`, and
/// a note, where it is not set: a test that did not run. It panics there instead where
/// `LIFEBELT_REQUIRE_SERVICES` is set, as `scripts/test` does.
pub fn service(name: &str) -> Option<String> {
    let value = std::env::var(name).ok();
    assert!(
        value.is_some() || std::env::var_os("LIFEBELT_REQUIRE_SERVICES").is_none(),
        "{name} is missing: eval \"$(scripts/services env)\" sets it"
    );
    if value.is_none() {
        eprintln!("not run: needs {name} (scripts/test sets it)");
    }
    value
}

/// Asks until the answer is yes; panics with `what` after ten seconds. For work that goes on
/// after a future was dropped.
pub async fn eventually(what: &str, mut answer: impl AsyncFnMut() -> bool) {
    for _ in 0..500 {
        if answer().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("not within ten seconds: {what}");
}

/// The conformance kit of a [`Sink`](crate::Sink): `sink!(name, async { MySink::new() })`.
///
/// The block gives the sink, a pair of it and what must outlive the test, or a
/// [`SinkFixture`](sink::SinkFixture). Every case gets an empty sink.
#[doc(hidden)]
#[macro_export]
macro_rules! __sink_kit {
    ($(#[$attribute:meta])* $name:ident, $fixture:expr $(,)?) => {
        $crate::__sink_cases! { $crate::__kit {
            $crate::__async_case, sink [$(#[$attribute])*] $name ($fixture)
        } }
    };
}

/// The conformance kit of a [`Transform`](crate::Transform): `transform!(name, MyStage::new())`.
///
/// The expression gives the stage, a pair of the side that encodes and the side that decodes, or
/// a [`TransformFixture`](transform::TransformFixture).
#[doc(hidden)]
#[macro_export]
macro_rules! __transform_kit {
    ($(#[$attribute:meta])* $name:ident, $fixture:expr $(,)?) => {
        $crate::__transform_cases! { $crate::__kit {
            $crate::__sync_case, transform [$(#[$attribute])*] $name ($fixture)
        } }
    };
}

/// The conformance kit of a [`Source`](crate::Source): `source!(name, async { MyFixture::new() })`
/// with a [`SourceFixture`](source::SourceFixture).
#[doc(hidden)]
#[macro_export]
macro_rules! __source_kit {
    ($(#[$attribute:meta])* $name:ident, $fixture:expr $(,)?) => {
        $crate::__source_cases! { $crate::__kit {
            $crate::__store_case, source [$(#[$attribute])*] $name ($fixture)
        } }
    };
}

/// The conformance kit of a [`Target`](crate::Target): `target!(name, async { MyFixture::new() })`
/// with a [`TargetFixture`](target::TargetFixture).
#[doc(hidden)]
#[macro_export]
macro_rules! __target_kit {
    ($(#[$attribute:meta])* $name:ident, $fixture:expr $(,)?) => {
        $crate::__target_cases! { $crate::__kit {
            $crate::__store_case, target [$(#[$attribute])*] $name ($fixture)
        } }
    };
}

/// A module with one test for each case.
#[doc(hidden)]
#[macro_export]
macro_rules! __kit {
    ([$($case:ident)*] $test:path, $kit:ident $attributes:tt $name:ident $fixture:tt) => {
        mod $name {
            #[allow(unused_imports)]
            use super::*;
            $($test! { $kit $case $attributes $fixture })*
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __async_case {
    ($kit:ident $case:ident [$($attribute:tt)*] $fixture:tt) => {
        #[::tokio::test(flavor = "multi_thread", worker_threads = 2)]
        $($attribute)*
        async fn $case() {
            $crate::testing::__private::within_minutes(async {
                let fixture: $crate::testing::$kit::SinkFixture = $fixture.await.into();
                if fixture.is_there() {
                    $crate::testing::$kit::$case(&fixture).await;
                }
            })
            .await;
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __store_case {
    ($kit:ident $case:ident [$($attribute:tt)*] $fixture:tt) => {
        #[::tokio::test(flavor = "multi_thread", worker_threads = 2)]
        $($attribute)*
        async fn $case() {
            $crate::testing::__private::within_minutes(async {
                let fixture = $fixture.await;
                let missing = $crate::testing::source::SourceFixture::missing(&fixture);
                if let Some(missing) = missing {
                    eprintln!("not run: {missing}");
                    return;
                }
                $crate::testing::$kit::$case(&fixture).await;
            })
            .await;
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __sync_case {
    ($kit:ident $case:ident [$($attribute:tt)*] $fixture:tt) => {
        #[test]
        $($attribute)*
        fn $case() {
            $crate::testing::$kit::$case(&$fixture.into());
        }
    };
}
