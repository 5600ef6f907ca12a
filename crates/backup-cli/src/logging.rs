//! Log lines on stderr, without tearing a progress bar.

use std::fmt;
use std::io::{self, Write};

use indicatif::ProgressBar;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::registry::LookupSpan;

use crate::args::{LogFormat, Output};

/// Sends `tracing` events to stderr: warnings, more with `-v`, less with `-q`, and of single modules
/// what `LIFEBELT_LOG` or `RUST_LOG` asks for. A subscriber of the embedding program stays.
pub(crate) fn start(output: Output, bar: &ProgressBar) {
    let level = match (output.quiet, output.verbose) {
        (true, _) => "error",
        (_, 0) => "warn",
        (_, 1) => "info",
        (_, 2) => "debug",
        _ => "trace",
    };
    // Of what a variable says the last word counts; what it does not speak of is as without it.
    let asked = |name: &&str| {
        let said = std::env::var(name).ok().filter(|said| !said.is_empty())?;
        EnvFilter::try_new(format!("{level},{said}")).ok()
    };
    let filter = ["LIFEBELT_LOG", "RUST_LOG"].iter().find_map(asked);
    let filter = filter.unwrap_or_else(|| EnvFilter::new(level));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(Stderr(bar.clone()))
        .with_ansi(false);
    // A second start in one process (tests) keeps the first subscriber.
    let _ = match output.log_format {
        LogFormat::Json => subscriber.json().flatten_event(true).try_init(),
        LogFormat::Text if output.verbose > 0 => subscriber.try_init(),
        LogFormat::Text => subscriber.event_format(ForPeople).try_init(),
    };
}

/// `lifebelt: warning: message`.
struct ForPeople;

impl<S, N> FormatEvent<S, N> for ForPeople
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let level = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warning",
            Level::INFO => "info",
            Level::DEBUG => "debug",
            Level::TRACE => "trace",
        };
        write!(writer, "lifebelt: {level}: ")?;
        context.format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

#[derive(Clone)]
struct Stderr(ProgressBar);

impl<'a> MakeWriter<'a> for Stderr {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.suspend(|| io::stderr().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
