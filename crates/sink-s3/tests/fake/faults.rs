//! Failures by script: the n-th request that fits gets one, and a counter tells that it did.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::wire::{Op, Reply, Request, refusal};

/// What happens instead, or on top.
#[derive(Clone, Debug)]
pub enum Effect {
    /// This status and code, and nothing is done.
    Refuse(u16, &'static str),
    /// It is done, and then this status and code: the client cannot know.
    DoneButRefused(u16, &'static str),
    /// 200 with an error in the body, and nothing is done: CompleteMultipartUpload has sent its
    /// status before it knows (S3 API reference).
    ErrorInBody(&'static str),
    /// 307 to this place.
    Redirect(String),
    /// The connection ends without an answer, and nothing is done.
    HangUp,
    /// The body ends after so many bytes, and the connection with it; its length says more.
    CutBody(usize),
    /// The body has so many bytes, and its length says the same.
    ShortBody(usize),
    /// The lowest bit of the body's byte there is flipped.
    FlipBit(usize),
    /// The checksums that the answer states are those of something else.
    WrongChecksum,
    /// It takes so long.
    Slow(Duration),
}

struct Fault {
    op: Op,
    key: String,
    skip: usize,
    times: usize,
    every: usize,
    effect: Effect,
    seen: usize,
    fired: Arc<AtomicUsize>,
}

/// How often a fault has fired.
#[derive(Clone)]
pub struct Fired(Arc<AtomicUsize>);

impl Fired {
    pub fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// The script.
#[derive(Default)]
pub struct Faults(Vec<Fault>);

impl Faults {
    /// `effect` on `times` requests for `op` with `key` in their key, after the first `skip`, one
    /// in `every`.
    pub fn add(
        &mut self,
        op: Op,
        key: &str,
        (skip, times, every): (usize, usize, usize),
        effect: Effect,
    ) -> Fired {
        let fired = Arc::new(AtomicUsize::new(0));
        self.0.push(Fault {
            op,
            key: key.to_owned(),
            skip,
            times,
            every,
            effect,
            seen: 0,
            fired: fired.clone(),
        });
        Fired(fired)
    }

    /// What happens to this request. The first fault that fits fires.
    pub fn next(&mut self, request: &Request) -> Option<Effect> {
        let mut hit = None;
        for fault in &mut self.0 {
            if fault.op != request.op || !request.key.contains(&fault.key) {
                continue;
            }
            fault.seen += 1;
            let due = fault.seen > fault.skip
                && (fault.seen - fault.skip).is_multiple_of(fault.every)
                && fault.fired.load(Ordering::SeqCst) < fault.times;
            if due && hit.is_none() {
                fault.fired.fetch_add(1, Ordering::SeqCst);
                hit = Some(fault.effect.clone());
            }
        }
        hit
    }
}

impl Effect {
    /// The answer that replaces the work.
    pub fn instead(&self) -> Option<Reply> {
        match self {
            Self::Refuse(status, code) => Some(refusal(*status, code, "by script")),
            Self::ErrorInBody(code) => Some(refusal(200, code, "by script")),
            Self::Redirect(place) => {
                let message = "Please re-send this request to the specified temporary endpoint. Continue to use the original request endpoint for future requests.";
                let answer = refusal(307, "TemporaryRedirect", message);
                Some(answer.header("location", place.clone()))
            }
            _ => None,
        }
    }

    /// The answer after the work was done.
    pub fn after(&self, mut answer: Reply) -> Reply {
        match self {
            Self::DoneButRefused(status, code) => refusal(*status, code, "by script"),
            Self::ShortBody(len) => {
                answer.body = answer.body.slice(..answer.body.len().min(*len));
                answer
            }
            Self::FlipBit(at) => {
                let mut bytes = BytesMut::from(&answer.body[..]);
                bytes[*at] ^= 1;
                answer.body = bytes.freeze();
                answer
            }
            Self::WrongChecksum => {
                for (name, value) in &mut answer.headers {
                    if name == "etag" {
                        *value = "\"00000000000000000000000000000000\"".to_owned();
                    } else if let Some(algorithm) = name.strip_prefix("x-amz-checksum-") {
                        *value = super::sums::sum(algorithm, b"another");
                    }
                }
                answer
            }
            _ => answer,
        }
    }

    /// The body as it goes out, and whether the connection ends with it.
    pub fn cut(&self, body: &Bytes) -> Option<Bytes> {
        match self {
            Self::CutBody(len) => Some(body.slice(..body.len().min(*len))),
            _ => None,
        }
    }
}
