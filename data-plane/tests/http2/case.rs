//! A case: what a client sends and what an upstream answers.

use crate::frames::{END_HEADERS, END_STREAM, HEADERS, PING, SETTINGS, block, frame, get};

/// Something that one end of a connection does.
#[derive(Clone)]
pub(crate) enum Step {
    /// Sends these bytes in one write.
    Send(Vec<u8>),
    /// Reads until a frame of this kind comes on this stream.
    Until(u8, u32),
    /// Reads until this stream is ended by the other end.
    End(u32),
    /// Reads until the other end has answered a PING, and so has read what was sent before.
    Settle,
    /// Waits until upstreams have seen so many requests.
    Asked(usize),
    /// Answers requests from now on.
    Serve,
    /// Sends nothing more.
    HalfClose,
    /// Closes the connection.
    Close,
}

pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// The listener that gets the client's connection.
    pub(crate) listener: &'static str,
    /// What the client says in place of its preface and SETTINGS.
    pub(crate) greeting: Option<Vec<u8>>,
    /// The payload of the client's SETTINGS.
    pub(crate) settings: Vec<u8>,
    /// Whether the client acknowledges the proxy's SETTINGS before its first step.
    pub(crate) acknowledges: bool,
    /// Whether the proxy answers PINGs when all is done.
    pub(crate) settles: bool,
    /// Whether PINGs are not answered.
    pub(crate) mute: bool,
    /// What the client does.
    pub(crate) steps: Vec<Step>,
    /// What the upstream does on its first connection; on others, and without this, it serves.
    pub(crate) upstream: Option<Vec<Step>>,
    /// Whether SETTINGS and updates of windows are of interest, and the order of frames of several streams.
    pub(crate) whole: bool,
}

/// A client that sends these bytes.
pub(crate) fn case(name: &'static str, bytes: impl Into<Vec<u8>>) -> Case {
    Case {
        name,
        listener: "l",
        greeting: None,
        settings: Vec::new(),
        acknowledges: true,
        settles: true,
        mute: false,
        steps: vec![Step::Send(bytes.into())],
        upstream: None,
        whole: false,
    }
}

/// A client whose request is with the upstream, which does not answer, when it sends this.
pub(crate) fn meanwhile(name: &'static str, bytes: impl Into<Vec<u8>>) -> Case {
    let mut case = case(name, opens(1, &post("/"))).upstream(Vec::new());
    case.steps.extend([Step::Asked(1), Step::Send(bytes.into())]);
    case
}

/// A client that was answered on stream 1 when it sends this.
pub(crate) fn afterwards(name: &'static str, bytes: impl Into<Vec<u8>>) -> Case {
    let mut case = case(name, asks(1, &get("/direct"))).ends(1);
    case.steps.push(Step::Send(bytes.into()));
    case
}

/// A client that asks for `/` and waits for the end, and an upstream that says this once the request is there.
pub(crate) fn answered(name: &'static str, bytes: impl Into<Vec<u8>>) -> Case {
    let asked = case(name, asks(1, &get("/"))).ends(1);
    asked.upstream(vec![Step::Until(HEADERS, 1), Step::Send(bytes.into())])
}

impl Case {
    pub(crate) fn on(self, listener: &'static str) -> Self {
        Self { listener, ..self }
    }

    pub(crate) fn greeting(self, bytes: impl Into<Vec<u8>>) -> Self {
        Self { greeting: Some(bytes.into()), ..self }
    }

    pub(crate) fn with_settings(self, settings: Vec<u8>) -> Self {
        Self { settings, ..self }
    }

    pub(crate) fn unacknowledged(self) -> Self {
        Self { acknowledges: false, ..self }
    }

    pub(crate) fn unsettled(self) -> Self {
        Self { settles: false, ..self }
    }

    pub(crate) fn mute(self) -> Self {
        Self { mute: true, ..self }
    }

    pub(crate) fn whole(self) -> Self {
        Self { whole: true, ..self }
    }

    /// Sends more at once.
    pub(crate) fn send(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.steps.push(Step::Send(bytes.into()));
        self
    }

    /// Sends more, once the proxy has read what came before.
    pub(crate) fn then(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.steps.extend([Step::Settle, Step::Send(bytes.into())]);
        self
    }

    /// Waits for the end of a stream.
    pub(crate) fn ends(mut self, stream: u32) -> Self {
        self.steps.push(Step::End(stream));
        self
    }

    /// Waits for a frame.
    pub(crate) fn until(mut self, kind: u8, stream: u32) -> Self {
        self.steps.push(Step::Until(kind, stream));
        self
    }

    /// Waits for the end of the connection.
    pub(crate) fn till_closed(self) -> Self {
        self.until(u8::MAX, 0).unsettled()
    }

    /// Closes the connection.
    pub(crate) fn close(mut self) -> Self {
        self.steps.push(Step::Close);
        self.unsettled()
    }

    /// Waits until upstreams have so many requests.
    pub(crate) fn asked(mut self, count: usize) -> Self {
        self.steps.push(Step::Asked(count));
        self
    }

    /// What the upstream does on its first connection, after empty SETTINGS.
    pub(crate) fn upstream(self, steps: Vec<Step>) -> Self {
        let mut all = vec![Step::Send(frame(SETTINGS, 0, 0, &[]))];
        all.extend(steps);
        self.bare_upstream(all)
    }

    /// The same, without SETTINGS.
    pub(crate) fn bare_upstream(self, steps: Vec<Step>) -> Self {
        Self { upstream: Some(steps), ..self }
    }

    /// The upstream goes on, once the proxy has read what it said.
    pub(crate) fn and(mut self, step: Step) -> Self {
        self.upstream.get_or_insert_default().extend([Step::Settle, step]);
        self
    }
}

/// A request that ends with these headers.
pub(crate) fn asks(stream: u32, block: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, block)
}

/// Headers that leave the stream open.
pub(crate) fn opens(stream: u32, block: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, block)
}

/// The fields of a POST for a path.
pub(crate) fn post(path: &str) -> Vec<u8> {
    block(&[(":method", "POST"), (":scheme", "http"), (":authority", "test"), (":path", path)])
}

/// The fields of a GET for a path, and these.
pub(crate) fn get_with(path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    [get(path), block(more)].concat()
}

/// A PING with another payload than that which settles.
pub(crate) fn ping() -> Vec<u8> {
    frame(PING, 0, 0, b"12345678")
}

/// Response headers with status 200, and these.
pub(crate) fn ok(stream: u32, more: &[(&str, &str)]) -> Vec<u8> {
    opens(stream, &[block(&[(":status", "200")]), block(more)].concat())
}
