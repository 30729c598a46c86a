//! Shared data and queues.

use crate::abi::Status;
use crate::memory::{Guest, bytes, give, split, text, write_u32};

pub(super) fn get(
    guest: &mut Guest<'_>,
    [key, key_size, value, value_size, version]: [i32; 5],
) -> Result<(), Status> {
    let (memory, state) = split(guest)?;
    let key = bytes(memory, key, key_size)?;
    let (found, has) = state.shared.get(&state.vm_id, key).ok_or(Status::NotFound)?;
    give(guest, &found, value, value_size)?;
    write_u32(guest, version, has)
}

pub(super) fn set(
    guest: &mut Guest<'_>,
    [key, key_size, value, value_size, version]: [i32; 5],
) -> Result<(), Status> {
    let (memory, state) = split(guest)?;
    let (key, value) = (bytes(memory, key, key_size)?, bytes(memory, value, value_size)?);
    state.shared.set(&state.vm_id, key, value, version as u32)
}

pub(super) fn register(guest: &mut Guest<'_>, [name, size, at]: [i32; 3]) -> Result<(), Status> {
    let (memory, state) = split(guest)?;
    let name = bytes(memory, name, size)?;
    let token = state.shared.register(&state.vm_id, name, state.root(), state.host.queue_ready());
    write_u32(guest, at, token)
}

pub(super) fn resolve(
    guest: &mut Guest<'_>,
    [vm_id, vm_id_size, name, size, at]: [i32; 5],
) -> Result<(), Status> {
    let (memory, state) = split(guest)?;
    let (vm_id, name) = (text(memory, vm_id, vm_id_size)?, bytes(memory, name, size)?);
    let vm_id = if vm_id.is_empty() { &*state.vm_id } else { vm_id };
    let token = state.shared.resolve(vm_id, name).ok_or(Status::NotFound)?;
    write_u32(guest, at, token)
}

pub(super) fn enqueue(guest: &mut Guest<'_>, [token, item, size]: [i32; 3]) -> Result<(), Status> {
    let (memory, state) = split(guest)?;
    let item = bytes(memory, item, size)?;
    state.shared.enqueue(token as u32, item)
}

pub(super) fn dequeue(guest: &mut Guest<'_>, [token, at, size]: [i32; 3]) -> Result<(), Status> {
    let item = guest.data().shared.dequeue(token as u32)?;
    give(guest, &item, at, size)
}
