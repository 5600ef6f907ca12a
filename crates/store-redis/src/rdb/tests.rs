//! RDBs of real servers (`tests/rdb`, from `tests/support/seed.redis`), and some that none writes.

use backup_core::ErrorKind;
use proptest::prelude::*;

use super::*;

const REAL: [(&str, &[u8]); 4] = [
    ("redis 6.2", include_bytes!("../../tests/rdb/redis-6.2.rdb")),
    ("redis 7.0", include_bytes!("../../tests/rdb/redis-7.0.rdb")),
    ("redis 8.2", include_bytes!("../../tests/rdb/redis-8.2.rdb")),
    (
        "valkey 9.1",
        include_bytes!("../../tests/rdb/valkey-9.1.rdb"),
    ),
];

fn walk(pieces: impl IntoIterator<Item = impl AsRef<[u8]>>) -> backup_core::Result<Summary> {
    let mut walker = Walker::new();
    for piece in pieces {
        walker.feed(piece.as_ref())?;
    }
    walker.finish(false).map(|(summary, ())| summary)
}

fn digest(bytes: &[u8]) -> Option<u128> {
    let mut walker = Walker::with(Digest::default());
    walker.feed(bytes).unwrap();
    walker.finish(false).unwrap().1.value()
}

/// An RDB of `version` with these bytes between its header and its end.
fn rdb(version: u32, body: &[&[u8]]) -> Vec<u8> {
    let magic = match version {
        80.. => format!("VALKEY{version:03}"),
        _ => format!("REDIS{version:04}"),
    };
    let mut bytes = [magic.as_bytes(), &body.concat(), &[255]].concat();
    let mut sum = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc64Redis);
    sum.update(&bytes);
    bytes.extend(sum.finalize().to_le_bytes());
    bytes
}

/// A key `k` of this type.
fn key(kind: u8, value: &[&[u8]]) -> Vec<u8> {
    [&[kind, 1, b'k'], value.concat().as_slice()].concat()
}

#[test]
fn a_magic_is_read_and_one_that_cannot_be_is_not() {
    assert_eq!(Version::of_magic(b"REDIS0010"), Some(Version(10)));
    assert_eq!(Version::of_magic(b"VALKEY080"), Some(Version(80)));
    for bad in [
        "REDIS010",
        "REDIS00010",
        "VALKEY011",
        "REDIS0080",
        "REDIS+010",
        "redis0010",
    ] {
        assert_eq!(Version::of_magic(bad.as_bytes()), None, "{bad}");
    }
}

#[test]
fn nobody_loads_what_is_newer_or_of_the_other_side() {
    let loads = |this, server| Version(this).loads_into(Version(server));
    for (this, server) in [(9, 10), (10, 10), (11, 80), (11, 12), (12, 12), (80, 80)] {
        assert!(loads(this, server), "{this} into {server}");
    }
    for (this, server) in [(11, 10), (12, 11), (12, 80), (80, 12), (81, 80)] {
        assert!(!loads(this, server), "{this} into {server}");
    }
}

#[test]
fn snapshots_of_real_servers_are_counted() {
    for (name, bytes) in REAL {
        let summary = walk([bytes]).unwrap();
        let content = summary.content.unwrap();
        let fields = if summary.version >= Version(12) { 2 } else { 0 };
        let functions = if name == "redis 6.2" { 0 } else { 2 };
        let keys = BTreeMap::from([(0, 33 + fields), (1, 2), (9, 50), (15, 1)]);
        assert_eq!((content.keys, content.expires), (keys, 52), "{name}");
        assert_eq!(content.functions, functions, "{name}");
        assert_eq!(
            (summary.bytes, summary.checksum),
            (bytes.len() as u64, true)
        );
        let (server, version) = name.split_once(' ').unwrap();
        assert!(
            content.aux[&format!("{server}-ver")].starts_with(version),
            "{name}"
        );
    }
}

#[test]
fn the_pieces_do_not_matter() {
    for (name, bytes) in REAL {
        let (whole, sum) = (walk([bytes]).unwrap(), digest(bytes));
        for size in [1, 2, 3, 7, 8, 9, 40, 4096] {
            assert_eq!(walk(bytes.chunks(size)).unwrap(), whole, "{name} by {size}");
            let mut walker = Walker::with(Digest::default());
            bytes
                .chunks(size)
                .for_each(|piece| walker.feed(piece).unwrap());
            assert_eq!(
                walker.finish(false).unwrap().1.value(),
                sum,
                "{name} by {size}"
            );
        }
    }
}

#[test]
fn every_truncation_is_found() {
    for (name, bytes) in REAL {
        let mut walker = Walker::new();
        for (at, byte) in bytes.iter().enumerate() {
            let cut = walker.clone().finish(true).unwrap_err();
            assert_eq!(cut.kind(), ErrorKind::Corrupt, "{name} cut at {at}");
            walker.feed(&[*byte]).unwrap();
        }
        walker.finish(false).unwrap();
    }
}

#[test]
fn every_flipped_byte_is_found() {
    let mut flips = 0;
    for (name, bytes) in REAL {
        let middle = (200..bytes.len() - 200).step_by(101);
        for at in (0..200).chain(middle).chain(bytes.len() - 200..bytes.len()) {
            let mut changed = bytes.to_vec();
            changed[at] ^= 1 << (at % 8);
            assert!(walk([changed]).is_err(), "{name} with another byte at {at}");
            flips += 1;
        }
    }
    assert!(flips > 3_000, "{flips}");
}

#[test]
fn more_than_its_end_is_refused() {
    for (_, bytes) in REAL {
        for tail in [&b"\n"[..], b"REDIS0010", bytes] {
            assert!(walk([bytes, tail]).is_err());
        }
    }
}

#[test]
fn a_missing_checksum_is_taken_only_where_that_is_allowed() {
    let mut bytes = rdb(10, &[&key(0, &[b"\x01v"])]);
    let end = bytes.len() - 8;
    bytes[end..].fill(0);
    let error = walk([&bytes]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.to_string().contains("allow_unchecked"), "{error}");
    let mut walker = Walker::new();
    walker.feed(&bytes).unwrap();
    let (summary, ()) = walker.finish(true).unwrap();
    assert!(!summary.checksum && summary.content.is_some());
}

/// The types that no server of today writes, those that want a module, and what stands between.
#[test]
fn what_no_server_at_hand_writes_is_walked_too() {
    let number = [0x81, 0, 0, 0, 0, 0, 0, 0x12, 0x34];
    let module = &[
        &number[..],
        &[
            1, 5, 2, 6, 3, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 5, 2, b'a', b'b', 0,
        ],
    ]
    .concat();
    let stream = [&[1, 16][..], &[0; 16], &[3, 1, 2, 3, 1, 2, 3]].concat();
    let group = [
        &[1, 1, b'g', 0, 0, 1][..],
        &[0; 24],
        &[1, 1, 1, b'c'],
        &[0; 8],
        &[1],
        &[0; 16],
    ]
    .concat();
    let values: [(u8, Vec<u8>); 14] = [
        (1, vec![2, 1, b'a', 0xc0, 5]),
        (2, vec![1, 1, b'a']),
        (
            3,
            vec![
                4, 1, b'a', 1, b'7', 1, b'b', 253, 1, b'c', 254, 1, b'd', 255,
            ],
        ),
        (5, [&[1, 1, b'a'][..], &[0; 8]].concat()),
        (4, vec![1, 1, b'f', 1, b'v']),
        (7, module.clone()),
        (9, vec![1, b'z']),
        (10, vec![1, b'z']),
        (14, vec![2, 1, b'z', 0xc3, 2, 3, 0, b'z']),
        (15, [stream, group].concat()),
        (22, vec![1, 7, 1, b'f', 1, b'v']),
        (23, vec![1, b'z']),
        (24, [&[0; 8][..], &[1, 0, 1, b'f', 1, b'v']].concat()),
        (25, [&[0; 8][..], &[1, b'z']].concat()),
    ];
    for (kind, value) in values {
        let body = [
            &[244, 1, 2, 3][..],
            &[248, 7],
            &[249, 9],
            &[253, 0, 0, 0, 0],
            &key(kind, &[&value]),
        ]
        .concat();
        let whole = rdb(12, &[&body]);
        let content = walk([&whole]).unwrap().content.unwrap();
        assert_eq!(
            (content.keys.values().sum::<u64>(), content.expires),
            (1, 1),
            "type {kind}"
        );
        assert_eq!(content.modules.len(), usize::from(kind == 7));
        for at in 9..whole.len() - 9 {
            let cut = [&whole[..at], &whole[whole.len() - 9..]].concat();
            assert!(walk([cut]).is_err(), "type {kind} cut at {at}");
        }
    }
    let aux = [&[247][..], &number, &[2, 1], &module[9..]].concat();
    let modules = walk([rdb(10, &[&aux])]).unwrap().content.unwrap().modules;
    assert_eq!(modules, ["AAAAAAAAE"]);
}

#[test]
fn what_cannot_be_is_named() {
    let huge = [0x81, 255, 255, 255, 255, 255, 255, 255, 255];
    let cases: [(Vec<u8>, &str); 9] = [
        (
            b"*1\r\n$4\r\nPING\r\n".to_vec(),
            "does not begin with REDIS",
        ),
        (rdb(4, &[]), "version 4 has no checksum"),
        (rdb(10, &[&[77, 0, 0]]), "at its byte 10: 77 is no type"),
        (rdb(10, &[&key(24, &[])]), "24 is no type"),
        (rdb(80, &[&key(24, &[])]), "24 is no type"),
        (rdb(80, &[&[243]]), "wait until it has moved"),
        (rdb(10, &[&[0, 0xc9]]), "9 is no encoding"),
        (
            rdb(10, &[&[254, 0x82, 0, 0, 0, 0]]),
            "0x82 begins no number",
        ),
        (rdb(10, &[&key(0, &[&huge])]), "cut off after"),
    ];
    for (bytes, said) in cases {
        let error = walk([bytes]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(
            error.to_string().contains(said),
            "{error} does not say {said:?}"
        );
    }
    // Counts that nobody can count to.
    for kind in [1, 4, 15, 18, 21] {
        assert!(walk([rdb(10, &[&key(kind, &[&huge, &huge])])]).is_err());
    }
}

#[test]
fn a_newer_version_is_walked_as_far_as_it_is_known() {
    let known = rdb(15, &[&key(0, &[b"\x01v"])]);
    assert_eq!(walk([known]).unwrap().content.unwrap().keys[&0], 1);
    for body in [&[99, 1, 2, 3][..], &key(0, &[&[0xff]]), &[0, 1, b'k', 5]] {
        for version in [15, 81] {
            let bytes = rdb(version, &[body]);
            for size in [1, 5, 100] {
                let summary = walk(bytes.chunks(size)).unwrap();
                assert_eq!((summary.content, summary.checksum), (None, true));
            }
            let mut changed = bytes.clone();
            changed[10] ^= 1;
            assert!(walk([changed]).is_err(), "its checksum is looked at");
            assert!(walk([&bytes[..bytes.len() - 1]]).is_err());
        }
    }
}

#[test]
fn a_digest_is_of_what_is_meant() {
    let listpack = |entries: &[u8]| [&[0; 6][..], entries, &[255]].concat();
    let text = |bytes: &[u8]| [&[bytes.len() as u8], bytes].concat();
    let of = |kind, value: Vec<u8>| digest(&rdb(12, &[&key(kind, &[&value])])).unwrap();
    let fields = listpack(&[0x81, b'a', 2, 7, 1, 0x81, b'b', 2, 0x81, b'x', 2]);
    let hash = of(4, vec![2, 1, b'b', 1, b'x', 1, b'a', 0xc0, 7]);
    assert_eq!(hash, of(16, text(&fields)));
    assert_eq!(hash, of(4, vec![2, 1, b'a', 1, b'7', 1, b'b', 1, b'x']));
    assert_ne!(hash, of(4, vec![2, 1, b'a', 1, b'8', 1, b'b', 1, b'x']));
    assert_ne!(hash, of(4, vec![2, 1, b'b', 1, b'7', 1, b'a', 1, b'x']));
    let intset = [2, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0x2c, 1];
    assert_eq!(
        of(11, text(&intset)),
        of(2, vec![2, 3, b'3', b'0', b'0', 0xc0, 1])
    );
    let scored = [&[1, 1, b'm'][..], &2.5_f64.to_le_bytes()].concat();
    let packed = listpack(&[0x81, b'm', 2, 0x83, b'2', b'.', b'5', 4]);
    assert_eq!(of(5, scored.clone()), of(17, text(&packed)));
    let zero = |zero: f64| of(5, [&[1, 1, b'm'][..], &zero.to_le_bytes()].concat());
    let packed = listpack(&[0x81, b'm', 2, 0, 1]);
    assert_eq!((zero(-0.0), zero(0.0)), (of(17, text(&packed)), zero(-0.0)));
    let other = [&[1, 1, b'm'][..], &2.25_f64.to_le_bytes()].concat();
    assert_ne!(of(5, scored), of(5, other));
    let nodes = listpack(&[0x81, b'a', 2, 0x81, b'b', 2]);
    let list = of(18, [&[1, 2][..], &text(&nodes)].concat());
    assert_eq!(list, of(18, vec![2, 1, 1, b'a', 1, 1, b'b']));
    assert_ne!(
        list,
        of(18, vec![2, 1, 1, b'b', 1, 1, b'a']),
        "their order counts"
    );
    assert_ne!(
        list,
        of(18, vec![1, 1, 2, b'a', b'b']),
        "and where one ends"
    );
    // The same time of a field, counted from another, and on its own.
    let timed =
        |base: u64, ttl: u8| [&base.to_le_bytes()[..], &[1, ttl, 1, b'f', 1, b'v']].concat();
    assert_eq!(of(24, timed(100, 6)), of(24, timed(103, 3)));
    assert_ne!(of(24, timed(100, 6)), of(24, timed(100, 5)));
    let late = rdb(12, &[&key(24, &[&timed(u64::MAX, 6)])]);
    assert_eq!(digest(&late), None, "a time that there is not");
    assert_eq!(of(24, timed(0, 0)), of(4, vec![1, 1, b'f', 1, b'v']));
    let expires = |at: u8| {
        let body = [&[252, at, 0, 0, 0, 0, 0, 0, 0][..], &key(0, &[b"\x01v"])].concat();
        digest(&rdb(12, &[&body])).unwrap()
    };
    assert_ne!(expires(1), expires(2));
    assert_ne!(expires(1), of(0, b"\x01v".to_vec()));
    let database = [&[254, 3][..], &key(0, &[b"\x01v"])].concat();
    assert_ne!(
        digest(&rdb(12, &[&database])),
        Some(of(0, b"\x01v".to_vec()))
    );
}

proptest! {
    #[test]
    fn nothing_makes_it_panic(body: Vec<u8>, version in 5_u32..90, size in 1_usize..20) {
        let mut walker = Walker::with(Digest::default());
        let bytes = rdb(version, &[&body]);
        if bytes.chunks(size).all(|piece| walker.feed(piece).is_ok()) {
            let _ = walker.finish(true);
        }
    }

    #[test]
    fn nothing_in_a_real_one_makes_it_panic(
        which in 0_usize..4, changes in prop::collection::vec((0_usize..40_000, any::<u8>()), 1..20),
    ) {
        let mut bytes = REAL[which].1.to_vec();
        changes.iter().for_each(|(at, byte)| bytes[*at] = *byte);
        let mut walker = Walker::with(Digest::default());
        if walker.feed(&bytes).is_ok() {
            let same = bytes == REAL[which].1;
            prop_assert_eq!(walker.finish(true).is_ok(), same);
        }
    }
}
