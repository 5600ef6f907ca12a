//! `${NAME}` in string values, from the environment and from a `.env` file beside the
//! configuration.

use std::collections::BTreeMap;
use std::path::Path;

use backup_core::{Error, ErrorKind, Result, Secret};
use zeroize::Zeroizing;

/// The variables that a configuration may use. The process environment wins over `.env`.
#[derive(Debug, Default)]
pub(crate) struct Environment {
    process: bool,
    file: BTreeMap<String, Secret>,
}

impl Environment {
    /// The process environment, and `.env` in `dir` if there is one.
    pub(crate) fn beside(dir: &Path) -> Result<Self> {
        let path = dir.join(".env");
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => Zeroizing::new(text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Zeroizing::default(),
            Err(error) => {
                return Err(Error::new(
                    ErrorKind::Invalid,
                    format!("{}: cannot be read: {error}", path.display()),
                ));
            }
        };
        let file = parse(&text).map_err(|(line, what)| {
            Error::new(
                ErrorKind::Invalid,
                format!("{}:{line}: {what}", path.display()),
            )
        })?;
        Ok(Self {
            process: true,
            file,
        })
    }

    /// Only these variables, for tests.
    #[cfg(test)]
    pub(crate) fn of(text: &str) -> Self {
        Self {
            process: false,
            file: parse(text).expect("a valid .env"),
        }
    }

    /// The value of one variable.
    pub(crate) fn get(&self, name: &str) -> Option<Secret> {
        self.process
            .then(|| std::env::var(name).ok())
            .flatten()
            .map(Secret::new)
            .or_else(|| self.file.get(name).cloned())
    }

    /// `text` with every `${NAME}` and `${NAME:-default}` replaced; `$${` becomes `${`.
    ///
    /// A default is used where the variable is unset or empty, as a shell does it. What comes in
    /// is not looked at again, and is noted in `used`. The error is one line without any value.
    pub(crate) fn expand(
        &self,
        text: &str,
        used: &mut BTreeMap<String, Secret>,
    ) -> Result<String, String> {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            if rest[..at].ends_with('$') {
                out.push_str(&rest[..at - 1]);
                out.push_str("${");
                rest = &rest[at + 2..];
                continue;
            }
            out.push_str(&rest[..at]);
            let Some(end) = rest[at..].find('}') else {
                return Err("`${` without `}`; write `$${` for a plain `${`".into());
            };
            let inside = &rest[at + 2..at + end];
            let (name, default) = match inside.split_once(":-") {
                Some((name, default)) => (name, Some(default)),
                None => (inside, None),
            };
            if !is_name(name) {
                return Err(format!(
                    "`${{{name}}}` names no variable; write `${{NAME}}`, or `$${{` for a plain `${{`"
                ));
            }
            if default.is_some_and(|default| default.contains("${")) {
                return Err(format!(
                    "`${{{name}:-…}}` has a variable in its default, and may not"
                ));
            }
            let value = self.get(name);
            match (value.as_ref().map(Secret::expose), default) {
                (Some(value), None) => out.push_str(value),
                (Some(value), Some(_)) if !value.is_empty() => out.push_str(value),
                (_, Some(default)) => out.push_str(default),
                (None, None) => {
                    return Err(format!(
                        "`${{{name}}}` is not set; set {name} in the environment or in .env, \
                         or write `${{{name}:-default}}`"
                    ));
                }
            }
            used.extend(value.map(|value| (name.to_owned(), value)));
            rest = &rest[at + end + 1..];
        }
        out.push_str(rest);
        Ok(out)
    }
}

fn is_name(name: &str) -> bool {
    let mut chars = name.chars();
    chars
        .next()
        .is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

type Variables = BTreeMap<String, Secret>;

/// `NAME=value` lines; `export `, comments, single and double quotes as usual.
fn parse(text: &str) -> Result<Variables, (usize, &'static str)> {
    let mut all = Variables::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |what| (index + 1, what);
        let line = line.strip_prefix("export ").unwrap_or(line).trim_start();
        let (name, value) = line
            .split_once('=')
            .ok_or(wrong("no `=`; write NAME=value"))?;
        let name = name.trim_end();
        if !is_name(name) {
            return Err(wrong(
                "no variable name before `=`; letters, digits and _ are allowed",
            ));
        }
        let bare = value.trim_start();
        // A comment takes a space before it, also where there is no value.
        let value = match bare.starts_with('#') && bare.len() < value.len() {
            true => "",
            false => bare,
        };
        let value = match value.chars().next() {
            Some(quote @ ('"' | '\'')) => {
                value[1..]
                    .split_once(quote)
                    .filter(|(_, after)| {
                        let after = after.trim_start();
                        after.is_empty() || after.starts_with('#')
                    })
                    .ok_or(wrong("quotes do not match"))?
                    .0
            }
            _ => value.split(" #").next().unwrap_or_default().trim_end(),
        };
        all.insert(name.to_owned(), Secret::new(value));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand(text: &str) -> Result<String, String> {
        Environment::of("A=1\nexport B = 'two words' # note\nEMPTY=\nTRICK=${A}\n")
            .expand(text, &mut BTreeMap::new())
    }

    #[test]
    fn variables_are_replaced_once() {
        assert_eq!(expand("x${A}y${B}").unwrap(), "x1ytwo words");
        assert_eq!(expand("${TRICK}").unwrap(), "${A}");
        assert_eq!(expand("no $A here, $$").unwrap(), "no $A here, $$");
    }

    #[test]
    fn a_default_stands_in_for_unset_and_empty() {
        assert_eq!(expand("${NONE:-d}").unwrap(), "d");
        assert_eq!(expand("${EMPTY:-d}").unwrap(), "d");
        assert_eq!(expand("${EMPTY}").unwrap(), "");
        assert_eq!(expand("${A:-d}").unwrap(), "1");
    }

    #[test]
    fn a_default_holds_no_variable() {
        let error = expand("${NONE:-${A}/x}").unwrap_err();
        assert!(error.contains("in its default"), "{error}");
    }

    #[test]
    fn an_empty_value_may_have_a_comment() {
        let all = parse("A=  # none\nB=#3\nC= x # y").unwrap();
        let said = |name: &str| all[name].expose().to_owned();
        assert_eq!([said("A"), said("B"), said("C")], ["", "#3", "x"]);
    }

    #[test]
    fn a_doubled_dollar_is_a_plain_one() {
        assert_eq!(expand("$${A} ${A}").unwrap(), "${A} 1");
    }

    #[test]
    fn mistakes_name_the_variable_and_no_value() {
        assert!(
            expand("${NONE}")
                .unwrap_err()
                .starts_with("`${NONE}` is not set")
        );
        assert!(expand("${A").unwrap_err().starts_with("`${` without `}`"));
        assert!(expand("${A B}").unwrap_err().contains("names no variable"));
    }

    #[test]
    fn a_wrong_line_of_dotenv_is_named_without_its_text() {
        assert_eq!(parse("A=1\nhunter2").unwrap_err().0, 2);
        assert_eq!(parse("A='x").unwrap_err().1, "quotes do not match");
    }
}
