//! Patterns for paths.

/// Whether `pattern` means `path`, which is relative and has no `/` at its end.
pub(crate) fn matches(pattern: &str, path: &[u8]) -> bool {
    let pattern = pattern.trim_end_matches('/').as_bytes();
    if pattern.contains(&b'/') {
        let anchored = pattern.strip_prefix(b"/").unwrap_or(pattern);
        return fits(anchored, path);
    }
    let name = path.rsplit(|c| *c == b'/').next().unwrap_or(path);
    fits(pattern, name)
}

fn fits(pattern: &[u8], text: &[u8]) -> bool {
    match pattern {
        [] => text.is_empty(),
        // No folder at all, or any number of them.
        [b'*', b'*', b'/', rest @ ..] => {
            fits(rest, text)
                || (0..text.len()).any(|i| text[i] == b'/' && fits(rest, &text[i + 1..]))
        }
        [b'*', b'*', rest @ ..] => (0..=text.len()).any(|i| fits(rest, &text[i..])),
        [b'*', rest @ ..] => {
            let end = text.iter().position(|c| *c == b'/').unwrap_or(text.len());
            (0..=end).any(|i| fits(rest, &text[i..]))
        }
        [b'?', rest @ ..] => text.first().is_some_and(|c| *c != b'/') && fits(rest, &text[1..]),
        [c, rest @ ..] => text.first() == Some(c) && fits(rest, &text[1..]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_what_people_expect() {
        for (pattern, path, expected) in [
            ("*.tmp", "a.tmp", true),
            ("*.tmp", "x/y/a.tmp", true),
            ("*.tmp", "a.tmp/b", false),
            ("cache", "x/cache", true),
            ("cache/", "x/cache", true),
            ("/cache", "cache", true),
            ("/cache", "x/cache", false),
            ("a/*", "a/b", true),
            ("a/*", "a/b/c", false),
            ("a/**", "a/b/c", true),
            ("a/**", "a", false),
            ("**/b", "b", true),
            ("**/b", "x/y/b", true),
            ("**/b", "x/yb", false),
            ("a/**/b", "a/b", true),
            ("a/**/b", "a/x/y/b", true),
            ("?.log", "x.log", true),
            ("?.log", ".log", false),
            ("a?b/c", "a/b/c", false),
            ("", "a", false),
            ("[x]", "[x]", true),
        ] {
            assert_eq!(
                matches(pattern, path.as_bytes()),
                expected,
                "{pattern} {path}"
            );
        }
    }
}
