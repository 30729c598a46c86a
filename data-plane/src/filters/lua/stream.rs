//! What a script works on: a request or a response while it is the script's, and what is left of it afterwards.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http::header::{CONTENT_LENGTH, HeaderMap, HeaderValue, TRANSFER_ENCODING};
use mlua::{Error, Lua};
use serde_json::{Map, Value};

use super::vm::mistake;
use crate::http::exchange::Exchange;
use crate::http::head::Head;

/// A head as scripts see it.
pub(super) enum Message {
    Request(Head),
    Response(Response<()>),
}

impl Message {
    pub(super) fn headers_mut(&mut self) -> &mut HeaderMap {
        match self {
            Self::Request(head) => &mut head.headers,
            Self::Response(response) => response.headers_mut(),
        }
    }

    /// What scripts still read after the head went on.
    fn copy(&self) -> Self {
        match self {
            Self::Request(head) => Self::Request(head.clone()),
            Self::Response(response) => {
                let mut copy = Response::new(());
                *copy.status_mut() = response.status();
                response.headers().clone_into(copy.headers_mut());
                Self::Response(copy)
            }
        }
    }
}

/// What a script waits for.
pub(super) enum Pending {
    /// The whole body; whether an empty one is given, too.
    Body(bool),
    Chunk,
    Trailers,
    Call(Box<Call>),
    /// Nothing more: it has answered.
    Respond(Box<Response<Bytes>>),
}

/// A request that a script makes.
pub(super) struct Call {
    pub(super) cluster: Arc<str>,
    pub(super) head: Head,
    pub(super) body: Option<Bytes>,
    pub(super) timeout: Option<Duration>,
    /// Whether headers that come twice are given as lists.
    pub(super) duplicates: bool,
}

/// A request or response in the hands of a script. Scripts may keep handles on it for as long as they like; once their
/// turn is over, there is nothing behind them.
pub(super) struct Stream {
    /// The filter's name, under which routes have metadata for it.
    pub(super) filter: Box<str>,
    pub(super) context: Option<Arc<Map<String, Value>>>,
    pub(super) clears_route: bool,
    exchange: RefCell<Option<Rc<Exchange>>>,
    pub(super) message: RefCell<Option<Message>>,
    /// The head went on.
    pub(super) continued: Cell<bool>,
    /// Some of the body was seen.
    pub(super) saw_body: Cell<bool>,
    /// The script has the whole body, or asked for it.
    pub(super) buffered: Cell<bool>,
    /// Nothing more comes.
    pub(super) ended: Cell<bool>,
    /// The body, or the chunk at hand.
    pub(super) body: RefCell<Bytes>,
    /// Counts chunks: what was got of one is not for the next.
    pub(super) chunk: Cell<u32>,
    pub(super) trailers: RefCell<Option<HeaderMap>>,
    pub(super) pending: RefCell<Option<Pending>>,
    /// Headers are walked through.
    pub(super) iterating: Cell<bool>,
    stale_route: Cell<bool>,
}

/// What a stream is made of besides its head.
pub(super) struct Setting<'a> {
    pub(super) filter: &'a str,
    pub(super) exchange: &'a Rc<Exchange>,
    pub(super) context: Option<Arc<Map<String, Value>>>,
    pub(super) clears_route: bool,
    /// There is no body.
    pub(super) ended: bool,
}

impl Stream {
    pub(super) fn new(message: Message, setting: Setting<'_>) -> Rc<Self> {
        Rc::new(Self {
            filter: setting.filter.into(),
            context: setting.context,
            clears_route: setting.clears_route,
            exchange: RefCell::new(Some(setting.exchange.clone())),
            message: RefCell::new(Some(message)),
            continued: Cell::new(false),
            saw_body: Cell::new(false),
            buffered: Cell::new(false),
            ended: Cell::new(setting.ended),
            body: RefCell::default(),
            chunk: Cell::new(0),
            trailers: RefCell::default(),
            pending: RefCell::default(),
            iterating: Cell::new(false),
            stale_route: Cell::new(false),
        })
    }

    /// The exchange, while the script's turn lasts.
    pub(super) fn exchange(&self, lua: &Lua) -> Result<Rc<Exchange>, Error> {
        let exchange = self.exchange.borrow().clone();
        exchange.ok_or_else(|| mistake(lua, 1, "object used outside of proper scope"))
    }

    /// As [`Self::exchange`], with the route chosen again where headers changed.
    pub(super) fn routed(&self, lua: &Lua) -> Result<Rc<Exchange>, Error> {
        let exchange = self.exchange(lua)?;
        self.find_route(&exchange);
        Ok(exchange)
    }

    fn find_route(&self, exchange: &Exchange) {
        if self.stale_route.get()
            && let Some(Message::Request(head)) = &*self.message.borrow()
        {
            self.stale_route.set(false);
            exchange.find_route(head);
        }
    }

    /// Whether it is a request; `None` once its turn is over.
    pub(super) fn is_request(&self) -> Option<bool> {
        self.message.borrow().as_ref().map(|message| matches!(message, Message::Request(_)))
    }

    /// The route is to be chosen again.
    pub(super) fn clear_route(&self) {
        if !self.continued.get() && self.is_request() == Some(true) {
            self.stale_route.set(true);
        }
    }

    /// Gives the head on. A copy stays for a script that is not at its end.
    pub(super) fn give_on(&self, runs_on: bool) -> Option<Message> {
        if let Some(exchange) = &*self.exchange.borrow() {
            self.find_route(exchange);
        }
        self.continued.set(true);
        let message = self.message.take();
        if runs_on {
            self.message.replace(message.as_ref().map(Message::copy));
        }
        message
    }

    /// The script's turn is over: whatever it kept is empty from now on.
    pub(super) fn end(&self) {
        self.exchange.take();
        self.message.take();
        self.body.take();
        self.trailers.take();
        self.pending.take();
    }

    /// Puts other bytes in the body's or chunk's place.
    pub(super) fn set_body(&self, bytes: Bytes) {
        if !self.continued.get()
            && let Some(message) = &mut *self.message.borrow_mut()
        {
            let headers = message.headers_mut();
            headers.remove(TRANSFER_ENCODING);
            headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes.len()));
        }
        self.body.replace(bytes);
    }
}
