//! Calls that modules make: HTTP and gRPC.

use std::time::Duration;

use bytes::Bytes;

use super::stream::copied;
use crate::abi::Status;
use crate::host::{GrpcCall, HttpCall};
use crate::memory::{Guest, bytes, split, text, write_u32};

pub(super) fn http(
    guest: &mut Guest<'_>,
    [cluster, cluster_size, headers, headers_size, body, body_size, trailers, trailers_size, timeout, at]: [i32;
        10],
) -> Result<(), Status> {
    let (memory, state) = split(guest)?;
    let call = HttpCall {
        cluster: text(memory, cluster, cluster_size)?.to_owned(),
        headers: copied(bytes(memory, headers, headers_size)?)?,
        body: Bytes::copy_from_slice(bytes(memory, body, body_size)?),
        trailers: copied(bytes(memory, trailers, trailers_size)?)?,
        timeout: Duration::from_millis((timeout as u32).into()),
    };
    let token = state.next_token();
    state.host.http_call(state.root(), token, call)?;
    write_u32(guest, at, token)
}

pub(super) fn grpc(
    guest: &mut Guest<'_>,
    [
        service,
        service_size,
        name,
        name_size,
        method,
        method_size,
        metadata,
        metadata_size,
        message,
        message_size,
        timeout,
        at,
    ]: [i32; 12],
) -> Result<(), Status> {
    let (memory, state) = split(guest)?;
    let call = GrpcCall {
        service: Bytes::copy_from_slice(bytes(memory, service, service_size)?),
        service_name: text(memory, name, name_size)?.to_owned(),
        method: text(memory, method, method_size)?.to_owned(),
        metadata: copied(bytes(memory, metadata, metadata_size)?)?,
        message: Some(Bytes::copy_from_slice(bytes(memory, message, message_size)?)),
        timeout: Duration::from_millis((timeout as u32).into()),
    };
    let token = state.next_token();
    state.host.grpc_call(state.root(), token, call)?;
    write_u32(guest, at, token)
}

pub(super) fn grpc_stream(
    guest: &mut Guest<'_>,
    [service, service_size, name, name_size, method, method_size, metadata, metadata_size, at]: [i32; 9],
) -> Result<(), Status> {
    let (memory, state) = split(guest)?;
    let call = GrpcCall {
        service: Bytes::copy_from_slice(bytes(memory, service, service_size)?),
        service_name: text(memory, name, name_size)?.to_owned(),
        method: text(memory, method, method_size)?.to_owned(),
        metadata: copied(bytes(memory, metadata, metadata_size)?)?,
        message: None,
        timeout: Duration::ZERO,
    };
    let token = state.next_token();
    state.host.grpc_call(state.root(), token, call)?;
    write_u32(guest, at, token)
}

pub(super) fn grpc_send(guest: &mut Guest<'_>, [token, message, size, end]: [i32; 4]) -> Result<(), Status> {
    let (memory, state) = split(guest)?;
    let message = Bytes::copy_from_slice(bytes(memory, message, size)?);
    state.host.grpc_send(token as u32, message, end != 0)
}

pub(super) fn grpc_cancel(guest: &mut Guest<'_>, [token]: [i32; 1]) -> Result<(), Status> {
    guest.data().host.grpc_cancel(token as u32)
}

pub(super) fn grpc_close(guest: &mut Guest<'_>, [token]: [i32; 1]) -> Result<(), Status> {
    guest.data().host.grpc_close(token as u32)
}
