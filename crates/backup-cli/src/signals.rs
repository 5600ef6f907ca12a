//! SIGINT and SIGTERM: the first one stops the work, the second one the program.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Becomes true when somebody asked to stop.
#[derive(Clone, Debug)]
pub(crate) struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Listens from now on. Call it on the runtime.
    pub(crate) fn listen() -> std::io::Result<Self> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let (sender, receiver) = watch::channel(false);
        tokio::spawn(async move {
            for first in [true, false] {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if first {
                    tracing::warn!("stopping; once more to stop at once");
                    sender.send_replace(true);
                } else {
                    std::process::exit(crate::exit::Exit::Failed as i32);
                }
            }
        });
        Ok(Self(receiver))
    }

    /// Returns when somebody asked to stop.
    pub(crate) async fn asked(&self) {
        let mut receiver = self.0.clone();
        if receiver.wait_for(|stop| *stop).await.is_err() {
            // The listener is gone with the runtime.
            std::future::pending::<()>().await;
        }
    }
}
