;; A plugin that asks a gRPC service, by a call (its configuration begins with c) or by a stream (s), and waits for the end:
;; a request goes on with what it heard in headers. Message and metadata are always the same.
(module
  (import "env" "proxy_get_buffer_bytes" (func $get_buffer (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_get_header_map_value" (func $header (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_grpc_call"
    (func $call (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_grpc_stream" (func $stream (param i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_grpc_send" (func $send (param i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_get_status" (func $status (param i32 i32 i32) (result i32)))
  (import "env" "proxy_set_effective_context" (func $act_for (param i32) (result i32)))
  (import "env" "proxy_continue_stream" (func $continue (param i32) (result i32)))
  (memory (export "memory") 2)
  ;; `GrpcService` with envoy_grpc.cluster_name "side"
  (data (i32.const 16) "\0a\06\0a\04side")
  (data (i32.const 32) "test.Service")
  (data (i32.const 48) "Method")
  ;; A message: field 1 is "ask"
  (data (i32.const 64) "\0a\03ask")
  (data (i32.const 80) "x-heard")
  (data (i32.const 96) "x-status")
  (data (i32.const 112) "x-initial")
  (data (i32.const 128) "x-trailing")
  (data (i32.const 144) "x-first")
  (data (i32.const 160) "x-last")
  (data (i32.const 176) "x-text")
  ;; Pairs: x-mine 1
  (data (i32.const 256) "\01\00\00\00" "\06\00\00\00\01\00\00\00" "x-mine\001\00")
  (global $mode (mut i32) (i32.const 0))
  (global $waiting (mut i32) (i32.const 0))
  (global $token (mut i32) (i32.const 0))

  (func (export "proxy_abi_version_0_2_1"))
  (func (export "malloc") (param i32) (result i32) (i32.const 65536))
  (func (export "proxy_on_context_create") (param i32 i32))
  (func (export "proxy_on_vm_start") (param i32 i32) (result i32) (i32.const 1))
  (func (export "proxy_on_configure") (param i32) (param $size i32) (result i32)
    (drop (call $get_buffer (i32.const 7) (i32.const 0) (local.get $size) (i32.const 0) (i32.const 4)))
    (global.set $mode (i32.load8_u (i32.load (i32.const 0))))
    (i32.const 1))

  (func (export "proxy_on_request_headers") (param $context i32) (param i32 i32) (result i32)
    (global.set $waiting (local.get $context))
    (if (i32.eq (global.get $mode) (i32.const 0x63))
      (then
        (if (call $call (i32.const 16) (i32.const 8) (i32.const 32) (i32.const 12) (i32.const 48) (i32.const 6)
            (i32.const 256) (i32.const 21) (i32.const 64) (i32.const 5) (i32.const 5000) (i32.const 8))
          (then (return (i32.const 0)))))
      (else
        (if (call $stream (i32.const 16) (i32.const 8) (i32.const 32) (i32.const 12) (i32.const 48) (i32.const 6)
            (i32.const 256) (i32.const 21) (i32.const 8))
          (then (return (i32.const 0))))
        (global.set $token (i32.load (i32.const 8)))
        (drop (call $send (global.get $token) (i32.const 64) (i32.const 5) (i32.const 0)))
        (drop (call $send (global.get $token) (i32.const 64) (i32.const 5) (i32.const 1)))))
    (i32.const 1))

  ;; Copies a header of a map into a header of the request.
  (func $copy (param $map i32) (param $from i32) (param $length i32) (param $to i32) (param $size i32)
    (if (call $header (local.get $map) (local.get $from) (local.get $length) (i32.const 0) (i32.const 4))
      (then (return)))
    (drop (call $act_for (global.get $waiting)))
    (drop (call $add (i32.const 0) (local.get $to) (local.get $size)
      (i32.load (i32.const 0)) (i32.load (i32.const 4)))))

  (func (export "proxy_on_grpc_receive_initial_metadata") (param i32 i32 i32)
    (call $copy (i32.const 4) (i32.const 144) (i32.const 7) (i32.const 112) (i32.const 9)))
  (func (export "proxy_on_grpc_receive_trailing_metadata") (param i32 i32 i32)
    (call $copy (i32.const 5) (i32.const 160) (i32.const 6) (i32.const 128) (i32.const 10)))

  ;; What stands behind a message's tag and length.
  (func (export "proxy_on_grpc_receive") (param i32 i32) (param $size i32)
    (drop (call $get_buffer (i32.const 5) (i32.const 2) (i32.sub (local.get $size) (i32.const 2))
      (i32.const 0) (i32.const 4)))
    (drop (call $act_for (global.get $waiting)))
    (drop (call $add (i32.const 0) (i32.const 80) (i32.const 7) (i32.load (i32.const 0)) (i32.load (i32.const 4))))
    ;; A call ends with its message.
    (if (i32.eq (global.get $mode) (i32.const 0x63)) (then (drop (call $continue (i32.const 0))))))

  (func (export "proxy_on_grpc_close") (param i32 i32) (param $code i32)
    (drop (call $status (i32.const 12) (i32.const 0) (i32.const 4)))
    (i32.store8 (i32.const 200) (i32.add (i32.const 48) (local.get $code)))
    (drop (call $act_for (global.get $waiting)))
    (drop (call $add (i32.const 0) (i32.const 96) (i32.const 8) (i32.const 200) (i32.const 1)))
    (if (i32.load (i32.const 4)) (then
      (drop (call $add (i32.const 0) (i32.const 176) (i32.const 6)
        (i32.load (i32.const 0)) (i32.load (i32.const 4))))))
    (drop (call $continue (i32.const 0))))

  (func (export "proxy_on_done") (param i32) (result i32) (i32.const 1))
  (func (export "proxy_on_log") (param i32))
  (func (export "proxy_on_delete") (param i32)))
