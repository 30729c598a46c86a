//! A request and its response, as a module sees them: heads while they are here, pieces of bodies as they pass by.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};

use bytes::Bytes;
use hashbrown::HashMap;
use http::StatusCode;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use sail_proxy_decide::headers::AppendAction;
use sail_proxy_wasm::{
    BufferKind, Context, DataAction, HeadersAction, LocalResponse, MapKind, Pairs, Peer, Status, Stream,
    StreamKind,
};

use super::body::Shown;
use super::{refusal, too_large};
use crate::access_log::{LogType, View};
use crate::filters::edit;
use crate::http::body::Body;
use crate::http::exchange::Exchange;
use crate::http::handler::Reply;
use crate::http::head::Head;
use crate::http::local_reply::LocalReply;
use crate::wasm::{Running, Turn, Wake, of_stream};

/// What `proxy_set_property` wrote, for every wasm filter of the stream.
#[derive(Default)]
struct Properties(HashMap<Box<str>, Bytes>);

const PROPERTIES: &str = "wasm properties";

/// See the module's documentation.
pub(super) struct HttpStream {
    /// The exchange holds this.
    exchange: Weak<Exchange>,
    running: Rc<Running>,
    context: Cell<Option<Context>>,
    pub(super) fails_open: bool,
    request: RefCell<Option<Head>>,
    /// The response's head, without its body.
    response: RefCell<Option<http::Response<()>>>,
    sides: [Side; 2],
    answer: RefCell<Option<LocalReply>>,
    answered: Cell<bool>,
    route_changed: Cell<bool>,
}

#[derive(Default)]
struct Side {
    turn: Turn,
    resumed: Cell<bool>,
    /// The head is with us: the module may change it.
    live: Cell<bool>,
    body: RefCell<Option<Bytes>>,
    trailers: RefCell<Option<HeaderMap>>,
}

impl HttpStream {
    /// A context of its own in the VM.
    pub(super) fn begin(
        exchange: &Rc<Exchange>,
        running: Rc<Running>,
        root: u32,
        fails_open: bool,
    ) -> Option<Rc<Self>> {
        let stream = Rc::new(Self {
            exchange: Rc::downgrade(exchange),
            running,
            context: Cell::new(None),
            fails_open,
            request: RefCell::default(),
            response: RefCell::default(),
            sides: Default::default(),
            answer: RefCell::default(),
            answered: Cell::new(false),
            route_changed: Cell::new(false),
        });
        let shown: Rc<dyn Stream> = stream.clone();
        let context = stream.running.call(|vm| vm.create(root, shown))?;
        stream.context.set(Some(context));
        let waiting: Rc<dyn Wake> = stream.clone();
        stream.running.watch(Rc::downgrade(&waiting));
        Some(stream)
    }

    fn side(&self, peer: Peer) -> &Side {
        match peer {
            Peer::Downstream => &self.sides[0],
            Peer::Upstream => &self.sides[1],
        }
    }

    pub(super) fn turn(&self, peer: Peer) -> &Turn {
        &self.side(peer).turn
    }

    pub(super) fn take_resumed(&self, peer: Peer) -> bool {
        self.side(peer).resumed.take()
    }

    pub(super) fn is_failed(&self) -> bool {
        self.running.is_failed()
    }

    /// Whether the module says nothing more of this stream.
    pub(super) fn is_over(&self) -> bool {
        self.answered.get() || self.is_failed()
    }

    pub(super) fn take_answer(&self) -> Option<LocalReply> {
        self.answer.take()
    }

    /// A response is here, perhaps the module's own.
    pub(super) fn begin_response(&self) {
        self.answered.set(false);
    }

    /// Nothing more is held back: too much is.
    pub(super) fn give_up(&self, peer: Peer) {
        self.answered.set(true);
        self.answer.replace(Some(match peer {
            Peer::Downstream => too_large(),
            Peer::Upstream => {
                LocalReply::new(StatusCode::INTERNAL_SERVER_ERROR, "", "response_payload_too_large")
            }
        }));
    }

    pub(super) fn take_request(&self, head: &mut Head) {
        self.sides[0].live.set(true);
        // What is left behind is not looked at until the head is back.
        let here = std::mem::replace(head, Head::empty());
        self.request.replace(Some(here));
    }

    /// Gives the head back and keeps a copy; says whether the module changed it.
    pub(super) fn release_request(&self, head: &mut Head) -> bool {
        self.sides[0].live.set(false);
        if let Some(here) = &*self.request.borrow() {
            *head = here.clone();
        }
        self.route_changed.take()
    }

    pub(super) fn take_response(&self, reply: &mut Reply) {
        self.sides[1].live.set(true);
        let mut here = http::Response::new(());
        *here.status_mut() = reply.response.status();
        *here.headers_mut() = std::mem::take(reply.response.headers_mut());
        self.response.replace(Some(here));
    }

    pub(super) fn release_response(&self, reply: &mut Reply) {
        self.sides[1].live.set(false);
        if let Some(here) = &*self.response.borrow() {
            *reply.response.status_mut() = here.status();
            *reply.response.headers_mut() = here.headers().clone();
        }
    }

    /// Shows the head that is here.
    pub(super) fn on_headers(&self, peer: Peer, end: bool) -> Option<HeadersAction> {
        let context = self.context.get()?;
        let count = match peer {
            Peer::Downstream => {
                self.request.borrow().as_ref().map(|head| edit::request_headers(head).count())
            }
            Peer::Upstream => self.response.borrow().as_ref().map(|head| head.headers().len() + 1),
        };
        self.running.call(|vm| vm.on_headers(context, peer, count.unwrap_or(0), end))
    }

    pub(super) fn sees_body(&self, peer: Peer) -> bool {
        self.running.sees(peer).0
    }

    /// Puts the module into a body's way, where it wants to be.
    pub(super) fn show(self: &Rc<Self>, peer: Peer, body: &mut Body) {
        let (data, trailers) = self.running.sees(peer);
        if !http_body::Body::is_end_stream(body) && (data || trailers) && !self.is_over() {
            let inner = std::mem::replace(body, Body::Empty);
            *body = Body::boxed(Shown::new(inner, self.clone(), peer));
        }
    }

    /// Shows a piece of a body; gives it back as the module left it.
    pub(super) fn on_body(&self, peer: Peer, data: Bytes, end: bool) -> (Option<DataAction>, Bytes) {
        let Some(context) = self.context.get() else { return (None, data) };
        let size = data.len();
        let place = &self.side(peer).body;
        place.replace(Some(data));
        let action = self.running.call(|vm| vm.on_body(context, peer, size, end));
        (action, place.take().unwrap_or_default())
    }

    /// Shows trailers; gives them back as the module left them.
    pub(super) fn on_trailers(&self, peer: Peer, trailers: HeaderMap) -> (Option<DataAction>, HeaderMap) {
        let Some(context) = self.context.get() else { return (None, trailers) };
        let count = trailers.len();
        let place = &self.side(peer).trailers;
        place.replace(Some(trailers));
        let action = self.running.call(|vm| vm.on_trailers(context, peer, count));
        (action, place.borrow().clone().unwrap_or_default())
    }

    /// The stream is over.
    pub(super) fn end(&self, exchange: &Exchange) {
        let Some(context) = self.context.take() else { return };
        let code = exchange.info.borrow().response_code;
        if let Some(status) = code.and_then(|code| StatusCode::from_u16(code).ok()) {
            // What was sent in the end, whoever had the last word.
            *self.response.borrow_mut().get_or_insert_default().status_mut() = status;
        }
        self.running.end(context);
    }

    /// A map to be read.
    fn read<R>(&self, map: MapKind, read: impl FnOnce(Seen<'_>) -> R) -> Result<R, Status> {
        let none = Status::BadArgument;
        match map {
            MapKind::RequestHeaders => self.request.borrow().as_ref().map(|head| read(Seen::Request(head))),
            MapKind::ResponseHeaders => {
                self.response.borrow().as_ref().map(|head| read(Seen::Response(head)))
            }
            MapKind::RequestTrailers => {
                self.sides[0].trailers.borrow().as_ref().map(|trailers| read(Seen::Trailers(trailers)))
            }
            MapKind::ResponseTrailers => {
                self.sides[1].trailers.borrow().as_ref().map(|trailers| read(Seen::Trailers(trailers)))
            }
            _ => None,
        }
        .ok_or(none)
    }

    /// Sets a header of a map that is here.
    fn set(&self, map: MapKind, name: &str, value: &[u8], action: AppendAction) -> Result<(), Status> {
        let lower = name.to_ascii_lowercase();
        let invalid = |_: edit::Invalid| Status::BadArgument;
        match map {
            MapKind::RequestHeaders if self.sides[0].live.get() => {
                let mut head = self.request.borrow_mut();
                let head = head.as_mut().ok_or(Status::BadArgument)?;
                self.route_changed.set(true);
                edit::set_request(head, &lower, value, action).map_err(invalid)
            }
            MapKind::ResponseHeaders if self.sides[1].live.get() => {
                let mut head = self.response.borrow_mut();
                let head = head.as_mut().ok_or(Status::BadArgument)?;
                edit::set_response(head, &lower, value, action).map_err(invalid)
            }
            MapKind::RequestTrailers | MapKind::ResponseTrailers => {
                let side = &self.sides[usize::from(map == MapKind::ResponseTrailers)];
                let mut trailers = side.trailers.borrow_mut();
                let trailers = trailers.as_mut().ok_or(Status::BadArgument)?;
                edit::set(trailers, &lower, value, action).map_err(invalid)
            }
            _ => Err(Status::BadArgument),
        }
    }
}

/// A map as it is read.
enum Seen<'a> {
    Request(&'a Head),
    Response(&'a http::Response<()>),
    Trailers(&'a HeaderMap),
}

fn copy(name: &str, value: &[u8]) -> (Bytes, Bytes) {
    (Bytes::copy_from_slice(name.as_bytes()), Bytes::copy_from_slice(value))
}

fn pairs(headers: &HeaderMap) -> impl Iterator<Item = (Bytes, Bytes)> + '_ {
    headers.iter().map(|(name, value)| copy(name.as_str(), value.as_bytes()))
}

impl Wake for HttpStream {
    fn wake(&self) {
        self.sides.iter().for_each(|side| side.turn.wake());
    }
}

impl Stream for HttpStream {
    fn pairs(&self, map: MapKind) -> Result<Pairs, Status> {
        self.read(map, |seen| match seen {
            Seen::Request(head) => {
                edit::request_headers(head).map(|(name, value)| copy(name, value)).collect()
            }
            Seen::Response(head) => {
                let status = copy(":status", head.status().as_str().as_bytes());
                std::iter::once(status).chain(pairs(head.headers())).collect()
            }
            Seen::Trailers(trailers) => pairs(trailers).collect(),
        })
    }

    fn value(&self, map: MapKind, name: &str) -> Result<Option<Bytes>, Status> {
        let name = name.to_ascii_lowercase();
        let of =
            |headers: &HeaderMap| headers.get(&name).map(|value| Bytes::copy_from_slice(value.as_bytes()));
        self.read(map, |seen| match seen {
            Seen::Request(head) => {
                let wanted = if name == "host" { ":authority" } else { &name };
                let mut all = edit::request_headers(head);
                let found = all.find(|(name, _)| *name == wanted);
                found.map(|(_, value)| Bytes::copy_from_slice(value))
            }
            Seen::Response(head) if name == ":status" => {
                Some(Bytes::copy_from_slice(head.status().as_str().as_bytes()))
            }
            Seen::Response(head) => of(head.headers()),
            Seen::Trailers(trailers) => of(trailers),
        })
    }

    fn set_pairs(&self, map: MapKind, pairs: &[(&[u8], &[u8])]) -> Result<(), Status> {
        let live = match map {
            MapKind::RequestHeaders => self.sides[0].live.get(),
            MapKind::ResponseHeaders => self.sides[1].live.get(),
            _ => true,
        };
        if !live {
            return Err(Status::BadArgument);
        }
        match map {
            MapKind::RequestHeaders => {
                if let Some(head) = self.request.borrow_mut().as_mut() {
                    head.headers.clear();
                }
            }
            MapKind::ResponseHeaders => {
                if let Some(head) = self.response.borrow_mut().as_mut() {
                    head.headers_mut().clear();
                }
            }
            MapKind::RequestTrailers => {
                self.sides[0].trailers.replace(Some(HeaderMap::new()));
            }
            MapKind::ResponseTrailers => {
                self.sides[1].trailers.replace(Some(HeaderMap::new()));
            }
            _ => return Err(Status::BadArgument),
        }
        for (name, value) in pairs {
            let name = std::str::from_utf8(name).map_err(|_| Status::BadArgument)?;
            self.set(map, name, value, AppendAction::AppendIfExistsOrAdd)?;
        }
        Ok(())
    }

    fn add(&self, map: MapKind, name: &str, value: &[u8]) -> Result<(), Status> {
        self.set(map, name, value, AppendAction::AppendIfExistsOrAdd)
    }

    fn replace(&self, map: MapKind, name: &str, value: &[u8]) -> Result<(), Status> {
        self.set(map, name, value, AppendAction::OverwriteIfExistsOrAdd)
    }

    fn remove(&self, map: MapKind, name: &str) -> Result<(), Status> {
        let name = name.to_ascii_lowercase();
        match map {
            MapKind::RequestHeaders if self.sides[0].live.get() => {
                if let Some(head) = self.request.borrow_mut().as_mut() {
                    edit::remove(&mut head.headers, &name);
                    head.present = crate::http::scan::Present::of(&head.headers);
                    self.route_changed.set(true);
                }
            }
            MapKind::ResponseHeaders if self.sides[1].live.get() => {
                if let Some(head) = self.response.borrow_mut().as_mut() {
                    edit::remove(head.headers_mut(), &name);
                }
            }
            MapKind::RequestTrailers | MapKind::ResponseTrailers => {
                let side = &self.sides[usize::from(map == MapKind::ResponseTrailers)];
                let mut trailers = side.trailers.borrow_mut();
                edit::remove(trailers.as_mut().ok_or(Status::BadArgument)?, &name);
            }
            _ => return Err(Status::BadArgument),
        }
        Ok(())
    }

    fn buffer(&self, kind: BufferKind) -> Result<Bytes, Status> {
        let side = match kind {
            BufferKind::RequestBody => &self.sides[0],
            BufferKind::ResponseBody => &self.sides[1],
            _ => return Err(Status::NotFound),
        };
        side.body.borrow().clone().ok_or(Status::NotFound)
    }

    fn set_buffer(&self, kind: BufferKind, bytes: Bytes) -> Result<(), Status> {
        let side = match kind {
            BufferKind::RequestBody => &self.sides[0],
            BufferKind::ResponseBody => &self.sides[1],
            _ => return Err(Status::NotFound),
        };
        side.body.replace(Some(bytes));
        Ok(())
    }

    fn property(&self, path: &[&str]) -> Option<Vec<u8>> {
        let exchange = self.exchange.upgrade()?;
        let kept = {
            let mut state = exchange.state();
            let properties: Option<Properties> = state.take(PROPERTIES);
            properties.and_then(|properties| {
                let found = properties.0.get(&*path.join("\0")).map(|value| value.to_vec());
                state.put(PROPERTIES, properties);
                found
            })
        };
        if kept.is_some() {
            return kept;
        }
        let info = exchange.info.borrow();
        let head = self.request.borrow();
        let response = self.response.borrow();
        let mut view = match &*head {
            Some(head) => View::of_request(&info, head),
            None => View::new(&info, LogType::NotAccepted),
        };
        if let Some(response) = &*response {
            view = view.with_response(response.headers());
            if let ["response", "code"] = path {
                return Some(i64::from(response.status().as_u16()).to_le_bytes().to_vec());
            }
        }
        of_stream(&exchange, &view, path)
    }

    fn set_property(&self, path: &str, value: &[u8]) -> Result<(), Status> {
        let exchange = self.exchange.upgrade().ok_or(Status::NotFound)?;
        if let Ok(text) = std::str::from_utf8(value) {
            let key = format!("wasm.{path}");
            let states = &mut exchange.info.borrow_mut().filter_state;
            states.retain(|(name, _)| **name != *key);
            states.push((key.into(), text.into()));
        }
        let mut state = exchange.state();
        let mut properties: Properties = state.take(PROPERTIES).unwrap_or_default();
        properties.0.insert(path.into(), Bytes::copy_from_slice(value));
        state.put(PROPERTIES, properties);
        Ok(())
    }

    fn resume(&self, kind: StreamKind) -> Result<(), Status> {
        let side = match kind {
            StreamKind::Request => &self.sides[0],
            StreamKind::Response => &self.sides[1],
            _ => return Err(Status::BadArgument),
        };
        side.resumed.set(true);
        side.turn.wake();
        Ok(())
    }

    fn close(&self, kind: StreamKind) -> Result<(), Status> {
        if !matches!(kind, StreamKind::Request | StreamKind::Response) {
            return Err(Status::BadArgument);
        }
        if !self.answered.replace(true) {
            let mut reply = refusal();
            reply.details = "wasm_close_stream".into();
            self.answer.replace(Some(reply));
        }
        self.wake();
        Ok(())
    }

    fn respond(&self, response: LocalResponse) -> Result<(), Status> {
        if self.answered.replace(true) {
            return Ok(());
        }
        let LocalResponse { status, details, body, headers, grpc_status } = response;
        let status = u16::try_from(status).ok().and_then(|code| StatusCode::from_u16(code).ok());
        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut reply = LocalReply::new(status, "", details.replace(char::is_whitespace, "_"));
        reply.body = String::from_utf8_lossy(&body).into_owned().into();
        reply.grpc_status = grpc_status;
        let header = |(name, value): (Bytes, Bytes)| {
            Some((HeaderName::from_bytes(&name).ok()?, HeaderValue::from_bytes(&value).ok()?))
        };
        reply.headers = headers.into_iter().filter_map(header).collect();
        self.answer.replace(Some(reply));
        self.wake();
        Ok(())
    }

    fn clear_route_cache(&self) {
        self.route_changed.set(true);
    }

    fn is_answered(&self) -> bool {
        self.answered.get()
    }
}
