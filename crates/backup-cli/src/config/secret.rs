//! Secrets that are not in the configuration itself.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use backup_core::Secret;
use zeroize::Zeroizing;

/// What is in `file`, without the line end.
pub(crate) fn from_file(file: &Path) -> Result<Secret, String> {
    let text = std::fs::read_to_string(file)
        .map_err(|e| format!("{} cannot be read: {e}", file.display()))?;
    tidy(text).ok_or_else(|| format!("{} is empty; put the secret into it", file.display()))
}

/// What the program `argv` prints, without the line end. Its standard error goes to ours, and it
/// has our standard input: it may ask for a passphrase. It is run once, however often it is asked.
pub(crate) fn from_command(argv: &[String]) -> Result<Secret, String> {
    static SAID: Mutex<BTreeMap<Vec<String>, Secret>> = Mutex::new(BTreeMap::new());
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(secret) = said.get(argv) {
        return Ok(secret.clone());
    }
    let secret = printed(argv)?;
    said.insert(argv.to_vec(), secret.clone());
    Ok(secret)
}

fn printed(argv: &[String]) -> Result<Secret, String> {
    let Some((program, arguments)) = argv.split_first() else {
        return Err(r#"is empty; write ["program", "argument"]"#.into());
    };
    let output = Command::new(program)
        .args(arguments)
        .stderr(Stdio::inherit())
        .stdin(Stdio::inherit())
        .output()
        .map_err(|e| format!("{program:?} cannot be started: {e}"))?;
    if !output.status.success() {
        return Err(format!("{program:?} failed: {}", output.status));
    }
    let text = String::from_utf8(output.stdout)
        .map_err(|_| format!("{program:?} printed something that is not text"))?;
    tidy(text).ok_or_else(|| format!("{program:?} printed nothing"))
}

fn tidy(text: String) -> Option<Secret> {
    let text = Zeroizing::new(text);
    let trimmed = text.trim_end_matches(['\n', '\r']);
    (!trimmed.is_empty()).then(|| Secret::new(trimmed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_gives_a_secret_without_its_line_end() {
        let argv = ["printf".to_owned(), "hunter2\\n".to_owned()];
        assert_eq!(from_command(&argv).unwrap().expose(), "hunter2");
    }

    #[test]
    fn a_command_is_run_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("runs").display().to_string();
        let script = format!("echo run >>{file}; cat {file}");
        let argv = ["sh", "-c", &script].map(str::to_owned);
        for _ in 0..2 {
            assert_eq!(from_command(&argv).unwrap().expose(), "run");
        }
    }

    #[test]
    fn a_failing_command_gives_an_error_without_its_output() {
        let argv = ["sh", "-c", "echo hunter2; exit 3"].map(str::to_owned);
        let error = from_command(&argv).unwrap_err();
        assert_eq!(error, r#""sh" failed: exit status: 3"#);
    }
}
