//! Numbers of the ABI, as types.

/// What a host function returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Status {
    /// Done.
    Ok = 0,
    /// There is none.
    NotFound = 1,
    /// An argument makes no sense.
    BadArgument = 2,
    /// A value has no serialised form.
    SerializationFailure = 3,
    /// Bytes do not have the form that they should.
    ParseFailure = 4,
    /// Pointers lead out of memory.
    InvalidMemoryAccess = 6,
    /// A queue is empty.
    Empty = 7,
    /// Somebody else was faster.
    CasMismatch = 8,
    /// The host failed, or does not allow it.
    InternalFailure = 10,
    /// The host has no such function.
    Unimplemented = 12,
}

macro_rules! numbers {
    ($(#[$doc:meta])* $name:ident { $($(#[$item_doc:meta])* $item:ident = $number:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$item_doc])* $item = $number,)* }

        impl TryFrom<i32> for $name {
            type Error = Status;

            fn try_from(number: i32) -> Result<Self, Status> {
                match number {
                    $($number => Ok(Self::$item),)*
                    _ => Err(Status::BadArgument),
                }
            }
        }
    };
}

numbers! {
    /// How loud a message is.
    LogLevel {
        /// Everything.
        Trace = 0,
        /// For whoever writes the module.
        Debug = 1,
        /// Worth knowing.
        Info = 2,
        /// Worth a look.
        Warn = 3,
        /// Something failed.
        Error = 4,
        /// Nothing works.
        Critical = 5,
    }
}

numbers! {
    /// Maps of headers.
    MapKind {
        /// The request's.
        RequestHeaders = 0,
        /// The request's.
        RequestTrailers = 1,
        /// The response's.
        ResponseHeaders = 2,
        /// The response's.
        ResponseTrailers = 3,
        /// Of a gRPC call.
        GrpcInitialMetadata = 4,
        /// Of a gRPC call.
        GrpcTrailingMetadata = 5,
        /// Of an HTTP call.
        CallResponseHeaders = 6,
        /// Of an HTTP call.
        CallResponseTrailers = 7,
    }
}

numbers! {
    /// Bytes that a module may read.
    BufferKind {
        /// Of the request.
        RequestBody = 0,
        /// Of the response.
        ResponseBody = 1,
        /// From the client.
        DownstreamData = 2,
        /// From the server.
        UpstreamData = 3,
        /// Of an HTTP call.
        CallResponseBody = 4,
        /// Of a gRPC call.
        GrpcReceive = 5,
        /// `vm_config.configuration`
        VmConfiguration = 6,
        /// `configuration`
        PluginConfiguration = 7,
        /// Arguments of a foreign function.
        CallData = 8,
    }
}

numbers! {
    /// Kinds of statistics.
    MetricKind {
        /// Only grows.
        Counter = 0,
        /// Goes up and down.
        Gauge = 1,
        /// Counts values by size.
        Histogram = 2,
    }
}

numbers! {
    /// What goes on or is closed.
    StreamKind {
        /// The request.
        Request = 0,
        /// The response.
        Response = 1,
        /// The client's side of a connection.
        Downstream = 2,
        /// The server's side.
        Upstream = 3,
    }
}

/// What becomes of headers, as a module answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadersAction {
    /// They go on.
    Continue,
    /// They wait; the body is shown to the module meanwhile.
    StopIteration,
    /// They wait, and so does the body.
    StopAll,
}

/// What becomes of a piece of a body, or of trailers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataAction {
    /// It goes on, with what was kept.
    Continue,
    /// It is kept; the next call shows all that was kept.
    Buffer,
    /// Nothing more is read until the module asks for it.
    Watermark,
    /// It is thrown away: the module took it.
    Discard,
}

impl HeadersAction {
    pub(crate) fn of(number: i32, allow_stop_iteration: bool) -> Self {
        match number {
            0 => Self::Continue,
            1 if allow_stop_iteration => Self::StopIteration,
            _ => Self::StopAll,
        }
    }
}

impl DataAction {
    pub(crate) fn of(number: i32) -> Self {
        match number {
            0 => Self::Continue,
            1 => Self::Buffer,
            3 => Self::Discard,
            _ => Self::Watermark,
        }
    }
}
