//! Connecting an endpoint to a target: the address is read, candidates are tried, the endpoint is asked for.

use crate::core::table::Key;
use crate::core::{ConnectState, Core, Purpose};
use crate::endpoint::EndpointInner;
use crate::error::{ConnectError, OpError};
use crate::peer::Peer;
use crate::timeout::Timeout;
use sinew_transport::Locator;
use sinew_wire::address::{Address, EndpointRef, Target};
use sinew_wire::frame::{Header, Kind};
use std::sync::Arc;
use std::time::Instant;

/// The address of an endpoint of this engine.
pub(crate) fn address(engine: [u8; 16], incarnation: u64, number: u32, locators: &[Locator]) -> Address {
    let locators: Vec<String> =
        locators.iter().map(ToString::to_string).take(sinew_wire::address::LOCATORS_MAX).collect();
    match Address::new(engine, incarnation, EndpointRef::from(number), locators) {
        Ok(address) => address,
        Err(error) => unreachable!("locators were checked when they were made: {error}"),
    }
}

/// An engine and its incarnation.
type Expected = ([u8; 16], u64);

/// What a target says: the engine if it names one, and where to try.
fn candidates(target: &Target) -> Result<(Option<Expected>, Vec<Locator>), ConnectError> {
    let texts: Vec<String> = match target {
        Target::Address(address) => address.locators().to_vec(),
        Target::Explicit(explicit) => vec![explicit.locator()],
        Target::Auto { choices, .. } => choices.iter().map(sinew_wire::address::Explicit::locator).collect(),
    };
    let expected = match target {
        Target::Address(address) => Some((address.engine(), address.incarnation())),
        _ => None,
    };
    let locators = texts
        .iter()
        .map(|text| {
            text.parse().map_err(|error: sinew_transport::LocatorError| {
                ConnectError::Address(format!("{text}: {error}"))
            })
        })
        .collect::<Result<_, _>>()?;
    Ok((expected, locators))
}

/// Ends the attempt when its caller gives up.
struct Attempt<'a> {
    endpoint: &'a Arc<EndpointInner>,
    key: Key,
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        self.endpoint.shared.with_in_drop(|core| {
            core.end_connect(self.key);
        });
    }
}

pub(crate) fn connect(
    endpoint: &Arc<EndpointInner>,
    text: &str,
    deadline: Instant,
) -> Result<Peer, ConnectError> {
    let shared = &endpoint.shared;
    shared.check_fork().map_err(ConnectError::Lost)?;
    let target: Target = text.parse().map_err(|error: sinew_wire::address::AddressError| {
        ConnectError::Address(format!("{text:?} is no address: {error}"))
    })?;
    let (expected, locators) = candidates(&target)?;
    let left = |deadline: Instant| deadline.saturating_duration_since(shared.now());
    let session = shared.with(|core| {
        if core.closed {
            return Err(ConnectError::Lost(OpError::EngineClosed));
        }
        Ok(expected.filter(|(engine, _)| *engine == core.id).map(|_| core.self_session()))
    })?;
    let session = match session {
        Some(session) => session,
        None => {
            let purpose =
                if matches!(target, Target::Explicit(_)) { Purpose::Pinned } else { Purpose::Connect };
            let key = shared.with(|core| core.start_connect(expected, locators, deadline, purpose));
            let attempt = Attempt { endpoint, key };
            let done = shared.wait(Some(left(deadline)), |core: &mut Core| match core.connect_state(key) {
                ConnectState::Waiting => None,
                other => Some(other),
            });
            match done {
                Some(ConnectState::Ready(session)) => {
                    drop(attempt);
                    session
                }
                Some(ConnectState::Failed(explanation)) => {
                    return Err(ConnectError::Unreachable { target: text.to_owned(), explanation });
                }
                Some(ConnectState::Waiting) | None => {
                    let explanation = shared.with(|core| core.end_connect(key)).unwrap_or_default();
                    let explanation = format!("{explanation}  (gave up at the deadline of the call)");
                    return Err(ConnectError::Unreachable { target: text.to_owned(), explanation });
                }
            }
        }
    };
    find_endpoint(endpoint, session, target.endpoint(), Timeout::After(left(deadline)))
}

/// Asks the peer's engine for the endpoint.
fn find_endpoint(
    endpoint: &Arc<EndpointInner>,
    session: Key,
    wanted: &EndpointRef,
    timeout: Timeout,
) -> Result<Peer, ConnectError> {
    let (dst, name) = match wanted {
        EndpointRef::Default => (0, String::new()),
        EndpointRef::Number(number) => (number.get(), String::new()),
        EndpointRef::Name(name) => (0, name.as_str().to_owned()),
    };
    let asker = Peer::new(endpoint, session, 0).map_err(ConnectError::Lost)?;
    let header = Header { dst, ..Header::control(Kind::LOOKUP, 0) };
    match asker.ask(header, name.into_bytes(), timeout) {
        Ok(number) => Peer::new(endpoint, session, number).map_err(ConnectError::Lost),
        Err(OpError::EndpointClosed) => Err(ConnectError::NoSuchEndpoint { endpoint: wanted.to_string() }),
        Err(error) => Err(ConnectError::Lost(error)),
    }
}
