//! From signals to an orderly end: the first SIGTERM or SIGINT asks for a drain, the second cuts it short.

use std::io;

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

/// How far the process is on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Running,
    Draining,
    Cut,
}

/// Tells whoever holds a clone when to drain, and when to stop draining.
#[derive(Clone)]
pub struct Shutdown(watch::Receiver<Stage>);

/// Asks for the shutdown that [`Shutdown`] tells of.
pub struct ShutdownTrigger(watch::Sender<Stage>);

impl Shutdown {
    /// A shutdown that the caller asks for.
    #[must_use]
    pub fn new() -> (ShutdownTrigger, Self) {
        let (tx, rx) = watch::channel(Stage::Running);
        (ShutdownTrigger(tx), Self(rx))
    }

    /// A shutdown that SIGTERM and SIGINT ask for. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// When the handlers cannot be installed.
    pub fn on_signals() -> io::Result<Self> {
        let mut term = signal(SignalKind::terminate())?;
        let mut int = signal(SignalKind::interrupt())?;
        let (trigger, shutdown) = Self::new();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = term.recv() => {}
                    _ = int.recv() => {}
                }
                trigger.next();
            }
        });
        Ok(shutdown)
    }

    /// Ready when the process should drain.
    pub async fn begun(&self) {
        self.reached(Stage::Draining).await;
    }

    /// Ready when the process should end at once.
    pub async fn cut(&self) {
        self.reached(Stage::Cut).await;
    }

    async fn reached(&self, stage: Stage) {
        // Without a trigger nobody can ask any more.
        if self.0.clone().wait_for(|s| *s >= stage).await.is_err() {
            std::future::pending().await
        }
    }
}

impl ShutdownTrigger {
    /// Asks for the drain; asked again, for an end at once.
    pub fn next(&self) {
        self.0.send_modify(|stage| {
            *stage = match stage {
                Stage::Running => Stage::Draining,
                Stage::Draining | Stage::Cut => Stage::Cut,
            };
        });
    }
}
