//! What can stand on the command line.

use std::path::PathBuf;

use backup_core::RestoreOptions;
use backup_core::retention::Span;
use clap::{Args, Parser, Subcommand, ValueEnum};
use serde_json::json;

const EXIT_CODES: &str = "\
Exit codes:
  0  ok; a run: at least min_copies copies are committed
  1  usage or configuration; nothing was touched
  2  failed; a run: nothing is committed
  3  committed in at least one sink, but in fewer than min_copies
  4  unhealthy
  5  verification failed: damaged, unsigned, or not what was written
  6  refused by a guard; the message says what would make it go on
  7  another run of the job is going on, or has the slot

Results go to stdout, everything else to stderr. `lifebelt VERB --help` says more.";

/// Backs up databases, folders and programs, and brings them back.
///
/// Data is read once, compressed, encrypted, signed and written to every sink of its job. Each
/// backup carries a RESTORE.md that brings it back with age, zstd and the store's own tools.
#[derive(Debug, Parser)]
#[command(name = "lifebelt", version, after_help = EXIT_CODES, max_term_width = 100)]
#[command(disable_help_subcommand = true, subcommand_value_name = "VERB")]
#[command(subcommand_help_heading = "Verbs")]
pub(crate) struct Cli {
    /// The configuration [default: ./lifebelt.toml, then /etc/lifebelt/lifebelt.toml]
    #[arg(
        short,
        long,
        global = true,
        value_name = "FILE",
        env = "LIFEBELT_CONFIG",
        help_heading = "With every verb"
    )]
    pub(crate) config: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) output: Output,

    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// How much is said, and in which form.
#[derive(Clone, Copy, Debug, Args)]
#[command(next_help_heading = "With every verb")]
pub(crate) struct Output {
    /// Print results as JSON, and no progress
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// The form of log lines on stderr
    #[arg(
        long,
        global = true,
        value_name = "FORM",
        value_enum,
        default_value = "text"
    )]
    pub(crate) log_format: LogFormat,

    /// Say more; twice: everything. LIFEBELT_LOG and RUST_LOG choose by module
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,

    /// Errors only; no progress, no warnings
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
}

/// The form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One object per line.
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Make one backup of a job
    ///
    /// Reads the source once and writes every sink. Exit code 0 says that at least min_copies
    /// copies are committed, readable and signed; 2 that nothing is and nothing was left behind.
    #[command(after_help = "Example:\n  lifebelt run orders --label pre-migration")]
    Run(Run),
    /// List backups, newest first, and why each is kept
    ///
    /// Reads the manifests in every sink that can be reached. Gaps, forks and rollbacks are
    /// reported on stderr; `verify` fails on them.
    #[command(after_help = "Example:\n  lifebelt ls orders")]
    Ls(Ls),
    /// Show everything that is known of one backup
    #[command(after_help = "Example:\n  lifebelt show 20261121T020000Z-1a2b3c4d")]
    Show(Which),
    /// Say why a backup is kept, or what its nearest miss is
    #[command(after_help = "Example:\n  lifebelt why 20261121T020000Z-1a2b3c4d")]
    Why(Which),
    /// Read backups back and compare every byte and signature
    ///
    /// Every object under the id is read in every sink; strangers are named. With an identity at
    /// hand the parts are decoded too. Exit code 5 says that something is damaged, missing, rolled
    /// back, or signed by nobody who is trusted.
    #[command(after_help = "Examples:\n  lifebelt verify orders\n  lifebelt verify --all")]
    Verify(Verify),
    /// Bring a backup back into a target
    ///
    /// BACKUP is an id, the beginning of one, a label, or a job: then its newest. Nothing is
    /// published before the last byte is checked. A target that holds something is refused unless
    /// --overwrite repeats its name; in production --force is needed too. Production is
    /// ENV=production, environment = "production", or a target that is some job's source.
    #[command(after_help = "Examples:\n  \
        lifebelt restore orders --to /srv/restored --plan\n  \
        lifebelt restore pre-migration --to scratch --from offsite")]
    Restore(Restore),
    /// Bring the stored files of a backup into a folder
    ///
    /// The files are as stock tools want them; RESTORE.md among them says how to go on. With
    /// --decode the parts are decrypted and decompressed.
    #[command(after_help = "Example:\n  lifebelt fetch orders --out /tmp/orders --decode")]
    Fetch(Fetch),
    /// Delete what no rule keeps; a dry run unless --apply
    ///
    /// What is deleted is first written down in a signed record. Held, locked and newest backups
    /// stay, and whatever they need.
    #[command(after_help = "Examples:\n  lifebelt prune orders\n  lifebelt prune orders --apply")]
    Prune(Prune),
    /// Keep a backup until it is released
    #[command(after_help = "Example:\n  \
        lifebelt hold 20261121T020000Z-1a2b3c4d --reason \"case 4711\"")]
    Hold(Hold),
    /// End a hold
    #[command(after_help = "Example:\n  lifebelt release 20261121T020000Z-1a2b3c4d")]
    Release(Which),
    /// Make the keys of an installation
    ///
    /// Writes identity.txt and recipient.txt as age-keygen does, minisign.key and minisign.pub as
    /// minisign does, and recovery-sheet.md to print and lock away. Never overwrites.
    #[command(after_help = "Example:\n  lifebelt keygen /etc/lifebelt/keys")]
    Keygen(Keygen),
    /// Check configuration, keys, sinks and tools by trying them
    ///
    /// Writes, reads, refuses to overwrite and deletes a small object in every sink.
    #[command(after_help = "Example:\n  lifebelt doctor")]
    Doctor,
}

impl Verb {
    /// Its name.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Run(_) => "run",
            Self::Ls(_) => "ls",
            Self::Show(_) => "show",
            Self::Why(_) => "why",
            Self::Verify(_) => "verify",
            Self::Restore(_) => "restore",
            Self::Fetch(_) => "fetch",
            Self::Prune(_) => "prune",
            Self::Hold(_) => "hold",
            Self::Release(_) => "release",
            Self::Keygen(_) => "keygen",
            Self::Doctor => "doctor",
        }
    }
}

/// Arguments of `run`.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The job [default: the only one]
    pub(crate) job: Option<String>,
    /// A label for this backup; restore finds it by this name
    #[arg(long = "label", value_name = "LABEL")]
    pub(crate) labels: Vec<String>,
    /// Only if nobody has taken this slot of the schedule, such as 20261121T020000Z. A slot stays
    /// taken for the job's max_run, also when the run fails
    #[arg(long)]
    pub(crate) slot: Option<String>,
}

/// Arguments of `ls`.
#[derive(Debug, Args)]
pub(crate) struct Ls {
    /// Only this job
    pub(crate) job: Option<String>,
}

/// One backup.
#[derive(Debug, Args)]
pub(crate) struct Which {
    /// An id, the beginning of one, a label, or a job: then its newest
    pub(crate) backup: String,
}

/// Arguments of `verify`.
#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// An id, the beginning of one, a label, or a job: then all its backups
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    pub(crate) backup: Option<String>,
    /// Every backup of every job
    #[arg(long)]
    pub(crate) all: bool,
    /// Only the copies in this sink
    #[arg(long, value_name = "SINK")]
    pub(crate) from: Option<String>,
}

/// Arguments of `restore`.
#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// An id, the beginning of one, a label, or a job: then its newest
    pub(crate) backup: String,
    /// A name from [targets], or what this kind of backup restores into: a path, a URL
    #[arg(long, value_name = "TARGET")]
    pub(crate) to: Option<String>,
    /// Read from this sink [default: the first whose copy is good]
    #[arg(long, value_name = "SINK")]
    pub(crate) from: Option<String>,
    /// Only backups with this label
    #[arg(long)]
    pub(crate) label: Option<String>,
    /// Replace what the target holds; repeat the target's name
    #[arg(long, value_name = "NAME")]
    pub(crate) overwrite: Option<String>,
    /// Restore in production, and where room seems to be missing
    #[arg(long)]
    pub(crate) force: bool,
    /// Only this schema; may be given several times [postgres]
    #[arg(long = "schema", value_name = "NAME")]
    pub(crate) schemas: Vec<String>,
    /// Only this table, by its bare name, without indexes and constraints; may be given several
    /// times [postgres]
    #[arg(long = "table", value_name = "NAME")]
    pub(crate) tables: Vec<String>,
    /// Owners and privileges too; their roles must exist [postgres]
    #[arg(long)]
    pub(crate) with_owners: bool,
    /// Feed a dump in plain SQL to psql: it may do whatever your role may [postgres]
    #[arg(long)]
    pub(crate) trust_sql: bool,
    /// The state of this revision, not the last in the backup [etcd]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) revision: Option<u64>,
    /// Say what would happen, and do nothing
    #[arg(long)]
    pub(crate) plan: bool,
}

impl Restore {
    /// What the target is asked for beyond the bytes. One that does not know it refuses.
    pub(crate) fn options(&self) -> RestoreOptions {
        let mut options = RestoreOptions::default();
        let lists = [("schemas", &self.schemas), ("tables", &self.tables)];
        let lists = lists.into_iter().filter(|(_, names)| !names.is_empty());
        let flags = [
            ("with_owners", self.with_owners),
            ("trust_sql", self.trust_sql),
        ];
        let flags = flags.into_iter().filter(|(_, given)| *given);
        options.extra = lists
            .map(|(name, names)| (name.to_owned(), json!(names)))
            .chain(flags.map(|(name, _)| (name.to_owned(), json!(true))))
            .chain(self.revision.map(|n| ("revision".to_owned(), json!(n))))
            .collect();
        options
    }
}

/// Arguments of `fetch`.
#[derive(Debug, Args)]
pub(crate) struct Fetch {
    /// An id, the beginning of one, a label, or a job: then its newest
    pub(crate) backup: String,
    /// A folder that is empty or not there yet
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Decrypt and decompress
    #[arg(long)]
    pub(crate) decode: bool,
    /// Read from this sink [default: the first whose copy is good]
    #[arg(long, value_name = "SINK")]
    pub(crate) from: Option<String>,
}

/// Arguments of `prune`.
#[derive(Debug, Args)]
pub(crate) struct Prune {
    /// The job [default: the only one]
    pub(crate) job: Option<String>,
    /// Delete what the dry run lists
    #[arg(long)]
    pub(crate) apply: bool,
    /// Only this sink
    #[arg(long, value_name = "SINK")]
    pub(crate) sink: Option<String>,
    /// What broken runs left behind goes when it is older [default: the job's max_run]
    #[arg(long, value_name = "AGE")]
    pub(crate) sweep_older_than: Option<Span>,
    /// Agree that so many backups go from one sink, whatever share of all it is
    #[arg(long, value_name = "COUNT")]
    pub(crate) max_deletes: Option<usize>,
}

/// Arguments of `hold`.
#[derive(Debug, Args)]
pub(crate) struct Hold {
    /// An id, the beginning of one, a label, or a job: then its newest
    pub(crate) backup: String,
    /// Why; goes into the signed record
    #[arg(long)]
    pub(crate) reason: String,
}

/// Arguments of `keygen`.
#[derive(Debug, Args)]
pub(crate) struct Keygen {
    /// The folder; made if it is not there
    pub(crate) dir: PathBuf,
    /// Protect minisign.key with a passphrase, asked for on the terminal or read from stdin
    #[arg(long)]
    pub(crate) passphrase: bool,
}

/// One line for what clap has to say in a paragraph.
pub(crate) fn usage_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let parts: Vec<&str> = text
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"))
        .filter(|line| !line.is_empty())
        .collect();
    let mut line = String::new();
    for part in parts {
        let part = part.strip_prefix("error: ").unwrap_or(part);
        match line.chars().last() {
            None => {}
            Some(':') => line.push(' '),
            Some(_) => line.push_str("; "),
        }
        line.push_str(part);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_usage_mistake_is_one_line_with_the_fix() {
        let wrong = |line: &str| usage_line(&Cli::try_parse_from(line.split(' ')).unwrap_err());
        assert_eq!(
            wrong("lifebelt restore x --forse"),
            "unexpected argument '--forse' found; tip: a similar argument exists: '--force'"
        );
        assert_eq!(
            wrong("lifebelt show"),
            "the following required arguments were not provided: <BACKUP>"
        );
        assert_eq!(
            wrong("lifebelt rum x"),
            "unrecognized subcommand 'rum'; tip: a similar subcommand exists: 'run'"
        );
    }
}
