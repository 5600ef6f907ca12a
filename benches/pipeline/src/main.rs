//! How close a whole backup comes to what its own stages allow.
//!
//! Reads the file given as argument into memory, measures the CPU time that each stage needs for
//! it alone and on one thread, then runs the whole pipeline into a sink that discards. The bound is
//! the sum of the stages' CPU time over the cores: no schedule can beat it.
//!
//! `cargo run --release -p pipeline-bound -- FILE [ROUNDS]`

use std::io::{self, Read};
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use backup_core::transform::{Age, Reader, Zstd, age_keygen};
use backup_core::{
    ByteStream, Capabilities, Coding, Facts, Job, Key, Locator, Object, PartWriter, Pipeline,
    PutOptions, Request, Result, RunOptions, Sink, Source, Swept, Transform, async_trait,
};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use sha2::Digest;

/// Gives a file in memory, in chunks that cost nothing.
#[derive(Debug)]
struct Memory(Bytes);

#[async_trait]
impl Source for Memory {
    fn kind(&self) -> &str {
        "memory"
    }

    async fn backup(&self, _: &Request, out: &PartWriter) -> Result<Facts> {
        out.write("data", ByteStream::from_bytes(self.0.clone()))
            .await?;
        Ok(Facts::new())
    }
}

/// Remembers names, lengths and small documents, and forgets all other bytes.
#[derive(Debug, Default)]
struct Discard(Mutex<Vec<(Object, Bytes)>>);

/// Every document of ours is smaller.
const SMALL: usize = 64 * 1024;

impl std::fmt::Display for Discard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("nowhere")
    }
}

impl Discard {
    fn objects(&self) -> Vec<(Object, Bytes)> {
        self.0.lock().expect("no thread panics").clone()
    }
}

#[async_trait]
impl Sink for Discard {
    async fn put(&self, key: &Key, mut data: ByteStream, _: &PutOptions) -> Result<Object> {
        let (mut len, mut kept) = (0, Vec::new());
        while let Some(chunk) = data.next().await {
            let chunk = chunk?;
            len += chunk.len() as u64;
            if kept.len() + chunk.len() <= SMALL {
                kept.extend_from_slice(&chunk);
            }
        }
        let object = Object::new(key.clone(), len);
        let mut objects = self.0.lock().expect("no thread panics");
        objects.push((object.clone(), kept.into()));
        Ok(object)
    }

    async fn get(&self, at: &Locator, _: Option<std::ops::Range<u64>>) -> Result<ByteStream> {
        let found = self
            .objects()
            .into_iter()
            .find(|(object, _)| object.key == at.key);
        let (_, bytes) = found.expect("only what was put is read back");
        Ok(ByteStream::from_bytes(bytes))
    }

    async fn stat(&self, _: &Locator) -> Result<Object> {
        unreachable!("nothing is read back")
    }

    async fn delete(&self, _: &Locator) -> Result<()> {
        Ok(())
    }

    fn list(&self, prefix: Option<&Key>) -> BoxStream<'_, Result<Object>> {
        let under =
            |(object, _): &(Object, Bytes)| prefix.is_none_or(|prefix| object.key.is_under(prefix));
        let objects: Vec<_> = self
            .objects()
            .into_iter()
            .filter(under)
            .map(|(object, _)| Ok(object))
            .collect();
        stream::iter(objects).boxed()
    }

    fn children(&self, _: Option<&Key>) -> BoxStream<'_, Result<String>> {
        stream::empty().boxed()
    }

    fn versions(&self, prefix: Option<&Key>) -> BoxStream<'_, Result<Object>> {
        self.list(prefix)
    }

    async fn sweep(&self, _: Duration) -> Result<Swept> {
        Ok(Swept::default())
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new(0)
    }
}

/// User and system time of this process so far, in seconds.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let fields: Vec<&str> = stat
        .rsplit(") ")
        .next()
        .expect("a stat line")
        .split(' ')
        .collect();
    let ticks: u64 =
        fields[11].parse::<u64>().expect("utime") + fields[12].parse::<u64>().expect("stime");
    ticks as f64 / 100.0
}

/// CPU seconds of `work`, the least of three runs.
fn cost(mut work: impl FnMut()) -> f64 {
    let once = |_| {
        let before = cpu();
        work();
        cpu() - before
    };
    (0..3).map(once).fold(f64::INFINITY, f64::min)
}

fn pull(mut reader: Reader) -> u64 {
    let mut buffer = vec![0; backup_core::CHUNK];
    let mut len = 0;
    loop {
        match reader.read(&mut buffer).expect("in memory") {
            0 => return len,
            n => len += n as u64,
        }
    }
}

fn reader(bytes: &Bytes) -> Reader {
    Box::new(io::Cursor::new(bytes.clone()))
}

fn sha(bytes: &Bytes) {
    std::hint::black_box(sha2::Sha256::digest(bytes));
}

fn main() {
    let mut args = std::env::args().skip(1);
    let path = args.next().expect("usage: pipeline-bound FILE [ROUNDS]");
    let rounds: usize = args
        .next()
        .map_or(3, |n| n.parse().expect("a number of rounds"));
    let plain = Bytes::from(std::fs::read(&path).expect("a readable file"));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let keys = age_keygen(SystemTime::UNIX_EPOCH);
    let age = || Age::to([&keys.recipient]).expect("a fresh key");

    let one = |verify| Coding::new(1).verifying(verify);
    let mut compressed = Vec::new();
    let mut coded = Zstd::level(3)
        .encode(reader(&plain), &one(false))
        .expect("zstd starts");
    coded.read_to_end(&mut compressed).expect("in memory");
    let compressed = Bytes::from(compressed);
    println!(
        "plain {} MB, compressed {} MB, {cores} cores",
        mb(&plain),
        mb(&compressed)
    );

    let hash_plain = cost(|| sha(&plain));
    let hash_stored = cost(|| sha(&compressed));
    let seal = cost(|| {
        pull(
            age()
                .encode(reader(&compressed), &one(false))
                .expect("age starts"),
        );
    });
    for verify in [true, false] {
        let zstd = cost(|| {
            pull(
                Zstd::level(3)
                    .encode(reader(&plain), &one(verify))
                    .expect("zstd starts"),
            );
        });
        let sum = hash_plain + zstd + seal + hash_stored;
        println!(
            "verify_after_encode {verify}: cpu sha256 {hash_plain:.2} + zstd {zstd:.2} + age {seal:.2} + sha256 {hash_stored:.2} = {sum:.2} s"
        );
        let bound = sum / cores as f64;
        let mut walls = Vec::new();
        for _ in 0..rounds {
            let pipeline = Pipeline::encrypted(age())
                .compress(Zstd::level(3))
                .threads(cores)
                .verify_after_encode(verify);
            let job = Job::builder("bound")
                .source(Memory(plain.clone()))
                .pipeline(pipeline)
                .sink("nowhere", Discard::default())
                .build()
                .expect("a job");
            let (started, before) = (Instant::now(), cpu());
            runtime
                .block_on(job.run(RunOptions::default()))
                .expect("a run");
            walls.push((started.elapsed().as_secs_f64(), cpu() - before));
        }
        walls.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (wall, used) = walls[walls.len() / 2];
        println!(
            "  whole: {wall:.2} s wall, {used:.2} s cpu, {:.0} MB/s, {:.2} of the bound of {bound:.2} s",
            plain.len() as f64 / wall / 1e6,
            bound / wall
        );
    }
}

fn mb(bytes: &Bytes) -> usize {
    bytes.len() / 1_000_000
}
