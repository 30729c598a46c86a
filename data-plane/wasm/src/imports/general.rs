//! Logs, time, metrics, contexts.

use std::time::Duration;

use crate::abi::{LogLevel, MetricKind, Status};
use crate::memory::{Guest, bytes, give, split, text, write_u32, write_u64};

pub(super) fn log(guest: &mut Guest<'_>, [level, message, size]: [i32; 3]) -> Result<(), Status> {
    let level = LogLevel::try_from(level)?;
    let (memory, state) = split(guest)?;
    let message = String::from_utf8_lossy(bytes(memory, message, size)?);
    state.log(level, &message);
    Ok(())
}

pub(super) fn log_level(guest: &mut Guest<'_>, [at]: [i32; 1]) -> Result<(), Status> {
    let level = guest.data().host.log_level();
    write_u32(guest, at, level as u32)
}

pub(super) fn status(guest: &mut Guest<'_>, [code, message, size]: [i32; 3]) -> Result<(), Status> {
    let (status, text) = guest.data().brought.status.clone();
    write_u32(guest, code, status)?;
    give(guest, text.as_bytes(), message, size)
}

pub(super) fn time(guest: &mut Guest<'_>, [at]: [i32; 1]) -> Result<(), Status> {
    let now = guest.data().host.time();
    write_u64(guest, at, now)
}

pub(super) fn tick_period(guest: &mut Guest<'_>, [milliseconds]: [i32; 1]) -> Result<(), Status> {
    let state = guest.data();
    state.host.set_tick_period(state.root(), Duration::from_millis((milliseconds as u32).into()));
    Ok(())
}

pub(super) fn effective_context(guest: &mut Guest<'_>, [context]: [i32; 1]) -> Result<(), Status> {
    let state = guest.data_mut();
    if !state.contexts.contains_key(&(context as u32)) {
        return Err(Status::BadArgument);
    }
    state.effective = context as u32;
    Ok(())
}

pub(super) fn done(guest: &mut Guest<'_>, []: [i32; 0]) -> Result<(), Status> {
    let state = guest.data_mut();
    let context = if state.effective != 0 { state.effective } else { state.current };
    match state.contexts.get(&context) {
        Some(entry) if entry.lingers => {
            state.done.push(context);
            Ok(())
        }
        _ => Err(Status::NotFound),
    }
}

pub(super) fn foreign_function(
    guest: &mut Guest<'_>,
    [name, name_size, arguments, arguments_size, result, result_size]: [i32; 6],
) -> Result<(), Status> {
    let (memory, state) = split(guest)?;
    let name = text(memory, name, name_size)?;
    let arguments = bytes(memory, arguments, arguments_size)?;
    if name == "clear_route_cache" {
        state.stream()?.clear_route_cache();
        return Ok(());
    }
    let value = state.host.foreign_function(name, arguments).ok_or(Status::NotFound)??;
    give(guest, &value, result, result_size)
}

pub(super) fn define_metric(guest: &mut Guest<'_>, [kind, name, size, at]: [i32; 4]) -> Result<(), Status> {
    let kind = MetricKind::try_from(kind)?;
    let (memory, state) = split(guest)?;
    let metric = state.host.define_metric(kind, text(memory, name, size)?)?;
    write_u32(guest, at, metric)
}

pub(super) fn metric(guest: &mut Guest<'_>, [metric, at]: [i32; 2]) -> Result<(), Status> {
    let value = guest.data().host.metric(metric as u32)?;
    write_u64(guest, at, value)
}
