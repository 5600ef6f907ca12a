//! From the command line to an exit code.

use std::ffi::OsString;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use backup_core::{Error, ErrorKind, Result, settled};
use clap::Parser;
use clap::error::ErrorKind as Usage;

use crate::args::{Cli, LogFormat, Output, Verb, usage_line};
use crate::config::Loaded;
use crate::context::Context;
use crate::exit::{self, Answer, Exit};
use crate::output::{print, say};
use crate::signals::Stop;
use crate::{Registry, logging, progress, verbs};

/// Parses `arguments`, does what they say, prints, and tells how it went. A panic is one line and
/// exit code 2.
pub(crate) fn run(arguments: impl IntoIterator<Item = OsString>, registry: &Registry) -> ExitCode {
    panic::set_hook(Box::new(|info| {
        let place = info
            .location()
            .map_or(String::new(), |at| format!(" at {at}"));
        let payload = info.payload();
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or(payload.downcast_ref::<String>().map(String::as_str));
        say(&format!(
            "internal error{place}: {}; please report it",
            text.unwrap_or("no message").replace('\n', "; ")
        ));
    }));
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let exit = panic::catch_unwind(AssertUnwindSafe(|| parsed(arguments, registry)));
    exit.unwrap_or(Exit::Failed).into()
}

fn parsed(arguments: Vec<OsString>, registry: &Registry) -> Exit {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) if matches!(error.kind(), Usage::DisplayHelp | Usage::DisplayVersion) => {
            let text = error.render().to_string();
            return print(&Answer::ok(text, serde_json::Value::Null), false);
        }
        Err(error) if error.kind() == Usage::DisplayHelpOnMissingArgumentOrSubcommand => {
            say("no verb; `lifebelt --help` lists them");
            return Exit::Usage;
        }
        Err(error) => {
            say(&format!(
                "{}; `lifebelt --help` says more",
                usage_line(&error)
            ));
            return Exit::Usage;
        }
    };
    let output = cli.output;
    let verb = cli.verb.name();
    match answer(cli, registry) {
        Ok(answer) => print(&answer, output.json),
        Err(error) => {
            tell(&error, verb, output);
            exit::of_error(&error, verb)
        }
    }
}

/// The error on one line, and what could be done about it on another.
fn tell(error: &Error, verb: &str, output: Output) {
    let hint = exit::hint(error, verb);
    // Text of a store (the stderr of a program) may have several lines.
    let line = error.chain().replace('\n', "; ");
    match (output.log_format, hint) {
        (LogFormat::Json, hint) => tracing::error!(hint, "{line}"),
        (LogFormat::Text, None) => say(&line),
        (LogFormat::Text, Some(hint)) => {
            say(&line);
            say(&format!("hint: {hint}"));
        }
    }
}

fn answer(cli: Cli, registry: &Registry) -> Result<Answer> {
    let bar = progress::bar(cli.output);
    logging::start(cli.output, &bar);
    if let Verb::Keygen(arguments) = &cli.verb {
        return verbs::keygen::keygen(arguments);
    }
    let loaded = match find_config(cli.config) {
        Some(file) => Loaded::from_file(&file, registry)?,
        None => Loaded::from_environment(registry)?.ok_or_else(no_config)?,
    };
    let context = Context {
        loaded,
        registry,
        output: cli.output,
        bar,
    };
    if !matches!(cli.verb, Verb::Doctor) {
        context.refuse_identity()?;
    }
    let no_runtime = |e| Error::io("start the runtime", e);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(no_runtime)?;
    let result = runtime.block_on(async {
        let stop = Stop::listen().map_err(no_runtime)?;
        if let Verb::Run(arguments) = &cli.verb {
            // Ends by itself when asked to stop: a commit that has begun is finished.
            return verbs::run::run(&context, arguments, &stop).await;
        }
        tokio::select! {
            result = dispatch(&context, &cli.verb) => result,
            () = stop.asked() => Err(Error::new(ErrorKind::Cancelled, "stopped by a signal")),
        }
    });
    // Who is not done by then has said so or cannot.
    let _ = runtime.block_on(async { tokio::time::timeout(GRACE, settled()).await });
    context.bar.finish_and_clear();
    runtime.shutdown_timeout(GRACE);
    result
}

/// How long what was given up may take to undo what it began. The end of the runtime cuts it off.
const GRACE: Duration = Duration::from_secs(5);

async fn dispatch(context: &Context<'_>, verb: &Verb) -> Result<Answer> {
    match verb {
        Verb::Ls(arguments) => verbs::ls::ls(context, arguments).await,
        Verb::Show(arguments) => verbs::show::show(context, arguments).await,
        Verb::Why(arguments) => verbs::show::why(context, arguments).await,
        Verb::Verify(arguments) => verbs::verify::verify(context, arguments).await,
        Verb::Restore(arguments) => verbs::restore::restore(context, arguments).await,
        Verb::Fetch(arguments) => verbs::restore::fetch(context, arguments).await,
        Verb::Prune(arguments) => verbs::prune::prune(context, arguments).await,
        Verb::Hold(arguments) => verbs::hold::hold(context, arguments).await,
        Verb::Release(arguments) => verbs::hold::release(context, arguments).await,
        Verb::Doctor => verbs::doctor::doctor(context).await,
        Verb::Run(_) | Verb::Keygen(_) => Err(Error::new(ErrorKind::Other, "not dispatched here")),
    }
}

/// The file that is named, or one in its usual place.
fn find_config(named: Option<PathBuf>) -> Option<PathBuf> {
    let usual = ["lifebelt.toml", "/etc/lifebelt/lifebelt.toml"];
    let found = usual.iter().map(Path::new).find(|file| file.exists());
    named.or_else(|| found.map(Path::to_owned))
}

fn no_config() -> Error {
    Error::new(
        ErrorKind::Invalid,
        "no configuration: neither ./lifebelt.toml nor /etc/lifebelt/lifebelt.toml is there, and \
         neither DATABASE_URL, PGDATABASE nor POSTGRES_DB is set; name a file with -c FILE",
    )
}

#[cfg(test)]
mod tests {
    use backup_core::MemorySource;

    use super::*;

    #[test]
    fn a_program_of_somebody_else_has_its_own_stores_and_every_verb() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tool.toml");
        let job = "[sinks.local]\ntype = \"fs\"\npath = \"local\"\n[jobs.topics]\n\
                   source = { type = \"kafka\", topic = \"orders\" }\n\
                   sinks = [\"local\"]\nunencrypted = true\n";
        std::fs::write(&file, job).unwrap();
        let mut registry = Registry::standard();
        registry.source("kafka", |options| {
            let topic = options.text("topic").unwrap_or_default().to_owned();
            Ok(Box::new(MemorySource::new([(topic, "7,anvil")])))
        });
        let run = |registry: &Registry, verb: &[&str]| {
            let arguments = [&["tool", "-c", file.to_str().unwrap()], verb].concat();
            parsed(
                arguments.into_iter().map(OsString::from).collect(),
                registry,
            )
        };
        assert_eq!(run(&registry, &["run", "topics"]), Exit::Ok);
        assert_eq!(run(&registry, &["verify", "topics"]), Exit::Ok);
        assert_eq!(
            run(&Registry::standard(), &["ls"]),
            Exit::Usage,
            "a stock program"
        );
    }
}
