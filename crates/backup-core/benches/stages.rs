//! What each stage of the pipeline costs alone, in plain bytes per second, on rows as a database
//! dump has them and on bytes that do not compress.

use std::fmt::Write as _;
use std::hint::black_box;
use std::io::{self, Read};
use std::time::{Duration, SystemTime};

use backup_core::transform::{Age, Gzip, Reader, Sign, Transform, Zstd, age_keygen};
use backup_core::{Coding, SigningKey};
use bytes::Bytes;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use sha2::{Digest, Sha256};

const SIZE: usize = 64 * 1024 * 1024;

/// xorshift64*: the same bytes in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn pick<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.next() as usize % words.len()]
    }
}

/// Orders as `COPY` writes them: keys that count up, random ids, names, times, sums, free text.
fn rows() -> Bytes {
    const NAMES: &[&str] = &[
        "Ada", "Bela", "Chen", "Dilek", "Emeka", "Freya", "Goran", "Hana", "Ivo", "Jun", "Kofi",
        "Lena", "Milo", "Noor", "Olga", "Pia", "Quinn", "Rosa", "Sven", "Tariq",
    ];
    const STATES: &[&str] = &[
        "new", "paid", "paid", "shipped", "shipped", "shipped", "returned",
    ];
    const WORDS: &[&str] = &[
        "please",
        "deliver",
        "after",
        "six",
        "leave",
        "with",
        "the",
        "neighbour",
        "gift",
        "wrap",
        "blue",
        "box",
        "call",
        "before",
        "arrival",
        "fragile",
        "second",
        "floor",
        "door",
        "code",
    ];
    let mut random = Random(42);
    let mut text = String::with_capacity(SIZE + 512);
    let mut id = 1_000_000u64;
    let mut time = 1_700_000_000u64;
    while text.len() < SIZE {
        id += 1;
        time += random.next() % 90;
        let name = random.pick(NAMES);
        let _ = write!(
            text,
            "{id}\t{:016x}{:016x}\t{time}\t{name}\t{}{}@example.org\t{}\t{}.{:02}\t",
            random.next(),
            random.next(),
            name.to_lowercase(),
            random.next() % 100_000,
            random.pick(STATES),
            random.next() % 2_000,
            random.next() % 100,
        );
        for _ in 0..random.next() % 12 {
            text.push_str(random.pick(WORDS));
            text.push(' ');
        }
        text.push_str("\t{\"source\":\"web\",\"vat\":true,\"items\":");
        let _ = writeln!(text, "{}}}", random.next() % 9 + 1);
    }
    text.truncate(SIZE);
    text.into()
}

fn noise() -> Bytes {
    let mut random = Random(7);
    let mut bytes = Vec::with_capacity(SIZE);
    while bytes.len() < SIZE {
        bytes.extend_from_slice(&random.next().to_le_bytes());
    }
    bytes.into()
}

fn reader(bytes: &Bytes) -> Reader {
    Box::new(io::Cursor::new(bytes.clone()))
}

fn drain(mut reader: Reader) -> u64 {
    let mut buffer = vec![0; 256 * 1024];
    let mut total = 0;
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return total,
            Ok(n) => total += black_box(n as u64),
            Err(e) => panic!("{e}"),
        }
    }
}

fn all(mut reader: Reader) -> Bytes {
    let mut bytes = Vec::new();
    match reader.read_to_end(&mut bytes) {
        Ok(_) => bytes.into(),
        Err(e) => panic!("{e}"),
    }
}

type Group<'a> = BenchmarkGroup<'a, criterion::measurement::WallTime>;

fn both_ways(group: &mut Group<'_>, name: &str, stage: &impl Transform, plain: &Bytes) {
    for threads in [1, 2] {
        for verify in [false, true] {
            if verify && !["zstd", "gzip"].contains(&stage.id()) {
                continue;
            }
            let checked = if verify { "-verified" } else { "" };
            group.bench_function(format!("{name}/encode{checked}/{threads}"), |b| {
                let coding = Coding::new(threads).verifying(verify);
                b.iter(|| drain(stage.encode(reader(plain), &coding).expect("encodes")));
            });
        }
        if stage.id() == "sign" {
            return;
        }
        let coding = Coding::new(threads);
        let coded = all(stage.encode(reader(plain), &coding).expect("encodes"));
        group.bench_function(format!("{name}/decode/{threads}"), |b| {
            b.iter(|| drain(stage.decode(reader(&coded), &coding).expect("decodes")));
        });
    }
}

fn stages(c: &mut Criterion) {
    let keys = age_keygen(SystemTime::UNIX_EPOCH);
    let age = Age::own(keys.identity.expose()).expect("a fresh key is good");
    let sign = Sign::with(SigningKey::generate().expect("random numbers"));
    for (name, plain) in [("rows", rows()), ("noise", noise())] {
        let mut group = c.benchmark_group(name);
        group
            .throughput(Throughput::Bytes(SIZE as u64))
            .sample_size(10)
            .warm_up_time(Duration::from_millis(500))
            .measurement_time(Duration::from_secs(3));
        group.bench_function("sha256", |b| b.iter(|| Sha256::digest(&plain)));
        both_ways(&mut group, "zstd-3", &Zstd::level(3), &plain);
        both_ways(&mut group, "gzip-6", &Gzip::level(6), &plain);
        both_ways(&mut group, "age", &age, &plain);
        both_ways(&mut group, "sign", &sign, &plain);
        group.finish();
    }
}

criterion_group!(benches, stages);
criterion_main!(benches);
