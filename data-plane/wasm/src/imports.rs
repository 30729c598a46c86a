//! Functions that modules call, by subject. All take and return numbers; results go where the module's pointers say.

mod calls;
mod general;
mod shared;
mod stream;
mod wasi;

use wasmtime::Linker;

use crate::abi::Status;
use crate::memory::Guest;
use crate::state::State;

pub(crate) use wasi::{Exit, NAMES as WASI};

fn code(result: Result<(), Status>) -> i32 {
    match result {
        Ok(()) => Status::Ok as i32,
        Err(status) => status as i32,
    }
}

/// Functions of 32-bit numbers, which reach the Rust function as one array.
macro_rules! functions {
    ($linker:ident, $module:expr, { $($name:literal => $function:path [$($argument:ident)*],)* }) => {
        $($linker.func_wrap($module, $name, |mut guest: Guest<'_>, $($argument: i32),*| -> i32 {
            code($function(&mut guest, [$($argument),*]))
        })?;)*
    };
}

/// Everything that there is.
pub(crate) fn define(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    functions!(linker, "env", {
        "proxy_log" => general::log [a b c],
        "proxy_get_log_level" => general::log_level [a],
        "proxy_get_status" => general::status [a b c],
        "proxy_get_current_time_nanoseconds" => general::time [a],
        "proxy_set_tick_period_milliseconds" => general::tick_period [a],
        "proxy_set_effective_context" => general::effective_context [a],
        "proxy_done" => general::done [],
        "proxy_call_foreign_function" => general::foreign_function [a b c d e f],
        "proxy_define_metric" => general::define_metric [a b c d],
        "proxy_get_metric" => general::metric [a b],
        "proxy_get_property" => stream::property [a b c d],
        "proxy_set_property" => stream::set_property [a b c d],
        "proxy_get_configuration" => stream::configuration [a b],
        "proxy_get_header_map_pairs" => stream::pairs [a b c],
        "proxy_set_header_map_pairs" => stream::set_pairs [a b c],
        "proxy_get_header_map_value" => stream::value [a b c d e],
        "proxy_get_header_map_size" => stream::size [a b],
        "proxy_add_header_map_value" => stream::add [a b c d e],
        "proxy_replace_header_map_value" => stream::replace [a b c d e],
        "proxy_remove_header_map_value" => stream::remove [a b c],
        "proxy_get_buffer_bytes" => stream::buffer [a b c d e],
        "proxy_get_buffer_status" => stream::buffer_status [a b c],
        "proxy_set_buffer_bytes" => stream::set_buffer [a b c d e],
        "proxy_continue_stream" => stream::resume [a],
        "proxy_continue_request" => stream::resume_request [],
        "proxy_continue_response" => stream::resume_response [],
        "proxy_close_stream" => stream::close [a],
        "proxy_clear_route_cache" => stream::clear_route_cache [],
        "proxy_send_local_response" => stream::respond [a b c d e f g h],
        "proxy_get_shared_data" => shared::get [a b c d e],
        "proxy_set_shared_data" => shared::set [a b c d e],
        "proxy_register_shared_queue" => shared::register [a b c],
        "proxy_resolve_shared_queue" => shared::resolve [a b c d e],
        "proxy_enqueue_shared_queue" => shared::enqueue [a b c],
        "proxy_dequeue_shared_queue" => shared::dequeue [a b c],
        "proxy_http_call" => calls::http [a b c d e f g h i j],
        "proxy_grpc_call" => calls::grpc [a b c d e f g h i j k l],
        "proxy_grpc_stream" => calls::grpc_stream [a b c d e f g h i],
        "proxy_grpc_send" => calls::grpc_send [a b c d],
        "proxy_grpc_cancel" => calls::grpc_cancel [a],
        "proxy_grpc_close" => calls::grpc_close [a],
    });
    linker.func_wrap("env", "proxy_increment_metric", |guest: Guest<'_>, metric: i32, offset: i64| {
        code(guest.data().host.increment_metric(metric as u32, offset))
    })?;
    linker.func_wrap("env", "proxy_record_metric", |guest: Guest<'_>, metric: i32, value: i64| {
        code(guest.data().host.record_metric(metric as u32, value as u64))
    })?;
    wasi::define(linker, "wasi_snapshot_preview1")?;
    wasi::define(linker, "wasi_unstable")
}
