//! Identifiers of connections from the wish to connect, or the request for one, to the answer. What follows is in `established`.
//!
//! What is connected is part of the state: a queue pair, which moves in and comes out when it is connected no more, or a member of a hub, which keeps
//! it. So no queue pair is dropped under a connection, or connected twice at a time.

use super::base::Base;
use super::devices_match;
use super::established::Established;
use super::event::{ConnectionAttributes, EventKind, IdNumber, Notice, Status};
use super::id::{Id, OnDevice, RouteResolved, on_device};
use super::parameters::{ConnectionParameters, PrivateData, is_a_step};
use super::progress::{ConnectError, NotDone, Progress, Verdict, Waits, judge};
use crate::device::Context;
use crate::error::{Error, Result};
use crate::hub::{Hub, Member};
use crate::qp::state::State;
use crate::qp::{QueuePair, Rc};
use std::convert::Infallible;

pub(super) type Done<T, B> = std::result::Result<T, NotDone<B>>;
/// A queue pair of the caller's own.
type Own = QueuePair<Rc>;

/// A request for a connection came to a listener. Dropped, the peer is refused.
#[derive(Debug)]
pub struct Requested {
    pub(super) context: Context,
    pub(super) listener: IdNumber,
    pub(super) said: Said,
}

/// Waits for the peer's answer, or for its confirmation of ours.
#[derive(Debug)]
pub struct Connecting<Q> {
    queue_pair: Q,
    bringing: Bringing,
}

/// Both sides have said yes; one step of ours is left ([`establish`](Id::<Answered<QueuePair<Rc>>>::establish)).
#[derive(Debug)]
pub struct Answered<Q> {
    queue_pair: Q,
    bringing: Bringing,
    said: Said,
    /// Whether the queue pair is to be brought up, and the peer to be told so.
    is_left: bool,
}

on_device!(Requested);

/// What the peer has said.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) attributes: Option<ConnectionAttributes>,
    pub(super) private_data: Vec<u8>,
}

/// What is needed to bring the queue pair up.
#[derive(Debug)]
struct Bringing {
    context: Context,
    parameters: ConnectionParameters,
    qp_num: u32,
    /// Where the peer has asked: what it said.
    asked: Option<Said>,
}

/// Brings a queue pair one step further as the connection manager proposes.
fn step(
    base: &Base,
    queue_pair: &QueuePair<Rc>,
    to: State,
    parameters: &ConnectionParameters,
    accepted: Option<&ConnectionAttributes>,
) -> Result<()> {
    let proposed = base.attributes(to)?;
    if !is_a_step(&proposed, to) {
        return Ok(());
    }
    queue_pair.modify(&parameters.apply(&proposed, accepted))
}

/// Over iWARP the answer that nobody listens may come before the call is over.
fn refused(error: Error) -> ConnectError {
    match error.errno() {
        Some(libc::ECONNREFUSED) => {
            ConnectError::Rejected { reason: Status::from_raw(-libc::ECONNREFUSED), private_data: Vec::new() }
        }
        _ => error.into(),
    }
}

macro_rules! initialize {
    () => {
        /// Brings a queue pair to INIT, so that receives can be posted before the peer can send. Connecting does it too.
        ///
        /// # Errors
        /// [`Error::Invalid`] for a queue pair of another context; [`Error::Transition`] and [`Error::Call`] from the device.
        pub fn initialize(
            &self,
            queue_pair: &QueuePair<Rc>,
            parameters: &ConnectionParameters,
        ) -> Result<()> {
            devices_match(self.context(), queue_pair.protection_domain().context())?;
            step(&self.base, queue_pair, State::INIT, parameters, None)
        }

        fn told(
            &self,
            when: PrivateData,
            queue_pair: &QueuePair<Rc>,
            parameters: &ConnectionParameters,
            asked: Option<&ConnectionAttributes>,
        ) -> Result<ConnectionAttributes> {
            when.check(self.port_space()?, parameters.data())?;
            self.initialize(queue_pair, parameters)?;
            let shared = queue_pair.shared_receive_queue().is_some();
            parameters.attributes(self.context(), asked, queue_pair.number(), shared)
        }
    };
}

/// What the peer has said, of a state in which it has.
macro_rules! said {
    () => {
        /// What the peer answered or asked for; nothing where it did not say.
        #[must_use]
        pub const fn peer_attributes(&self) -> Option<&ConnectionAttributes> {
            self.state.said.attributes.as_ref()
        }

        /// What the peer said when it accepted or asked. Over InfiniBand and RoCE it comes padded with zeros to the most that fits: say its length in it.
        #[must_use]
        pub fn private_data(&self) -> &[u8] {
            &self.state.said.private_data
        }
    };
}
pub(super) use said;

impl Id<RouteResolved> {
    initialize!();

    /// Asks the peer to connect this queue pair (rdma_connect(3)).
    ///
    /// # Errors
    /// Itself and the queue pair, which is in any state up to INIT, with [`Error::Invalid`] for private data that does not fit and for a queue pair of
    /// another context; [`Error::Transition`] and [`Error::Call`] from the device and the system.
    #[doc(alias = "rdma_connect")]
    pub fn connect(
        self,
        queue_pair: QueuePair<Rc>,
        parameters: &ConnectionParameters,
    ) -> Done<Id<Connecting<Own>>, (Self, Own)> {
        match self.ask(&queue_pair, parameters) {
            Ok(bringing) => Ok(self.becomes(Connecting { queue_pair, bringing })),
            Err(error) => Err(NotDone { back: (self, queue_pair), error }),
        }
    }

    /// Asks the peer to connect a queue pair of a hub, so that all of it is safe: made by [`Hub::queue_pair`] and `build_raw`, [adopted](Hub::adopt), brought to
    /// INIT ([`initialize`](Self::initialize) of [`Hub::queue_pair_of`]), receives posted. The hub may be dropped and the queue pair removed any time; the peer is
    /// told when the identifier ends.
    ///
    /// # Errors
    /// As for [`connect`](Self::connect); [`Error::Invalid`] for a member that was removed.
    pub fn connect_member(
        self,
        hub: &Hub<Rc>,
        member: Member,
        parameters: &ConnectionParameters,
    ) -> Done<Id<Connecting<Member>>, Self> {
        let asked = hub.queue_pair_of(member).map_err(ConnectError::from);
        match asked.and_then(|queue_pair| self.ask(queue_pair, parameters)) {
            Ok(bringing) => Ok(self.becomes(Connecting { queue_pair: member, bringing })),
            Err(error) => Err(NotDone { back: self, error }),
        }
    }

    fn ask(
        &self,
        queue_pair: &QueuePair<Rc>,
        parameters: &ConnectionParameters,
    ) -> std::result::Result<Bringing, ConnectError> {
        let told = self.told(PrivateData::Connect, queue_pair, parameters, None)?;
        self.base.connect(&told, parameters.data()).map_err(refused)?;
        let (context, parameters) = (self.context().clone(), parameters.clone());
        Ok(Bringing { context, parameters, qp_num: told.qp_num, asked: None })
    }
}

impl Id<Requested> {
    initialize!();

    /// Which listener was asked.
    #[must_use]
    pub const fn listener(&self) -> IdNumber {
        self.state.listener
    }

    said!();

    /// Refuses, and says why in up to 148 bytes (rdma_reject(3)).
    ///
    /// # Errors
    /// [`Error::Invalid`] for data that does not fit, [`Error::Call`] from the system; the peer is refused all the same, without the data.
    #[doc(alias = "rdma_reject")]
    pub fn reject(self, private_data: &[u8]) -> Result<()> {
        self.base.reject(private_data)
    }

    /// Accepts with this queue pair, which is brought up (rdma_accept(3)).
    ///
    /// # Errors
    /// Itself, which can be refused still, and the queue pair, in any state up to RTS; as for [`connect`](Id::<RouteResolved>::connect).
    #[doc(alias = "rdma_accept")]
    pub fn accept(
        self,
        queue_pair: QueuePair<Rc>,
        parameters: &ConnectionParameters,
    ) -> Done<Id<Connecting<Own>>, (Self, Own)> {
        match self.answer(&queue_pair, parameters) {
            Ok(qp_num) => Ok(self.accepted(queue_pair, qp_num, parameters)),
            Err(error) => Err(NotDone { back: (self, queue_pair), error: error.into() }),
        }
    }

    /// Accepts with a queue pair of a hub; see [`connect_member`](Id::<RouteResolved>::connect_member).
    ///
    /// # Errors
    /// As there.
    pub fn accept_member(
        self,
        hub: &Hub<Rc>,
        member: Member,
        parameters: &ConnectionParameters,
    ) -> Done<Id<Connecting<Member>>, Self> {
        match hub.queue_pair_of(member).and_then(|queue_pair| self.answer(queue_pair, parameters)) {
            Ok(qp_num) => Ok(self.accepted(member, qp_num, parameters)),
            Err(error) => Err(NotDone { back: self, error: error.into() }),
        }
    }

    fn answer(&self, queue_pair: &QueuePair<Rc>, parameters: &ConnectionParameters) -> Result<u32> {
        let told = self.told(PrivateData::Accept, queue_pair, parameters, self.peer_attributes())?;
        step(&self.base, queue_pair, State::RTR, parameters, Some(&told))?;
        step(&self.base, queue_pair, State::RTS, parameters, Some(&told))?;
        self.base.accept(&told, parameters.data())?;
        Ok(told.qp_num)
    }

    fn accepted<Q>(self, queue_pair: Q, qp_num: u32, parameters: &ConnectionParameters) -> Id<Connecting<Q>> {
        let Requested { context, said, .. } = self.state;
        let bringing = Bringing { context, parameters: parameters.clone(), qp_num, asked: Some(said) };
        Id::new(self.base, Connecting { queue_pair, bringing })
    }
}

/// Fails when the peer has given up, or the device is removed; nothing else ends it.
impl Waits for Id<Requested> {
    type Next = Infallible;
    type Back = ();

    fn number(&self) -> IdNumber {
        self.base.number()
    }

    fn handle(self, notice: Notice) -> Done<Progress<Self>, ()> {
        match judge(&self.base, notice, "rdma_accept", &[]) {
            Verdict::Failed(error) => Err(NotDone { back: (), error }),
            Verdict::Good(notice) | Verdict::Nothing(notice) => Ok(Progress::Same(self, notice)),
        }
    }
}

impl<Q> Id<Connecting<Q>> {
    /// Tells that the first message has come before `ESTABLISHED` did, as an asynchronous event of the queue pair says
    /// (`COMM_EST`; rdma_notify(3)). No error where that event waits to be taken.
    ///
    /// # Errors
    /// [`Error::Call`] from the system.
    #[doc(alias = "rdma_notify")]
    pub fn notify_established(&self) -> Result<()> {
        match self.base.notify_established() {
            Err(error) if error.errno() != Some(libc::EISCONN) => Err(error),
            _ => Ok(()),
        }
    }

    /// Waits no longer: the wish or the answer is withdrawn. The queue pair is in any state up to RTS; bring it to RESET before it is used again.
    #[must_use]
    pub fn into_queue_pair(self) -> Q {
        self.state.queue_pair
    }
}

/// Goes on when the peer has answered yes, or confirmed ours.
impl<Q> Waits for Id<Connecting<Q>> {
    type Next = Id<Answered<Q>>;
    type Back = Q;

    fn number(&self) -> IdNumber {
        self.base.number()
    }

    fn handle(self, notice: Notice) -> Done<Progress<Self>, Q> {
        let (call, kinds): (_, &[EventKind]) = match self.state.bringing.asked {
            None => ("rdma_connect", &[EventKind::CONNECT_RESPONSE, EventKind::ESTABLISHED]),
            Some(_) => ("rdma_accept", &[EventKind::ESTABLISHED]),
        };
        let is_removed = notice.kind == EventKind::DEVICE_REMOVAL;
        match judge(&self.base, notice, call, kinds) {
            Verdict::Good(notice) => {
                self.base.answered();
                let Connecting { queue_pair, mut bringing } = self.state;
                let said = bringing.asked.take().unwrap_or_else(|| Said {
                    attributes: notice.parameters.connection().copied(),
                    private_data: notice.private_data,
                });
                let is_left = notice.kind == EventKind::CONNECT_RESPONSE;
                Ok(Progress::Next(Id::new(self.base, Answered { queue_pair, bringing, said, is_left })))
            }
            Verdict::Nothing(notice) => Ok(Progress::Same(self, notice)),
            Verdict::Failed(error) => {
                if !is_removed {
                    self.base.answered();
                }
                Err(NotDone { back: self.state.queue_pair, error })
            }
        }
    }
}

impl<Q> Id<Answered<Q>> {
    said!();

    /// Thinks better of it: the peer is told that it is not to be. The queue pair is in any state up to RTS.
    #[must_use]
    pub fn into_queue_pair(self) -> Q {
        self.state.queue_pair
    }

    fn bring_up(&self, queue_pair: &QueuePair<Rc>) -> Result<()> {
        let Answered { bringing, is_left, .. } = &self.state;
        if !is_left {
            return Ok(());
        }
        step(&self.base, queue_pair, State::RTR, &bringing.parameters, None)?;
        step(&self.base, queue_pair, State::RTS, &bringing.parameters, None)?;
        self.base.establish()
    }

    fn whole(self) -> Id<Established<Q>> {
        let Answered { queue_pair, said, .. } = self.state;
        Id::new(self.base, Established::new(queue_pair, said))
    }
}

impl Id<Answered<QueuePair<Rc>>> {
    /// Brings the queue pair up where that is left to do, and tells the peer (rdma_establish(3)).
    ///
    /// # Errors
    /// The queue pair, with [`Error::Transition`] and [`Error::Call`] from device and system; the peer is told that it is not to be.
    #[doc(alias = "rdma_establish")]
    pub fn establish(self) -> Done<Id<Established<QueuePair<Rc>>>, QueuePair<Rc>> {
        match self.bring_up(&self.state.queue_pair) {
            Ok(()) => Ok(self.whole()),
            Err(error) => Err(NotDone { back: self.state.queue_pair, error: error.into() }),
        }
    }
}

impl Id<Answered<Member>> {
    /// The same of the hub's queue pair, which sends from here on.
    ///
    /// # Errors
    /// As [of a queue pair of one's own](Id::<Answered<QueuePair<Rc>>>::establish); [`Error::Invalid`] when the member was removed, and for another hub than the
    /// one that it is of.
    pub fn establish(self, hub: &mut Hub<Rc>) -> Done<Id<Established<Member>>, Member> {
        let member = self.state.queue_pair;
        match self.bring_up_in(hub, member) {
            Ok(()) => Ok(self.whole()),
            Err(error) => Err(NotDone { back: member, error: error.into() }),
        }
    }

    fn bring_up_in(&self, hub: &mut Hub<Rc>, member: Member) -> Result<()> {
        let queue_pair = hub.queue_pair_of(member)?;
        devices_match(&self.state.bringing.context, queue_pair.protection_domain().context())?;
        if queue_pair.number() != self.state.bringing.qp_num {
            return Err(Error::invalid(
                "hub",
                "its queue pair of that name is another than the one that the peer knows",
                "give it the hub that the connection was asked for with",
            ));
        }
        self.bring_up(queue_pair)?;
        hub.refresh(member).map(drop)
    }
}

/// Fails when the peer has gone meanwhile; nothing else ends it.
impl<Q> Waits for Id<Answered<Q>> {
    type Next = Infallible;
    type Back = Q;

    fn number(&self) -> IdNumber {
        self.base.number()
    }

    fn handle(self, notice: Notice) -> Done<Progress<Self>, Q> {
        match judge(&self.base, notice, "rdma_establish", &[]) {
            Verdict::Failed(error) => Err(NotDone { back: self.state.queue_pair, error }),
            Verdict::Good(notice) | Verdict::Nothing(notice) => Ok(Progress::Same(self, notice)),
        }
    }
}
