//! The calls of the traits that a wrapper passes on unchanged, each written once: [`forward!`](crate::forward).
//!
//! Used by the wrappers beside it and by tests that wrap lanes. A wrapper names the calls that it passes on to its field
//! `inner` and writes the others itself; the compiler says when one is in neither list.

/// Inside an `impl` of [`Transport`](crate::Transport), [`Domain`](crate::Domain), [`Link`](crate::Link),
/// [`Lane`](crate::Lane) or [`Sink`](crate::Sink): passes the calls that are named on to the field `inner`. Calls that have a
/// default must be named too, or they get that default.
///
/// ```
/// use sinew_transport::{Domain, Link, Locator, TransportError};
///
/// /// Dials nobody.
/// struct Shy {
///     inner: Box<dyn Domain>,
/// }
///
/// impl Domain for Shy {
///     fn dial(&mut self, to: &Locator, _owner: u32) -> Result<Box<dyn Link>, TransportError> {
///         Err(TransportError::new(sinew_transport::ErrorKind::PermissionDenied, "dial", to.to_string()))
///     }
///
///     sinew_transport::forward! { Domain:
///         locators, understands, accept, handle_event, poll_warm, arm, disarm, allocate_segment }
/// }
/// ```
#[macro_export]
macro_rules! forward {
    ($of:ident: $($call:ident),+ $(,)?) => { $( $crate::forward!(@ $of $call); )+ };

    (@ Transport name) => { fn name(&self) -> &'static str { self.inner.name() } };
    (@ Transport probe) => { fn probe(&self) -> $crate::Availability { self.inner.probe() } };
    (@ Transport expectation) => {
        fn expectation(&self) -> ($crate::Capabilities, $crate::Cost) { self.inner.expectation() }
    };
    (@ Transport lanes_per_session) => {
        fn lanes_per_session(&self) -> $crate::LaneCount { self.inner.lanes_per_session() }
    };

    (@ Domain locators) => { fn locators(&self) -> Vec<$crate::Locator> { self.inner.locators() } };
    (@ Domain understands) => {
        fn understands(&self, scheme: &str) -> bool { self.inner.understands(scheme) }
    };
    (@ Domain accept) => {
        fn accept(&mut self, owner: u32) -> Result<Option<Box<dyn $crate::Link>>, $crate::TransportError> {
            self.inner.accept(owner)
        }
    };
    (@ Domain handle_event) => {
        fn handle_event(&mut self, event: $crate::Event) { self.inner.handle_event(event); }
    };
    (@ Domain poll_warm) => {
        fn poll_warm(&mut self, owners: &mut Vec<u32>) { self.inner.poll_warm(owners); }
    };
    (@ Domain arm) => { fn arm(&mut self) -> bool { self.inner.arm() } };
    (@ Domain disarm) => { fn disarm(&mut self) { self.inner.disarm(); } };
    (@ Domain allocate_segment) => {
        fn allocate_segment(
            &mut self,
            len: usize,
        ) -> Result<Option<Box<dyn $crate::Segment>>, $crate::TransportError> {
            self.inner.allocate_segment(len)
        }
    };

    (@ Link poll) => {
        fn poll(&mut self) -> Result<$crate::LinkState, $crate::TransportError> { self.inner.poll() }
    };
    (@ Link try_send) => {
        fn try_send(&mut self, record: &$crate::Record) -> Result<bool, $crate::TransportError> {
            self.inner.try_send(record)
        }
    };
    (@ Link try_recv) => {
        fn try_recv(&mut self, record: &mut $crate::Record) -> Result<bool, $crate::TransportError> {
            self.inner.try_recv(record)
        }
    };
    (@ Link identity) => { fn identity(&self) -> $crate::Identity { self.inner.identity() } };
    (@ Link describe) => { fn describe(&self) -> String { self.inner.describe() } };

    (@ Lane info) => { fn info(&self) -> &$crate::LaneInfo { self.inner.info() } };
    (@ Lane try_post) => {
        fn try_post(
            &mut self,
            header: &$crate::Header,
            body: &[std::io::IoSlice<'_>],
        ) -> Result<(), $crate::PostError> {
            self.inner.try_post(header, body)
        }
    };
    (@ Lane post_through) => {
        fn post_through(&mut self, header: &$crate::Header, body: &[u8]) -> Result<bool, $crate::LaneError> {
            self.inner.post_through(header, body)
        }
    };
    (@ Lane try_post_borrowed) => {
        unsafe fn try_post_borrowed(
            &mut self,
            header: &$crate::Header,
            data: std::ptr::NonNull<u8>,
            len: usize,
            token: $crate::Token,
        ) -> Result<(), $crate::PostError> {
            // SAFETY: the same contract.
            unsafe { self.inner.try_post_borrowed(header, data, len, token) }
        }
    };
    (@ Lane reclaim) => { fn reclaim(&mut self, token: $crate::Token) { self.inner.reclaim(token); } };
    (@ Lane flush) => { fn flush(&mut self) -> Result<(), $crate::LaneError> { self.inner.flush() } };
    (@ Lane is_held_up) => { fn is_held_up(&self) -> bool { self.inner.is_held_up() } };
    (@ Lane backlog) => { fn backlog(&self) -> Option<$crate::Backlog> { self.inner.backlog() } };
    (@ Lane remark) => { fn remark(&self) -> String { self.inner.remark() } };
    (@ Lane has_more) => { fn has_more(&self) -> bool { self.inner.has_more() } };
    (@ Lane peek) => { fn peek(&mut self, take: bool, looks: u32) -> $crate::Peek<'_> { self.inner.peek(take, looks) } };
    (@ Lane read) => { fn read(&mut self, take: bool, looks: u32) -> $crate::Peek<'_> { self.inner.read(take, looks) } };
    (@ Lane take_peeked) => { fn take_peeked(&mut self) { self.inner.take_peeked(); } };
    (@ Lane poll) => {
        fn poll(&mut self, sink: &mut dyn $crate::Sink, budget: usize) -> Result<usize, $crate::LaneError> {
            self.inner.poll(sink, budget)
        }
    };
    (@ Lane handle_event) => {
        fn handle_event(&mut self, event: $crate::Event) { self.inner.handle_event(event); }
    };
    (@ Lane handle_timer) => {
        fn handle_timer(&mut self, now: std::time::Instant) -> Result<(), $crate::LaneError> {
            self.inner.handle_timer(now)
        }
    };
    (@ Lane next_timer) => {
        fn next_timer(&self) -> Option<std::time::Instant> { self.inner.next_timer() }
    };
    (@ Lane unacknowledged) => { fn unacknowledged(&self) -> u64 { self.inner.unacknowledged() } };
    (@ Lane request_acknowledgement) => {
        fn request_acknowledgement(&mut self) { self.inner.request_acknowledgement(); }
    };
    (@ Lane acknowledge) => { fn acknowledge(&mut self) { self.inner.acknowledge(); } };
    (@ Lane recover) => {
        fn recover(&mut self) -> Vec<$crate::Unacknowledged> { self.inner.recover() }
    };
    (@ Lane revoke) => { fn revoke(&mut self, token: $crate::Token) { self.inner.revoke(token); } };
    (@ Lane redirect) => {
        unsafe fn redirect(&mut self, from: $crate::Token, target: std::ptr::NonNull<u8>, to: $crate::Token) {
            // SAFETY: the same contract.
            unsafe { self.inner.redirect(from, target, to) }
        }
    };
    (@ Lane cool) => { fn cool(&mut self) -> bool { self.inner.cool() } };
    (@ Lane describe) => {
        fn describe(&mut self, buf: &$crate::Buf) -> Result<Option<$crate::Descriptor>, $crate::LaneError> {
            self.inner.describe(buf)
        }
    };
    (@ Lane describe_lent) => {
        fn describe_lent(
            &mut self,
            data: std::ptr::NonNull<u8>,
            len: usize,
        ) -> Result<Option<$crate::Descriptor>, $crate::LaneError> {
            self.inner.describe_lent(data, len)
        }
    };
    (@ Lane crossings) => {
        fn crossings(&self, whole_max: usize) -> Vec<$crate::Crossing> { self.inner.crossings(whole_max) }
    };
    (@ Lane memory) => { fn memory(&self) -> String { self.inner.memory() } };
    (@ Lane recall) => { fn recall(&mut self) { self.inner.recall(); } };
    (@ Lane pull) => {
        unsafe fn pull(
            &mut self,
            from: &$crate::Descriptor,
            target: std::ptr::NonNull<u8>,
            len: usize,
            token: $crate::Token,
        ) -> Result<$crate::Pull, $crate::LaneError> {
            // SAFETY: the same contract.
            unsafe { self.inner.pull(from, target, len, token) }
        }
    };
    (@ Lane view) => {
        fn view(&mut self, from: &$crate::Descriptor) -> Result<$crate::View, $crate::LaneError> {
            self.inner.view(from)
        }
    };
    (@ Lane take_view) => {
        fn take_view(&mut self, view: $crate::View) -> Option<$crate::View> { self.inner.take_view(view) }
    };
    (@ Lane close) => { fn close(&mut self) { self.inner.close(); } };

    (@ Sink frame) => {
        fn frame(&mut self, header: &$crate::Header, body: $crate::Body<'_>) {
            self.inner.frame(header, body);
        }
    };
    (@ Sink place_message) => {
        fn place_message(
            &mut self,
            header: &$crate::Header,
            len: usize,
        ) -> Option<(std::ptr::NonNull<u8>, $crate::Token)> {
            self.inner.place_message(header, len)
        }
    };
    (@ Sink expected) => {
        fn expected(&mut self) -> Option<(std::ptr::NonNull<u8>, usize)> { self.inner.expected() }
    };
    (@ Sink place) => {
        fn place(&mut self, header: &$crate::Header, len: usize) -> $crate::Placement {
            self.inner.place(header, len)
        }
    };
    (@ Sink placed) => {
        fn placed(&mut self, header: &$crate::Header, len: usize) { self.inner.placed(header, len); }
    };
    (@ Sink released) => { fn released(&mut self, token: $crate::Token) { self.inner.released(token); } };
    (@ Sink pulled) => {
        fn pulled(&mut self, token: $crate::Token, result: Result<(), $crate::LaneError>) {
            self.inner.pulled(token, result);
        }
    };
}
