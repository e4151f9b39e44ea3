//! An endpoint: where messages are matched. Memory only; at most 1 KiB while idle.

use super::op::Unexpected;
use super::session::Windows;
use super::table::Key;
use super::{Core, inbound};
use crate::error::{BuildError, OpError};
use sinew_proto::credit::ReceiveCredit;
use sinew_proto::matching::Matcher;
use sinew_wire::frame::{Header, Kind};

/// What one session may send to one endpoint.
#[derive(Debug)]
pub(crate) struct InFlow {
    pub(crate) session: Key,
    pub(crate) bytes: ReceiveCredit,
    pub(crate) envelopes: ReceiveCredit,
}

#[derive(Debug)]
pub(crate) struct EndpointState {
    pub(crate) number: u32,
    pub(crate) name: Option<String>,
    pub(crate) matcher: Matcher<Key, Unexpected>,
    pub(crate) inflows: Vec<InFlow>,
    /// Index of the flow that was used last.
    pub(crate) last_inflow: usize,
    pub(crate) messages_sent: u64,
    pub(crate) messages_received: u64,
    pub(crate) bytes_sent: u64,
    pub(crate) bytes_received: u64,
}

impl EndpointState {
    #[inline(always)]
    pub(crate) fn inflow(&mut self, session: Key, windows: &Windows) -> &mut InFlow {
        let last = self.last_inflow;
        if self.inflows.get(last).is_none_or(|flow| flow.session != session) {
            self.last_inflow = self.find_inflow(session, windows);
        }
        &mut self.inflows[self.last_inflow]
    }

    #[cold]
    fn find_inflow(&mut self, session: Key, windows: &Windows) -> usize {
        if let Some(found) = self.inflows.iter().position(|flow| flow.session == session) {
            return found;
        }
        self.inflows.push(InFlow {
            session,
            bytes: ReceiveCredit::new(windows.endpoint_bytes),
            envelopes: ReceiveCredit::new(windows.endpoint_envelopes),
        });
        self.inflows.len() - 1
    }
}

impl Core {
    /// Makes an endpoint.
    pub(crate) fn create_endpoint(&mut self, name: Option<&str>) -> Result<u32, BuildError> {
        if self.closed {
            return Err(BuildError::Closed);
        }
        if let Some(name) = name {
            check_name(name)?;
            if self.names.contains_key(name) {
                return Err(BuildError::Name(format!(
                    "the engine has an endpoint named {name:?} already; choose another name"
                )));
            }
        }
        let number = self.endpoints.len() as u32 + 1;
        let seed = u64::from_le_bytes(super::random().unwrap_or(self.incarnation.to_le_bytes()));
        self.endpoints.push(Some(Box::new(EndpointState {
            number,
            name: name.map(str::to_owned),
            matcher: Matcher::new(seed),
            inflows: Vec::new(),
            last_inflow: 0,
            messages_sent: 0,
            messages_received: 0,
            bytes_sent: 0,
            bytes_received: 0,
        })));
        if let Some(name) = name {
            self.names.insert(name.to_owned(), number);
        }
        Ok(number)
    }

    #[inline]
    pub(crate) fn endpoint(&mut self, number: u32) -> Option<&mut EndpointState> {
        self.endpoints.get_mut((number as usize).wrapping_sub(1))?.as_deref_mut()
    }

    /// Ends an endpoint: its receives end with `error`, messages that it never took are gone, senders are told.
    pub(crate) fn close_endpoint(&mut self, number: u32, error: &OpError) {
        let Some(mut endpoint) =
            self.endpoints.get_mut((number as usize).wrapping_sub(1)).and_then(Option::take)
        else {
            return;
        };
        if let Some(name) = &endpoint.name {
            self.names.remove(name);
        }
        let posted: Vec<Key> = endpoint.matcher.drain_posted().collect();
        for op in posted {
            self.finish_recv(op, Err(error.clone()));
        }
        let sessions: Vec<Key> = endpoint.inflows.iter().map(|flow| flow.session).collect();
        let forget = |_, message: Unexpected| {
            let (session, cost) = inbound::kept_cost(&message);
            if let Some(session) = self.sessions.get_mut(session) {
                match message {
                    Unexpected::Envelope { .. } => session.granted_envelopes.free(cost),
                    _ => session.granted_bytes.free(cost),
                }
            }
        };
        endpoint.matcher.retain_unexpected(|_, _| false, forget);
        for session in sessions {
            let header = Header { src: number, ..Header::control(Kind::ENDPOINT_CLOSED, 0) };
            self.send_control(session, header, []);
        }
    }
}

/// Names are 1 to 64 characters of `A-Z a-z 0-9 . _ -`.
fn check_name(name: &str) -> Result<(), BuildError> {
    let plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-');
    if name.is_empty() || name.len() > 64 || !name.bytes().all(plain) {
        return Err(BuildError::Name(format!(
            "{name:?} is no endpoint name: 1 to 64 characters of A-Z a-z 0-9 . _ - as in \"worker-7\""
        )));
    }
    if name.bytes().all(|c| c.is_ascii_digit()) {
        return Err(BuildError::Name(format!("{name:?} is no endpoint name: it would read as a number")));
    }
    Ok(())
}
