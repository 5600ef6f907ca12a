//! Who does the work of a slot of the schedule.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::{ByteStream, Error, ErrorKind, Key, Locator, PutOptions, Result, Sink, Stamp};

/// How large a claim may be; ours have about 150 bytes.
const MAX_CLAIM: usize = 4096;

/// How often a slot is taken over before it is given up.
const MAX_ATTEMPTS: u32 = 1000;

/// The claims of one job in one sink, which keep two schedulers from doing the same work.
///
/// A claim is an object `<job>/claims/<slot>.<attempt>`, written once and never deleted or
/// renewed: one put takes a slot, and when its deadline has passed the next attempt is free. No
/// data depends on it: two runs at once, after a wrong clock or in a sink that cannot refuse a
/// second put of one key by itself, are two backups.
#[derive(Clone, Debug)]
pub struct Claims {
    sink: Arc<dyn Sink>,
    prefix: Key,
}

/// What became of a try to take a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is ours until the deadline.
    Won {
        /// 1, or more after takeovers.
        attempt: u32,
    },
    /// It is another's.
    Held {
        /// The owner that the claim names.
        by: String,
        /// From then on it may be taken over.
        until: SystemTime,
    },
}

#[derive(Serialize, Deserialize)]
struct Claim {
    owner: String,
    taken: Stamp,
    until: Stamp,
    /// Tells this try from any other of the same owner.
    nonce: String,
}

impl Claims {
    /// The claims of `job`. A job name that is no [segment](Key::check) is
    /// [`Invalid`](ErrorKind::Invalid).
    pub fn new(sink: Arc<dyn Sink>, job: &str) -> Result<Self> {
        Key::check(job)?;
        let prefix = Key::parse(job)?.join("claims")?;
        Ok(Self { sink, prefix })
    }

    /// Takes `slot` for `owner` until `deadline` after `now`, unless somebody holds it.
    ///
    /// Of all who try at once, one wins each attempt. A deadline is compared with the clock of
    /// whoever tries; leave room for their difference. A claim that cannot be read is passed
    /// over: better two runs than none. When the future is dropped, the slot may be taken and
    /// stays so until the deadline.
    pub async fn take(
        &self,
        slot: &str,
        owner: &str,
        now: SystemTime,
        deadline: Duration,
    ) -> Result<Taken> {
        Key::check(slot)?;
        let until = now.checked_add(deadline).ok_or_else(|| {
            let message = format!("deadline of slot `{slot}` is beyond the end of time");
            Error::new(ErrorKind::Invalid, message)
        })?;
        let claim = Claim {
            owner: owner.to_owned(),
            taken: now.into(),
            until: until.into(),
            nonce: crate::id::nonce()?,
        };
        let body = serde_json::to_vec(&claim)
            .map_err(|e| Error::new(ErrorKind::Other, "write a claim").with_source(e))?;
        if body.len() > MAX_CLAIM {
            let message = format!("owner of slot `{slot}` has a name of {} bytes", owner.len());
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        for attempt in 1..=MAX_ATTEMPTS {
            let key = self.prefix.join(&format!("{slot}.{attempt}"))?;
            let data = ByteStream::from_bytes(body.clone());
            match self.sink.put(&key, data, &PutOptions::default()).await {
                Ok(_) => return Ok(Taken::Won { attempt }),
                Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
                Err(e) => return Err(e.context(format!("take slot `{slot}`"))),
            }
            match self.read(&key).await {
                // The sink tried twice, and its first try had arrived.
                Ok(found) if found.nonce == claim.nonce => return Ok(Taken::Won { attempt }),
                Ok(found) if SystemTime::from(found.until) > now => {
                    return Ok(Taken::Held {
                        by: found.owner,
                        until: found.until.into(),
                    });
                }
                Ok(_) => {}
                Err(e) if matches!(e.kind(), ErrorKind::Corrupt | ErrorKind::NotFound) => {}
                Err(e) => return Err(e.context(format!("take slot `{slot}`"))),
            }
        }
        let message = format!("slot `{slot}` was taken over {MAX_ATTEMPTS} times");
        Err(Error::new(ErrorKind::Locked, message))
    }

    async fn read(&self, key: &Key) -> Result<Claim> {
        let body = self.sink.get(&Locator::from(key), None).await?;
        let body = body.collect(MAX_CLAIM).await?;
        serde_json::from_slice(&body).map_err(|e| {
            Error::new(ErrorKind::Corrupt, format!("{key} is no claim")).with_source(e)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fmt;
    use std::ops::Range;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering};

    use bytes::Bytes;
    use futures::stream::{BoxStream, StreamExt};

    use super::*;
    use crate::{Capabilities, Object, Swept, async_trait};

    /// Just enough of a sink, and what can happen to a claim in one.
    #[derive(Debug, Default)]
    struct Shelf {
        objects: Mutex<BTreeMap<Key, Bytes>>,
        /// The first put arrives and its answer is lost, so that it is tried once more.
        answer_lost: AtomicBool,
        down: AtomicBool,
    }

    impl fmt::Display for Shelf {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("shelf")
        }
    }

    #[async_trait]
    impl Sink for Shelf {
        async fn put(&self, key: &Key, data: ByteStream, _: &PutOptions) -> Result<Object> {
            let body = data.collect(1 << 20).await?;
            tokio::task::yield_now().await;
            if self.down.load(Ordering::Relaxed) {
                return Err(Error::new(ErrorKind::Unavailable, "shelf is down"));
            }
            let mut objects = self.objects.lock().unwrap();
            let lost = self.answer_lost.swap(false, Ordering::Relaxed);
            if lost {
                objects.insert(key.clone(), body.clone());
            }
            if objects.contains_key(key) {
                return Err(Error::new(
                    ErrorKind::AlreadyExists,
                    format!("{key} exists"),
                ));
            }
            let object = Object::new(key.clone(), body.len() as u64);
            objects.insert(key.clone(), body);
            Ok(object)
        }

        async fn get(&self, at: &Locator, _: Option<Range<u64>>) -> Result<ByteStream> {
            tokio::task::yield_now().await;
            match self.objects.lock().unwrap().get(&at.key) {
                Some(body) => Ok(ByteStream::from_bytes(body.clone())),
                None => Err(Error::new(ErrorKind::NotFound, format!("no {}", at.key))),
            }
        }

        async fn stat(&self, at: &Locator) -> Result<Object> {
            Err(Error::new(
                ErrorKind::Unsupported,
                format!("stat {}", at.key),
            ))
        }

        async fn delete(&self, at: &Locator) -> Result<()> {
            panic!("a claim is never deleted: {}", at.key);
        }

        fn list(&self, _: Option<&Key>) -> BoxStream<'_, Result<Object>> {
            futures::stream::empty().boxed()
        }

        fn children(&self, _: Option<&Key>) -> BoxStream<'_, Result<String>> {
            futures::stream::empty().boxed()
        }

        fn versions(&self, prefix: Option<&Key>) -> BoxStream<'_, Result<Object>> {
            self.list(prefix)
        }

        async fn sweep(&self, _: Duration) -> Result<Swept> {
            Ok(Swept::default())
        }

        fn capabilities(&self) -> Capabilities {
            Capabilities::new(0).with_conditional_put()
        }
    }

    const SLOT: &str = "20261121T020000Z";
    const HOUR: Duration = Duration::from_secs(3600);

    fn two() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_226_400)
    }

    fn claims(shelf: &Arc<Shelf>) -> Claims {
        Claims::new(Arc::clone(shelf) as Arc<dyn Sink>, "orders").unwrap()
    }

    #[tokio::test]
    async fn a_slot_is_held_until_its_deadline_and_then_taken_over() {
        let shelf = Arc::new(Shelf::default());
        let claims = claims(&shelf);
        let won = |attempt| Taken::Won { attempt };
        let take = |owner, now| claims.take(SLOT, owner, now, HOUR);

        assert_eq!(take("a", two()).await.unwrap(), won(1));
        let just_before = two() + HOUR - Duration::from_nanos(1);
        for owner in ["a", "b"] {
            let held = Taken::Held {
                by: "a".to_owned(),
                until: two() + HOUR,
            };
            assert_eq!(take(owner, just_before).await.unwrap(), held);
        }
        assert_eq!(take("b", two() + HOUR).await.unwrap(), won(2));
        assert_eq!(take("c", two() + 2 * HOUR).await.unwrap(), won(3));
        let other = claims.take("20261122T020000Z", "c", two(), HOUR).await;
        assert_eq!(other.unwrap(), won(1));

        let objects = shelf.objects.lock().unwrap();
        let keys: Vec<_> = objects.keys().map(Key::as_str).collect();
        assert_eq!(keys[0], "orders/claims/20261121T020000Z.1");
        assert_eq!(keys.len(), 4);
        let body: serde_json::Value =
            serde_json::from_slice(&objects.values().next().unwrap()[..]).unwrap();
        assert_eq!(body["owner"], "a");
        assert_eq!(body["taken"], "2026-11-21T02:00:00Z");
        assert_eq!(body["until"], "2026-11-21T03:00:00Z");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn of_many_at_once_one_wins_each_attempt() {
        for round in 0..50 {
            let shelf = Arc::new(Shelf::default());
            for attempt in 1..=3u32 {
                let now = two() + (attempt - 1) * HOUR;
                let tasks: Vec<_> = (0..8)
                    .map(|i| {
                        let claims = claims(&shelf);
                        let owner = format!("host-{i}");
                        tokio::spawn(async move {
                            let taken = claims.take(SLOT, &owner, now, HOUR).await.unwrap();
                            (owner, taken)
                        })
                    })
                    .collect();
                let mut winners = Vec::new();
                let mut named = Vec::new();
                for task in tasks {
                    match task.await.unwrap() {
                        (owner, Taken::Won { attempt }) => winners.push((owner, attempt)),
                        (_, Taken::Held { by, until }) => {
                            assert_eq!(until, now + HOUR);
                            named.push(by);
                        }
                    }
                }
                assert_eq!(winners.len(), 1, "round {round}");
                assert_eq!(winners[0].1, attempt);
                assert!(named.iter().all(|by| *by == winners[0].0));
            }
        }
    }

    #[tokio::test]
    async fn a_put_whose_answer_was_lost_is_still_won() {
        let shelf = Arc::new(Shelf::default());
        shelf.answer_lost.store(true, Ordering::Relaxed);
        let taken = claims(&shelf).take(SLOT, "a", two(), HOUR).await.unwrap();
        assert!(
            !shelf.answer_lost.load(Ordering::Relaxed),
            "the fault fired"
        );
        assert_eq!(taken, Taken::Won { attempt: 1 });
    }

    #[tokio::test]
    async fn a_claim_that_cannot_be_read_is_passed_over() {
        let shelf = Arc::new(Shelf::default());
        for (attempt, body) in [(1, vec![b'x'; 10]), (2, vec![b' '; 2 * MAX_CLAIM])] {
            let key = Key::parse(format!("orders/claims/{SLOT}.{attempt}")).unwrap();
            shelf.objects.lock().unwrap().insert(key, body.into());
        }
        let taken = claims(&shelf).take(SLOT, "a", two(), HOUR).await.unwrap();
        assert_eq!(taken, Taken::Won { attempt: 3 });
    }

    #[tokio::test]
    async fn a_sink_that_is_down_is_an_error_and_no_claim() {
        let shelf = Arc::new(Shelf::default());
        shelf.down.store(true, Ordering::Relaxed);
        let error = claims(&shelf)
            .take(SLOT, "a", two(), HOUR)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains(SLOT));
    }

    #[tokio::test]
    async fn names_and_deadlines_that_cannot_be_are_refused() {
        let shelf = Arc::new(Shelf::default());
        assert!(Claims::new(Arc::clone(&shelf) as Arc<dyn Sink>, "a/b").is_err());
        let claims = claims(&shelf);
        let long = "x".repeat(2 * MAX_CLAIM);
        for (slot, owner, deadline) in [
            ("a/b", "a", HOUR),
            ("", "a", HOUR),
            (SLOT, "a", Duration::MAX),
            (SLOT, &long, HOUR),
        ] {
            let error = claims.take(slot, owner, two(), deadline).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
        }
        assert!(shelf.objects.lock().unwrap().is_empty());
    }
}
