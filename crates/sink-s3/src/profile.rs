//! The profiles in `~/.aws`, as "Shared config and credentials files" of the AWS SDKs and Tools
//! Reference Guide has them.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use backup_core::{Error, ErrorKind, Result};
use object_store::aws::AwsCredential;

use crate::credentials::{Lookup, keys};

/// Ways to credentials that are not supported. Whoever has one in his profile is somebody by it, so
/// that nothing else may be taken instead.
const ELSEWHERE: [&str; 5] = [
    "role_arn",
    "sso_session",
    "sso_start_url",
    "sso_account_id",
    "login_session",
];

type Section = BTreeMap<String, String>;

/// One profile: `[name]` of the credentials' file and `[profile name]` of the configuration's.
#[derive(Default)]
pub(crate) struct Profile {
    name: String,
    /// The file and what it says, the nearer first.
    found: Vec<(PathBuf, Section)>,
    services: Section,
}

impl Profile {
    /// The profile that `AWS_PROFILE` names, or `default`, which need not exist.
    pub(crate) fn read(variable: Lookup<'_>) -> Result<Self> {
        let named = variable("AWS_PROFILE");
        let name = named.clone().unwrap_or_else(|| "default".to_owned());
        let path = |of: &str, file: &str| match (variable(of), variable("HOME")) {
            (Some(path), _) => Some(PathBuf::from(path)),
            (None, Some(home)) => Some(Path::new(&home).join(".aws").join(file)),
            (None, None) => None,
        };
        let mut profile = Self {
            name,
            ..Self::default()
        };
        if let Some(file) = path("AWS_SHARED_CREDENTIALS_FILE", "credentials") {
            let mut sections = sections(&file)?;
            let section = sections.remove(&profile.name);
            profile.found.extend(section.map(|section| (file, section)));
        }
        if let Some(file) = path("AWS_CONFIG_FILE", "config") {
            let mut sections = sections(&file)?;
            let section = sections.remove(&format!("profile {}", profile.name));
            // `[default]` alone may go without the word.
            let section = section.or_else(|| {
                sections
                    .remove("default")
                    .filter(|_| profile.name == "default")
            });
            profile.found.extend(section.map(|section| (file, section)));
            if let Some(services) = profile.get("services") {
                let section = format!("services {services}");
                profile.services = sections.remove(&section).unwrap_or_default();
            }
        }
        match named {
            Some(name) if profile.found.is_empty() => Err(Error::new(
                ErrorKind::Invalid,
                format!(
                    "AWS_PROFILE is {name:?} and neither ~/.aws/credentials nor ~/.aws/config (or \
                     what AWS_SHARED_CREDENTIALS_FILE and AWS_CONFIG_FILE name) has it"
                ),
            )),
            _ => Ok(profile),
        }
    }

    pub(crate) fn get(&self, key: &str) -> Option<String> {
        let mut values = self
            .found
            .iter()
            .filter_map(|(_, section)| section.get(key));
        values.next().cloned()
    }

    /// Of S3, if the profile tells one, or of everything.
    pub(crate) fn endpoint(&self) -> Option<String> {
        let of_s3 = self.services.get("s3.endpoint_url").cloned();
        of_s3.or_else(|| self.get("endpoint_url"))
    }

    /// Its access key. An error where it has another way to credentials.
    pub(crate) fn keys(&self) -> Result<Option<AwsCredential>> {
        if let Some(key) = ELSEWHERE.iter().find(|key| self.get(key).is_some()) {
            return Err(self.unsupported(key));
        }
        let names = [
            "aws_access_key_id",
            "aws_secret_access_key",
            "aws_session_token",
        ];
        for (file, section) in &self.found {
            let place = format!(" in profile {:?} of {}", self.name, file.display());
            if let Some(keys) = keys(names, |key| section.get(key).cloned(), &place)? {
                return Ok(Some(keys));
            }
            if section.contains_key("credential_process") {
                return Err(self.unsupported("credential_process"));
            }
        }
        Ok(None)
    }

    fn unsupported(&self, key: &str) -> Error {
        let name = &self.name;
        Error::new(
            ErrorKind::Unsupported,
            format!(
                "profile {name:?} of ~/.aws has {key}, which is not supported: set an access key, or \
                 the variables that `aws configure export-credentials --profile {name} --format env` \
                 prints"
            ),
        )
    }
}

/// What a file says. One that is not there says nothing, as with AWS's own tools.
fn sections(file: &Path) -> Result<BTreeMap<String, Section>> {
    let wrong = |why: String| Error::new(ErrorKind::Invalid, format!("{}: {why}", file.display()));
    match std::fs::read_to_string(file) {
        Ok(text) => parse(&text).map_err(wrong),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(wrong("it cannot be read".to_owned()).with_source(error)),
    }
}

/// Sections of `key = value`, without those that have no value. What is indented below a key is
/// `key.inner`, or goes on with its value.
fn parse(text: &str) -> Result<BTreeMap<String, Section>, String> {
    let mut sections = BTreeMap::<String, Section>::new();
    let mut section: Option<&mut Section> = None;
    // The last key that was not indented below another, and how far it is in.
    let mut outer: Option<(usize, String)> = None;
    for (line, n) in text.lines().zip(1..) {
        let indent = line.len() - line.trim_start().len();
        let line = without_comment(line.trim());
        if line.is_empty() {
            continue;
        }
        if let Some(header) = line.strip_prefix('[') {
            let header = header
                .strip_suffix(']')
                .ok_or_else(|| format!("line {n} has no `]`"))?;
            let words: Vec<&str> = header
                .split_whitespace()
                .map(|word| word.trim_matches('"'))
                .collect();
            section = Some(sections.entry(words.join(" ")).or_default());
            outer = None;
            continue;
        }
        let section = section
            .as_mut()
            .ok_or_else(|| format!("line {n} is in no [section]"))?;
        let pair = line
            .split_once('=')
            .map(|(key, value)| (key.trim_end().to_lowercase(), value.trim_start().to_owned()));
        let (key, value) = match (pair, &outer) {
            (Some((key, value)), Some((depth, outer))) if indent > *depth => {
                (format!("{outer}.{key}"), value)
            }
            (None, Some((depth, _))) if indent > *depth => continue,
            (Some((key, value)), _) => {
                outer = Some((indent, key.clone()));
                (key, value)
            }
            (None, _) => return Err(format!("line {n} is neither [section] nor key = value")),
        };
        if !value.is_empty() {
            section.insert(key, value);
        }
    }
    Ok(sections)
}

/// `#` and `;` begin a comment at the beginning of a line or after a space.
fn without_comment(line: &str) -> &str {
    let starts = |(at, c): &(usize, char)| {
        matches!(c, '#' | ';')
            && line[..*at]
                .chars()
                .next_back()
                .is_none_or(char::is_whitespace)
    };
    match line.char_indices().find(starts) {
        Some((at, _)) => line[..at].trim_end(),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section<'a>(sections: &'a BTreeMap<String, Section>, name: &str) -> Vec<(&'a str, &'a str)> {
        let pairs = sections[name].iter();
        pairs.map(|(k, v)| (k.as_str(), v.as_str())).collect()
    }

    #[test]
    fn a_file_is_read_as_aws_reads_it() {
        let sections = parse(
            "# of the team\n\
             [default]\n\
             aws_access_key_id=ID\n\
             aws_secret_access_key = a/b+c=#;d ; not this\n\
             aws_session_token =\n\
             \n\
             [ profile  \"back ups\" ]\n\
             \tRegion = eu-central-1\n\
             \ts3 =\n\
             \t\taddressing_style = path\n\
             \tendpoint_url = https://s3.example.org # ours\n\
             [default]\n\
             region = us-east-1\n\
             [empty]\n",
        )
        .unwrap();
        assert_eq!(
            section(&sections, "default"),
            [
                ("aws_access_key_id", "ID"),
                ("aws_secret_access_key", "a/b+c=#;d"),
                ("region", "us-east-1")
            ]
        );
        assert_eq!(
            section(&sections, "profile back ups"),
            [
                ("endpoint_url", "https://s3.example.org"),
                ("region", "eu-central-1"),
                ("s3.addressing_style", "path")
            ]
        );
        assert_eq!(section(&sections, "empty"), []);
    }

    #[test]
    fn a_line_that_says_nothing_is_named() {
        for (text, says) in [
            ("a = b", "line 1 is in no [section]"),
            ("[a]\nb", "line 2 is neither"),
            ("\n[a", "line 2 has no `]`"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn the_credentials_file_is_nearer_and_keys_are_never_of_two_files() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join(".aws");
        std::fs::create_dir(&folder).unwrap();
        let write = |file, text| std::fs::write(folder.join(file), text).unwrap();
        let read = |name: Option<&str>| {
            let variable = |of: &str| match of {
                "HOME" => home.path().to_str().map(str::to_owned),
                "AWS_PROFILE" => name.map(str::to_owned),
                _ => None,
            };
            Profile::read(&variable)
        };
        assert!(read(None).unwrap().keys().unwrap().is_none(), "no files");

        write(
            "credentials",
            "[default]\nregion = near\naws_access_key_id = a\n",
        );
        write(
            "config",
            "[default]\nregion = far\nservices = ours\n\
             aws_access_key_id = b\naws_secret_access_key = c\n\
             [services ours]\ns3 =\n  endpoint_url = https://s3\n\
             [profile other]\naws_access_key_id = d\naws_secret_access_key = e\n\
             [other]\nregion = not ours\n",
        );
        let profile = read(None).unwrap();
        assert_eq!(profile.get("region").as_deref(), Some("near"));
        assert_eq!(profile.endpoint().as_deref(), Some("https://s3"));
        let error = profile.keys().unwrap_err().to_string();
        assert!(
            error.contains("credentials") && error.contains("\"default\""),
            "{error}"
        );

        let other = read(Some("other")).unwrap();
        assert_eq!(other.get("region"), None);
        assert_eq!(other.keys().unwrap().unwrap().key_id, "d");
        let error = read(Some("absent")).err().unwrap().to_string();
        assert!(error.contains("absent"), "{error}");
    }
}
