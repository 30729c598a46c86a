//! Headers, buffers and properties of a stream, and what becomes of it.

use bytes::{Bytes, BytesMut};

use crate::abi::{BufferKind, MapKind, Status, StreamKind};
use crate::engine::Abi;
use crate::host::{LocalResponse, Pairs};
use crate::memory::{Guest, bytes, give, split, text, write_u32};
use crate::pairs::{decode, encode};
use crate::state::State;

/// gRPC's codes that have a name.
const GRPC_CODES: std::ops::RangeInclusive<i32> = 0..=16;

pub(super) fn property(
    guest: &mut Guest<'_>,
    [path, path_size, value, value_size]: [i32; 4],
) -> Result<(), Status> {
    let (memory, state) = split(guest)?;
    let path = text(memory, path, path_size)?;
    let path: Vec<&str> = path.strip_suffix('\0').unwrap_or(path).split('\0').collect();
    let found = state.property(&path).ok_or(Status::NotFound)?;
    give(guest, &found, value, value_size)
}

pub(super) fn set_property(
    guest: &mut Guest<'_>,
    [path, path_size, value, value_size]: [i32; 4],
) -> Result<(), Status> {
    let (memory, state) = split(guest)?;
    let (path, value) = (text(memory, path, path_size)?, bytes(memory, value, value_size)?);
    state.stream().map_err(|_| Status::NotFound)?.set_property(path.strip_suffix('\0').unwrap_or(path), value)
}

/// ABI 0.1.0: the configuration of what is being started or configured.
pub(super) fn configuration(guest: &mut Guest<'_>, [value, size]: [i32; 2]) -> Result<(), Status> {
    let configuration = guest.data().buffer(BufferKind::PluginConfiguration)?;
    give(guest, &configuration, value, size)
}

fn pairs_of(state: &State, map: MapKind) -> Result<Pairs, Status> {
    match state.brought_map(map) {
        Some(found) => found.cloned(),
        None => state.stream()?.pairs(map),
    }
}

pub(super) fn pairs(guest: &mut Guest<'_>, [map, value, size]: [i32; 3]) -> Result<(), Status> {
    let pairs = pairs_of(guest.data(), MapKind::try_from(map)?)?;
    let bytes = encode(pairs.iter().map(|(name, value)| (&**name, &**value)));
    give(guest, &bytes, value, size)
}

pub(super) fn size(guest: &mut Guest<'_>, [map, at]: [i32; 2]) -> Result<(), Status> {
    let pairs = pairs_of(guest.data(), MapKind::try_from(map)?)?;
    let size: usize = pairs.iter().map(|(name, value)| name.len() + value.len()).sum();
    write_u32(guest, at, u32::try_from(size).unwrap_or(u32::MAX))
}

pub(super) fn set_pairs(guest: &mut Guest<'_>, [map, value, size]: [i32; 3]) -> Result<(), Status> {
    let map = MapKind::try_from(map)?;
    let (memory, state) = split(guest)?;
    let pairs = decode(bytes(memory, value, size)?).ok_or(Status::BadArgument)?;
    state.stream()?.set_pairs(map, &pairs)
}

pub(super) fn value(
    guest: &mut Guest<'_>,
    [map, name, name_size, value, value_size]: [i32; 5],
) -> Result<(), Status> {
    let map = MapKind::try_from(map)?;
    let (memory, state) = split(guest)?;
    let name = text(memory, name, name_size)?;
    let found = match state.brought_map(map) {
        Some(pairs) => {
            let mut pairs = pairs?.iter();
            pairs.find(|(key, _)| key.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value.clone())
        }
        None => state.stream()?.value(map, name)?,
    };
    let found = match found {
        None if state.abi == Abi::V010 => Bytes::new(),
        found => found.ok_or(Status::NotFound)?,
    };
    give(guest, &found, value, value_size)
}

pub(super) fn add(
    guest: &mut Guest<'_>,
    [map, name, name_size, value, value_size]: [i32; 5],
) -> Result<(), Status> {
    let map = MapKind::try_from(map)?;
    let (memory, state) = split(guest)?;
    let (name, value) = (text(memory, name, name_size)?, bytes(memory, value, value_size)?);
    state.stream()?.add(map, name, value)
}

pub(super) fn replace(
    guest: &mut Guest<'_>,
    [map, name, name_size, value, value_size]: [i32; 5],
) -> Result<(), Status> {
    let map = MapKind::try_from(map)?;
    let (memory, state) = split(guest)?;
    let (name, value) = (text(memory, name, name_size)?, bytes(memory, value, value_size)?);
    state.stream()?.replace(map, name, value)
}

pub(super) fn remove(guest: &mut Guest<'_>, [map, name, size]: [i32; 3]) -> Result<(), Status> {
    let map = MapKind::try_from(map)?;
    let (memory, state) = split(guest)?;
    state.stream()?.remove(map, text(memory, name, size)?)
}

pub(super) fn buffer(
    guest: &mut Guest<'_>,
    [kind, start, length, value, size]: [i32; 5],
) -> Result<(), Status> {
    let buffer = guest.data().buffer(BufferKind::try_from(kind)?)?;
    let end = (start as u32).checked_add(length as u32).ok_or(Status::BadArgument)? as usize;
    let start = (start as u32 as usize).min(buffer.len());
    let part = &buffer[start..end.min(buffer.len())];
    if part.is_empty() { Ok(()) } else { give(guest, part, value, size) }
}

pub(super) fn buffer_status(guest: &mut Guest<'_>, [kind, size, flags]: [i32; 3]) -> Result<(), Status> {
    let length = guest.data().buffer(BufferKind::try_from(kind)?)?.len();
    write_u32(guest, size, u32::try_from(length).unwrap_or(u32::MAX))?;
    write_u32(guest, flags, 0)
}

pub(super) fn set_buffer(
    guest: &mut Guest<'_>,
    [kind, start, length, value, size]: [i32; 5],
) -> Result<(), Status> {
    let kind = BufferKind::try_from(kind)?;
    let (memory, state) = split(guest)?;
    let value = bytes(memory, value, size)?;
    let (start, length) = (start as u32 as usize, length as u32 as usize);
    let old = state.buffer(kind)?;
    let stream = state.stream()?;
    let mut new = BytesMut::with_capacity(old.len() + value.len());
    if start == 0 {
        new.extend_from_slice(value);
        new.extend_from_slice(&old[length.min(old.len())..]);
    } else if start >= old.len() && length == 0 {
        new.extend_from_slice(&old);
        new.extend_from_slice(value);
    } else {
        return Err(Status::BadArgument);
    }
    stream.set_buffer(kind, new.freeze())
}

pub(super) fn resume(guest: &mut Guest<'_>, [kind]: [i32; 1]) -> Result<(), Status> {
    guest.data().stream()?.resume(StreamKind::try_from(kind)?)
}

pub(super) fn resume_request(guest: &mut Guest<'_>, []: [i32; 0]) -> Result<(), Status> {
    guest.data().stream()?.resume(StreamKind::Request)
}

pub(super) fn resume_response(guest: &mut Guest<'_>, []: [i32; 0]) -> Result<(), Status> {
    guest.data().stream()?.resume(StreamKind::Response)
}

pub(super) fn close(guest: &mut Guest<'_>, [kind]: [i32; 1]) -> Result<(), Status> {
    guest.data().stream()?.close(StreamKind::try_from(kind)?)
}

pub(super) fn clear_route_cache(guest: &mut Guest<'_>, []: [i32; 0]) -> Result<(), Status> {
    guest.data().stream()?.clear_route_cache();
    Ok(())
}

pub(super) fn respond(
    guest: &mut Guest<'_>,
    [status, details, details_size, body, body_size, headers, headers_size, grpc_status]: [i32; 8],
) -> Result<(), Status> {
    let (memory, state) = split(guest)?;
    let details = String::from_utf8_lossy(bytes(memory, details, details_size)?).into_owned();
    let body = Bytes::copy_from_slice(bytes(memory, body, body_size)?);
    let headers = copied(bytes(memory, headers, headers_size)?)?;
    let grpc_status = GRPC_CODES.contains(&grpc_status).then_some(grpc_status as u32);
    let response = LocalResponse { status: status as u32, details, body, headers, grpc_status };
    state.stream()?.respond(response)
}

/// Pairs of their own.
pub(super) fn copied(serialized: &[u8]) -> Result<Pairs, Status> {
    let pairs = decode(serialized).ok_or(Status::BadArgument)?;
    Ok(pairs
        .into_iter()
        .map(|(name, value)| (Bytes::copy_from_slice(name), Bytes::copy_from_slice(value)))
        .collect())
}
