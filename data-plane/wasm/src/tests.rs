//! A module of our own against a host that remembers what it is asked.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::{
    BufferKind, Capabilities, DataAction, Engine, Error, GrpcCall, HeadersAction, Host, HttpCall,
    HttpCallResponse, LocalResponse, LogLevel, MapKind, MetricKind, Pairs, Peer, Plugin, QueueReady, Shared,
    Status, Stream, StreamKind, Vm, VmOptions,
};

const PROBE: &[u8] = include_bytes!("../testdata/probe.wat");

#[derive(Default)]
struct Seen {
    log: RefCell<Vec<String>>,
    calls: RefCell<Vec<(u32, u32, HttpCall)>>,
    tick: Cell<Option<Duration>>,
    metric: Cell<i64>,
    queue: std::sync::Arc<parking_lot::Mutex<Vec<(u32, u32)>>>,
}

struct FakeHost(Rc<Seen>);

impl Host for FakeHost {
    fn log(&self, source: &str, level: LogLevel, message: &str) {
        self.0.log.borrow_mut().push(format!("{level:?}{source}: {message}"));
    }
    fn log_level(&self) -> LogLevel {
        LogLevel::Info
    }
    fn time(&self) -> u64 {
        7
    }
    fn monotonic(&self) -> u64 {
        8
    }
    fn random(&self, bytes: &mut [u8]) {
        bytes.fill(9);
    }
    fn set_tick_period(&self, _: u32, period: Duration) {
        self.0.tick.set(Some(period));
    }
    fn queue_ready(&self) -> Option<QueueReady> {
        let queue = self.0.queue.clone();
        Some(Arc::new(move |context, token| queue.lock().push((context, token))))
    }
    fn define_metric(&self, _: MetricKind, _: &str) -> Result<u32, Status> {
        Ok(3)
    }
    fn increment_metric(&self, metric: u32, offset: i64) -> Result<(), Status> {
        assert_eq!(metric, 3);
        self.0.metric.set(self.0.metric.get() + offset);
        Ok(())
    }
    fn record_metric(&self, _: u32, _: u64) -> Result<(), Status> {
        Err(Status::NotFound)
    }
    fn metric(&self, _: u32) -> Result<u64, Status> {
        Err(Status::NotFound)
    }
    fn http_call(&self, root: u32, token: u32, call: HttpCall) -> Result<(), Status> {
        self.0.calls.borrow_mut().push((root, token, call));
        Ok(())
    }
    fn grpc_call(&self, _: u32, _: u32, _: GrpcCall) -> Result<(), Status> {
        Err(Status::Unimplemented)
    }
    fn grpc_send(&self, _: u32, _: Bytes, _: bool) -> Result<(), Status> {
        Err(Status::NotFound)
    }
    fn grpc_close(&self, _: u32) -> Result<(), Status> {
        Err(Status::NotFound)
    }
    fn grpc_cancel(&self, _: u32) -> Result<(), Status> {
        Err(Status::NotFound)
    }
    fn property(&self, _: &[&str]) -> Option<Vec<u8>> {
        None
    }
    fn foreign_function(&self, _: &str, _: &[u8]) -> Option<Result<Vec<u8>, Status>> {
        None
    }
}

#[derive(Default)]
struct FakeStream {
    set: RefCell<Vec<(MapKind, String, String)>>,
    path: String,
    body: RefCell<Bytes>,
    answer: RefCell<Option<LocalResponse>>,
    resumed: RefCell<Vec<StreamKind>>,
}

impl Stream for FakeStream {
    fn pairs(&self, _: MapKind) -> Result<Pairs, Status> {
        Ok(Pairs::new())
    }
    fn value(&self, _: MapKind, name: &str) -> Result<Option<Bytes>, Status> {
        Ok((name == ":path").then(|| self.path.clone().into()))
    }
    fn set_pairs(&self, _: MapKind, _: &[(&[u8], &[u8])]) -> Result<(), Status> {
        Ok(())
    }
    fn add(&self, map: MapKind, name: &str, value: &[u8]) -> Result<(), Status> {
        self.replace(map, name, value)
    }
    fn replace(&self, map: MapKind, name: &str, value: &[u8]) -> Result<(), Status> {
        let value = String::from_utf8_lossy(value).into_owned();
        self.set.borrow_mut().push((map, name.to_owned(), value));
        Ok(())
    }
    fn remove(&self, _: MapKind, _: &str) -> Result<(), Status> {
        Ok(())
    }
    fn buffer(&self, _: BufferKind) -> Result<Bytes, Status> {
        Ok(self.body.borrow().clone())
    }
    fn set_buffer(&self, _: BufferKind, bytes: Bytes) -> Result<(), Status> {
        self.body.replace(bytes);
        Ok(())
    }
    fn property(&self, path: &[&str]) -> Option<Vec<u8>> {
        (path == ["source", "address"]).then(|| b"1.2.3.4:5".to_vec())
    }
    fn set_property(&self, _: &str, _: &[u8]) -> Result<(), Status> {
        Ok(())
    }
    fn resume(&self, kind: StreamKind) -> Result<(), Status> {
        self.resumed.borrow_mut().push(kind);
        Ok(())
    }
    fn close(&self, _: StreamKind) -> Result<(), Status> {
        Ok(())
    }
    fn respond(&self, response: LocalResponse) -> Result<(), Status> {
        self.answer.replace(Some(response));
        Ok(())
    }
    fn clear_route_cache(&self) {}
    fn is_answered(&self) -> bool {
        self.answer.borrow().is_some()
    }
}

struct Probe {
    vm: Vm,
    root: u32,
    seen: Rc<Seen>,
    shared: Arc<Shared>,
}

fn start(mode: &str, capabilities: Capabilities) -> Result<Probe, Error> {
    let seen: Rc<Seen> = Rc::default();
    let shared: Arc<Shared> = Arc::default();
    let module = Engine::get()?.compile(PROBE)?.link(&Arc::new(capabilities))?;
    let options = VmOptions {
        vm_id: "vm".into(),
        environment: vec!["A=B".into()],
        configuration: Bytes::new(),
        shared: shared.clone(),
        host: Box::new(FakeHost(seen.clone())),
    };
    let mut vm = Vm::new(&module, options)?;
    let plugin = Plugin {
        name: "probe".into(),
        root_id: "root".into(),
        configuration: Bytes::copy_from_slice(mode.as_bytes()),
        allow_stop_iteration: false,
    };
    let root = vm.start(Arc::new(plugin))?;
    Ok(Probe { vm, root, seen, shared })
}

fn probe(mode: &str) -> Probe {
    start(mode, Capabilities::default()).unwrap()
}

#[test]
fn headers_are_set_and_the_stream_is_logged() {
    let mut probe = probe("h");
    let stream: Rc<FakeStream> = Rc::default();
    let context = probe.vm.create(probe.root, stream.clone()).unwrap();
    let action = probe.vm.on_headers(context, Peer::Downstream, 3, true).unwrap();
    assert_eq!(action, HeadersAction::Continue);
    probe.vm.on_headers(context, Peer::Upstream, 1, true).unwrap();
    let expected = [
        (MapKind::RequestHeaders, "x-wasm".into(), "request".into()),
        (MapKind::ResponseHeaders, "x-wasm".into(), "response".into()),
    ];
    assert_eq!(*stream.set.borrow(), expected);
    probe.vm.end(context).unwrap();
    assert_eq!(*probe.seen.log.borrow(), ["Info root vm: configured", "Info probe root vm: denied"]);
    assert!(matches!(probe.vm.on_headers(context, Peer::Downstream, 0, true), Err(Error::Failed)));
    assert!(!probe.vm.is_failed());
}

#[test]
fn the_module_answers() {
    let mut probe = probe("a");
    let stream: Rc<FakeStream> = Rc::default();
    let context = probe.vm.create(probe.root, stream.clone()).unwrap();
    let action = probe.vm.on_headers(context, Peer::Downstream, 0, true).unwrap();
    assert_eq!(action, HeadersAction::StopAll);
    let answer = stream.answer.take().unwrap();
    assert_eq!((answer.status, &*answer.body, answer.grpc_status), (403, &b"denied"[..], None));
    assert_eq!(answer.headers, [("x-probe".into(), "1".into())]);
}

#[test]
fn a_call_resumes_the_request() {
    let mut probe = probe("c");
    let stream: Rc<FakeStream> = Rc::default();
    let context = probe.vm.create(probe.root, stream.clone()).unwrap();
    let action = probe.vm.on_headers(context, Peer::Downstream, 0, true).unwrap();
    assert_eq!(action, HeadersAction::StopAll);
    let (root, token, call) = probe.seen.calls.borrow_mut().pop().unwrap();
    assert_eq!((root, &*call.cluster, call.timeout), (probe.root, "side", Duration::from_secs(5)));
    assert_eq!(call.headers[1], (":path".into(), "/side".into()));
    let headers = vec![(":status".into(), "204".into())];
    let response = HttpCallResponse { headers, ..Default::default() };
    probe.vm.on_http_call_response(root, token, response).unwrap();
    assert_eq!(*stream.set.borrow(), [(MapKind::RequestHeaders, "x-call".into(), "204".into())]);
    assert_eq!(*stream.resumed.borrow(), [StreamKind::Request]);
}

#[test]
fn a_body_is_gathered_and_replaced() {
    let mut probe = probe("b");
    let stream: Rc<FakeStream> = Rc::default();
    let context = probe.vm.create(probe.root, stream.clone()).unwrap();
    stream.body.replace("abc".into());
    assert_eq!(probe.vm.on_body(context, Peer::Downstream, 3, false).unwrap(), DataAction::Buffer);
    stream.body.replace("abcde".into());
    assert_eq!(probe.vm.on_body(context, Peer::Downstream, 5, true).unwrap(), DataAction::Continue);
    assert_eq!(*stream.body.borrow(), "5");
}

#[test]
fn properties_come_by_path() {
    let mut probe = probe("p");
    for (path, expected) in
        [("/source.address", Some("1.2.3.4:5")), ("/plugin_name", Some("probe")), ("/x", None)]
    {
        let stream = Rc::new(FakeStream { path: path.into(), ..Default::default() });
        let context = probe.vm.create(probe.root, stream.clone()).unwrap();
        probe.vm.on_headers(context, Peer::Downstream, 0, true).unwrap();
        let set = stream.set.borrow().first().map(|(_, _, value)| value.clone());
        assert_eq!(set.as_deref(), expected, "{path}");
    }
}

#[test]
fn ticks_count_share_and_wake() {
    let mut probe = probe("k");
    assert_eq!(probe.seen.tick.get(), Some(Duration::from_millis(10)));
    probe.vm.on_tick(probe.root).unwrap();
    assert_eq!(probe.seen.metric.get(), 1);
    assert_eq!(&*probe.shared.get("vm", b"ticks").unwrap().0, b"request");
    let (context, token) = probe.seen.queue.lock().pop().unwrap();
    probe.vm.on_queue_ready(context, token).unwrap();
    assert_eq!(probe.seen.metric.get(), 7001);
}

#[test]
fn a_trap_is_the_end_of_the_vm() {
    let mut probe = probe("t");
    let context = probe.vm.create(probe.root, Rc::<FakeStream>::default()).unwrap();
    let error = probe.vm.on_headers(context, Peer::Downstream, 0, true).unwrap_err();
    assert!(matches!(error, Error::Trap { function: "proxy_on_request_headers", .. }), "{error}");
    assert!(probe.vm.is_failed());
    let again = probe.vm.create(probe.root, Rc::<FakeStream>::default());
    assert!(matches!(again, Err(Error::Failed)));
}

#[test]
fn a_module_that_does_not_return_is_interrupted() {
    let mut probe = probe("s");
    let context = probe.vm.create(probe.root, Rc::<FakeStream>::default()).unwrap();
    let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let clock = std::thread::spawn({
        let done = done.clone();
        move || {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                crate::tick();
                std::thread::yield_now();
            }
        }
    });
    let error = probe.vm.on_headers(context, Peer::Downstream, 0, true).unwrap_err();
    done.store(true, std::sync::atomic::Ordering::Relaxed);
    clock.join().unwrap();
    assert!(error.to_string().contains("interrupt"), "{error}");
}

#[test]
fn memory_has_an_end() {
    let mut probe = probe("m");
    let context = probe.vm.create(probe.root, Rc::<FakeStream>::default()).unwrap();
    probe.vm.on_headers(context, Peer::Downstream, 0, true).unwrap();
}

#[test]
fn what_cannot_be_run_says_why() {
    let compile = |text: &str| Engine::get().unwrap().compile(text.as_bytes());
    assert!(matches!(compile("(module"), Err(Error::Compile(_))));
    assert!(matches!(compile("(module)"), Err(Error::Abi)));
    assert!(matches!(compile(r#"(module (func (export "proxy_abi_version_0_2_0")))"#), Err(Error::Memory)));
    let with = |more: &str| {
        let text = format!(
            r#"(module {more} (memory (export "memory") 1) (func (export "proxy_abi_version_0_2_0"))
               (func (export "malloc") (param i32) (result i32) (i32.const 8)))"#
        );
        compile(&text).unwrap().link(&Arc::default())
    };
    let error = with(r#"(import "env" "proxy_nonsense" (func))"#).unwrap_err();
    assert!(error.to_string().contains("proxy_nonsense"), "{error}");
    let error = with(r#"(import "env" "proxy_log" (func (param i64)))"#).unwrap_err();
    assert!(error.to_string().contains("proxy_log"), "{error}");
    assert!(with(r#"(import "wasi_snapshot_preview1" "sock_accept" (func (result i32)))"#).is_ok());
    assert!(matches!(start("n", Capabilities::default()), Err(Error::Configure)));
}

#[test]
fn capabilities_restrict_both_ways() {
    let all = ["proxy_on_request_headers", "proxy_get_buffer_bytes", "proxy_on_configure"];
    let mut probe = start("h", Capabilities::only(all)).unwrap();
    // It may not write to standard output.
    assert!(probe.seen.log.borrow().is_empty());
    let stream: Rc<FakeStream> = Rc::default();
    let context = probe.vm.create(probe.root, stream.clone()).unwrap();
    probe.vm.on_headers(context, Peer::Downstream, 0, true).unwrap();
    probe.vm.on_headers(context, Peer::Upstream, 0, true).unwrap();
    assert!(stream.set.borrow().is_empty());
}
