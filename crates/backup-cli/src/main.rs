//! The `lifebelt` program: `lifebelt --help` says what it does.

use std::process::ExitCode;

fn main() -> ExitCode {
    backup_cli::main(|_| {})
}
