;; A plugin that puts a header x-greeting into requests and into answers. Its value is the first string in the plugin's
;; configuration: hello, of {"greeting": "hello"}. It speaks proxy-wasm 0.2.1 and is written as text so that it can be read;
;; real plugins are written in Rust, Go or C++ with an SDK of proxy-wasm.
(module
  (import "env" "proxy_get_buffer_bytes" (func $get_buffer (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_add_header_map_value" (func $add_header (param i32 i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2)

  ;; 0..8: where the host puts what it gives: address and length
  (data (i32.const 16) "x-greeting")
  ;; 1024..: greetings of plugins, since several share a VM: context, address, length; a context is never 0
  ;; 4096..: greetings of streams, by the last bits of their contexts: address, length
  ;; 65536..: what the host writes
  (global $free (mut i32) (i32.const 65536))

  (func (export "proxy_abi_version_0_2_1"))
  (func (export "malloc") (param $size i32) (result i32)
    (local $at i32)
    (local.set $at (global.get $free))
    (global.set $free (i32.add (global.get $free) (local.get $size)))
    (local.get $at))

  ;; The entry of a plugin's context; the last one stands for those that find no place.
  (func $plugin (param $context i32) (result i32)
    (local $at i32)
    (local.set $at (i32.const 1024))
    (loop $next
      (if (i32.and
          (i32.ne (i32.load (local.get $at)) (local.get $context))
          (i32.lt_u (local.get $at) (i32.const 4000)))
        (then
          (local.set $at (i32.add (local.get $at) (i32.const 12)))
          (br $next))))
    (local.get $at))

  (func $stream (param $context i32) (result i32)
    (i32.add (i32.const 4096) (i32.shl (i32.and (local.get $context) (i32.const 4095)) (i32.const 3))))

  (func (export "proxy_on_vm_start") (param i32 i32) (result i32) (i32.const 1))

  (func (export "proxy_on_configure") (param $context i32) (param $size i32) (result i32)
    (local $at i32) (local $end i32) (local $entry i32)
    (if (call $get_buffer (i32.const 7) (i32.const 0) (local.get $size) (i32.const 0) (i32.const 4))
      (then (return (i32.const 0))))
    ;; The greeting stands between the third quote and the fourth.
    (local.set $at (i32.load (i32.const 0)))
    (local.set $end (i32.add (local.get $at) (i32.load (i32.const 4))))
    (local.set $at (call $after_quote (local.get $at) (local.get $end)))
    (local.set $at (call $after_quote (local.get $at) (local.get $end)))
    (local.set $at (call $after_quote (local.get $at) (local.get $end)))
    (local.set $end (call $after_quote (local.get $at) (local.get $end)))
    ;; Without one, the configuration is refused.
    (if (i32.le_u (local.get $end) (local.get $at)) (then (return (i32.const 0))))
    (local.set $entry (call $plugin (local.get $context)))
    (if (i32.ne (i32.load (local.get $entry)) (local.get $context))
      (then (local.set $entry (call $plugin (i32.const 0)))))
    (i32.store (local.get $entry) (local.get $context))
    (i32.store offset=4 (local.get $entry) (local.get $at))
    (i32.store offset=8 (local.get $entry) (i32.sub (i32.sub (local.get $end) (local.get $at)) (i32.const 1)))
    (i32.const 1))

  ;; What comes after the next quote, or the end.
  (func $after_quote (param $at i32) (param $end i32) (result i32)
    (loop $next
      (if (i32.lt_u (local.get $at) (local.get $end))
        (then
          (local.set $at (i32.add (local.get $at) (i32.const 1)))
          (br_if $next (i32.ne (i32.load8_u (i32.sub (local.get $at) (i32.const 1))) (i32.const 0x22))))))
    (local.get $at))

  (func (export "proxy_on_context_create") (param $context i32) (param $parent i32)
    (local $entry i32)
    (if (local.get $parent)
      (then
        (local.set $entry (call $plugin (local.get $parent)))
        (i64.store (call $stream (local.get $context)) (i64.load offset=4 (local.get $entry))))))

  ;; Adds the stream's greeting to the headers of a map.
  (func $greet (param $context i32) (param $map i32)
    (local $entry i32)
    (local.set $entry (call $stream (local.get $context)))
    (drop (call $add_header (local.get $map) (i32.const 16) (i32.const 10)
      (i32.load (local.get $entry)) (i32.load offset=4 (local.get $entry)))))

  (func (export "proxy_on_request_headers") (param $context i32) (param i32 i32) (result i32)
    (call $greet (local.get $context) (i32.const 0))
    (i32.const 0))
  (func (export "proxy_on_response_headers") (param $context i32) (param i32 i32) (result i32)
    (call $greet (local.get $context) (i32.const 2))
    (i32.const 0))

  (func (export "proxy_on_done") (param i32) (result i32) (i32.const 1))
  (func (export "proxy_on_log") (param i32))
  (func (export "proxy_on_delete") (param $context i32)
    (local $entry i32)
    (local.set $entry (call $plugin (local.get $context)))
    (if (i32.eq (i32.load (local.get $entry)) (local.get $context))
      (then (i32.store (local.get $entry) (i32.const 0))))))
