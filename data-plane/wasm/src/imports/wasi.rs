//! As much of WASI as languages' runtimes need: standard output as a log, the environment, clocks and chance.

use wasmtime::Linker;

use crate::abi::{LogLevel, Status};
use crate::memory::{Guest, bytes, split, write, write_u32, write_u64};
use crate::state::State;

/// Functions that are more than "there is none".
pub(crate) const NAMES: &[&str] = &[
    "args_get",
    "args_sizes_get",
    "clock_time_get",
    "environ_get",
    "environ_sizes_get",
    "fd_close",
    "fd_fdstat_get",
    "fd_prestat_get",
    "fd_read",
    "fd_seek",
    "fd_write",
    "proc_exit",
    "random_get",
    "sched_yield",
];

const OK: i32 = 0;
const EBADF: i32 = 8;
const EFAULT: i32 = 21;
const EINVAL: i32 = 28;
/// A longer line is written in parts.
const LINE: usize = 16 * 1024;
/// As much chance as is given at once.
const RANDOM: usize = 64 * 1024;

/// The module has left.
#[derive(Debug, thiserror::Error)]
#[error("it exited with code {0}")]
pub(crate) struct Exit(pub(crate) i32);

fn errno(result: Result<(), Status>) -> i32 {
    match result {
        Ok(()) => OK,
        Err(Status::BadArgument) => EINVAL,
        Err(_) => EFAULT,
    }
}

pub(super) fn define(linker: &mut Linker<State>, module: &str) -> wasmtime::Result<()> {
    linker.func_wrap(
        module,
        "fd_write",
        |mut guest: Guest<'_>, fd: i32, iovs: i32, count: i32, at: i32| {
            let place = match fd {
                1 => 0,
                2 => 1,
                _ => return EBADF,
            };
            errno(fd_write(&mut guest, place, [iovs, count, at]))
        },
    )?;
    linker.func_wrap(module, "fd_read", |_: Guest<'_>, _: i32, _: i32, _: i32, _: i32| EBADF)?;
    linker.func_wrap(module, "fd_seek", |_: Guest<'_>, _: i32, _: i64, _: i32, _: i32| EBADF)?;
    linker.func_wrap(module, "fd_close", |_: Guest<'_>, _: i32| EBADF)?;
    linker.func_wrap(module, "fd_prestat_get", |_: Guest<'_>, _: i32, _: i32| EBADF)?;
    linker.func_wrap(module, "fd_fdstat_get", |mut guest: Guest<'_>, fd: i32, at: i32| {
        if !(1..=2).contains(&fd) {
            return EBADF;
        }
        // A character device that is appended to, with the right to be written.
        let mut stat = [0u8; 24];
        stat[0] = 2;
        stat[2] = 1;
        stat[8] = 64;
        errno(write(&mut guest, at, &stat))
    })?;
    linker.func_wrap(module, "environ_sizes_get", |mut guest: Guest<'_>, count: i32, size: i32| {
        let environment = &guest.data().environment;
        let bytes: usize = environment.iter().map(|pair| pair.len() + 1).sum();
        let sizes = (environment.len() as u32, bytes as u32);
        errno(write_u32(&mut guest, count, sizes.0).and_then(|()| write_u32(&mut guest, size, sizes.1)))
    })?;
    linker.func_wrap(module, "environ_get", |mut guest: Guest<'_>, pointers: i32, buffer: i32| {
        errno(environ_get(&mut guest, pointers, buffer))
    })?;
    linker.func_wrap(module, "args_sizes_get", |mut guest: Guest<'_>, count: i32, size: i32| {
        errno(write_u32(&mut guest, count, 0).and_then(|()| write_u32(&mut guest, size, 0)))
    })?;
    linker.func_wrap(module, "args_get", |_: Guest<'_>, _: i32, _: i32| OK)?;
    linker.func_wrap(module, "sched_yield", |_: Guest<'_>| OK)?;
    linker.func_wrap(module, "clock_time_get", |mut guest: Guest<'_>, clock: i32, _: i64, at: i32| {
        let host = &guest.data().host;
        let now = match clock {
            0 => host.time(),
            1 => host.monotonic(),
            _ => return EINVAL,
        };
        errno(write_u64(&mut guest, at, now))
    })?;
    linker.func_wrap(module, "random_get", |mut guest: Guest<'_>, at: i32, size: i32| {
        errno(random_get(&mut guest, at, size))
    })?;
    linker.func_wrap(module, "proc_exit", |_: Guest<'_>, code: i32| -> wasmtime::Result<()> {
        Err(Exit(code).into())
    })?;
    Ok(())
}

fn fd_write(guest: &mut Guest<'_>, place: usize, [iovs, count, at]: [i32; 3]) -> Result<(), Status> {
    let (memory, state) = split(guest)?;
    let mut written = 0u32;
    for index in 0..count as u32 {
        let entry = (iovs as u32).checked_add(index.checked_mul(8).ok_or(Status::BadArgument)?);
        let entry = bytes(memory, entry.ok_or(Status::BadArgument)? as i32, 8)?;
        let number = |from: usize| {
            i32::from_le_bytes([entry[from], entry[from + 1], entry[from + 2], entry[from + 3]])
        };
        let piece = bytes(memory, number(0), number(4))?;
        written = written.checked_add(piece.len() as u32).ok_or(Status::BadArgument)?;
        let level = if place == 0 { LogLevel::Info } else { LogLevel::Error };
        let mut line = std::mem::take(&mut state.lines[place]);
        for &byte in piece {
            if byte != b'\n' && line.len() < LINE {
                line.push(byte);
                continue;
            }
            state.log(level, &String::from_utf8_lossy(&line));
            line.clear();
            if byte != b'\n' {
                line.push(byte);
            }
        }
        state.lines[place] = line;
    }
    write_u32(guest, at, written)
}

fn environ_get(guest: &mut Guest<'_>, pointers: i32, buffer: i32) -> Result<(), Status> {
    let environment = guest.data().environment.clone();
    let (mut pointer, mut at) = (pointers, buffer);
    for pair in environment {
        write_u32(guest, pointer, at as u32)?;
        write(guest, at, pair.as_bytes())?;
        at = at.wrapping_add(pair.len() as i32);
        write(guest, at, &[0])?;
        at = at.wrapping_add(1);
        pointer = pointer.wrapping_add(4);
    }
    Ok(())
}

fn random_get(guest: &mut Guest<'_>, at: i32, size: i32) -> Result<(), Status> {
    let size = size as u32 as usize;
    if size > RANDOM {
        return Err(Status::BadArgument);
    }
    let mut chance = vec![0; size];
    guest.data().host.random(&mut chance);
    write(guest, at, &chance)
}
