//! Requests that are made once, with the memory that they name, and posted again and again.
#![allow(unsafe_code)]

use super::operation::{Kept, NO_ELEMENTS, Stored};
use super::{Ended, Hub, Member, Operation, Rejected};
use crate::ah::AddressHandle;
use crate::error::Error;
use crate::memory::Buffer;
use crate::pd::ProtectionDomain;
use crate::qp::{Operations, Service, Way as _};
use crate::work::WorkError;
use sinew_verbs_sys as sys;
use std::fmt;
use std::marker::PhantomData;
use std::ptr::NonNull;

/// Up to 256 requests that are posted with one doorbell, as often as one likes, and complete as one: for loops that send from the same places, as
/// rings and pipelines do. Made of operations, whose memory it owns; between two posts the bytes are the caller's
/// ([`bytes`](Self::bytes), [`bytes_mut`](Self::bytes_mut)). A handle of one word.
///
/// The completion of the last request tells that all have ended; where that is unsignaled, as its operation says, the next signaled one of the queue
/// pair does.
///
/// ```no_run
/// # use sinew_verbs::{hub::{Hub, Operation, Prepared}, memory::RemoteRegion, qp::Rc, Error};
/// # fn f(hub: &mut Hub<Rc>, member: sinew_verbs::hub::Member, remote: RemoteRegion) -> Result<(), Error> {
/// let pd = hub.queue_pair_of(member)?.protection_domain().clone();
/// let write = |last| Ok(Operation::write(pd.allocate(4096)?, remote)).map(|write| if last { write } else { write.unsignaled() });
/// let writes = (0..16).map(|place| write(place == 15));
/// let mut batch = Prepared::new(&pd, writes.collect::<Result<Vec<_>, Error>>()?).map_err(|rejected| rejected.error)?;
/// for round in 0..1000_u32 {
///     batch.bytes_mut(0).unwrap()[..4].copy_from_slice(&round.to_ne_bytes());
///     hub.post_prepared(member, batch).map_err(|rejected| rejected.error)?;
///     batch = loop {
///         if let Some(ended) = hub.poll()? {
///             ended.result()?;
///             break ended.into_prepared().unwrap();
///         }
///     };
/// }
/// # Ok(())
/// # }
/// ```
pub struct Prepared<S: Service> {
    pub(super) chain: Box<Chain>,
    service: PhantomData<fn() -> S>,
}

/// Requests at most.
const REQUESTS_MAX: usize = 256;

/// The requests, linked, and what they name.
#[derive(Debug)]
pub(crate) struct Chain {
    /// From a box, which this owns, reached by this pointer only: they point to each other and to the elements.
    requests: NonNull<[sys::ibv_send_wr]>,
    /// The same, of their elements.
    elements: NonNull<[sys::ibv_sge]>,
    operations: Operations,
    /// The memory of each; never looked at while the requests are posted.
    held: Box<[super::Held]>,
    /// The ways that datagrams go.
    _ways: Vec<AddressHandle>,
    pd: ProtectionDomain,
    tag: u64,
    /// Why the first of them failed that did.
    failure: Option<WorkError>,
}

// SAFETY: it owns what its pointers point to, as boxes do.
unsafe impl Send for Chain {}
// SAFETY: the same; shared references only read.
unsafe impl Sync for Chain {}

impl Chain {
    pub(super) const fn tag(&self) -> u64 {
        self.tag
    }

    pub(super) const fn failure(&self) -> Option<WorkError> {
        self.failure
    }

    pub(super) fn fail(&mut self, error: WorkError) {
        self.failure.get_or_insert(error);
    }

    pub(super) fn domain(&self) -> *const () {
        self.pd.identity()
    }

    pub(super) const fn operations(&self) -> Operations {
        self.operations
    }

    pub(super) const fn requests(&self) -> NonNull<[sys::ibv_send_wr]> {
        self.requests
    }

    /// The buffers of it.
    pub(super) fn into_buffers(mut self) -> Vec<Buffer> {
        std::mem::take(&mut self.held).into_iter().flat_map(super::Held::into_buffers).collect()
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        // SAFETY: made from boxes by `Prepared::new`, ended once.
        unsafe {
            drop(Box::from_raw(self.requests.as_ptr()));
            drop(Box::from_raw(self.elements.as_ptr()));
        }
    }
}

fn own<T>(of: Vec<T>) -> NonNull<[T]> {
    NonNull::from(Box::leak(of.into_boxed_slice()))
}

impl<S: Service> Prepared<S> {
    /// Makes the requests of these operations, in this order, for queue pairs of this domain.
    ///
    /// # Errors
    /// With the operations: [`Error::Invalid`] for none, for more than 256, and for what [`Hub::post`] refuses; [`Error::Unsupported`] for a service that
    /// completes in any order.
    pub fn new(
        pd: &ProtectionDomain,
        operations: Vec<Operation<S>>,
    ) -> Result<Self, Rejected<Vec<Operation<S>>>> {
        match Self::requests(pd, &operations) {
            Ok((requests, elements, ways)) => {
                let needed =
                    requests.iter().fold(Operations::empty(), |all, raw| all | crate::qp::needs(raw.opcode));
                let (requests, elements) = (own(requests), own(elements));
                link(requests, elements);
                let chain = Chain {
                    requests,
                    elements,
                    operations: needed,
                    tag: operations.last().map_or(0, |last| last.kept.tag),
                    held: operations.into_iter().map(Operation::into_held).collect(),
                    _ways: ways,
                    pd: pd.clone(),
                    failure: None,
                };
                Ok(Self::of(Box::new(chain)))
            }
            Err(error) => Err(Rejected { operation: operations, error: *error }),
        }
    }

    /// The requests, each with its elements behind those of the one before.
    #[expect(clippy::type_complexity, reason = "three lists, named where they are taken apart")]
    fn requests(
        pd: &ProtectionDomain,
        operations: &[Operation<S>],
    ) -> Result<(Vec<sys::ibv_send_wr>, Vec<sys::ibv_sge>, Vec<AddressHandle>), Box<Error>> {
        if !S::IN_ORDER {
            let object = format!("{:?}", S::TYPE);
            return Err(Box::new(Error::Unsupported { what: "requests that complete as one", object }));
        }
        if !(1..=REQUESTS_MAX).contains(&operations.len()) {
            let cause = format!("{} operations", operations.len());
            return Err(Box::new(Error::invalid("prepared requests", cause, "take 1 to 256")));
        }
        let (mut requests, mut elements, mut ways) = (Vec::new(), Vec::new(), Vec::new());
        for Operation { shape, kept } in operations {
            let mut places = NO_ELEMENTS;
            let request = shape.request(kept, 0, pd, &mut places)?;
            requests.push(*request.as_raw());
            let count = usize::try_from(request.as_raw().num_sge).unwrap_or(0);
            // SAFETY: a request's elements were written, as many as it says.
            elements.extend(places[..count].iter().map(|place| unsafe { place.assume_init() }));
            ways.extend(kept.to.handle().cloned());
        }
        Ok((requests, elements, ways))
    }

    pub(super) const fn of(chain: Box<Chain>) -> Self {
        Self { chain, service: PhantomData }
    }

    /// With a word of the caller's, that comes back with it; that of the last operation by default.
    #[must_use]
    pub fn tag(mut self, tag: u64) -> Self {
        self.chain.tag = tag;
        self
    }

    /// How many requests.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.chain.requests.len()
    }

    /// Never: there is at least one.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes of a request, whose memory is one buffer.
    #[must_use]
    pub fn bytes(&self, request: usize) -> Option<&[u8]> {
        match self.chain.held.get(request)? {
            super::Held::Buffer(buffer) => Some(buffer),
            _ => None,
        }
    }

    /// The same, to be changed before the next post.
    #[must_use]
    pub fn bytes_mut(&mut self, request: usize) -> Option<&mut [u8]> {
        match self.chain.held.get_mut(request)? {
            super::Held::Buffer(buffer) => Some(buffer),
            _ => None,
        }
    }

    /// The memory, in the order of the requests.
    #[must_use]
    pub fn into_held(mut self) -> Vec<super::Held> {
        std::mem::take(&mut self.chain.held).into_vec()
    }
}

/// Links requests, and gives each its elements, in this order.
fn link(requests: NonNull<[sys::ibv_send_wr]>, elements: NonNull<[sys::ibv_sge]>) {
    let (first, count) = (requests.cast::<sys::ibv_send_wr>(), requests.len());
    let mut element = elements.cast::<sys::ibv_sge>();
    for place in 0..count {
        // SAFETY: a place of the list, which nobody else has; the elements are as many as the requests name, one after the other.
        unsafe {
            let request = first.add(place);
            let next = if place + 1 < count { first.add(place + 1).as_ptr() } else { std::ptr::null_mut() };
            (*request.as_ptr()).next = next;
            (*request.as_ptr()).sg_list = element.as_ptr();
            element = element.add(usize::try_from((*request.as_ptr()).num_sge).unwrap_or(0));
        }
    }
}

impl<S: Service> Hub<S> {
    /// Posts prepared requests with one doorbell. Never blocks, never allocates.
    ///
    /// They come back as one, when the last has ended ([`Ended::into_prepared`]); where one failed, [`Ended::result`] says why the first did.
    ///
    /// # Errors
    /// With the requests: [`Error::Full`] when the send queue has no room for all of them; [`Error::Invalid`] for memory of another domain, or a
    /// member that was removed; [`Error::Unsupported`] for what the device lacks. Where the device took some and refused others, the queue pair is sent to
    /// its error state, and the memory comes by `poll`, `reset` or `remove`: then the error comes alone.
    #[inline]
    pub fn post_prepared(
        &mut self,
        member: Member,
        prepared: Prepared<S>,
    ) -> Result<(), Rejected<Option<Prepared<S>>>> {
        let mut chain = prepared.chain;
        chain.failure = None;
        // SAFETY: the chain owns its requests, their elements and memory, registered in the domain that it names; the service completes in order;
        // the tracker keeps it until the device is done with all of them.
        let posted = unsafe {
            self.tracker.post_linked(
                member,
                chain.requests(),
                chain.operations(),
                chain.domain(),
                Kept::chain(chain),
            )
        };
        posted.map_err(|(kept, error)| Rejected {
            operation: kept.and_then(Kept::into_chain).map(Prepared::of),
            error: *error,
        })
    }
}

impl<S: Service> Ended<'_, S> {
    /// The prepared requests that ended, if it is they; other memory is dropped.
    #[must_use]
    #[inline(always)]
    pub fn into_prepared(self) -> Option<Prepared<S>> {
        let chain = |place: &mut Option<Kept<S>>| match place {
            Some(Kept { held: Stored::Chain(_), .. }) => place.take()?.into_chain(),
            _ => None,
        };
        self.ended.pick(chain, Kept::into_chain).map(Prepared::of)
    }
}

impl<S: Service> fmt::Debug for Prepared<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Prepared({} requests of {:?})", self.len(), S::TYPE)
    }
}
