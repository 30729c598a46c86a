//! What hyper needs to run on a worker's single thread.

use hyper::rt::Executor;

/// Spawns on the worker's local task set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LocalExec;

impl<F> Executor<F> for LocalExec
where
    F: Future<Output = ()> + 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}
