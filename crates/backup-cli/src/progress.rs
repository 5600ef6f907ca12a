//! A line that moves, on a terminal only.

use std::io::IsTerminal;
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use backup_core::{Event, Observer};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::args::Output;
use crate::config::human;

/// Shows how a job moves, and logs what happens to it.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    started: Once,
    plain: AtomicU64,
    stored: AtomicU64,
}

/// The line, hidden unless stderr is a terminal and somebody wants to look at it.
pub(crate) fn bar(output: Output) -> ProgressBar {
    let bar = ProgressBar::no_length();
    let wanted = !output.quiet && !output.json && std::io::stderr().is_terminal();
    bar.set_draw_target(if wanted {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    });
    if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed:>4}  {msg}") {
        bar.set_style(style);
    }
    bar
}

impl Progress {
    pub(crate) fn new(bar: ProgressBar) -> Self {
        Self {
            bar,
            started: Once::new(),
            plain: AtomicU64::new(0),
            stored: AtomicU64::new(0),
        }
    }

    fn start(&self) {
        self.started.call_once(|| {
            self.bar.reset_elapsed();
            self.bar.enable_steady_tick(Duration::from_millis(100));
        });
    }

    fn moved(&self, plain: u64, stored: u64) {
        let plain = self.plain.fetch_add(plain, Relaxed) + plain;
        let stored = self.stored.fetch_add(stored, Relaxed) + stored;
        if self.bar.is_hidden() {
            return;
        }
        self.start();
        let seconds = self.bar.elapsed().as_secs_f64().max(0.001);
        let rate = human((plain as f64 / seconds) as u64);
        let plain_text = human(plain);
        self.bar.set_message(match stored {
            0 => format!("{plain_text}, {rate}/s"),
            _ => {
                let ratio = plain as f64 / stored as f64;
                format!(
                    "{plain_text} read, {} stored ({ratio:.1}x), {rate}/s",
                    human(stored)
                )
            }
        });
    }
}

impl Observer for Progress {
    fn event(&self, event: &Event<'_>) {
        match event {
            Event::Started { job, id } => {
                self.start();
                tracing::info!(job, %id, "started");
            }
            Event::Progress { plain, stored, .. } => self.moved(*plain, *stored),
            Event::PartStarted { part } => tracing::debug!(part, "part started"),
            Event::PartFinished {
                part,
                plain,
                stored,
            } => {
                tracing::debug!(part, plain, stored, "part finished");
            }
            Event::SinkFailed { sink, error } => {
                tracing::info!("sink `{sink}` failed: {}", error.chain());
            }
            Event::Space {
                place,
                free,
                needed,
            } => {
                let told = |bytes: &Option<u64>| bytes.map_or("not known".to_owned(), human);
                tracing::info!(
                    free = told(free),
                    needed = told(needed),
                    "room in `{place}`"
                );
            }
            Event::Committed { sink, id } => tracing::info!(sink, %id, "committed"),
            Event::Warning { message } => tracing::warn!("{message}"),
            Event::Verified { key } => {
                self.bar.set_message(key.to_string());
                tracing::debug!(%key, "verified");
            }
            Event::Deleted { sink, id } => tracing::info!(sink, %id, "deleted"),
            _ => {}
        }
    }
}
