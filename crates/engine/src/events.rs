//! Everything that the engine tells `tracing`: one table, one function each.
//!
//! All events have the target `sinew`. Nothing is told on the data path; what is not subscribed to costs one load. A subscriber is the
//! application's: it is told outside the engine's lock (by `core::Effects`, or `now` by those who do not hold it), so that it
//! may call the engine.

use crate::hex;
use sinew_transport::TransportError;
use tracing::level_filters::LevelFilter;

/// An event to be told when the engine's lock is free.
pub(crate) type Telling = Box<dyn FnOnce() + Send>;

/// Tells an event where nobody can take a subscriber's panic.
pub(crate) fn now(telling: Option<Telling>) {
    if let Some(tell) = telling {
        crate::panics::survives(tell);
    }
}

/// The filter that lets events of a level through.
macro_rules! filter {
    (debug) => {
        LevelFilter::DEBUG
    };
    (info) => {
        LevelFilter::INFO
    };
    (warn) => {
        LevelFilter::WARN
    };
    (error) => {
        LevelFilter::ERROR
    };
}

/// One row of [`TABLE`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EventRow {
    /// The field `event`.
    pub name: &'static str,
    /// Its level.
    pub level: &'static str,
    /// When it is told.
    pub help: &'static str,
}

macro_rules! events {
    ($($(#[doc = $help:literal])+ $name:ident : $level:ident ( $($field:ident : $type:ty = $value:expr),* );)+) => {
        /// Every event, for documentation and tests.
        pub const TABLE: &[EventRow] = &[$(EventRow {
            name: stringify!($name),
            level: stringify!($level),
            help: concat!($($help),+),
        }),+];

        $($(#[doc = $help])+
        pub(crate) fn $name($($field: $type),*) -> Option<Telling> {
            // Nobody of the application is asked here: this is called under the lock.
            if LevelFilter::current() < filter!($level) {
                return None;
            }
            $(let $field = $value.to_string();)*
            Some(Box::new(move || {
                tracing::$level!(target: "sinew", event = stringify!($name), $($field = %$field),*);
            }))
        })+
    };
}

events! {
    /// A session has its first lane, or another one after it had lost all.
    session_up: info(peer: &[u8; 16] = hex(peer), transport: &str = transport);
    /// A session is over, for ever.
    session_lost: warn(peer: &[u8; 16] = hex(peer), reason: &str = reason, unknown_fate: u64 = unknown_fate);
    /// A lane failed; its session goes on if it finds another.
    lane_lost: info(transport: &str = transport, locator: &str = locator, error: &TransportError = error);
    /// The peer closed a lane that it does not need.
    lane_closed: debug(transport: &str = transport, locator: &str = locator);
    /// A session moved to a better lane.
    lane_moved: info(peer: &[u8; 16] = hex(peer), from: &str = from, to: &str = to);
    /// Somebody connected and was turned away.
    stranger: debug(transport: &str = transport, from: &str = from, error: &TransportError = error);
    /// A listener cannot accept at present.
    listener_failed: warn(transport: &str = transport, error: &TransportError = error);
    /// A receive was given up unseen that had got a longer message than it had memory for: the message is gone.
    truncated_unseen: warn(tag: u64 = tag, message_len: u64 = message_len, buffer_len: usize = buffer_len);
    /// A receive handler panicked and is unregistered.
    handler_panicked: error(tag: u64 = tag);
    /// A function that was given to `on_complete` panicked.
    function_panicked: error();
    /// A waker, or the drop of a buffer, panicked on the engine's own thread, which goes on.
    thread_panicked: error();
}
