//! What VMs with one `vm_id` share, whatever thread they are on: data with compare-and-swap, and queues.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashMap;
use parking_lot::Mutex;

use crate::abi::Status;

/// Tells a root context that its queue has something: the context's number, the queue's.
pub type QueueReady = Arc<dyn Fn(u32, u32) + Send + Sync>;

/// As many bytes as the data of one `vm_id` and one queue may hold.
const LIMIT: usize = 256 * 1024 * 1024;

/// See the module's documentation.
#[derive(Default)]
pub struct Shared {
    data: Mutex<Data>,
    queues: Mutex<Queues>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Data {
    spaces: HashMap<Box<str>, Space>,
    last_version: u32,
}

#[derive(Default)]
struct Space {
    values: HashMap<Box<[u8]>, (Bytes, u32)>,
    bytes: usize,
}

#[derive(Default)]
struct Queues {
    tokens: HashMap<(Box<str>, Box<[u8]>), u32>,
    queues: HashMap<u32, Queue>,
}

struct Queue {
    context: u32,
    ready: QueueReady,
    items: VecDeque<Bytes>,
    bytes: usize,
}

impl Shared {
    /// A value and its version.
    pub fn get(&self, space: &str, key: &[u8]) -> Option<(Bytes, u32)> {
        self.data.lock().spaces.get(space)?.values.get(key).cloned()
    }

    /// Sets a value; with a version only if the value still has it.
    pub fn set(&self, space: &str, key: &[u8], value: &[u8], version: u32) -> Result<(), Status> {
        let mut data = self.data.lock();
        data.last_version = data.last_version.checked_add(1).unwrap_or(1);
        let next = data.last_version;
        let space = data.spaces.entry_ref(space).or_default();
        let old = match space.values.get(key) {
            Some((_, has)) if version != 0 && version != *has => return Err(Status::CasMismatch),
            Some((old, _)) => key.len() + old.len(),
            None => 0,
        };
        let bytes = space.bytes - old + key.len() + value.len();
        if bytes > LIMIT {
            return Err(Status::InternalFailure);
        }
        space.bytes = bytes;
        space.values.insert(key.into(), (Bytes::copy_from_slice(value), next));
        Ok(())
    }

    /// Makes a queue, or takes it over: whoever registers last, and wants to be told, is told of what comes.
    pub(crate) fn register(&self, space: &str, name: &[u8], context: u32, ready: Option<QueueReady>) -> u32 {
        let mut queues = self.queues.lock();
        let next = u32::try_from(queues.tokens.len() + 1).unwrap_or(u32::MAX);
        let token = *queues.tokens.entry((space.into(), name.into())).or_insert(next);
        match (queues.queues.get_mut(&token), ready) {
            (Some(queue), Some(ready)) => {
                queue.context = context;
                queue.ready = ready;
            }
            (Some(_), None) => {}
            (None, ready) => {
                let ready = ready.unwrap_or_else(|| Arc::new(|_, _| {}));
                queues.queues.insert(token, Queue { context, ready, items: VecDeque::new(), bytes: 0 });
            }
        }
        token
    }

    pub(crate) fn resolve(&self, space: &str, name: &[u8]) -> Option<u32> {
        self.queues.lock().tokens.get(&(space.into(), name.into())).copied()
    }

    pub(crate) fn enqueue(&self, token: u32, item: &[u8]) -> Result<(), Status> {
        let (ready, context) = {
            let mut queues = self.queues.lock();
            let queue = queues.queues.get_mut(&token).ok_or(Status::NotFound)?;
            if queue.bytes + item.len() > LIMIT {
                return Err(Status::InternalFailure);
            }
            queue.bytes += item.len();
            queue.items.push_back(Bytes::copy_from_slice(item));
            (queue.ready.clone(), queue.context)
        };
        ready(context, token);
        Ok(())
    }

    pub(crate) fn dequeue(&self, token: u32) -> Result<Bytes, Status> {
        let mut queues = self.queues.lock();
        let queue = queues.queues.get_mut(&token).ok_or(Status::NotFound)?;
        let item = queue.items.pop_front().ok_or(Status::Empty)?;
        queue.bytes -= item.len();
        Ok(item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_version_changes_nothing() {
        let shared = Shared::default();
        assert_eq!(shared.get("vm", b"k"), None);
        shared.set("vm", b"k", b"1", 0).unwrap();
        let (value, version) = shared.get("vm", b"k").unwrap();
        assert_eq!(&*value, b"1");
        shared.set("vm", b"k", b"2", version).unwrap();
        assert_eq!(shared.set("vm", b"k", b"3", version), Err(Status::CasMismatch));
        assert_eq!(&*shared.get("vm", b"k").unwrap().0, b"2");
        assert_eq!(shared.get("other", b"k"), None);
    }

    #[test]
    fn the_last_to_register_is_told() {
        let shared = Shared::default();
        let told = Arc::new(Mutex::new(Vec::new()));
        let ready = |name: &'static str| -> Option<QueueReady> {
            let told = told.clone();
            Some(Arc::new(move |context, token| told.lock().push((name, context, token))))
        };
        let token = shared.register("vm", b"q", 1, ready("first"));
        assert_eq!(shared.register("vm", b"q", 2, ready("second")), token);
        assert_eq!(shared.register("vm", b"q", 3, None), token);
        assert_eq!(shared.resolve("vm", b"q"), Some(token));
        assert_eq!(shared.resolve("", b"q"), None);
        shared.enqueue(token, b"item").unwrap();
        assert_eq!(*told.lock(), [("second", 2, token)]);
        assert_eq!(shared.dequeue(token).unwrap(), "item");
        assert_eq!(shared.dequeue(token), Err(Status::Empty));
        assert_eq!(shared.dequeue(token + 1), Err(Status::NotFound));
    }
}
