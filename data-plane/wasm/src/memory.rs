//! Reading and writing a module's memory. Every pointer is checked; none is trusted.

use wasmtime::{Caller, Extern, Memory};

use crate::abi::Status;
use crate::state::State;

/// A module that has called us.
pub(crate) type Guest<'a> = Caller<'a, State>;

fn memory_of(guest: &mut Guest<'_>) -> Result<Memory, Status> {
    if let Some(memory) = guest.data().memory {
        return Ok(memory);
    }
    // It calls while it is being started.
    match guest.get_export("memory") {
        Some(Extern::Memory(memory)) => {
            guest.data_mut().memory = Some(memory);
            Ok(memory)
        }
        _ => Err(Status::InvalidMemoryAccess),
    }
}

/// The memory, and what the VM knows.
pub(crate) fn split<'a>(guest: &'a mut Guest<'_>) -> Result<(&'a mut [u8], &'a mut State), Status> {
    let memory = memory_of(guest)?;
    Ok(memory.data_and_store_mut(guest))
}

/// Bytes at a pointer.
pub(crate) fn bytes(memory: &[u8], pointer: i32, size: i32) -> Result<&[u8], Status> {
    let (start, size) = (pointer as u32 as usize, size as u32 as usize);
    start.checked_add(size).and_then(|end| memory.get(start..end)).ok_or(Status::InvalidMemoryAccess)
}

/// Text at a pointer.
pub(crate) fn text(memory: &[u8], pointer: i32, size: i32) -> Result<&str, Status> {
    std::str::from_utf8(bytes(memory, pointer, size)?).map_err(|_| Status::BadArgument)
}

/// Writes bytes at a pointer.
pub(crate) fn write(guest: &mut Guest<'_>, pointer: i32, value: &[u8]) -> Result<(), Status> {
    let (memory, _) = split(guest)?;
    let start = pointer as u32 as usize;
    let end = start.checked_add(value.len()).ok_or(Status::InvalidMemoryAccess)?;
    memory.get_mut(start..end).ok_or(Status::InvalidMemoryAccess)?.copy_from_slice(value);
    Ok(())
}

/// Writes a number at a pointer.
pub(crate) fn write_u32(guest: &mut Guest<'_>, pointer: i32, value: u32) -> Result<(), Status> {
    write(guest, pointer, &value.to_le_bytes())
}

/// Writes a number at a pointer.
pub(crate) fn write_u64(guest: &mut Guest<'_>, pointer: i32, value: u64) -> Result<(), Status> {
    write(guest, pointer, &value.to_le_bytes())
}

/// Gives bytes to the module, in memory that it allocates, and writes where they are.
pub(crate) fn give(guest: &mut Guest<'_>, value: &[u8], pointer: i32, size: i32) -> Result<(), Status> {
    let length = u32::try_from(value.len()).map_err(|_| Status::InvalidMemoryAccess)?;
    let mut at = 0;
    if length > 0 {
        let name = ["proxy_on_memory_allocate", "malloc"];
        let allocate = match guest.data().allocate.clone() {
            Some(allocate) => allocate,
            None => {
                let found = name.iter().find_map(|name| guest.get_export(name)?.into_func());
                let typed = found.and_then(|function| function.typed::<i32, i32>(&*guest).ok());
                typed.ok_or(Status::InternalFailure)?
            }
        };
        // A module that cannot allocate traps; the same happens to the call that we are in.
        at = allocate.call(&mut *guest, length as i32).map_err(|_| Status::InvalidMemoryAccess)?;
        if at == 0 {
            return Err(Status::InvalidMemoryAccess);
        }
        write(guest, at, value)?;
    }
    write_u32(guest, pointer, at as u32)?;
    write_u32(guest, size, length)
}
