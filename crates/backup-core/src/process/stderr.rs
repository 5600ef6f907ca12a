//! The last words of a program, fit for one line of an error.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::AsyncReadExt;
use tokio::process::ChildStderr;

use super::Env;

/// What is kept: more than is shown, so that a secret that was cut in half is not among it.
const KEPT: usize = 16 * 1024;
/// What an error shows, in bytes.
const SHOWN: usize = 2 * 1024;

/// The end of what was written to standard error. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Tail(Arc<Mutex<VecDeque<u8>>>);

impl Tail {
    /// Reads until the end, so that the program never waits for a reader.
    pub(super) async fn drain(self, mut stderr: ChildStderr) {
        let mut buffer = [0; 4096];
        while let Ok(n @ 1..) = stderr.read(&mut buffer).await {
            self.push(&buffer[..n]);
        }
    }

    fn push(&self, bytes: &[u8]) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend(bytes);
        let excess = kept.len().saturating_sub(KEPT);
        kept.drain(..excess);
    }

    /// One line: the last two KiB, without control characters and values of `env`.
    pub(super) fn text(&self, env: &Env) -> String {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes: Vec<u8> = kept.iter().copied().collect();
        drop(kept);
        let mut text = String::from_utf8_lossy(&bytes).into_owned();
        for (name, value) in env.iter() {
            // Shorter ones (`1`, `yes`) are no secrets, and would garble everything.
            if value.len() >= 4 {
                text = text.replace(value, &format!("[{name}]"));
            }
        }
        let mut start = text.len().saturating_sub(SHOWN);
        while !text.is_char_boundary(start) {
            start += 1;
        }
        let lines = text[start..]
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty());
        let mut shown = String::new();
        for line in lines {
            if !shown.is_empty() {
                shown.push_str(" | ");
            }
            for c in line.chars() {
                if c.is_control() {
                    shown.extend(c.escape_default());
                } else {
                    shown.push(c);
                }
            }
        }
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail(bytes: &[u8]) -> Tail {
        let tail = Tail::default();
        for piece in bytes.chunks(1000) {
            tail.push(piece);
        }
        tail
    }

    #[test]
    fn lines_become_one_without_control_characters() {
        let text = tail(b"  one\x1b[31m\r\n\n\ttwo\xff\n").text(&Env::default());
        assert_eq!(text, "one\\u{1b}[31m | two\u{fffd}");
    }

    #[test]
    fn only_the_end_is_kept() {
        let mut bytes = vec![b'x'; 100_000];
        bytes.extend(b"the end");
        let text = tail(&bytes).text(&Env::default());
        assert!(text.len() <= SHOWN && text.ends_with("xthe end"));
    }

    #[test]
    fn a_secret_is_shown_by_name_also_where_the_text_is_cut() {
        let env = Env::default().with("PASSWORD", "correct horse battery");
        for padding in [0, SHOWN - 30, SHOWN - 10, KEPT - 10] {
            let mut bytes = b"using correct horse battery".to_vec();
            bytes.extend(vec![b'.'; padding]);
            let text = tail(&bytes).text(&env);
            assert!(!text.contains("battery"), "{text}");
        }
    }
}
