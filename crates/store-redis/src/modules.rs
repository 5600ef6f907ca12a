//! Which module a server needs for what modules wrote into a backup: without it, it ends while it
//! loads (`rdbLoadRio`).

/// What the types of widely used modules are called in a snapshot, and what their modules are in
/// `MODULE LIST`: of Redis, and where they differ of Valkey.
const KNOWN: [(&str, &[&str]); 11] = [
    ("ReJSON-RL", &["ReJSON", "json"]),
    ("MBbloom--", &["bf"]),
    ("MBbloomCF", &["bf"]),
    ("CMSk-TYPE", &["bf"]),
    ("TopK-TYPE", &["bf"]),
    ("TDIS-TYPE", &["bf"]),
    ("bloomfltr", &["bf"]),
    ("TSDB-TYPE", &["timeseries"]),
    ("ft_index0", &["search", "ft"]),
    ("graphdata", &["graph"]),
    (VECTORS, &[VECTORS]),
];

/// A type, and the module that brings it: every Redis since 8.0 has it.
const VECTORS: &str = "vectorset";

/// The first type for which none of the `loaded` modules can be. One that nobody here knows may be
/// of any module but that of the vectors.
pub(crate) fn missing<'a>(types: &[&'a str], loaded: &[&str]) -> Option<&'a str> {
    let has = |wanted: &str| {
        let known = KNOWN.iter().find(|(name, _)| *name == wanted);
        loaded.iter().any(|module| match known {
            Some((_, modules)) => modules.contains(module),
            None => *module != VECTORS,
        })
    };
    types.iter().copied().find(|wanted| !has(wanted))
}

#[cfg(test)]
mod tests {
    use super::missing;

    #[test]
    fn each_type_wants_its_module() {
        let cases: [(&[&str], &[&str], Option<&str>); 11] = [
            (&[], &[], None),
            (&["vectorset"], &["vectorset"], None),
            (&["vectorset"], &["ReJSON"], Some("vectorset")),
            (&["ReJSON-RL"], &["vectorset"], Some("ReJSON-RL")),
            (&["ReJSON-RL"], &["bf", "ReJSON"], None),
            (&["ReJSON-RL"], &["json"], None),
            (&["MBbloom--", "TDIS-TYPE"], &["bf"], None),
            (&["MBbloom--", "ft_index0"], &["bf"], Some("ft_index0")),
            (&["TSDB-TYPE"], &["timeseries", "search"], None),
            (&["custom-01"], &["custom"], None),
            (&["custom-01"], &["vectorset"], Some("custom-01")),
        ];
        for (types, loaded, expected) in cases {
            assert_eq!(
                missing(types, loaded),
                expected,
                "{types:?} into {loaded:?}"
            );
        }
    }
}
