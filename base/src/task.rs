//! Tasks that have an owner: dropping the guard ends the task.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::task::{JoinError, JoinHandle};

/// A spawned task that is aborted when this is dropped. Awaiting it yields the task's result.
#[derive(Debug)]
#[must_use = "dropping it aborts the task"]
pub struct Supervised<T>(JoinHandle<T>);

impl<T: Send + 'static> Supervised<T> {
    /// Spawns onto the current runtime.
    pub fn spawn(future: impl Future<Output = T> + Send + 'static) -> Self {
        Self(tokio::spawn(future))
    }
}

impl<T: 'static> Supervised<T> {
    /// Spawns a future that is not `Send` onto the current `LocalSet`.
    pub fn spawn_local(future: impl Future<Output = T> + 'static) -> Self {
        Self(tokio::task::spawn_local(future))
    }

    /// Whether the task has ended.
    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}

impl<T> Future for Supervised<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx)
    }
}

impl<T> Drop for Supervised<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ends_with_its_guard() {
        let (send, receive) = tokio::sync::oneshot::channel::<()>();
        let task = Supervised::spawn(async move {
            let _held = send;
            std::future::pending::<()>().await;
        });
        drop(task);
        assert!(receive.await.is_err(), "the task still holds its sender");
    }
}
