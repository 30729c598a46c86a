//! Orderly shutdown: one [`Signal`] tells every holder of a [`Watch`] to finish, and waits until all have.

use std::future::Future;

use tokio::sync::{mpsc, watch};

/// A signal and the first watch on it; further watches are clones.
pub fn channel() -> (Signal, Watch) {
    let (start, started) = watch::channel(false);
    let (busy, finished) = mpsc::channel(1);
    (Signal { start, finished }, Watch { started, _busy: busy })
}

/// The side that orders the drain.
#[derive(Debug)]
pub struct Signal {
    start: watch::Sender<bool>,
    finished: mpsc::Receiver<std::convert::Infallible>,
}

impl Signal {
    /// Tells every watch, then waits until the last of them is dropped. Bound it with a timeout.
    pub async fn drain(mut self) {
        self.start.send_replace(true);
        // Nothing is ever sent: the channel ends when its last sender, which every watch holds, is gone.
        while self.finished.recv().await.is_some() {}
    }
}

/// The side that is busy: while it lives, the drain is not over.
#[derive(Clone, Debug)]
pub struct Watch {
    started: watch::Receiver<bool>,
    _busy: mpsc::Sender<std::convert::Infallible>,
}

impl Watch {
    /// Resolves when the drain begins; also when the signal was dropped, since then nobody else can tell.
    pub async fn signaled(&mut self) {
        // An error means that the signal is gone, which is an order to stop as well.
        let _ = self.started.wait_for(|started| *started).await;
    }

    /// Whether the drain has begun.
    pub fn is_signaled(&self) -> bool {
        *self.started.borrow()
    }

    /// Runs a future to its end while holding the drain open; `on_drain` is called once if the drain begins meanwhile.
    pub async fn run<F: Future + Unpin>(mut self, mut future: F, on_drain: impl FnOnce(&mut F)) -> F::Output {
        tokio::select! {
            output = &mut future => return output,
            () = self.signaled() => on_drain(&mut future),
        }
        future.await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waits_for_the_last_watch() {
        let (signal, watch) = channel();
        let mut second = watch.clone();
        let drain = tokio::spawn(signal.drain());
        second.signaled().await;
        assert!(watch.is_signaled());
        drop(second);
        assert!(!drain.is_finished());
        drop(watch);
        drain.await.unwrap();
    }

    #[tokio::test]
    async fn a_dropped_signal_is_an_order_too() {
        let (signal, mut watch) = channel();
        drop(signal);
        watch.signaled().await;
    }

    #[tokio::test]
    async fn run_finishes_what_is_under_way() {
        let (signal, watch) = channel();
        let (send, receive) = tokio::sync::oneshot::channel();
        let work = tokio::spawn(async move {
            let mut told = false;
            let value = watch.run(receive, |_| told = true).await.unwrap();
            (value, told)
        });
        let drain = tokio::spawn(signal.drain());
        tokio::task::yield_now().await;
        send.send(7).unwrap();
        assert_eq!(work.await.unwrap().0, 7);
        drain.await.unwrap();
    }
}
