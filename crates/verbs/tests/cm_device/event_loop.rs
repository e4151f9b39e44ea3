//! One thread drives many connections, both sides of each, through one channel.

use super::{PATIENCE, place};
use sinew_verbs::ProtectionDomain;
use sinew_verbs::cm::{
    Address, ConnectError, Connecting, ConnectionParameters, Disconnecting, Ended, Established, Event,
    EventChannel, Id, IdNumber, Listening, NotDone, Notice, PortSpace, Progress, Requested, ResolvingAddress,
    ResolvingRoute, Waits,
};
use sinew_verbs::device::Context;
use sinew_verbs::hub::{Hub, Member, Operation, Side};
use sinew_verbs::qp::Rc;
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

/// Connections; what happens to each is said by its number.
const COUNT: u8 = 24;
/// When the loop gives up an answer that never comes.
const SHORT: Duration = Duration::from_millis(200);

/// What is to become of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Refused,
    /// Nobody answers.
    Forgotten,
    EndedHere,
    EndedThere,
}

fn fate(which: u8) -> Fate {
    match which % 6 {
        1 => Fate::Refused,
        2 => Fate::Forgotten,
        3 | 5 => Fate::EndedThere,
        _ => Fate::EndedHere,
    }
}

/// Behind which operation a connection is ended, by who has done it.
fn ends_it(which: u8) -> Side {
    if fate(which) == Fate::EndedHere { Side::Send } else { Side::Receive }
}

/// An identifier, in the states that this loop uses.
enum Peer {
    Address(Id<ResolvingAddress>),
    Route(Id<ResolvingRoute>),
    Connecting(Id<Connecting<Member>>, Option<Instant>),
    Up(Id<Established<Member>>),
    Ending(Id<Disconnecting<Member>>),
    /// Never answered.
    Kept(Id<Requested>),
}

struct Loop {
    channel: EventChannel,
    listener: Id<Listening>,
    peers: HashMap<IdNumber, (u8, Peer)>,
    /// Both sides' queue pairs: all of one device.
    hub: Option<(Hub<Rc>, ProtectionDomain)>,
    /// Members that have an identifier.
    owners: HashMap<Member, IdNumber>,
    /// Members that have heard before their connection was whole.
    early: HashSet<Member>,
    /// What became of the active sides.
    fates: HashMap<u8, Fate>,
    passive_ended: Vec<u8>,
}

impl Loop {
    /// A queue pair that is not connected, with a receive posted.
    fn member(&mut self, context: &Context, ready: impl FnOnce(&Hub<Rc>, Member)) -> Member {
        let (hub, pd) = self.hub.get_or_insert_with(|| {
            (Hub::new(context, 512).expect("a hub"), context.protection_domain().expect("a domain"))
        });
        let pair = hub.queue_pair(pd).send_depth(2).receive_depth(2).build_raw().expect("a queue pair");
        let member = hub.adopt(pair).expect("it is taken in");
        ready(hub, member);
        hub.post_receive(member, pd.allocate(8).unwrap(), 0).expect("a receive is posted");
        member
    }

    fn hub(&mut self) -> &mut Hub<Rc> {
        &mut self.hub.as_mut().expect("a hub").0
    }

    fn begin(&mut self, which: u8, at: &Address) {
        let id = self.channel.id(PortSpace::TCP).unwrap().resolve_address(None, at, PATIENCE).unwrap();
        self.peers.insert(id.number(), (which, Peer::Address(id)));
    }

    fn request(&mut self, id: Id<Requested>) {
        assert_eq!(id.listener(), self.listener.number());
        let which = id.private_data()[0];
        match fate(which) {
            Fate::Refused => id.reject(&[which, 1, 2]).expect("it is refused"),
            Fate::Forgotten => drop(self.peers.insert(id.number(), (which, Peer::Kept(id)))),
            _ => {
                let parameters = ConnectionParameters::new().private_data(&[which + 100]);
                let member = self.member(id.context(), |hub, member| {
                    id.initialize(hub.queue_pair_of(member).unwrap(), &parameters).expect("INIT");
                });
                let id = id.accept_member(self.hub(), member, &parameters).expect("accepted");
                self.owners.insert(member, id.number());
                self.peers.insert(id.number(), (which, Peer::Connecting(id, None)));
            }
        }
    }

    fn notice(&mut self, notice: Notice) {
        // Of one that has ended meanwhile nobody waits for anything.
        let Some((which, peer)) = notice.id().and_then(|number| self.peers.remove(&number)) else { return };
        let number = notice.id().expect("a number");
        let next = match peer {
            Peer::Address(id) => match id.handle(notice).expect("an address") {
                Progress::Next(id) => Peer::Route(id.resolve_route(PATIENCE).expect("a route is looked for")),
                Progress::Same(id, _) => Peer::Address(id),
            },
            Peer::Route(id) => match id.handle(notice).expect("a route") {
                Progress::Next(id) => {
                    let parameters = ConnectionParameters::new().private_data(&[which]);
                    let member = self.member(id.context(), |hub, member| {
                        id.initialize(hub.queue_pair_of(member).unwrap(), &parameters).expect("INIT");
                    });
                    let id = id.connect_member(self.hub(), member, &parameters).expect("it is asked");
                    self.owners.insert(member, id.number());
                    let until = (fate(which) == Fate::Forgotten).then(|| Instant::now() + SHORT);
                    Peer::Connecting(id, until)
                }
                Progress::Same(id, _) => Peer::Route(id),
            },
            Peer::Connecting(id, until) => match id.handle(notice) {
                Ok(Progress::Next(id)) => {
                    let is_active = id.private_data()[0] >= 100;
                    let id = id.establish(self.hub()).expect("it is whole");
                    if is_active {
                        assert_eq!(id.private_data()[0], which + 100);
                        let member = *id.queue_pair();
                        let (hub, pd) = self.hub.as_mut().unwrap();
                        let message = pd.adopt(vec![which; 3]).unwrap();
                        hub.post(member, Operation::send(message)).expect("it sends");
                    }
                    if !is_active && self.early.remove(id.queue_pair()) && ends_it(which) == Side::Receive {
                        Peer::Ending(id.disconnect().expect("told"))
                    } else {
                        Peer::Up(id)
                    }
                }
                Ok(Progress::Same(id, _)) => Peer::Connecting(id, until),
                Err(not) => return self.not_connected(not, which),
            },
            Peer::Up(id) => match id.handle(notice).expect("never fails") {
                Progress::Next(id) => {
                    assert_eq!(id.how(), Ended::Disconnected);
                    return self.ended(which, id.into_queue_pair(), false);
                }
                Progress::Same(id, _) => Peer::Up(id),
            },
            Peer::Ending(id) => match id.handle(notice).expect("never fails") {
                Progress::Next(id) => return self.ended(which, id.into_queue_pair(), true),
                Progress::Same(id, _) => Peer::Ending(id),
            },
            Peer::Kept(id) => match id.handle(notice) {
                Ok(Progress::Same(id, _)) => Peer::Kept(id),
                Ok(Progress::Next(never)) => match never {},
                // Who asked has given up.
                Err(_) => return,
            },
        };
        self.peers.insert(number, (which, next));
    }

    fn not_connected(&mut self, not: NotDone<Member>, which: u8) {
        match (&not.error, fate(which)) {
            (ConnectError::Rejected { private_data, .. }, Fate::Refused) => {
                assert!(private_data.starts_with(&[which, 1, 2]), "{private_data:?}");
            }
            // While the kernel withdrew another over iWARP, for which it waits, it gave this one up.
            (ConnectError::Failed(_), Fate::Forgotten) => {}
            _ => panic!("{not}"),
        }
        self.over(not.back, which, fate(which));
    }

    /// One side has seen the end of a connection.
    fn ended(&mut self, which: u8, member: Member, asked_for: bool) {
        // Both queue pairs are of this hub: the active one is that whose send has been posted.
        let is_active = (fate(which) == Fate::EndedHere) == asked_for;
        if is_active {
            let fate = if asked_for { Fate::EndedHere } else { Fate::EndedThere };
            self.over(member, which, fate);
        } else {
            self.passive_ended.push(which);
            self.owners.remove(&member);
            self.hub().remove(member).expect("it ends");
        }
    }

    fn over(&mut self, member: Member, which: u8, fate: Fate) {
        assert_eq!(self.fates.insert(which, fate), None, "connection {which} ends once");
        self.owners.remove(&member);
        self.hub().remove(member).expect("it ends");
    }

    /// Takes what has arrived or was sent; who is to end a connection does it then.
    fn messages(&mut self) {
        let mut done = Vec::new();
        if let Some((hub, _)) = &mut self.hub {
            while let Some(ended) = hub.poll().expect("the device answers") {
                // What was out when a connection ended is flushed.
                if ended.result().is_ok() {
                    done.push((ended.member(), ended.side()));
                }
            }
        }
        for (member, side) in done {
            let number = self.owners[&member];
            let (which, peer) = self.peers.remove(&number).expect("an identifier");
            let next = match peer {
                Peer::Up(id) if side == ends_it(which) => Peer::Ending(id.disconnect().expect("told")),
                // The message was faster than what says that the connection is whole.
                Peer::Connecting(id, until) => {
                    id.notify_established().expect("told");
                    self.early.insert(member);
                    Peer::Connecting(id, until)
                }
                other => other,
            };
            self.peers.insert(number, (which, next));
        }
    }

    /// What nobody has answered in time is withdrawn.
    fn timeouts(&mut self, now: Instant) {
        let is_late = |peer: &Peer| matches!(peer, Peer::Connecting(_, Some(until)) if *until <= now);
        let late: Vec<_> =
            self.peers.iter().filter(|(_, (_, peer))| is_late(peer)).map(|(number, _)| *number).collect();
        for number in late {
            if let Some((which, Peer::Connecting(id, _))) = self.peers.remove(&number) {
                self.over(id.into_queue_pair(), which, Fate::Forgotten);
            }
        }
    }
}

#[test]
fn one_thread_drives_many_connections_and_each_event_brings_the_next_state() {
    let Some((library, address)) = place() else { return };
    let channel = library.event_channel().unwrap();
    let listener = channel.id(PortSpace::TCP).unwrap().bind(address).unwrap().listen(64).unwrap();
    let at = listener.local_address().unwrap().unwrap();
    let mut all = Loop {
        channel,
        listener,
        peers: HashMap::new(),
        hub: None,
        owners: HashMap::new(),
        early: HashSet::new(),
        fates: HashMap::new(),
        passive_ended: Vec::new(),
    };
    for which in 0..COUNT {
        all.begin(which, &at);
    }
    let whole = (0..COUNT).filter(|which| matches!(fate(*which), Fate::EndedHere | Fate::EndedThere)).count();
    let deadline = Instant::now() + PATIENCE;
    while all.fates.len() < usize::from(COUNT) || all.passive_ended.len() < whole {
        assert!(Instant::now() < deadline, "{:?} {:?}", all.fates, all.passive_ended);
        match all.channel.wait(Some(Duration::from_millis(1))).expect("events") {
            Some(Event::Request(id)) => all.request(id),
            Some(Event::Notice(notice)) => all.notice(notice),
            Some(other) => panic!("{other:?}"),
            None => all.timeouts(Instant::now()),
        }
        all.messages();
    }
    for which in 0..COUNT {
        assert_eq!(all.fates[&which], fate(which), "connection {which}");
    }
    assert!(all.owners.is_empty(), "no queue pair is left: {:?}", all.owners);
    let leaked = library.leaked_objects();
    drop(all);
    assert_eq!(library.leaked_objects(), leaked);
}
