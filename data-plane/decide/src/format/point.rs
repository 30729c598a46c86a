//! Time points, between which `COMMON_DURATION` measures.

macro_rules! points {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// A moment of a connection or of a stream.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum TimePoint { $($(#[$doc])* $variant,)* }

        impl TimePoint {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// As configuration writes it.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

points! {
    /// The downstream connection was accepted.
    DownstreamConnected = "DS_CX_BEG",
    /// The downstream connection ended.
    DownstreamEnded = "DS_CX_END",
    /// The downstream TLS handshake began.
    HandshakeBegun = "DS_HS_BEG",
    /// The downstream TLS handshake was done.
    HandshakeDone = "DS_HS_END",
    /// The request began to arrive.
    RequestBegun = "DS_RX_BEG",
    /// The request's headers had arrived.
    RequestHeaders = "DS_RX_HDR_END",
    /// The request had arrived.
    RequestDone = "DS_RX_END",
    /// The upstream connection was begun.
    UpstreamConnecting = "US_CX_BEG",
    /// The upstream connection was there.
    UpstreamConnected = "US_CX_END",
    /// The upstream TLS handshake was done.
    UpstreamHandshakeDone = "US_HS_END",
    /// The request's first byte went upstream.
    UpstreamSending = "US_TX_BEG",
    /// The request's last byte went upstream.
    UpstreamSent = "US_TX_END",
    /// The response's first byte came from upstream.
    UpstreamReceiving = "US_RX_BEG",
    /// The first byte of the response's body came from upstream.
    UpstreamBody = "US_RX_BODY_BEG",
    /// The response's last byte came from upstream.
    UpstreamReceived = "US_RX_END",
    /// The response's first byte went downstream.
    ResponseBegun = "DS_TX_BEG",
    /// The response's last byte went downstream.
    ResponseDone = "DS_TX_END",
}

impl TimePoint {
    /// The point of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|point| point.name() == name)
    }
}
