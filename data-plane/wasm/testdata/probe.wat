;; A plugin that does what the first byte of its configuration says:
;;   h  sets a header of requests and one of responses    a  answers 403 itself
;;   c  asks the cluster "side" and waits for the answer  b  replaces whole request bodies by their length's digit
;;   t  traps on requests                                 s  never returns from requests
;;   n  does not take its configuration                   p  says in a header what the property of its path is
;;   k  ticks: counts in the metric "ticks" and in shared data, and wakes a queue's owner
;;   m  eats memory on requests until it gets no more
(module
  (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
  (import "env" "proxy_get_buffer_bytes" (func $get_buffer (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_set_buffer_bytes" (func $set_buffer (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_replace_header_map_value" (func $replace (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_get_header_map_value" (func $header (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_send_local_response"
    (func $respond (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_http_call"
    (func $http_call (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_set_effective_context" (func $act_for (param i32) (result i32)))
  (import "env" "proxy_continue_stream" (func $continue (param i32) (result i32)))
  (import "env" "proxy_get_property" (func $property (param i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_set_tick_period_milliseconds" (func $tick_period (param i32) (result i32)))
  (import "env" "proxy_define_metric" (func $define_metric (param i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_increment_metric" (func $increment (param i32 i64) (result i32)))
  (import "env" "proxy_set_shared_data" (func $set_shared (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_register_shared_queue" (func $register_queue (param i32 i32 i32) (result i32)))
  (import "env" "proxy_enqueue_shared_queue" (func $enqueue (param i32 i32 i32) (result i32)))
  (import "env" "proxy_dequeue_shared_queue" (func $dequeue (param i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_open"
    (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (data (i32.const 16) "x-wasm")
  (data (i32.const 32) "request")
  (data (i32.const 48) "response")
  (data (i32.const 64) "denied")
  (data (i32.const 80) "side")
  (data (i32.const 96) "x-call")
  (data (i32.const 112) ":status")
  (data (i32.const 128) "ticks")
  (data (i32.const 144) "queue")
  (data (i32.const 160) "configured\n")
  (data (i32.const 176) ":path")
  ;; Pairs: :method GET, :path /side, :authority side.example
  (data (i32.const 256) "\03\00\00\00"
    "\07\00\00\00\03\00\00\00" "\05\00\00\00\05\00\00\00" "\0a\00\00\00\0c\00\00\00"
    ":method\00GET\00" ":path\00/side\00" ":authority\00side.example\00")
  ;; Pairs: x-probe 1
  (data (i32.const 384) "\01\00\00\00" "\07\00\00\00\01\00\00\00" "x-probe\001\00")
  ;; An I/O vector: 11 bytes at 160
  (data (i32.const 448) "\a0\00\00\00\0b\00\00\00")
  (global $mode (mut i32) (i32.const 0))
  (global $free (mut i32) (i32.const 65536))
  (global $waiting (mut i32) (i32.const 0))
  (global $metric (mut i32) (i32.const 0))
  (global $queue (mut i32) (i32.const 0))

  (func (export "proxy_abi_version_0_2_1"))
  ;; Gives the same memory over and over: nothing here keeps what it is given.
  (func (export "malloc") (param $size i32) (result i32) (global.get $free))
  (func (export "proxy_on_context_create") (param i32 i32))
  (func (export "proxy_on_vm_start") (param i32 i32) (result i32) (i32.const 1))

  (func (export "proxy_on_configure") (param $root i32) (param $size i32) (result i32)
    (drop (call $get_buffer (i32.const 7) (i32.const 0) (local.get $size) (i32.const 0) (i32.const 4)))
    (global.set $mode (i32.load8_u (i32.load (i32.const 0))))
    (drop (call $fd_write (i32.const 1) (i32.const 448) (i32.const 1) (i32.const 8)))
    (if (i32.eq (global.get $mode) (i32.const 0x6e)) (then (return (i32.const 0))))
    (if (i32.eq (global.get $mode) (i32.const 0x6b)) (then
      (drop (call $define_metric (i32.const 0) (i32.const 128) (i32.const 5) (i32.const 0)))
      (global.set $metric (i32.load (i32.const 0)))
      (drop (call $register_queue (i32.const 144) (i32.const 5) (i32.const 0)))
      (global.set $queue (i32.load (i32.const 0)))
      (drop (call $tick_period (i32.const 10)))))
    (i32.const 1))

  (func (export "proxy_on_tick") (param i32)
    (drop (call $increment (global.get $metric) (i64.const 1)))
    (drop (call $set_shared (i32.const 128) (i32.const 5) (i32.const 32) (i32.const 7) (i32.const 0)))
    (drop (call $enqueue (global.get $queue) (i32.const 32) (i32.const 7))))

  (func (export "proxy_on_queue_ready") (param i32 i32)
    (drop (call $dequeue (local.get 1) (i32.const 0) (i32.const 4)))
    ;; What came is 7 bytes long: the count leaps.
    (drop (call $increment (global.get $metric)
      (i64.mul (i64.const 1000) (i64.extend_i32_u (i32.load (i32.const 4)))))))

  (func (export "proxy_on_request_headers") (param $context i32) (param i32 i32) (result i32)
    (if (i32.eq (global.get $mode) (i32.const 0x68)) (then
      (drop (call $replace (i32.const 0) (i32.const 16) (i32.const 6) (i32.const 32) (i32.const 7)))))
    (if (i32.eq (global.get $mode) (i32.const 0x61)) (then
      (drop (call $respond (i32.const 403) (i32.const 64) (i32.const 6) (i32.const 64) (i32.const 6)
        (i32.const 384) (i32.const 22) (i32.const -1)))
      (return (i32.const 1))))
    (if (i32.eq (global.get $mode) (i32.const 0x63)) (then
      (global.set $waiting (local.get $context))
      (if (call $http_call (i32.const 80) (i32.const 4) (i32.const 256) (i32.const 76) (i32.const 0)
          (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 5000) (i32.const 0))
        (then (return (i32.const 0))))
      (return (i32.const 1))))
    (if (i32.eq (global.get $mode) (i32.const 0x74)) (then (unreachable)))
    (if (i32.eq (global.get $mode) (i32.const 0x73)) (then (loop $again (br $again))))
    (if (i32.eq (global.get $mode) (i32.const 0x6d)) (then
      (loop $more (br_if $more (i32.ne (memory.grow (i32.const 256)) (i32.const -1))))))
    (if (i32.eq (global.get $mode) (i32.const 0x70)) (then
      ;; The path without its first byte is the name of a property, its parts separated by dots.
      (drop (call $header (i32.const 0) (i32.const 176) (i32.const 5) (i32.const 0) (i32.const 4)))
      (call $dots_to_zeros (i32.load (i32.const 0)) (i32.load (i32.const 4)))
      (if (call $property (i32.add (i32.load (i32.const 0)) (i32.const 1))
          (i32.sub (i32.load (i32.const 4)) (i32.const 1)) (i32.const 0) (i32.const 4))
        (then (return (i32.const 0))))
      (drop (call $replace (i32.const 0) (i32.const 16) (i32.const 6)
        (i32.load (i32.const 0)) (i32.load (i32.const 4))))))
    (i32.const 0))

  (func $dots_to_zeros (param $at i32) (param $size i32)
    (local $end i32)
    (local.set $end (i32.add (local.get $at) (local.get $size)))
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $at) (local.get $end)))
        (if (i32.eq (i32.load8_u (local.get $at)) (i32.const 0x2e))
          (then (i32.store8 (local.get $at) (i32.const 0))))
        (local.set $at (i32.add (local.get $at) (i32.const 1)))
        (br $next))))

  (func (export "proxy_on_request_body") (param i32) (param $size i32) (param $end i32) (result i32)
    (if (i32.ne (global.get $mode) (i32.const 0x62)) (then (return (i32.const 0))))
    (if (i32.eqz (local.get $end)) (then (return (i32.const 1))))
    (i32.store8 (i32.const 12) (i32.add (i32.const 48) (i32.rem_u (local.get $size) (i32.const 10))))
    (drop (call $set_buffer (i32.const 0) (i32.const 0) (local.get $size) (i32.const 12) (i32.const 1)))
    (i32.const 0))

  (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
    (if (i32.eq (global.get $mode) (i32.const 0x68)) (then
      (drop (call $replace (i32.const 2) (i32.const 16) (i32.const 6) (i32.const 48) (i32.const 8)))))
    (i32.const 0))

  (func (export "proxy_on_http_call_response") (param i32 i32 i32 i32 i32)
    (drop (call $header (i32.const 6) (i32.const 112) (i32.const 7) (i32.const 0) (i32.const 4)))
    (drop (call $act_for (global.get $waiting)))
    (drop (call $replace (i32.const 0) (i32.const 96) (i32.const 6)
      (i32.load (i32.const 0)) (i32.load (i32.const 4))))
    (drop (call $continue (i32.const 0))))

  (func (export "proxy_on_done") (param i32) (result i32) (i32.const 1))
  (func (export "proxy_on_log") (param i32)
    (drop (call $log (i32.const 2) (i32.const 64) (i32.const 6))))
  (func (export "proxy_on_delete") (param i32)))
