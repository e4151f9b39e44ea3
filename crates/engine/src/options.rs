//! The engine's options: one row each.

sinew_base::options! {
    /// How an engine behaves. From the environment by [`EngineOptions::from_environment`], or by its setters.
    pub struct EngineOptions {
        /// How long a blocking call waits unless it says otherwise.
        timeout: wait = "60s", cost "none";
        /// How long a connect may take.
        connect_timeout: duration = "10s", cost "none";
        /// How long one link may take to be proven.
        handshake_timeout: duration = "3s", cost "a half-open connection holds a descriptor for so long";
        /// How long a peer beyond this machine may be silent, or be without any lane, before it is lost.
        peer_timeout: duration = "10s", cost "operations towards a dead host end that late";
        /// How long one candidate has before the next one is tried beside it.
        stagger: duration = "30ms", cost "none";
        /// How long a waiting thread spins before it sleeps.
        spin: duration = "300us", cost "processor time of each wait; a sleeping thread wakes up about 20 us late";
        /// Longest message that travels at once; longer ones are fetched by the receiver.
        eager_max: bytes = "64kb", cost "receive memory, within the windows";
        /// Bytes of messages that the engine keeps for a peer whose credit is spent.
        send_buffer: bytes = "64mb", cost "memory, for each peer";
        /// Accepted connections that are not proven yet, at most an eighth of the descriptors that the process may have; the
        /// oldest gives way.
        half_open_max: count = "2048", cost "a descriptor each";
        /// Unexpected bytes that one peer may have waiting at one endpoint.
        endpoint_window: bytes = "1mb", cost "memory, for each endpoint and peer that floods it";
        /// Unexpected bytes that one peer may have waiting in all.
        session_window: bytes = "8mb", cost "memory, for each peer";
        /// Envelopes that one peer may have waiting at one endpoint.
        endpoint_envelopes: count = "131072", cost "about 100 bytes each";
        /// Envelopes that one peer may have waiting in all.
        session_envelopes: count = "524288", cost "about 100 bytes each";
        /// Whether endpoints measure how long blocking calls take.
        histograms: flag = "no", cost "two readings of the clock for each call, 50 kB for each endpoint";
        /// Where sockets and the user's secret are; empty: $XDG_RUNTIME_DIR/sinew or /tmp/sinew-UID.
        runtime_dir: path = "", cost "none";
    }
}
