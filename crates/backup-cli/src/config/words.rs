//! Words for messages: the nearest known name, a list, what to write.

/// The name that was probably meant.
pub(crate) fn nearest<'a, S: AsRef<str> + 'a>(
    word: &str,
    known: impl IntoIterator<Item = &'a S>,
) -> Option<&'a str> {
    let allowed = 1 + word.chars().count() / 4;
    known
        .into_iter()
        .map(|name| {
            let name = name.as_ref();
            (strsim::damerau_levenshtein(word, name), name)
        })
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// `"a", "b" or "c"`.
pub(crate) fn list<S: AsRef<str>>(names: &[S]) -> String {
    let quoted: Vec<String> = names.iter().map(|n| format!("{:?}", n.as_ref())).collect();
    match quoted.split_last() {
        None => "nothing".to_owned(),
        Some((only, [])) => only.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
    }
}

/// What one could write where a required field is missing.
pub(crate) fn example(field: &str) -> Option<&'static str> {
    Some(match field {
        "source" => r#"source = { type = "files", path = "/srv/data" }"#,
        "sinks" => r#"sinks = ["local"]"#,
        "jobs" => "[jobs.NAME]",
        "type" => r#"type = "files""#,
        "path" => r#"path = "/srv/data""#,
        "argv" => r#"argv = ["program", "argument"]"#,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_near() {
        let known = ["local", "offsite"];
        assert_eq!(nearest("ofsite", &known), Some("offsite"));
        assert_eq!(nearest("lcoal", &known), Some("local"));
        assert_eq!(nearest("tape", &known), None);
    }

    #[test]
    fn a_list_reads_well() {
        assert_eq!(list(&["a"]), r#""a""#);
        assert_eq!(list(&["a", "b", "c"]), r#""a", "b" or "c""#);
    }
}
